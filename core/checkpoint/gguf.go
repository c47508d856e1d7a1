package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/temper-ml/temper/core/tensor"
)

// The GGUF format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
const (
	ggufMagic            = "GGUF"
	ggufVersion          = 3
	ggufDefaultAlignment = 32
	ggufMaxDims          = 4
	ggufMaxNesting       = 4 // of arrays; llama.cpp writes none
	ggufMaxName          = 64 * 1024
	ggufMaxKey           = 1<<16 - 1
)

// Value types of GGUF metadata.
const (
	ggufU8 = iota
	ggufI8
	ggufU16
	ggufI16
	ggufU32
	ggufI32
	ggufF32
	ggufBool
	ggufString
	ggufArray
	ggufU64
	ggufI64
	ggufF64
)

// ggmlTypes are the tensor types of the format by number. Those without a tensor.DType can stand in a file but not be read.
var ggmlTypes = map[uint32]struct {
	name  string
	dtype tensor.DType
}{
	0: {"F32", tensor.F32}, 1: {"F16", tensor.F16}, 2: {"Q4_0", tensor.Q4_0}, 3: {"Q4_1", tensor.Q4_1}, 6: {"Q5_0", tensor.Q5_0}, 7: {"Q5_1", tensor.Q5_1},
	8: {"Q8_0", tensor.Q8_0}, 9: {"Q8_1", 0}, 10: {"Q2_K", tensor.Q2_K}, 11: {"Q3_K", tensor.Q3_K}, 12: {"Q4_K", tensor.Q4_K}, 13: {"Q5_K", tensor.Q5_K},
	14: {"Q6_K", tensor.Q6_K}, 15: {"Q8_K", 0}, 16: {"IQ2_XXS", 0}, 17: {"IQ2_XS", 0}, 18: {"IQ3_XXS", 0}, 19: {"IQ1_S", 0}, 20: {"IQ4_NL", tensor.IQ4_NL},
	21: {"IQ3_S", 0}, 22: {"IQ2_S", 0}, 23: {"IQ4_XS", tensor.IQ4_XS}, 24: {"I8", tensor.I8}, 25: {"I16", tensor.I16}, 26: {"I32", tensor.I32}, 27: {"I64", tensor.I64},
	28: {"F64", tensor.F64}, 29: {"IQ1_M", 0}, 30: {"BF16", tensor.BF16}, 34: {"TQ1_0", 0}, 35: {"TQ2_0", 0}, 39: {"MXFP4", 0},
}

// GGUF is an open GGUF file. It is safe for use by several goroutines until Close.
type GGUF struct {
	path    string
	version uint32
	mapped  *mapping
	data    []byte // tensor data
	keys    []string
	values  map[string]any
	names   []string
	tensors map[string]ggufTensor
}

type ggufTensor struct {
	typeName string
	dtype    tensor.DType // Invalid: cannot be read
	shape    []int        // outermost first, the reverse of the file's
	begin    int
	bytes    int
}

// OpenGGUF maps the file and checks metadata and tensor table completely. Tensors are views of the mapping, valid until Close.
func OpenGGUF(path string) (*GGUF, error) {
	m, err := openMapping(path)
	if err != nil {
		return nil, fmt.Errorf("open GGUF: %w", err)
	}
	g, err := ParseGGUF(path, m.data)
	if err != nil {
		m.Close()
		return nil, err
	}
	g.mapped = m
	return g, nil
}

// ParseGGUF reads a file that is already in memory; name stands for it in errors. Tensors are views of b. Metadata is copied, which takes
// memory of at most a small multiple of the file's size.
func ParseGGUF(name string, b []byte) (*GGUF, error) {
	g := &GGUF{path: name, values: map[string]any{}, tensors: map[string]ggufTensor{}}
	if err := g.parse(b); err != nil {
		return nil, fmt.Errorf("GGUF file %s: %w", name, err)
	}
	return g, nil
}

