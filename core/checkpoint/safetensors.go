package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/temper-ml/temper/core/tensor"
)

// Limits of the safetensors format (https://github.com/huggingface/safetensors).
const (
	maxSafetensorsHeader = 100_000_000
	metadataKey          = "__metadata__"
	maxDims              = 64
)

// safetensorsType is an element type of the format. Types without a tensor.DType can stand in a file but not be read.
type safetensorsType struct {
	name  string
	bytes int
	dtype tensor.DType
}

// In the order of the reference implementation, which sorts tensors by it when writing.
var safetensorsTypes = []safetensorsType{
	{"BOOL", 1, tensor.Bool}, {"U8", 1, tensor.U8}, {"I8", 1, tensor.I8},
	{"F8_E5M2", 1, tensor.Invalid}, {"F8_E4M3", 1, tensor.Invalid}, {"F8_E8M0", 1, tensor.Invalid},
	{"I16", 2, tensor.I16}, {"U16", 2, tensor.Invalid}, {"F16", 2, tensor.F16}, {"BF16", 2, tensor.BF16},
	{"I32", 4, tensor.I32}, {"U32", 4, tensor.Invalid}, {"F32", 4, tensor.F32}, {"C64", 8, tensor.Invalid},
	{"F64", 8, tensor.F64}, {"I64", 8, tensor.I64}, {"U64", 8, tensor.Invalid},
}

func safetensorsTypeByName(name string) (safetensorsType, bool) {
	i := slices.IndexFunc(safetensorsTypes, func(t safetensorsType) bool { return t.name == name })
	if i < 0 {
		return safetensorsType{}, false
	}
	return safetensorsTypes[i], true
}

// Safetensors is an open safetensors file. It is safe for use by several goroutines until Close.
type Safetensors struct {
	path     string
	mapped   *mapping
	data     []byte // after the header
	names    []string
	entries  map[string]safetensorsEntry
	metadata map[string]string
	hidden   map[string]bool // scales of int8 rows: they come with their tensor
}

type safetensorsEntry struct {
	name       string
	typ        safetensorsType
	shape      []int
	begin, end int
}

// OpenSafetensors maps the file and checks its header completely. Tensors are views of the mapping, valid until Close.
func OpenSafetensors(path string) (*Safetensors, error) {
	m, err := openMapping(path)
	if err != nil {
		return nil, fmt.Errorf("open safetensors: %w", err)
	}
	s, err := ParseSafetensors(path, m.data)
	if err != nil {
		m.Close()
		return nil, err
	}
	s.mapped = m
	return s, nil
}

// ParseSafetensors reads a file that is already in memory; name stands for it in errors. Tensors are views of b.
func ParseSafetensors(name string, b []byte) (*Safetensors, error) {
	s, err := parseSafetensors(name, b)
	if err != nil {
		return nil, fmt.Errorf("safetensors file %s: %w", name, err)
	}
	return s, nil
}

func parseSafetensors(name string, b []byte) (*Safetensors, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("expected an 8-byte header length, the file has %d bytes", len(b))
	}
	if what := guessKind(b); what != "" {
		return nil, fmt.Errorf("expected safetensors, this is %s", what)
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxSafetensorsHeader {
		return nil, fmt.Errorf("header length %d is above the limit of %d bytes", n, maxSafetensorsHeader)
	}
	if n > uint64(len(b)-8) {
		return nil, fmt.Errorf("header of %d bytes expected, only %d follow (truncated file?)", n, len(b)-8)
	}
	header, data := b[8:8+n], b[8+n:]
	s := &Safetensors{path: name, data: data, entries: map[string]safetensorsEntry{}, metadata: map[string]string{}}
	if err := s.parseHeader(header); err != nil {
		return nil, err
	}
	if err := s.checkLayout(); err != nil {
		return nil, err
	}
	return s, s.pairScales()
}

// guessKind recognises files that people give by mistake.
func guessKind(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("GGUF")):
		return "a GGUF file"
	case bytes.HasPrefix(b, []byte("PK\x03\x04")):
		return "a zip archive (a pickle checkpoint of PyTorch?); convert it to safetensors"
	case bytes.HasPrefix(b, []byte("\x80\x02}")), bytes.HasPrefix(b, []byte("\x80\x02\x8a")):
		return "a pickle file; convert it to safetensors"
	case bytes.HasPrefix(b, []byte("version https://git-lfs")):
		return "a Git LFS pointer, not the file itself; run git lfs pull"
	case bytes.HasPrefix(b, []byte("<!DOCTYPE")), bytes.HasPrefix(b, []byte("<html")):
		return "a web page (a failed download?)"
	}
	return ""
}

// parseHeader reads the JSON by tokens: the standard decoder into a map would let duplicate keys pass.
func (s *Safetensors) parseHeader(header []byte) error {
	if len(header) == 0 || header[0] != '{' {
		return errors.New("header does not start with '{'")
	}
	if !utf8.Valid(header) {
		return errors.New("header is not valid UTF-8")
	}
	if s.plainHeader(header) {
		return nil
	}
	return s.anyHeader(header)
}

