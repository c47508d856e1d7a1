package data

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Options say how to read a file. The zero value reads labelled text with columns "text" and "label".
type Options struct {
	// Format is "csv", "tsv", "jsonl", "parquet" or "txt" (a text a line, no labels); "" goes by the file's name and then by its content.
	Format string
	// Text, TextB and Label name the columns. Defaults: text (or text_a, sentence1, sentence), text_b (or sentence2) where present, label.
	Text, TextB, Label string
	// Unlabelled files need no label column; one that is there is read nevertheless.
	Unlabelled bool
	// Numeric reads the label column as numbers (regression).
	Numeric bool
	// RowsFile lists the rows to keep, one number a line from 0, the header not counted; the order is kept.
	RowsFile string
	// Stdin is what the path "-" reads; nil is os.Stdin.
	Stdin io.Reader
}

// column names that stand for each other when none is given.
var (
	textNames  = []string{"text", "text_a", "sentence1", "sentence"}
	textBNames = []string{"text_b", "sentence2"}
	labelNames = []string{"label", "labels"}
)

// Open reads the file at path ("-" is standard input) as a data set. Errors name the file and, where one is at fault, the line, counted
// from 1 as editors do.
func Open(path string, o Options) (*Dataset, error) {
	name := path
	var b []byte
	var err error
	if path == "-" {
		name = "standard input"
		in := o.Stdin
		if in == nil {
			in = os.Stdin
		}
		b, err = readStream(in, name)
	} else {
		st, serr := os.Stat(path)
		switch {
		case serr == nil && st.IsDir():
			return nil, fmt.Errorf("open data: %s is a folder, expected a CSV, TSV, JSONL or Parquet file", path)
		case serr == nil && !st.Mode().IsRegular():
			var f *os.File
			if f, err = os.Open(path); err == nil {
				b, err = readStream(f, path)
				f.Close()
			}
		default:
			b, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open data: %w", err)
	}
	return Parse(name, b, o)
}

// maxStream bounds what is read from pipes and devices, whose end nobody knows.
const maxStream = 1 << 30

// readStream reads a pipe or device. One that begins with binary data, of which some never end, is cut short: Parse says what is wrong with it.
func readStream(r io.Reader, name string) ([]byte, error) {
	head := make([]byte, 4096)
	n, err := io.ReadFull(r, head)
	head = head[:n]
	switch {
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return head, nil
	case err != nil:
		return nil, err
	case bytes.IndexByte(head, 0) >= 0 && !bytes.HasPrefix(head, []byte("PAR1")):
		return head, nil
	}
	b, err := io.ReadAll(io.LimitReader(io.MultiReader(bytes.NewReader(head), r), maxStream+1))
	if len(b) > maxStream {
		return nil, fmt.Errorf("%s: more than %d MiB: save them to a file first", name, maxStream>>20)
	}
	return b, err
}

// Parse reads a file that is already in memory; name stands for it in errors and gives its format by its extension.
func Parse(name string, b []byte, o Options) (*Dataset, error) {
	d, err := parse(name, b, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if o.RowsFile != "" {
		rows, err := ReadRows(o.RowsFile)
		if err != nil {
			return nil, err
		}
		s, err := d.Select(rows)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.RowsFile, err)
		}
		return s, nil
	}
	return d, nil
}

func parse(name string, b []byte, o Options) (*Dataset, error) {
	format, err := detectFormat(name, b, o.Format)
	if err != nil {
		return nil, err
	}
	var t *table
	if format == "parquet" {
		t, err = readParquet(b, o)
	} else {
		if b, err = plainText(b); err != nil {
			return nil, err
		}
		switch format {
		case "csv":
			t, err = readCSV(b, o)
		case "tsv":
			t, err = readTSV(b, o)
		case "jsonl":
			t, err = readJSONL(b, o)
		case "txt":
			t = readLines(b)
		}
	}
	if err != nil {
		return nil, err
	}
	return t.dataset(name, o)
}