func (g *GGUF) parse(b []byte) error {
	r := &ggufReader{b: b}
	magic, err := r.bytes(4)
	if err != nil || string(magic) != ggufMagic {
		return fmt.Errorf("expected the magic %q, got %q", ggufMagic, b[:min(len(b), 4)])
	}
	if g.version, err = r.u32(); err != nil {
		return err
	}
	switch {
	case g.version == 2 || g.version == 3:
	case g.version&0xffff == 0 && g.version != 0:
		return errors.New("the file is big-endian, which is not supported")
	default:
		return fmt.Errorf("version %d is not supported, expected 2 or 3", g.version)
	}
	tensors, err := r.u64()
	if err != nil {
		return err
	}
	values, err := r.u64()
	if err != nil {
		return err
	}
	// The shortest value takes 13 bytes (empty key, type, one byte), the shortest tensor 24.
	if values > uint64(r.left()/13) || tensors > uint64(r.left()/24) {
		return fmt.Errorf("%d values and %d tensors cannot stand in %d bytes (truncated file?)", values, tensors, r.left())
	}
	for i := range values {
		key, err := r.key()
		if err != nil {
			return fmt.Errorf("key %d of %d: %w", i, values, err)
		}
		if _, ok := g.values[key]; ok {
			return fmt.Errorf("key %q is given twice", key)
		}
		kind, err := r.u32()
		if err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		v, err := r.value(kind, 0)
		if err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		g.keys = append(g.keys, key)
		g.values[key] = v
	}
	align := uint64(ggufDefaultAlignment)
	if v, ok := g.values["general.alignment"]; ok {
		a, isU32 := v.(uint32)
		if !isU32 || a == 0 || a&(a-1) != 0 {
			return fmt.Errorf("general.alignment: expected a power of two as a 32-bit number, got %v", v)
		}
		align = uint64(a)
	}
	for i := range tensors {
		if err := g.parseTensor(r, align); err != nil {
			return fmt.Errorf("tensor %d of %d: %w", i, tensors, err)
		}
	}
	start := (uint64(r.at) + align - 1) / align * align
	if start > uint64(len(b)) {
		if tensors > 0 {
			return fmt.Errorf("tensor data should start at byte %d of %d (truncated file?)", start, len(b))
		}
		start = uint64(len(b))
	}
	g.data = b[start:]
	return g.checkLayout()
}

func (g *GGUF) parseTensor(r *ggufReader, align uint64) error {
	name, err := r.str()
	if err != nil {
		return err
	}
	if len(name) == 0 || len(name) > ggufMaxName {
		return fmt.Errorf("a name of %d bytes", len(name))
	}
	if _, ok := g.tensors[name]; ok {
		return fmt.Errorf("%q is given twice", name)
	}
	dims, err := r.u32()
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if dims > ggufMaxDims {
		return fmt.Errorf("%q: %d dimensions, at most %d are allowed", name, dims, ggufMaxDims)
	}
	t := ggufTensor{shape: make([]int, dims)}
	for i := range t.shape {
		d, err := r.u64()
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if d > math.MaxInt {
			return fmt.Errorf("%q: dimension %d overflows", name, d)
		}
		t.shape[len(t.shape)-1-i] = int(d)
	}
	kind, err := r.u32()
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	typ, ok := ggmlTypes[kind]
	if !ok {
		return fmt.Errorf("%q: unknown tensor type %d", name, kind)
	}
	t.typeName, t.dtype = typ.name, typ.dtype
	offset, err := r.u64()
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if offset%align != 0 {
		return fmt.Errorf("%q: offset %d is not a multiple of the alignment %d", name, offset, align)
	}
	if offset > math.MaxInt {
		return fmt.Errorf("%q: offset %d overflows", name, offset)
	}
	t.begin = int(offset)
	if t.dtype != tensor.Invalid {
		cols := 1
		if dims > 0 {
			cols = t.shape[dims-1]
		}
		if cols%t.dtype.BlockLen() != 0 {
			return fmt.Errorf("%q: rows of %d elements are no whole blocks of %s (%d)", name, cols, t.typeName, t.dtype.BlockLen())
		}
		n, ok := storageBytes(t.shape, 1)
		if !ok || n/t.dtype.BlockLen() > math.MaxInt/t.dtype.BlockBytes() {
			return fmt.Errorf("%q: %s of shape %v overflows", name, t.typeName, t.shape)
		}
		t.bytes = t.dtype.RowBytes(n)
	}
	g.names = append(g.names, name)
	g.tensors[name] = t
	return nil
}

