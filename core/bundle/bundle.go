// Package bundle holds a model folder in one file, laid out for a page: a header that names the files, then their bytes, hashed in chunks
// so that a download can be checked and resumed piece by piece.
//
// Layout (little-endian): the 8 bytes of Magic, a uint64 with the length of the JSON header, the header, zeros up to a multiple of 64;
// then the data. Files start at multiples of 64 from the start of the data.
package bundle

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/digest"
	"github.com/temper-ml/temper/core/token"
)

// Magic starts every bundle.
const Magic = "temperB\x01"

// Extension is the usual ending of a bundle's name.
const Extension = ".temper"

const (
	align      = 64
	chunkBytes = 4 << 20
	maxHeader  = 16 << 20
)

// File is an entry of the header: Size bytes at Offset from the start of the data.
type File struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
}

// Header is the index of a bundle. Chunks are the SHA-256 sums (hex) of the data in pieces of Chunk bytes, the last one shorter.
type Header struct {
	Format  string   `json:"format"`
	Version int      `json:"version"`
	Size    int64    `json:"size"`
	Chunk   int64    `json:"chunk"`
	Chunks  []string `json:"chunks"`
	Files   []File   `json:"files"`
}

func up(n int64) int64 { return (n + align - 1) &^ (align - 1) }

// Write writes files, in the order of their names but the largest last, as a bundle.
//
// Of a tokenizer.json the misspellings that its words stand for are left out: token.Load finds them, and the file shrinks from 50 MB to one.
func Write(w io.Writer, files map[string][]byte) error {
	if short, ok := token.Strip(files[checkpoint.TokenizerFile]); ok {
		files = maps.Clone(files)
		files[checkpoint.TokenizerFile] = short
	}
	names := slices.Sorted(maps.Keys(files))
	// Small files first: a reader can show what the model is before its weights have come.
	slices.SortStableFunc(names, func(a, b string) int { return len(files[a])>>16 - len(files[b])>>16 })
	h := Header{Format: "temper-bundle", Version: 1, Chunk: chunkBytes, Files: []File{}}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
		h.Files = append(h.Files, File{Name: name, Offset: up(h.Size), Size: int64(len(files[name]))})
		h.Size = up(h.Size) + int64(len(files[name]))
	}
	sums := chunker{}
	if err := writeData(&sums, h, files); err != nil {
		return err
	}
	h.Chunks = sums.finish()
	js, err := json.Marshal(h)
	if err != nil {
		return err
	}
	head := append([]byte(Magic), binary.LittleEndian.AppendUint64(nil, uint64(len(js)))...)
	head = append(head, js...)
	head = append(head, make([]byte, up(int64(len(head)))-int64(len(head)))...)
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return writeData(w, h, files)
}

func writeData(w io.Writer, h Header, files map[string][]byte) error {
	at := int64(0)
	for _, f := range h.Files {
		if _, err := w.Write(make([]byte, f.Offset-at)); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
		if _, err := w.Write(files[f.Name]); err != nil {
			return fmt.Errorf("write bundle: %s: %w", f.Name, err)
		}
		at = f.Offset + f.Size
	}
	return nil
}

// chunker hashes what is written to it in pieces.
type chunker struct {
	part bytes.Buffer
	sums []string
}

func (c *chunker) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		take := min(len(b), chunkBytes-c.part.Len())
		c.part.Write(b[:take])
		b = b[take:]
		if c.part.Len() == chunkBytes {
			c.flush()
		}
	}
	return n, nil
}

func (c *chunker) flush() {
	s := digest.Sum256(c.part.Bytes())
	c.sums = append(c.sums, hex.EncodeToString(s[:]))
	c.part.Reset()
}

func (c *chunker) finish() []string {
	if c.part.Len() > 0 {
		c.flush()
	}
	if c.sums == nil {
		return []string{}
	}
	return c.sums
}

func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, "/") || strings.Contains(name, "\\") || slices.Contains(strings.Split(name, "/"), "..") {
		return fmt.Errorf("bundle: %q is not a relative name", name)
	}
	return nil
}

// ErrCorrupt is wrapped by errors about bytes that are not what the header says.
var ErrCorrupt = errors.New("bundle is damaged")