// anyHeader takes whatever JSON allows.
func (s *Safetensors) anyHeader(header []byte) error {
	d := json.NewDecoder(bytes.NewReader(header))
	d.UseNumber()
	if err := expectDelim(d, '{'); err != nil {
		return err
	}
	seenMetadata := false
	for d.More() {
		key, err := stringToken(d)
		if err != nil {
			return fmt.Errorf("header: %w", err)
		}
		if key == metadataKey {
			if seenMetadata {
				return errors.New("header: __metadata__ is given twice")
			}
			seenMetadata = true
			if err := s.parseMetadata(d); err != nil {
				return fmt.Errorf("header: __metadata__: %w", err)
			}
			continue
		}
		if _, ok := s.entries[key]; ok {
			return fmt.Errorf("header: tensor %q is given twice", key)
		}
		e, err := parseEntry(d)
		if err != nil {
			return fmt.Errorf("header: tensor %q: %w", key, err)
		}
		e.name = key
		s.entries[key] = e
		s.names = append(s.names, key)
	}
	if err := expectDelim(d, '}'); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("header: bytes follow the closing brace that are not spaces")
	}
	return nil
}

func (s *Safetensors) parseMetadata(d *json.Decoder) error {
	if err := expectDelim(d, '{'); err != nil {
		return err
	}
	for d.More() {
		key, err := stringToken(d)
		if err != nil {
			return err
		}
		if _, ok := s.metadata[key]; ok {
			return fmt.Errorf("key %q is given twice", key)
		}
		if s.metadata[key], err = stringToken(d); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return expectDelim(d, '}')
}

func parseEntry(d *json.Decoder) (e safetensorsEntry, err error) {
	if err := expectDelim(d, '{'); err != nil {
		return e, err
	}
	var seen []string
	for d.More() {
		key, err := stringToken(d)
		if err != nil {
			return e, err
		}
		if slices.Contains(seen, key) {
			return e, fmt.Errorf("key %q is given twice", key)
		}
		seen = append(seen, key)
		switch key {
		case "dtype":
			name, err := stringToken(d)
			if err != nil {
				return e, fmt.Errorf("dtype: %w", err)
			}
			ok := false
			if e.typ, ok = safetensorsTypeByName(name); !ok {
				return e, fmt.Errorf("unknown dtype %q", name)
			}
		case "shape":
			if e.shape, err = intsToken(d, maxDims); err != nil {
				return e, fmt.Errorf("shape: %w", err)
			}
		case "data_offsets":
			o, err := intsToken(d, 2)
			if err != nil {
				return e, fmt.Errorf("data_offsets: %w", err)
			}
			if len(o) != 2 {
				return e, fmt.Errorf("data_offsets: expected 2 numbers, got %d", len(o))
			}
			e.begin, e.end = o[0], o[1]
		default:
			return e, fmt.Errorf("unknown key %q, expected dtype, shape and data_offsets", key)
		}
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !slices.Contains(seen, key) {
			return e, fmt.Errorf("%s is missing", key)
		}
	}
	return e, expectDelim(d, '}')
}

// checkLayout verifies that the tensors' bytes follow from dtype and shape and tile the data without gap or overlap.
func (s *Safetensors) checkLayout() error {
	order := slices.SortedFunc(maps.Values(s.entries), func(a, b safetensorsEntry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), strings.Compare(a.name, b.name))
	})
	at := 0
	for _, e := range order {
		want, ok := storageBytes(e.shape, e.typ.bytes)
		if !ok {
			return fmt.Errorf("tensor %q: shape %v of %s overflows", e.name, e.shape, e.typ.name)
		}
		switch {
		case e.end < e.begin:
			return fmt.Errorf("tensor %q: data_offsets [%d, %d] run backwards", e.name, e.begin, e.end)
		case e.end-e.begin != want:
			return fmt.Errorf("tensor %q: %s of shape %v needs %d bytes, data_offsets [%d, %d] give %d", e.name, e.typ.name, e.shape, want, e.begin, e.end, e.end-e.begin)
		case e.begin < at:
			return fmt.Errorf("tensor %q: data_offsets [%d, %d] overlap the tensor before, which ends at %d", e.name, e.begin, e.end, at)
		case e.begin > at:
			return fmt.Errorf("tensor %q: data_offsets [%d, %d] leave a hole after %d", e.name, e.begin, e.end, at)
		case e.end > len(s.data):
			return fmt.Errorf("tensor %q: data_offsets [%d, %d] reach beyond the %d bytes of data (truncated file?)", e.name, e.begin, e.end, len(s.data))
		}
		at = e.end
	}
	if at != len(s.data) {
		return fmt.Errorf("tensors end at byte %d of %d bytes of data", at, len(s.data))
	}
	return nil
}