// checkLayout verifies that every tensor lies inside the data and none overlaps another. Gaps are allowed: they are padding.
func (g *GGUF) checkLayout() error {
	order := slices.Clone(g.names)
	slices.SortStableFunc(order, func(a, b string) int { return g.tensors[a].begin - g.tensors[b].begin })
	end, before := 0, ""
	for _, name := range order {
		t := g.tensors[name]
		if t.begin > len(g.data) || t.bytes > len(g.data)-t.begin {
			return fmt.Errorf("tensor %q: bytes %d to %d reach beyond the %d bytes of data (truncated file?)", name, t.begin, uint64(t.begin)+uint64(t.bytes), len(g.data))
		}
		if t.begin < end && t.bytes > 0 {
			return fmt.Errorf("tensor %q at byte %d overlaps %q, which ends at %d", name, t.begin, before, end)
		}
		if t.begin+t.bytes > end {
			end, before = t.begin+t.bytes, name
		}
	}
	return nil
}

// Path is the name that the file was opened under; Version its format version, 2 or 3.
func (g *GGUF) Path() string { return g.path }

// Version is the format version of the file, 2 or 3.
func (g *GGUF) Version() int { return int(g.version) }

// Names lists the tensors in the order of the file, with GGUF's names ("blk.0.attn_q.weight").
func (g *GGUF) Names() []string { return slices.Clone(g.names) }

// Tensor returns a view of the tensor with GGUF's name. Shapes are outermost first, as everywhere in temper.
func (g *GGUF) Tensor(name string) (tensor.Tensor, error) {
	t, ok := g.tensors[name]
	if !ok {
		return tensor.Tensor{}, fmt.Errorf("%s: tensor %q: %w", g.path, name, ErrNoTensor)
	}
	if t.dtype == tensor.Invalid {
		return tensor.Tensor{}, fmt.Errorf("%s: tensor %q is %s, which is not supported", g.path, name, t.typeName)
	}
	return tensor.Tensor{Name: name, DType: t.dtype, Shape: slices.Clone(t.shape), Data: g.data[t.begin : t.begin+t.bytes : t.begin+t.bytes]}, nil
}

// Close unmaps the file; tensors must not be used any more.
func (g *GGUF) Close() error {
	g.data, g.tensors = nil, nil
	if g.mapped == nil {
		return nil
	}
	return g.mapped.Close()
}

// ggufReader reads little-endian values and never beyond the end.
type ggufReader struct {
	b  []byte
	at int
}

func (r *ggufReader) left() int { return len(r.b) - r.at }

func (r *ggufReader) bytes(n uint64) ([]byte, error) {
	if n > uint64(r.left()) {
		return nil, fmt.Errorf("%d bytes expected at byte %d, only %d follow (truncated file?)", n, r.at, r.left())
	}
	b := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return b, nil
}

