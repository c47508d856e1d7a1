package parity_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/tests/fixture"
)

// ggufFolders lists parity/gguf/<family>.
func ggufFolders(t *testing.T) []string {
	found, err := filepath.Glob(filepath.Join(fixture.Parity(t), "gguf", "*", "expected.safetensors"))
	require.NoError(t, err)
	if len(found) == 0 && os.Getenv("TEMPER_PARITY") != "" { // a folder that is named may hold some of the kinds only
		t.Skip("no GGUF fixtures")
	}
	require.NotEmpty(t, found)
	for i, f := range found {
		found[i] = filepath.Dir(f)
	}
	return found
}

func openGGUF(t *testing.T, path string) *checkpoint.GGUF {
	g, err := checkpoint.OpenGGUF(path)
	require.NoError(t, err)
	t.Cleanup(func() { g.Close() })
	return g
}

func openSafetensors(t *testing.T, path string) *checkpoint.Safetensors {
	s, err := checkpoint.OpenSafetensors(path)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// Every block type expands to the bits of gguf-py.
func TestGGUFDequantized(t *testing.T) {
	types := map[tensor.DType]bool{}
	for _, dir := range ggufFolders(t) {
		expected := openSafetensors(t, filepath.Join(dir, "expected.safetensors"))
		for _, key := range expected.Names() {
			kind, name, ok := strings.Cut(key, ".dequantized.")
			if !ok {
				continue
			}
			g := openGGUF(t, filepath.Join(dir, "model-"+kind+".gguf"))
			w, err := g.Tensor(name)
			require.NoError(t, err)
			got, err := backend.Dequantize(w)
			require.NoError(t, err)
			e, err := expected.Tensor(key)
			require.NoError(t, err)
			want, err := e.F32()
			require.NoError(t, err)
			assert.Equal(t, w.Cols(), e.Cols())
			if !slices.Equal(want, got[:len(want)]) {
				t.Errorf("%s: %s (%s) differs", filepath.Base(dir), key, w.DType)
			}
			types[w.DType] = true
		}
	}
	for _, d := range []tensor.DType{tensor.F16, tensor.Q4_0, tensor.Q4_1, tensor.Q5_0, tensor.Q5_1, tensor.Q8_0, tensor.Q2_K, tensor.Q3_K, tensor.Q4_K,
		tensor.Q5_K, tensor.Q6_K, tensor.IQ4_NL, tensor.IQ4_XS} {
		assert.True(t, types[d], "no fixture covers %s", d)
	}
}

// Quantizing llama's float32 file gives what llama.cpp's quantizer made of it, byte for byte on amd64. Elsewhere Go may fuse the sums of the
// searched types, which then agree nearly always and with no larger an error.
func TestGGUFQuantized(t *testing.T) {
	dir := filepath.Join(fixture.Parity(t), "gguf", "llama")
	float := openGGUF(t, filepath.Join(dir, "model-F32.gguf"))
	files, err := filepath.Glob(filepath.Join(dir, "model-*.gguf"))
	require.NoError(t, err)
	same, all := map[tensor.DType]int{}, map[tensor.DType]int{}
	for _, path := range files {
		g := openGGUF(t, path)
		for _, name := range g.Names() {
			want, err := g.Tensor(name)
			require.NoError(t, err)
			x, err := float.Tensor(name)
			require.NoError(t, err)
			values, err := x.F32()
			require.NoError(t, err)
			got := want
			got.Data = make([]byte, len(want.Data))
			require.Equal(t, len(got.Data), backend.Quantize(got.Data, want.DType, values))
			n := want.DType.BlockBytes()
			for i := 0; i < len(got.Data); i += n {
				all[want.DType]++
				if bytes.Equal(got.Data[i:i+n], want.Data[i:i+n]) {
					same[want.DType]++
				}
			}
			ours, theirs := squaredError(t, got, values), squaredError(t, want, values)
			assert.LessOrEqual(t, ours, theirs*1.0005+1e-12, "%s %s: error of %s", filepath.Base(path), name, want.DType)
		}
	}
	for d, n := range all {
		t.Logf("%-7s %6d of %6d blocks are equal", d, same[d], n)
		if runtime.GOARCH == "amd64" {
			assert.Equal(t, n, same[d], d)
		} else {
			assert.Greater(t, float64(same[d]), 0.9*float64(n), d)
		}
	}
}

func squaredError(t *testing.T, w tensor.Tensor, values []float32) float64 {
	got, err := backend.Dequantize(w)
	require.NoError(t, err)
	sum := 0.0
	for i, v := range values {
		d := float64(got[i]) - float64(v)
		sum += d * d
	}
	return sum
}
