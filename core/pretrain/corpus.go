package pretrain

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/token"
)

// Corpus is tokenized text on disk: ids one after the other, documents joined, read where they are wanted. A corpus of any size is trained
// on in constant memory.
type Corpus struct {
	Counts
	f *os.File
}

// Counts describe a corpus.
type Counts struct {
	// Tokens counts those that end documents too.
	Tokens    int64 `json:"tokens"`
	Documents int64 `json:"documents"`
	// Bytes of text (UTF-8), without what separates documents.
	Bytes int64 `json:"bytes"`
	// Dropped documents repeat held-out text.
	Dropped int64 `json:"dropped,omitempty"`
	// Sum identifies the ids.
	Sum string `json:"sum"`
	// Key identifies what the file was made from.
	Key string `json:"key"`
	// Width is the size of an id in bytes.
	Width int `json:"width"`
}

// Close closes the file.
func (c *Corpus) Close() error { return c.f.Close() }

// Read fills dst with the ids from position at on.
func (c *Corpus) Read(dst []int32, at int64) error {
	b := make([]byte, len(dst)*c.Width)
	if _, err := c.f.ReadAt(b, at*int64(c.Width)); err != nil {
		return fmt.Errorf("%s: ids at %d: %w", c.f.Name(), at, err)
	}
	for i := range dst {
		if c.Width == 2 {
			dst[i] = int32(binary.LittleEndian.Uint16(b[2*i:]))
		} else {
			dst[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	return nil
}

// tokenize writes the ids of texts to path, each document followed by end (−1: by nothing), or opens what an earlier run has written from
// the same files. Documents that repeat held text are left out.
func tokenize(ctx context.Context, path string, texts Texts, tok *token.Tokenizer, raw []byte, end int32, held overlap, heldKey string) (*Corpus, error) {
	key, err := corpusKey(texts, raw, end, heldKey)
	if err != nil {
		return nil, err
	}
	if c, err := openCorpus(path, key); err == nil {
		return c, nil
	}
	counts := Counts{Key: key, Width: 2}
	if tok.MaxID() > 1<<16-1 {
		counts.Width = 4
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	sum := sha256.New()
	err = checkpoint.WriteFile(path, func(w io.Writer) error {
		out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<20)
		var buf []byte
		var ids []int32
		begun := false
		drop := false
		for p, err := range texts.All() {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			if !begun {
				drop = held.repeats(p.Text)
				if drop {
					counts.Dropped++
				} else {
					counts.Documents++
				}
			}
			begun = !p.Last
			if drop {
				continue
			}
			counts.Bytes += int64(len(p.Text))
			ids = tok.AppendPlainIDs(ids[:0], p.Text)
			if p.Last && end >= 0 {
				ids = append(ids, end)
			}
			buf = buf[:0]
			for _, id := range ids {
				if counts.Width == 2 {
					buf = binary.LittleEndian.AppendUint16(buf, uint16(id))
				} else {
					buf = binary.LittleEndian.AppendUint32(buf, uint32(id))
				}
			}
			counts.Tokens += int64(len(ids))
			if _, err := out.Write(buf); err != nil {
				return err
			}
		}
		return out.Flush()
	})
	if err != nil {
		return nil, err
	}
	counts.Sum = hex.EncodeToString(sum.Sum(nil)[:16])
	meta, err := json.Marshal(counts)
	if err != nil {
		return nil, err
	}
	// The description comes last: ids without one are of a run that was cut short.
	if err := checkpoint.WriteFile(path+".json", func(w io.Writer) error { _, err := w.Write(meta); return err }); err != nil {
		return nil, err
	}
	return openCorpus(path, key)
}

func openCorpus(path, key string) (*Corpus, error) {
	meta, err := os.ReadFile(path + ".json")
	if err != nil {
		return nil, err
	}
	c := &Corpus{}
	if err := json.Unmarshal(meta, &c.Counts); err != nil {
		return nil, fmt.Errorf("%s.json: %w", path, err)
	}
	if c.f, err = os.Open(path); err != nil {
		return nil, err
	}
	st, err := c.f.Stat()
	if err == nil && (c.Key != key || c.Width != 2 && c.Width != 4 || st.Size() != c.Tokens*int64(c.Width)) {
		err = errors.New("made from something else")
	}
	if err != nil {
		return nil, errors.Join(err, c.f.Close())
	}
	return c, nil
}

// corpusKey identifies the files by name, size and time, and how they are read.
func corpusKey(t Texts, tokenizer []byte, end int32, held string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, "corpus 1", t.Split, end, held, len(tokenizer))
	h.Write(tokenizer)
	for _, name := range t.Files {
		st, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		if st.IsDir() {
			return "", fmt.Errorf("%s: expected a file, it is a folder", name)
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, abs, st.Size(), st.ModTime().UnixNano())
	}
	for _, s := range t.Rows {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}