func (r *ggufReader) u32() (uint32, error) {
	b, err := r.bytes(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (r *ggufReader) u64() (uint64, error) {
	b, err := r.bytes(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (r *ggufReader) str() (string, error) {
	n, err := r.u64()
	if err != nil {
		return "", err
	}
	b, err := r.bytes(n)
	if err != nil {
		return "", fmt.Errorf("a string: %w", err)
	}
	return string(b), nil
}

// key reads a key, whose length the format bounds. What is no key at all, because the file lies about what comes before it, is told from its bytes,
// which are not fit to be printed.
func (r *ggufReader) key() (string, error) {
	n, err := r.u64()
	if err != nil {
		return "", err
	}
	b, err := r.bytes(n)
	if err != nil {
		return "", fmt.Errorf("a string: %w", err)
	}
	if n > ggufMaxKey {
		return "", fmt.Errorf("a key of %d bytes, at most %d are allowed", n, ggufMaxKey)
	}
	if i := bytes.IndexFunc(b, func(c rune) bool { return c == utf8.RuneError || unicode.IsControl(c) }); i >= 0 {
		return "", fmt.Errorf("a key at byte %d is no text (byte %#x)", r.at-len(b), b[i])
	}
	return string(b), nil
}

func (r *ggufReader) value(kind uint32, depth int) (any, error) {
	switch kind {
	case ggufString:
		return r.str()
	case ggufArray:
		return r.array(depth)
	}
	v, err := r.scalars(kind, 1)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case []uint8:
		return v[0], nil
	case []int8:
		return v[0], nil
	case []uint16:
		return v[0], nil
	case []int16:
		return v[0], nil
	case []uint32:
		return v[0], nil
	case []int32:
		return v[0], nil
	case []float32:
		return v[0], nil
	case []bool:
		return v[0], nil
	case []uint64:
		return v[0], nil
	case []int64:
		return v[0], nil
	default:
		return v.([]float64)[0], nil
	}
}

func (r *ggufReader) array(depth int) (any, error) {
	if depth >= ggufMaxNesting {
		return nil, fmt.Errorf("arrays are nested deeper than %d", ggufMaxNesting)
	}
	kind, err := r.u32()
	if err != nil {
		return nil, err
	}
	n, err := r.u64()
	if err != nil {
		return nil, err
	}
	switch kind {
	case ggufString:
		if n > uint64(r.left()/8) {
			return nil, fmt.Errorf("an array of %d strings cannot stand in %d bytes", n, r.left())
		}
		out := make([]string, n)
		for i := range out {
			if out[i], err = r.str(); err != nil {
				return nil, fmt.Errorf("element %d of %d: %w", i, n, err)
			}
		}
		return out, nil
	case ggufArray:
		if n > uint64(r.left()/12) {
			return nil, fmt.Errorf("an array of %d arrays cannot stand in %d bytes", n, r.left())
		}
		out := make([]any, n)
		for i := range out {
			if out[i], err = r.array(depth + 1); err != nil {
				return nil, fmt.Errorf("element %d of %d: %w", i, n, err)
			}
		}
		return out, nil
	}
	return r.scalars(kind, n)
}

// scalars reads n numbers or booleans of one kind.
func (r *ggufReader) scalars(kind uint32, n uint64) (any, error) {
	size := map[uint32]uint64{ggufU8: 1, ggufI8: 1, ggufU16: 2, ggufI16: 2, ggufU32: 4, ggufI32: 4, ggufF32: 4, ggufBool: 1, ggufU64: 8, ggufI64: 8, ggufF64: 8}[kind]
	if size == 0 {
		return nil, fmt.Errorf("unknown value type %d", kind)
	}
	if n > uint64(r.left())/size {
		return nil, fmt.Errorf("%d values of %d bytes expected at byte %d, only %d bytes follow (truncated file?)", n, size, r.at, r.left())
	}
	b, err := r.bytes(n * size)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	switch kind {
	case ggufU8:
		return slices.Clone(b), nil
	case ggufI8:
		return convert(b, 1, func(b []byte) int8 { return int8(b[0]) }), nil
	case ggufU16:
		return convert(b, 2, le.Uint16), nil
	case ggufI16:
		return convert(b, 2, func(b []byte) int16 { return int16(le.Uint16(b)) }), nil
	case ggufU32:
		return convert(b, 4, le.Uint32), nil
	case ggufI32:
		return convert(b, 4, func(b []byte) int32 { return int32(le.Uint32(b)) }), nil
	case ggufF32:
		return convert(b, 4, func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) }), nil
	case ggufBool:
		for _, v := range b {
			if v > 1 {
				return nil, fmt.Errorf("expected a boolean (0 or 1), got %d", v)
			}
		}
		return convert(b, 1, func(b []byte) bool { return b[0] == 1 }), nil
	case ggufU64:
		return convert(b, 8, le.Uint64), nil
	case ggufI64:
		return convert(b, 8, func(b []byte) int64 { return int64(le.Uint64(b)) }), nil
	}
	return convert(b, 8, func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) }), nil
}

