package checkpoint_test

import (
	"bytes"
	"encoding/binary"
	"io/fs"
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

// file builds a safetensors file with a true header length.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func TestParseSafetensorsRefuses(t *testing.T) {
	entry := func(s string) string { return `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},` + s + `}` }
	long := binary.LittleEndian.AppendUint64(nil, 1<<60)
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"empty", "expected an 8-byte header length, the file has 0 bytes", nil},
		{"short", "the file has 7 bytes", make([]byte, 7)},
		{"huge header", "header length 1152921504606846976 is above the limit", append(long, "{}"...)},
		{"header beyond the file", "header of 50 bytes expected, only 2 follow", append([]byte{50, 0, 0, 0, 0, 0, 0, 0}, "{}"...)},
		{"gguf", "this is a GGUF file", []byte("GGUF\x03\x00\x00\x00\x00")},
		{"zip", "a zip archive", []byte("PK\x03\x04aaaaaaaaaa")},
		{"lfs", "Git LFS pointer", []byte("version https://git-lfs.github.com/spec/v1\n")},
		{"not an object", "does not start with '{'", file(`[1]`, 0)},
		{"cut JSON", "JSON ends too early", file(`{"a":`, 0)},
		{"bad JSON", "bad JSON", file(`{"a" 1}`, 0)},
		{"bad UTF-8", "not valid UTF-8", file("{\"\xff\":1}", 0)},
		{"trailing", "bytes follow the closing brace", file(`{} x`, 0)},
		{"value", `tensor "a": expected "{", got 1`, file(`{"a":1}`, 0)},
		{"dtype", `unknown dtype "F31"`, file(`{"a":{"dtype":"F31","shape":[],"data_offsets":[0,4]}}`, 4)},
		{"dtype type", "dtype: expected a string, got 3", file(`{"a":{"dtype":3,"shape":[],"data_offsets":[0,4]}}`, 4)},
		{"missing", "shape is missing", file(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4)},
		{"unknown key", `unknown key "x"`, file(`{"a":{"x":1}}`, 4)},
		{"twice key", `key "dtype" is given twice`, file(`{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}`, 4)},
		{"negative", "expected a whole number", file(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4)},
		{"fraction", "expected a whole number", file(`{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}`, 4)},
		{"overflow", "overflows", file(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, 0)},
		{"beyond int", "expected a whole number", file(`{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,0]}}`, 0)},
		{"dims", "more than 64 numbers", file(`{"a":{"dtype":"F32","shape":[`+strings.Repeat("1,", 64)+`1],"data_offsets":[0,4]}}`, 4)},
		{"offsets count", "expected 2 numbers, got 1", file(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0]}}`, 4)},
		{"offsets size", "needs 4 bytes", file(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,3]}}`, 3)},
		{"backwards", "run backwards", file(`{"a":{"dtype":"F32","shape":[],"data_offsets":[4,0]}}`, 4)},
		{"overlap", "overlap", file(entry(`"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}`), 12)},
		{"hole", "leave a hole", file(entry(`"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}`), 20)},
		{"truncated", "reach beyond the 12 bytes", file(entry(`"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}`), 12)},
		{"tail", "tensors end at byte 8 of 9", file(strings.TrimSuffix(entry(""), ",}")+"}", 9)},
		{"twice", `tensor "a" is given twice`, file(entry(`"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}`), 16)},
		{"metadata type", "__metadata__", file(`{"__metadata__":{"a":1}}`, 0)},
		{"metadata twice", "__metadata__ is given twice", file(`{"__metadata__":{},"__metadata__":{}}`, 0)},
		{"scales", "expected 2 F32 scales", file(`{"__metadata__":{"temper.q8_row":"1"},"a":{"dtype":"I8","shape":[2,2],"data_offsets":[0,4]},"a_scale":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := checkpoint.ParseSafetensors("some.safetensors", c.b)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "some.safetensors")
		})
	}
}

func TestSafetensorsRoundTrip(t *testing.T) {
	in := []tensor.Tensor{
		tensor.FromF32("w", []float32{1, -2, 3, 4, 5, 6}, 2, 3),
		tensor.FromF32("scalar", []float32{7}),
		tensor.FromF32("empty", nil, 0, 3),
		{Name: "ids", DType: tensor.I64, Shape: []int{1}, Data: make([]byte, 8)},
		{Name: "mask", DType: tensor.Bool, Shape: []int{3}, Data: []byte{1, 0, 1}},
		{Name: `odd <&> "name" 中`, DType: tensor.BF16, Shape: []int{1, 1}, Data: []byte{1, 2}},
		{Name: "q.weight", DType: tensor.Q8Row, Shape: []int{2, 3}, Data: []byte{1, 2, 3, 255, 254, 253}, Scales: []float32{0.5, 0.25}},
	}
	path := filepath.Join(t.TempDir(), "m.safetensors")
	require.NoError(t, checkpoint.WriteSafetensors(path, in, map[string]string{"format": "pt"}))
	s, err := checkpoint.OpenSafetensors(path)
	require.NoError(t, err)
	defer s.Close()
	assert.Equal(t, "pt", s.Metadata()["format"])
	assert.Len(t, s.Names(), len(in), "scales are hidden")
	for _, want := range in {
		got, err := s.Tensor(want.Name)
		require.NoError(t, err)
		if len(want.Data) == 0 {
			got.Data, want.Data = nil, nil
		}
		assert.Equal(t, want.Shape, append([]int(nil), got.Shape...), want.Name)
		got.Shape = want.Shape
		assert.Equal(t, want, got)
	}
	_, err = s.Tensor("nope")
	require.ErrorIs(t, err, checkpoint.ErrNoTensor)
	assert.ErrorContains(t, err, `"nope"`)

	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	require.NoError(t, err)
	assert.Empty(t, left, "temporary files stay behind")
}

func TestWriteSafetensorsRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.safetensors")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
	for want, ts := range map[string][]tensor.Tensor{
		"given twice":      {tensor.New("a", 1), tensor.New("a", 1)},
		"reserved":         {tensor.New("__metadata__", 1)},
		"needs 8 bytes":    {{Name: "a", DType: tensor.F32, Shape: []int{2}, Data: make([]byte, 4)}},
		"cannot hold q4_k": {{Name: "a", DType: tensor.Q4_K, Shape: []int{256}, Data: make([]byte, 144)}},
		"1 scales for 2":   {{Name: "a", DType: tensor.Q8Row, Shape: []int{2, 1}, Data: make([]byte, 2), Scales: []float32{1}}},
	} {
		require.ErrorContains(t, checkpoint.WriteSafetensors(path, ts, nil), want)
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "old", string(b), "a failed write changes nothing")
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, list, 1)
	require.ErrorIs(t, checkpoint.WriteSafetensors(filepath.Join(dir, "no", "m"), nil, nil), fs.ErrNotExist)
}

// Files of the reference implementation come back byte for byte.
func TestSafetensorsSameBytesAsReference(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(fixture.Parity(t), "*", "*", "*.safetensors"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		s, err := checkpoint.ParseSafetensors(path, want)
		require.NoError(t, err)
		ts, err := checkpoint.All(s)
		require.NoError(t, err)
		metadata := s.Metadata()
		if len(metadata) == 0 {
			metadata = nil
		}
		var got bytes.Buffer
		require.NoError(t, checkpoint.EncodeSafetensors(&got, ts, metadata))
		assert.True(t, bytes.Equal(want, got.Bytes()), path)
	}
}

func FuzzParseSafetensors(f *testing.F) {
	f.Add(file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8))
	f.Add(file(`{"__metadata__":{"temper.q8_row":"1"},"a":{"dtype":"I8","shape":[1,4],"data_offsets":[0,4]},"a_scale":{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]}}`, 8))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s *checkpoint.Safetensors
		var err error
		fixture.Bounded(t, len(b), 64, 1<<16, func() { s, err = checkpoint.ParseSafetensors("f", b) })
		if err != nil {
			return
		}
		ts, err := checkpoint.All(s)
		if err != nil {
			return
		}
		var out bytes.Buffer
		require.NoError(t, checkpoint.EncodeSafetensors(&out, ts, s.Metadata()))
		again, err := checkpoint.ParseSafetensors("again", out.Bytes())
		require.NoError(t, err)
		require.ElementsMatch(t, s.Names(), again.Names())
	})
}
