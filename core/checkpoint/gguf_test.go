package checkpoint_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/tests/fixture"
)

// bin builds a file from little-endian numbers and strings ("s:" strings get their length in front).
func bin(parts ...any) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b.WriteString(p)
		case str:
			b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(p))))
			b.WriteString(string(p))
		case int:
			b.Write(binary.LittleEndian.AppendUint64(nil, uint64(p)))
		default:
			if err := binary.Write(&b, binary.LittleEndian, p); err != nil {
				panic(err)
			}
		}
	}
	return b.Bytes()
}

type str string

// u is a 32-bit number.
type u = uint32

var everyKind = []checkpoint.KV{
	{Key: "general.architecture", Value: "llama"},
	{Key: "u8", Value: uint8(200)}, {Key: "i8", Value: int8(-5)}, {Key: "u16", Value: uint16(60000)}, {Key: "i16", Value: int16(-300)},
	{Key: "u32", Value: uint32(4e9)}, {Key: "i32", Value: int32(-7)}, {Key: "u64", Value: uint64(1 << 40)}, {Key: "i64", Value: int64(-1 << 40)},
	{Key: "f32", Value: float32(1.5)}, {Key: "f64", Value: 2.5}, {Key: "bool", Value: true}, {Key: "string", Value: "中 text"},
	{Key: "strings", Value: []string{"a", "", "b"}}, {Key: "bools", Value: []bool{true, false}}, {Key: "f32s", Value: []float32{1, 2}},
	{Key: "i32s", Value: []int32{-1, 2}}, {Key: "u8s", Value: []uint8{1, 2, 3}}, {Key: "none", Value: []uint32{}},
	{Key: "nested", Value: []any{[]int32{1}, []string{"x"}, []any{[]bool{true}}}},
}

func data(b []byte) func() ([]byte, error) { return func() ([]byte, error) { return b, nil } }

func TestGGUFRoundTrip(t *testing.T) {
	f32 := tensor.FromF32("a", []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	q4 := make([]byte, tensor.Q4_0.RowBytes(64))
	for i := range q4 {
		q4[i] = byte(i)
	}
	tensors := []checkpoint.GGUFTensor{
		{Name: "a", DType: tensor.F32, Shape: []int{2, 3}, Data: data(f32.Data)},
		{Name: "q", DType: tensor.Q4_0, Shape: []int{2, 32}, Data: data(q4)},
		{Name: "empty", DType: tensor.F32, Shape: []int{0}, Data: data(nil)},
	}
	for _, align := range []uint32{32, 256} {
		path := filepath.Join(t.TempDir(), "m.gguf")
		kv := append([]checkpoint.KV{{Key: "general.alignment", Value: align}}, everyKind...)
		require.NoError(t, checkpoint.WriteGGUF(path, kv, tensors))
		g, err := checkpoint.OpenGGUF(path)
		require.NoError(t, err)
		defer g.Close()
		assert.Equal(t, 3, g.Version())
		assert.Equal(t, "general.architecture", g.Keys()[0])
		for _, want := range kv {
			assert.Equal(t, want.Value, g.Value(want.Key), want.Key)
		}
		assert.Equal(t, []string{"a", "q", "empty"}, g.Names())
		a, err := g.Tensor("a")
		require.NoError(t, err)
		assert.Equal(t, []int{2, 3}, a.Shape)
		assert.Equal(t, f32.Data, a.Data)
		q, err := g.Tensor("q")
		require.NoError(t, err)
		assert.Equal(t, q4, q.Data)
		_, err = g.Tensor("b")
		require.ErrorIs(t, err, checkpoint.ErrNoTensor)
	}
}

func TestGGUFTypedAccess(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, checkpoint.EncodeGGUF(&b, everyKind, nil))
	g, err := checkpoint.ParseGGUF("f", b.Bytes())
	require.NoError(t, err)
	for key, want := range map[string]int{"u8": 200, "i8": -5, "u16": 60000, "i16": -300, "u32": 4e9, "i32": -7, "u64": 1 << 40, "i64": -1 << 40} {
		v, ok := g.Int(key)
		assert.True(t, ok, key)
		assert.Equal(t, want, v, key)
	}
	for _, key := range []string{"absent", "f32", "bool", "strings"} {
		_, ok := g.Int(key)
		assert.False(t, ok, key)
	}
	for key, want := range map[string]float64{"f32": 1.5, "f64": 2.5, "i32": -7} {
		v, ok := g.Float(key)
		assert.True(t, ok)
		assert.Equal(t, want, v)
	}
	v, ok := g.Bool("bool")
	assert.True(t, v && ok)
	_, ok = g.Bool("u8")
	assert.False(t, ok)
	assert.Equal(t, "中 text", g.String("string"))
	assert.Empty(t, g.String("u8"))
	assert.Equal(t, []string{"a", "", "b"}, g.Strings("strings"))
	assert.Equal(t, []float32{1, 2}, g.Floats("f32s"))
	assert.Equal(t, []int{-1, 2}, g.Ints("i32s"))
	assert.Nil(t, g.Ints("strings"))
}