func detectFormat(name string, b []byte, format string) (string, error) {
	known := []string{"csv", "tsv", "jsonl", "parquet", "txt"}
	if format != "" {
		if !slices.Contains(known, format) {
			return "", fmt.Errorf("unknown data format %q, expected one of %s", format, strings.Join(known, ", "))
		}
		return format, nil
	}
	if bytes.HasPrefix(b, []byte("PAR1")) {
		return "parquet", nil
	}
	switch ext := strings.ToLower(filepath.Ext(name)); ext {
	case ".csv", ".tsv", ".txt", ".parquet", ".jsonl":
		return ext[1:], nil
	case ".tab":
		return "tsv", nil
	case ".json", ".ndjson":
		return "jsonl", nil
	}
	line, _, _ := bytes.Cut(bytes.TrimLeft(bytes.TrimPrefix(b, utf8BOM), " \r\n"), []byte("\n"))
	switch {
	case bytes.HasPrefix(line, []byte("{")), bytes.HasPrefix(line, []byte("[")):
		return "jsonl", nil
	case bytes.ContainsRune(line, '\t'):
		return "tsv", nil
	case bytes.ContainsAny(line, ",;") || len(line) == 0:
		return "csv", nil
	}
	return "txt", nil
}

var utf8BOM = []byte("\xef\xbb\xbf")

// plainText removes the byte-order mark and refuses what is no UTF-8 text.
func plainText(b []byte) ([]byte, error) {
	b = bytes.TrimPrefix(b, utf8BOM)
	if len(bytes.TrimSpace(b[:min(len(b), 4096)])) == 0 && len(bytes.TrimSpace(b)) == 0 {
		return nil, errors.New("the file is empty")
	}
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")):
		return nil, errors.New("the file is UTF-16; save it as UTF-8")
	case bytes.HasPrefix(b, []byte("\x1f\x8b")):
		return nil, errors.New("the file is compressed with gzip; unpack it first")
	case bytes.HasPrefix(b, []byte("PK\x03\x04")):
		return nil, errors.New("the file is a zip archive (a spreadsheet?); save it as CSV")
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return nil, fmt.Errorf("line %d: byte %d is 0: this is binary data, not text", lineAt(b, i), i)
	}
	if !utf8.Valid(b) {
		i := 0
		for i < len(b) {
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			i += n
		}
		return nil, fmt.Errorf("line %d: byte 0x%02x is not valid UTF-8 (is the file in another encoding?)", lineAt(b, i), b[i])
	}
	return b, nil
}

func lineAt(b []byte, i int) int { return 1 + bytes.Count(b[:i], []byte("\n")) }

// table is what every format is read into: the chosen columns, with the line of each row for messages.
type table struct {
	texts, textsB, labels []string
	messages              [][]Message
	lines                 []int    // nil: rows have no lines (Parquet)
	labelNames            []string // when the file's type lists them (Parquet of Hugging Face): labels are numbers into it
}

func (t *table) at(row int) string {
	if t.lines == nil {
		return fmt.Sprintf("row %d", row)
	}
	return fmt.Sprintf("line %d", t.lines[row])
}

func (t *table) dataset(name string, o Options) (*Dataset, error) {
	d := &Dataset{Name: name, Texts: t.texts, Pairs: t.textsB, Messages: t.messages}
	if len(t.texts) == 0 {
		return nil, errors.New("the file has no examples")
	}
	d.Rows = make([]int, len(t.texts))
	for i := range d.Rows {
		d.Rows[i] = i
	}
	if t.labels == nil {
		return d, nil
	}
	for i, l := range t.labels {
		if strings.TrimSpace(l) == "" {
			return nil, fmt.Errorf("%s: the label is empty", t.at(i))
		}
	}
	if o.Numeric {
		d.Values = make([]float32, len(t.labels))
		for i, l := range t.labels {
			v, err := strconv.ParseFloat(strings.TrimSpace(l), 32)
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("%s: expected a number as the label, got %q", t.at(i), l)
			}
			d.Values[i] = float32(v)
		}
		return d, nil
	}
	if t.labelNames != nil {
		d.LabelNames = t.labelNames
		d.Labels = make([]int, len(t.labels))
		for i, l := range t.labels {
			v, err := strconv.Atoi(l)
			if err != nil || v < 0 || v >= len(t.labelNames) {
				return nil, fmt.Errorf("%s: label %s is none of the %d that the file names", t.at(i), l, len(t.labelNames))
			}
			d.Labels[i] = v
		}
		return d, nil
	}
	d.setLabels(t.labels)
	return d, nil
}