// storageBytes multiplies the dimensions and the element size; it reports false on overflow.
func storageBytes(shape []int, elem int) (int, bool) {
	n, zero := elem, false
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if d == 0 {
			zero = true
			continue
		}
		if n > math.MaxInt/d {
			return 0, false
		}
		n *= d
	}
	if zero {
		return 0, true
	}
	return n, true
}

// Names lists the tensors in the order of the header.
func (s *Safetensors) Names() []string { return slices.Clone(s.names) }

// Metadata is the header's __metadata__, never nil.
func (s *Safetensors) Metadata() map[string]string { return s.metadata }

// Path is the name that the file was opened under.
func (s *Safetensors) Path() string { return s.path }

// Tensor returns a view of the named tensor.
func (s *Safetensors) Tensor(name string) (tensor.Tensor, error) {
	e, ok := s.entries[name]
	if !ok {
		return tensor.Tensor{}, fmt.Errorf("%s: tensor %q: %w", s.path, name, ErrNoTensor)
	}
	if e.typ.dtype == tensor.Invalid {
		return tensor.Tensor{}, fmt.Errorf("%s: tensor %q has dtype %s, which cannot be read", s.path, name, e.typ.name)
	}
	t := tensor.Tensor{Name: name, DType: e.typ.dtype, Shape: slices.Clone(e.shape), Data: s.data[e.begin:e.end:e.end]}
	if s.metadata[rowScalesKey] == "" || e.typ.dtype != tensor.I8 {
		return t, nil
	}
	if sc, ok := s.entries[name+rowScalesSuffix]; ok {
		scales, err := tensor.Tensor{Name: sc.name, DType: tensor.F32, Shape: sc.shape, Data: s.data[sc.begin:sc.end]}.F32()
		if err != nil {
			return t, err
		}
		t.DType, t.Scales = tensor.Q8Row, scales
	}
	return t, nil
}

// Close unmaps the file; tensors must not be used any more.
func (s *Safetensors) Close() error {
	s.data = nil
	s.entries = nil
	if s.mapped == nil {
		return nil
	}
	return s.mapped.Close()
}

// tensor.Q8Row in a safetensors file: the int8 values stand under the tensor's name as I8 [rows, cols], the scales beside them as F32
// [rows, 1] under the name with rowScalesSuffix (the names that compressed-tensors uses), and the metadata has rowScalesKey.
const (
	rowScalesKey    = "temper.q8_row"
	rowScalesSuffix = "_scale"
)

// pairScales checks the scales of a file with int8 rows and hides them from the names.
func (s *Safetensors) pairScales() error {
	if s.metadata[rowScalesKey] == "" {
		return nil
	}
	s.hidden = map[string]bool{}
	for name, e := range s.entries {
		if e.typ.dtype != tensor.I8 {
			continue
		}
		sc, ok := s.entries[name+rowScalesSuffix]
		if !ok {
			continue
		}
		rows := tensor.Tensor{Shape: e.shape}.Rows()
		if sc.typ.dtype != tensor.F32 || sc.end-sc.begin != 4*rows {
			return fmt.Errorf("tensor %q: expected %d F32 scales for the rows of %q, it is %s of shape %v", sc.name, rows, name, sc.typ.name, sc.shape)
		}
		s.hidden[sc.name] = true
	}
	s.names = slices.DeleteFunc(s.names, func(n string) bool { return s.hidden[n] })
	return nil
}

func expectDelim(d *json.Decoder, want json.Delim) error {
	tok, err := d.Token()
	if err != nil {
		return jsonError(err)
	}
	if tok != want {
		return fmt.Errorf("expected %q, got %v", want.String(), describeToken(tok))
	}
	return nil
}

func stringToken(d *json.Decoder) (string, error) {
	tok, err := d.Token()
	if err != nil {
		return "", jsonError(err)
	}
	v, ok := tok.(string)
	if !ok {
		return "", fmt.Errorf("expected a string, got %s", describeToken(tok))
	}
	return v, nil
}

func intsToken(d *json.Decoder, limit int) ([]int, error) {
	if err := expectDelim(d, '['); err != nil {
		return nil, err
	}
	out := []int{}
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return nil, jsonError(err)
		}
		num, ok := tok.(json.Number)
		if !ok {
			return nil, fmt.Errorf("expected a number, got %s", describeToken(tok))
		}
		v, err := strconv.ParseInt(num.String(), 10, strconv.IntSize)
		if err != nil || v < 0 {
			return nil, fmt.Errorf("expected a whole number from 0 to %d, got %.40s", math.MaxInt, num)
		}
		if len(out) == limit {
			return nil, fmt.Errorf("more than %d numbers", limit)
		}
		out = append(out, int(v))
	}
	return out, expectDelim(d, ']')
}

func describeToken(tok json.Token) string {
	switch v := tok.(type) {
	case nil:
		return "null"
	case string:
		return fmt.Sprintf("the string %.60q", v)
	case json.Delim:
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprintf("%.60v", tok)
}

func jsonError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("JSON ends too early")
	}
	return fmt.Errorf("bad JSON: %w", err)
}
