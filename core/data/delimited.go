package data

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
)

// readCSV reads RFC 4180: quoted fields may hold separators, quotes (doubled) and line breaks. The separator is a comma, or a
// semicolon where the header has no comma but one of those.
func readCSV(b []byte, o Options) (*table, error) {
	r := csv.NewReader(bytes.NewReader(b))
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	first, _, _ := bytes.Cut(b, []byte("\n"))
	if !bytes.ContainsRune(first, ',') && bytes.ContainsRune(first, ';') {
		r.Comma = ';'
	}
	header, err := r.Read()
	if err != nil {
		return nil, csvError(err)
	}
	c, err := findColumns(header, false, o)
	if err != nil {
		return nil, err
	}
	width := len(header)
	t := &table{}
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, csvError(err)
		}
		line, _ := r.FieldPos(0)
		if len(rec) != width {
			return nil, fmt.Errorf("line %d: %d fields, the header has %d (a text with %q needs quotes around it)", line, len(rec), width, string(r.Comma))
		}
		t.add(rec, c, line)
	}
}

func csvError(err error) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		if p.StartLine != p.Line {
			return fmt.Errorf("line %d: %w (the field starts in line %d; quotes inside a quoted text are written twice)", p.Line, p.Err, p.StartLine)
		}
		return fmt.Errorf("line %d: %w (quotes inside a quoted text are written twice)", p.Line, p.Err)
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	}
	return err
}

// readTSV reads fields between tabs, a line a row. Quotes are plain characters: a tab or a line break cannot stand inside a field.
func readTSV(b []byte, o Options) (*table, error) {
	t := &table{}
	var c columns
	width, line := 0, 0
	for l := range strings.Lines(string(b)) {
		line++
		l = strings.TrimSuffix(strings.TrimSuffix(l, "\n"), "\r")
		if width == 0 {
			if l == "" {
				continue
			}
			header := strings.Split(l, "\t")
			var err error
			if c, err = findColumns(header, false, o); err != nil {
				return nil, err
			}
			width = len(header)
			continue
		}
		if l == "" && width > 1 {
			continue
		}
		if n := 1 + strings.Count(l, "\t"); n != width {
			return nil, fmt.Errorf("line %d: %d fields, the header has %d (fields are divided by tabs, and cannot hold one)", line, n, width)
		}
		t.add(strings.Split(l, "\t"), c, line)
	}
	return t, nil
}

// readLines reads a text a line; empty lines are skipped.
func readLines(b []byte) *table {
	t := &table{}
	line := 0
	for l := range strings.Lines(string(b)) {
		line++
		if l = strings.TrimRight(l, "\r\n"); strings.TrimSpace(l) != "" {
			t.texts = append(t.texts, l)
			t.lines = append(t.lines, line)
		}
	}
	return t
}