// ParseHeader reads the header at the start of b, and returns where the data starts. With too few bytes it returns io.ErrUnexpectedEOF.
func ParseHeader(b []byte) (*Header, int64, error) {
	if len(b) < 16 {
		return nil, 0, io.ErrUnexpectedEOF
	}
	if string(b[:8]) != Magic {
		return nil, 0, fmt.Errorf("%w: expected it to start with %q, it starts with %q", ErrCorrupt, Magic, b[:8])
	}
	n := binary.LittleEndian.Uint64(b[8:])
	if n > maxHeader {
		return nil, 0, fmt.Errorf("%w: header of %d bytes, at most %d are allowed", ErrCorrupt, n, maxHeader)
	}
	if uint64(len(b)-16) < n {
		return nil, 0, io.ErrUnexpectedEOF
	}
	var h Header
	if err := json.Unmarshal(b[16:16+n], &h); err != nil {
		return nil, 0, fmt.Errorf("%w: header: %w", ErrCorrupt, err)
	}
	if h.Format != "temper-bundle" || h.Version != 1 {
		return nil, 0, fmt.Errorf("bundle of format %q version %d, expected temper-bundle version 1", h.Format, h.Version)
	}
	if h.Size < 0 || h.Chunk <= 0 || int64(len(h.Chunks)) != (h.Size+h.Chunk-1)/h.Chunk {
		return nil, 0, fmt.Errorf("%w: %d sums of %d bytes for %d bytes", ErrCorrupt, len(h.Chunks), h.Chunk, h.Size)
	}
	seen := map[string]bool{}
	for _, f := range h.Files {
		if err := checkName(f.Name); err != nil {
			return nil, 0, err
		}
		if seen[f.Name] || f.Offset < 0 || f.Size < 0 || f.Offset > h.Size || f.Size > h.Size-f.Offset || f.Offset%align != 0 {
			return nil, 0, fmt.Errorf("%w: file %q at %d+%d of %d bytes", ErrCorrupt, f.Name, f.Offset, f.Size, h.Size)
		}
		seen[f.Name] = true
	}
	return &h, up(16 + int64(n)), nil
}

// Parse checks a whole bundle and returns its files, which are views of b.
func Parse(b []byte) (map[string][]byte, error) {
	h, at, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if at > int64(len(b)) || int64(len(b))-at < h.Size {
		return nil, fmt.Errorf("%w: %d bytes, expected %d", ErrCorrupt, len(b), at+h.Size)
	}
	data := b[at : at+h.Size]
	for i, want := range h.Chunks {
		from := int64(i) * h.Chunk
		s := digest.Sum256(data[from:min(from+h.Chunk, h.Size)])
		if hex.EncodeToString(s[:]) != want {
			return nil, fmt.Errorf("%w: bytes %d to %d do not have the sum that the header names", ErrCorrupt, at+from, at+min(from+h.Chunk, h.Size))
		}
	}
	files := make(map[string][]byte, len(h.Files))
	for _, f := range h.Files {
		files[f.Name] = data[f.Offset : f.Offset+f.Size : f.Offset+f.Size]
	}
	return files, nil
}

// carried tells which files of a folder a page needs.
func carried(name string) bool {
	switch {
	case strings.HasSuffix(name, ".safetensors"), strings.HasSuffix(name, ".safetensors.index.json"), strings.HasSuffix(name, ".gguf"):
		return true
	}
	switch name {
	case checkpoint.ConfigFile, checkpoint.TokenizerFile, checkpoint.TokenizerConfig, checkpoint.SpecialTokensFile, checkpoint.ModulesFile,
		checkpoint.AdapterConfigFile, "generation_config.json", "chat_template.jinja", "vocab.json", "merges.txt", "sentence_bert_config.json",
		"config_sentence_transformers.json":
		return true
	}
	return false
}

// FromFolder collects the files of a model folder that a page needs.
func FromFolder(f *checkpoint.Folder) (map[string][]byte, error) {
	files := map[string][]byte{}
	add := func(name string) error {
		b, err := f.File(name)
		if err != nil {
			return err
		}
		files[name] = b
		return nil
	}
	for _, name := range f.Files() {
		if carried(name) {
			if err := add(name); err != nil {
				return nil, err
			}
		}
	}
	modules, err := f.Modules()
	if err != nil {
		return nil, err
	}
	for _, m := range modules {
		if name := m.Path + "/" + checkpoint.ConfigFile; m.Path != "" && f.Has(name) {
			if err := add(name); err != nil {
				return nil, err
			}
		}
	}
	if _, ok := files[checkpoint.TokenizerFile]; !ok && f.Has(checkpoint.VocabFile) {
		if err := add(checkpoint.VocabFile); err != nil {
			return nil, err
		}
	}
	return files, nil
}