func convert[T any](b []byte, size int, f func([]byte) T) []T {
	out := make([]T, len(b)/size)
	for i := range out {
		out[i] = f(b[i*size:])
	}
	return out
}

// Keys lists the metadata keys in the order of the file.
func (g *GGUF) Keys() []string { return slices.Clone(g.keys) }

// Value returns a metadata value as it is stored: a number of its own width, bool, string, a slice of one of these, or []any for arrays
// of arrays; nil when the key is not there.
func (g *GGUF) Value(key string) any { return g.values[key] }

// String returns a text value, "" when the key is not there or holds something else.
func (g *GGUF) String(key string) string {
	s, _ := g.values[key].(string)
	return strings.ToValidUTF8(s, string(utf8.RuneError))
}

// Bool returns a boolean; ok is false when the key is not there or holds something else.
func (g *GGUF) Bool(key string) (v, ok bool) {
	v, ok = g.values[key].(bool)
	return v, ok
}

// Int returns a whole number of any width; ok is false when the key is not there, holds something else, or does not fit.
func (g *GGUF) Int(key string) (v int, ok bool) { return toInt(g.values[key]) }

func toInt(v any) (int, bool) {
	switch v := v.(type) {
	case uint8:
		return int(v), true
	case int8:
		return int(v), true
	case uint16:
		return int(v), true
	case int16:
		return int(v), true
	case uint32:
		return int(v), uint64(v) <= math.MaxInt
	case int32:
		return int(v), true
	case uint64:
		return int(v), v <= math.MaxInt
	case int64:
		return int(v), int64(int(v)) == v
	}
	return 0, false
}

// Float returns a number of any kind; ok is false when the key is not there or holds something else.
func (g *GGUF) Float(key string) (v float64, ok bool) {
	switch v := g.values[key].(type) {
	case float32:
		return float64(v), true
	case float64:
		return v, true
	}
	i, ok := g.Int(key)
	return float64(i), ok
}

// Strings returns an array of texts, nil when the key is not there or holds something else. The slice must not be changed.
func (g *GGUF) Strings(key string) []string {
	s, _ := g.values[key].([]string)
	return s
}

// Floats returns an array of float32, nil when the key is not there or holds something else. The slice must not be changed.
func (g *GGUF) Floats(key string) []float32 {
	s, _ := g.values[key].([]float32)
	return s
}

// Ints returns an array of whole numbers of any width, nil when the key is not there or holds something else.
func (g *GGUF) Ints(key string) []int {
	switch v := g.values[key].(type) {
	case []uint8:
		return toInts(v)
	case []int8:
		return toInts(v)
	case []uint16:
		return toInts(v)
	case []int16:
		return toInts(v)
	case []uint32:
		return toInts(v)
	case []int32:
		return toInts(v)
	case []uint64:
		return toInts(v)
	case []int64:
		return toInts(v)
	}
	return nil
}

func toInts[T uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64 | int64](s []T) []int {
	out := make([]int, len(s))
	for i, v := range s {
		out[i] = int(v)
	}
	return out
}