func TestParseGGUFRefuses(t *testing.T) {
	head := func(tensors, values int, rest ...any) []byte {
		return append(bin(append([]any{"GGUF", u(3), tensors, values}, rest...)...), make([]byte, 64)...)
	}
	one := func(rest ...any) []byte { return head(1, 0, rest...) }
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"empty", `expected the magic "GGUF", got ""`, nil},
		{"magic", `got "GGML"`, []byte("GGML0000")},
		{"cut", "truncated", []byte("GGUF\x03\x00")},
		{"version 1", "version 1 is not supported, expected 2 or 3", bin("GGUF", u(1), 0, 0)},
		{"version 9", "version 9 is not supported", bin("GGUF", u(9), 0, 0)},
		{"big-endian", "big-endian", bin("GGUF", u(3<<24), 0, 0)},
		{"counts", "cannot stand in", head(1<<60, 0)},
		{"values", "cannot stand in", head(0, 1<<60)},
		{"negative", "cannot stand in", head(-1, 0)},
		{"key length", "bytes expected at byte", head(0, 1, 1<<60)},
		{"key without end", "a key of 65536 bytes", head(0, 1, str(strings.Repeat("k", 1<<16)))},
		{"key of bytes", "is no text (byte 0x0)", head(0, 1, str("a\x00b"), u(13))},
		{"value type", `key "k": unknown value type 13`, head(0, 1, str("k"), u(13))},
		{"bool", "expected a boolean", head(0, 1, str("k"), u(7), uint8(2))},
		{"string length", "a string:", head(0, 1, str("k"), u(8), 1<<40)},
		{"array length", "values of 4 bytes expected", head(0, 1, str("k"), u(9), u(4), 1<<62)},
		{"array of strings", "an array of 4611686018427387904 strings cannot stand", head(0, 1, str("k"), u(9), u(8), 1<<62)},
		{"array of arrays", "arrays cannot stand", head(0, 1, str("k"), u(9), u(9), 1<<62)},
		{"nesting", "nested deeper than 4", head(0, 1, str("k"), u(9), u(9), 1, u(9), 1, u(9), 1, u(9), 1, u(4), 0)},
		{"twice", `key "k" is given twice`, head(0, 2, str("k"), u(0), uint8(1), str("k"), u(0), uint8(1))},
		{"alignment zero", "expected a power of two", head(0, 1, str("general.alignment"), u(4), u(0))},
		{"alignment odd", "expected a power of two", head(0, 1, str("general.alignment"), u(4), u(24))},
		{"alignment type", "expected a power of two", head(0, 1, str("general.alignment"), u(8), str("32"))},
		{"no name", "a name of 0 bytes", one(str(""), u(1), 4, u(0), 0)},
		{"dims", "5 dimensions, at most 4", one(str("a"), u(5), 1, 1, 1, 1, 1, u(0), 0)},
		{"dim", "dimension 9223372036854775808 overflows", one(str("a"), u(1), -1<<63, u(0), 0)},
		{"shape", "overflows", one(str("a"), u(2), 1<<40, 1<<40, u(0), 0)},
		{"type", "unknown tensor type 77", one(str("a"), u(1), 4, u(77), 0)},
		{"block", "rows of 31 elements are no whole blocks of Q4_0", one(str("a"), u(1), 31, u(2), 0)},
		{"offset", "offset 8 is not a multiple of the alignment 32", one(str("a"), u(1), 4, u(0), 8)},
		{"offset overflow", "overflows", one(str("a"), u(1), 4, u(0), -1<<63)},
		{"offset beyond", "reach beyond", one(str("a"), u(1), 4, u(0), 1<<40)},
		{"data beyond", "reach beyond", one(str("a"), u(1), 1<<20, u(0), 0)},
		{"overlap", `tensor "b" at byte 0 overlaps "a"`, head(2, 0, str("a"), u(1), 4, u(0), 0, str("b"), u(1), 4, u(0), 0)},
		{"tensor twice", `"a" is given twice`, head(2, 0, str("a"), u(1), 4, u(0), 0, str("a"), u(1), 4, u(0), 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := checkpoint.ParseGGUF("some.gguf", c.b)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "some.gguf")
		})
	}
	// Cut anywhere, a file gives an error or (in its last padding) the same tensors; it never panics.
	whole, err := os.ReadFile(filepath.Join(fixture.Parity(t), "gguf", "qwen2", "model-Q4_K_M.gguf"))
	require.NoError(t, err)
	for cut := 0; cut < 8000; cut += 13 {
		_, err := checkpoint.ParseGGUF("cut", whole[:cut])
		require.Error(t, err, cut)
	}
	_, err = checkpoint.ParseGGUF("cut", whole[:len(whole)-512])
	require.ErrorContains(t, err, "reach beyond")
}

