package backend_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/backendtest"
	"github.com/temper-ml/temper/core/tensor"
)

func TestGeneric(t *testing.T) { backendtest.Run(t, backend.Generic(1)) }

func TestGenericThreads(t *testing.T) { backendtest.RunThreads(t, backend.Generic) }

func TestGenericF32(t *testing.T) {
	// Expanded weights meet the activations as they are: far closer than quantized activations allow.
	typ, in := tensor.Q4_K, 512
	src := make([]byte, typ.RowBytes(in))
	x := make([]float32, in)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)))
	}
	backend.Quantize(src, typ, x)
	w := backend.Weight{DType: typ, Out: 1, In: in, Data: src}
	values, err := w.Values()
	require.NoError(t, err)
	want := 0.0
	for i, v := range values {
		want += float64(v) * float64(x[i])
	}
	dst := make([]float32, 1)
	k := backend.GenericF32(1)
	k.Linear(dst, x, 1, k.Pack(w), backend.Epilogue{})
	require.InDelta(t, want, dst[0], 1e-4)
}

func TestUnpackBlocks(t *testing.T) {
	for _, typ := range []tensor.DType{tensor.Q4_0, tensor.Q4_1, tensor.Q5_0, tensor.Q5_1, tensor.Q8_0, tensor.Q2_K, tensor.Q3_K, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K, tensor.IQ4_NL, tensor.IQ4_XS} {
		form, ok := backend.FormOf(typ)
		require.True(t, ok, typ)
		const n = 512
		src := make([]byte, typ.RowBytes(n))
		for i := range src {
			src[i] = byte(i * 37 % 61) // halves stay finite
		}
		want := make([]float32, n)
		backend.DequantizeRow(want, typ, src)
		v, scale, minimum := make([]byte, n), make([]float32, n/form.Len), make([]float32, n/form.Len)
		backend.UnpackBlocks(v, scale, minimum, typ, src)
		for i := range want {
			got := float64(scale[i/form.Len])*(float64(v[i])-float64(form.Centre)) - float64(minimum[i/form.Len])
			require.InDelta(t, want[i], got, 1e-6*(1+math.Abs(got)), "%s element %d", typ, i)
		}
	}
}

func FuzzGeneric(f *testing.F) { backendtest.Fuzz(f, backend.Generic(2)) }

func BenchmarkGeneric(b *testing.B) { backendtest.Bench(b, backend.Generic(1)) }