// columns finds the wanted columns in a header. b and label are -1 where they are absent and may be.
type columns struct{ text, textB, label int }

// keys says that they are the keys of a JSON object.
func findColumns(header []string, keys bool, o Options) (columns, error) {
	clean := make([]string, len(header))
	for i, h := range header {
		clean[i] = strings.ToLower(strings.TrimSpace(h))
	}
	find := func(given string, names []string) (int, error) {
		if given != "" {
			names = []string{strings.ToLower(strings.TrimSpace(given))}
		}
		for _, n := range names {
			i := slices.Index(clean, n)
			if i < 0 {
				continue
			}
			if slices.Contains(clean[i+1:], n) {
				return -1, fmt.Errorf("the header names the column %q twice", n)
			}
			return i, nil
		}
		return -1, nil
	}
	var c columns
	var errs [3]error
	c.text, errs[0] = find(o.Text, textNames)
	c.textB, errs[1] = find(o.TextB, textBNames)
	c.label, errs[2] = find(o.Label, labelNames)
	if err := errors.Join(errs[:]...); err != nil {
		return c, err
	}
	missing := func(what, given, flag string, names []string) error {
		if given == "" {
			given = names[0]
		}
		if keys {
			return fmt.Errorf("no key %q for the %s: the object has %s (%s names another one)", given, what, foundColumns(header, "key"), flag)
		}
		return fmt.Errorf("no column %q for the %s: the first line gives %s (a file without a header? its first line must name the columns; %s names another one)",
			given, what, foundColumns(header, "column"), flag)
	}
	switch {
	case c.text < 0:
		return c, missing("text", o.Text, "--text-column", textNames)
	case c.textB < 0 && o.TextB != "":
		return c, missing("second text", o.TextB, "--text-b-column", textBNames)
	case c.label < 0 && (!o.Unlabelled || o.Label != ""):
		return c, missing("label", o.Label, "--label-column", labelNames)
	}
	return c, nil
}

func foundColumns(header []string, what string) string {
	if len(header) == 0 {
		return "no " + what
	}
	q := make([]string, 0, len(header))
	for i, h := range header {
		if i == 12 {
			q = append(q, fmt.Sprintf("and %d more", len(header)-i))
			break
		}
		if len(h) > 40 {
			h = strings.ToValidUTF8(h[:40], "") + "…"
		}
		q = append(q, strconv.Quote(h))
	}
	if len(header) == 1 {
		return "the one " + what + " " + q[0]
	}
	return "the " + what + "s " + strings.Join(q, ", ")
}

// add appends a row of the table that findColumns described.
func (t *table) add(fields []string, c columns, line int) {
	t.texts = append(t.texts, fields[c.text])
	if c.textB >= 0 {
		t.textsB = append(t.textsB, fields[c.textB])
	}
	if c.label >= 0 {
		t.labels = append(t.labels, fields[c.label])
	}
	t.lines = append(t.lines, line)
}

// ReadRows reads a list of row numbers, one a line from 0; empty lines and lines that start with # are skipped.
func ReadRows(path string) ([]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open row list: %w", err)
	}
	rows, err := parseRows(string(b))
	if err != nil {
		return nil, fmt.Errorf("row list %s: %w", path, err)
	}
	return rows, nil
}

func parseRows(s string) ([]int, error) {
	var rows []int
	line := 0
	for l := range strings.Lines(strings.TrimPrefix(s, string(utf8BOM))) {
		line++
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		v, err := strconv.Atoi(l)
		if err != nil || v < 0 {
			return nil, fmt.Errorf("line %d: expected a row number from 0, got %.40q", line, l)
		}
		rows = append(rows, v)
	}
	if len(rows) == 0 {
		return nil, errors.New("expected row numbers, one a line, it has none")
	}
	return rows, nil
}
