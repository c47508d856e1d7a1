package pretrain

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Ways to cut plain text into documents. Whichever is chosen, a line that is nothing but Separator ends a document too.
const (
	ByBlankLine = "blank" // blank lines stand between documents
	ByLine      = "line"  // each line is one
	ByFile      = "file"  // a file is one
)

// Separator is the line that ends a document, as TinyStories and GPT-2's texts have it.
const Separator = "<|endoftext|>"

// chunkBytes bounds the text that is tokenized at once: a longer document comes in parts, cut at line ends (or within a line that is longer
// still, at a character).
const chunkBytes = 64 << 10

// Piece is a document or a part of one; Last is true for its end.
type Piece struct {
	Text string
	Last bool
}

// Texts is a source of plain text on disk, read as it is needed.
type Texts struct {
	Files []string
	// Rows are further documents that were read from tables.
	Rows []string
	// Split is ByBlankLine, ByLine or ByFile.
	Split string
}

// All yields the pieces of all documents, file by file. Bytes that are not UTF-8 are left out.
func (t Texts) All() iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		for _, name := range t.Files {
			ok, err := t.file(name, func(p Piece) bool { return yield(p, nil) })
			if err != nil {
				yield(Piece{}, err)
				return
			}
			if !ok {
				return
			}
		}
		for _, s := range t.Rows {
			if s = strings.TrimSpace(s); s != "" && !yield(Piece{s, true}, nil) {
				return
			}
		}
	}
}

// file reads one file; it reports whether yield wants more.
func (t Texts) file(name string, yield func(Piece) bool) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, chunkBytes)
	var doc strings.Builder
	var carry []byte
	begun := false // a part of this document was given already
	flush := func(last bool) bool {
		text := doc.String()
		doc.Reset()
		if !begun {
			text = strings.TrimLeft(text, "\n")
		}
		body := strings.TrimRight(text, "\n")
		if !last { // line ends wait: they may be the last
			doc.WriteString(text[len(body):])
		}
		text = body
		if strings.TrimSpace(text) == "" && !begun {
			return true
		}
		begun = !last
		return yield(Piece{text, last})
	}
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		whole := err == nil || errors.Is(err, io.EOF)
		line = append(carry, line...)
		carry = nil
		if !whole { // a very long line: a character that is cut waits for the rest
			for i := 1; i < utf8.UTFMax && i < len(line); i++ {
				if tail := line[len(line)-i:]; utf8.RuneStart(tail[0]) {
					if !utf8.FullRune(tail) {
						carry = append(carry, tail...)
						line = line[:len(line)-i]
					}
					break
				}
			}
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return false, fmt.Errorf("%s: expected text, found binary data", name)
		}
		s := strings.ReplaceAll(strings.ToValidUTF8(string(line), ""), "\r\n", "\n")
		bare := strings.TrimSpace(s)
		switch {
		case bare == Separator || t.Split == ByBlankLine && bare == "" && whole:
			if !flush(true) {
				return false, nil
			}
		default:
			doc.WriteString(s)
			if t.Split == ByLine && whole || doc.Len() >= chunkBytes {
				if !flush(t.Split == ByLine && whole) {
					return false, nil
				}
			}
		}
		if errors.Is(err, io.EOF) {
			if doc.Len() > 0 || begun {
				return flush(true), nil
			}
			return true, nil
		}
	}
}

// overlap remembers runs of words of held-out text, so that training text which repeats it is left out.
type overlap map[uint64]bool

// shingle is the length of those runs in words.
const shingle = 8

// add remembers a text.
func (o overlap) add(text string) {
	shingles(text, func(h uint64) { o[h] = true })
}

// repeats reports whether more than half of a text's runs of words stand in the held-out text.
func (o overlap) repeats(text string) bool {
	if len(o) == 0 {
		return false
	}
	seen, all := 0, 0
	shingles(text, func(h uint64) {
		all++
		if o[h] {
			seen++
		}
	})
	return all > 0 && 2*seen > all
}

// shingles hashes the runs of words of a text, without regard to case and punctuation. Shorter texts have none.
func shingles(text string, f func(uint64)) {
	words := strings.FieldsFunc(strings.ToLower(norm.NFC.String(text)), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	for i := 0; i+shingle <= len(words); i++ {
		h := fnv.New64a()
		for _, w := range words[i : i+shingle] {
			io.WriteString(h, w)
			h.Write([]byte{' '})
		}
		f(h.Sum64())
	}
}