func TestEncodeGGUFRefuses(t *testing.T) {
	for want, f := range map[string]func() error{
		"given twice": func() error {
			return checkpoint.EncodeGGUF(&bytes.Buffer{}, []checkpoint.KV{{Key: "a", Value: true}, {Key: "a", Value: true}}, nil)
		},
		"cannot hold a struct {}": func() error {
			return checkpoint.EncodeGGUF(&bytes.Buffer{}, []checkpoint.KV{{Key: "a", Value: struct{}{}}}, nil)
		},
		"cannot hold q8_row": func() error {
			return checkpoint.EncodeGGUF(&bytes.Buffer{}, nil, []checkpoint.GGUFTensor{{Name: "a", DType: tensor.Q8Row, Shape: []int{1}, Data: data(nil)}})
		},
		"no whole blocks": func() error {
			return checkpoint.EncodeGGUF(&bytes.Buffer{}, nil, []checkpoint.GGUFTensor{{Name: "a", DType: tensor.Q4_K, Shape: []int{1, 32}, Data: data(nil)}})
		},
		"needs 8 bytes, got 4": func() error {
			return checkpoint.EncodeGGUF(&bytes.Buffer{}, nil, []checkpoint.GGUFTensor{{Name: "a", DType: tensor.F32, Shape: []int{2}, Data: data(make([]byte, 4))}})
		},
	} {
		require.ErrorContains(t, f(), want)
	}
}

// A file of llama.cpp, read and written again, is the same file but for what its writer leaves in the padding.
func TestGGUFSameAsReference(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(fixture.Parity(t), "gguf", "*", "*.gguf"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		g, err := checkpoint.ParseGGUF(path, want)
		require.NoError(t, err)
		var kv []checkpoint.KV
		for _, k := range g.Keys() {
			kv = append(kv, checkpoint.KV{Key: k, Value: g.Value(k)})
		}
		var ts []checkpoint.GGUFTensor
		for _, n := range g.Names() {
			x, err := g.Tensor(n)
			require.NoError(t, err)
			ts = append(ts, checkpoint.GGUFTensor{Name: n, DType: x.DType, Shape: x.Shape, Data: data(x.Data)})
		}
		var got bytes.Buffer
		require.NoError(t, checkpoint.EncodeGGUF(&got, kv, ts))
		assert.True(t, bytes.Equal(want, got.Bytes()), path)
	}
}

func FuzzParseGGUF(f *testing.F) {
	var b bytes.Buffer
	if err := checkpoint.EncodeGGUF(&b, everyKind, []checkpoint.GGUFTensor{{Name: "a", DType: tensor.Q4_0, Shape: []int{1, 32}, Data: data(make([]byte, 18))}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(bin("GGUF", u(3), 0, 1, str("k"), u(9), u(9), 1, u(4), 1, u(7)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var g *checkpoint.GGUF
		var err error
		// A key of one byte and a number of one byte become an entry of a map each.
		fixture.Bounded(t, len(b), 64, 1<<16, func() { g, err = checkpoint.ParseGGUF("f", b) })
		if err != nil {
			return
		}
		for _, n := range g.Names() {
			_, _ = g.Tensor(n)
		}
		_, _ = g.ConfigJSON()
		if s, err := g.Source(); err == nil {
			_, _ = checkpoint.All(s)
		}
	})
}
