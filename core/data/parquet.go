//go:build !wasip1

package data

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
)

// readParquet reads flat string, number and boolean columns. Label names of a Hugging Face data set are taken from its metadata.
func readParquet(b []byte, o Options) (t *table, err error) {
	defer func() {
		// The library indexes into pages that a damaged file may cut short.
		if r := recover(); r != nil {
			t, err = nil, fmt.Errorf("damaged Parquet file: %v", r)
		}
	}()
	f, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("expected a Parquet file: %w", err)
	}
	var header []string
	var leaf []int // column number of each field; -1 for a nested one
	n := 0
	for _, field := range f.Root().Columns() {
		header = append(header, field.Name())
		if field.Leaf() && !field.Repeated() {
			leaf = append(leaf, n)
		} else {
			leaf = append(leaf, -1)
		}
		n += leaves(field)
	}
	c, err := findColumns(header, false, o)
	if err != nil {
		return nil, err
	}
	for _, i := range []int{c.text, c.textB, c.label} {
		if i >= 0 && leaf[i] < 0 {
			return nil, fmt.Errorf("column %q: expected plain values, it is a list or a structure", header[i])
		}
	}
	t = &table{}
	if t.texts, err = parquetStrings(f, header[c.text], leaf[c.text], true); err != nil {
		return nil, err
	}
	if c.textB >= 0 {
		if t.textsB, err = parquetStrings(f, header[c.textB], leaf[c.textB], true); err != nil {
			return nil, err
		}
	}
	if c.label >= 0 {
		if t.labels, err = parquetStrings(f, header[c.label], leaf[c.label], false); err != nil {
			return nil, err
		}
		t.labelNames = huggingFaceLabels(f, header[c.label])
	}
	return t, nil
}

func leaves(c *parquet.Column) int {
	if c.Leaf() {
		return 1
	}
	n := 0
	for _, child := range c.Columns() {
		n += leaves(child)
	}
	return n
}

func parquetStrings(f *parquet.File, name string, column int, text bool) ([]string, error) {
	var out []string
	buf := make([]parquet.Value, 512)
	for _, group := range f.RowGroups() {
		pages := group.ColumnChunks()[column].Pages()
		for {
			page, err := pages.ReadPage()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				pages.Close()
				return nil, fmt.Errorf("column %q: %w", name, err)
			}
			values := page.Values()
			for {
				n, err := values.ReadValues(buf)
				for _, v := range buf[:n] {
					switch {
					case v.IsNull():
						pages.Close()
						return nil, fmt.Errorf("row %d: column %q is empty", len(out), name)
					case v.Kind() == parquet.ByteArray || v.Kind() == parquet.FixedLenByteArray:
						if !utf8.Valid(v.ByteArray()) {
							pages.Close()
							return nil, fmt.Errorf("row %d: column %q is not valid UTF-8", len(out), name)
						}
						out = append(out, string(v.ByteArray()))
					case text:
						pages.Close()
						return nil, fmt.Errorf("column %q: expected strings, it holds %s", name, v.Kind())
					default:
						out = append(out, v.String())
					}
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					pages.Close()
					return nil, fmt.Errorf("column %q: %w", name, err)
				}
			}
			parquet.Release(page)
		}
		pages.Close()
	}
	return out, nil
}

// huggingFaceLabels reads the names of a ClassLabel column that the datasets library stores under the key "huggingface".
func huggingFaceLabels(f *parquet.File, column string) []string {
	raw, ok := f.Lookup("huggingface")
	if !ok {
		return nil
	}
	var meta struct {
		Info struct {
			Features map[string]struct {
				Names []string `json:"names"`
			} `json:"features"`
		} `json:"info"`
	}
	if json.Unmarshal([]byte(raw), &meta) != nil {
		return nil
	}
	return meta.Info.Features[column].Names
}
