package backend_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// quantizeBudgets bound the root mean square error relative to that of normally distributed values (measured, plus a tenth).
var quantizeBudgets = map[tensor.DType]float64{
	tensor.F32: 0, tensor.F16: 2.3e-4, tensor.BF16: 2e-3, tensor.Q8_0: 6e-3, tensor.Q6_K: 2.0e-2, tensor.Q5_K: 4.0e-2, tensor.Q5_1: 4.3e-2, tensor.Q5_0: 4.7e-2,
	tensor.Q4_K: 7.8e-2, tensor.Q4_1: 8.9e-2, tensor.Q4_0: 9.5e-2, tensor.IQ4_NL: 8.4e-2, tensor.IQ4_XS: 8.4e-2, tensor.Q3_K: 0.165, tensor.Q2_K: 0.33,
}

func TestQuantizeError(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, 256*64)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for typ, budget := range quantizeBudgets {
		require.True(t, backend.CanQuantize(typ), typ)
		b := make([]byte, typ.RowBytes(len(x)))
		assert.Equal(t, len(b), backend.Quantize(b, typ, x))
		got, err := backend.Dequantize(tensor.Tensor{DType: typ, Shape: []int{64, 256}, Data: b})
		require.NoError(t, err)
		sum, ref := 0.0, 0.0
		for i, v := range x {
			sum += math.Pow(float64(v)-float64(got[i]), 2)
			ref += float64(v) * float64(v)
		}
		rms := math.Sqrt(sum / ref)
		t.Logf("%-7s %.5f", typ, rms)
		assert.LessOrEqual(t, rms, budget, typ)
		assert.GreaterOrEqual(t, rms, budget*0.75, "the budget of %s is too wide to notice a change", typ)
	}
}

func TestQuantizeCorners(t *testing.T) {
	fill := func(f func(i int) float32) []float32 {
		x := make([]float32, 256)
		for i := range x {
			x[i] = f(i)
		}
		return x
	}
	for name, x := range map[string][]float32{
		"zeros":     fill(func(int) float32 { return 0 }),
		"ones":      fill(func(int) float32 { return 1 }),
		"minus":     fill(func(int) float32 { return -3 }),
		"one value": fill(func(i int) float32 { return float32(i / 255) }),
		"ramp":      fill(func(i int) float32 { return float32(i) - 128 }),
		"tiny":      fill(func(i int) float32 { return float32(i) * 1e-30 }),
	} {
		for typ := range quantizeBudgets {
			b := make([]byte, typ.RowBytes(256))
			backend.Quantize(b, typ, x)
			got := make([]float32, 256)
			backend.DequantizeRow(got, typ, b)
			for i, v := range x {
				require.InDelta(t, v, got[i], 0.3*128, "%s %s", typ, name)
				if v == 0 && name == "zeros" {
					require.Zero(t, got[i], "%s", typ)
				}
			}
		}
	}
	// Values that are not finite must not crash the search.
	for typ := range quantizeBudgets {
		for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1)), math.MaxFloat32} {
			x := fill(func(i int) float32 { return float32(i%7) * v })
			backend.Quantize(make([]byte, typ.RowBytes(256)), typ, x)
		}
	}
	assert.Panics(t, func() { backend.Quantize(make([]byte, 17), tensor.Q4_0, make([]float32, 32)) })
	assert.Panics(t, func() { backend.Quantize(make([]byte, 180), tensor.Q4_0, make([]float32, 33)) })
	assert.Panics(t, func() { backend.Quantize(make([]byte, 180), tensor.I64, make([]float32, 2)) })
	assert.Panics(t, func() { backend.DequantizeRow(make([]float32, 32), tensor.Q4_0, make([]byte, 17)) })
}

func TestQuantizeRows(t *testing.T) {
	x := []float32{1, -2, 0.5, 0, 0, 0}
	b, scales := make([]byte, 6), make([]float32, 2)
	backend.QuantizeRows(b, scales, x, 2, 3)
	assert.Equal(t, []byte{64, 0x81, 32, 0, 0, 0}, b) // 63.5 and 31.75 round to 64 and 32
	assert.Equal(t, []float32{2. / 127, 0}, scales)
	got, err := backend.Dequantize(tensor.Tensor{DType: tensor.Q8Row, Shape: []int{2, 3}, Data: b, Scales: scales})
	require.NoError(t, err)
	assert.InDeltaSlice(t, x, got, 1./127)
}

func TestDequantizeRefuses(t *testing.T) {
	for want, w := range map[string]tensor.Tensor{
		"no whole blocks":   {DType: tensor.Q4_K, Shape: []int{2, 128}, Data: make([]byte, 144)},
		"need 288":          {DType: tensor.Q4_K, Shape: []int{2, 256}, Data: make([]byte, 287)},
		"1 scales for 2":    {DType: tensor.Q8Row, Shape: []int{2, 1}, Data: make([]byte, 2), Scales: make([]float32, 1)},
		"need 8":            {DType: tensor.F32, Shape: []int{2}, Data: make([]byte, 7)},
		"cannot read dtype": {DType: tensor.Invalid, Shape: []int{0}},
	} {
		_, err := backend.Dequantize(w)
		if want == "cannot read dtype" {
			assert.Error(t, err)
			continue
		}
		assert.ErrorContains(t, err, want)
	}
}

func FuzzDequantize(f *testing.F) {
	f.Add(byte(0), make([]byte, 210))
	types := []tensor.DType{}
	for d := tensor.F16; d <= tensor.IQ4_XS; d++ {
		if backend.CanQuantize(d) {
			types = append(types, d)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		d := types[int(kind)%len(types)]
		backend.DequantizeRow(make([]float32, len(b)/d.BlockBytes()*d.BlockLen()), d, b)
	})
}
