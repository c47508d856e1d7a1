package backendtest

import (
	"math"
	"testing"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

var blockTypes = []tensor.DType{tensor.Q4_0, tensor.Q4_1, tensor.Q5_0, tensor.Q5_1, tensor.Q8_0, tensor.Q2_K, tensor.Q3_K, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K,
	tensor.IQ4_NL, tensor.IQ4_XS}

// blockWeight draws random blocks with sane scales: the halves at the places where the type keeps its d and dmin are set to small numbers.
func (o *operands) blockWeight(typ tensor.DType, out, in int) backend.Weight {
	w := backend.Weight{DType: typ, Out: out, In: in, Data: guardedBytes(o.t, out*typ.RowBytes(in))}
	for i := range w.Data {
		w.Data[i] = byte(o.rng.Uint32())
	}
	halves := map[tensor.DType][]int{tensor.Q4_1: {0, 2}, tensor.Q5_1: {0, 2}, tensor.Q2_K: {80, 82}, tensor.Q3_K: {108}, tensor.Q4_K: {0, 2}, tensor.Q5_K: {0, 2}, tensor.Q6_K: {208}}[typ]
	if halves == nil {
		halves = []int{0}
	}
	size := typ.BlockBytes()
	for b := 0; b < len(w.Data); b += size {
		for _, at := range halves {
			h := tensor.F32ToF16(float32(0.001 + 0.01*o.rng.Float64()))
			w.Data[b+at], w.Data[b+at+1] = byte(h), byte(h>>8)
		}
	}
	return w
}

// mixedWeights takes weights of different kinds in turn, in sizes that go up and down: what kernels keep between calls must not be short of any.
func mixedWeights(t *testing.T, k backend.Kernels) {
	ref := backend.Generic(1)
	o := newOperands(t, 5)
	for _, s := range []struct {
		typ      tensor.DType
		rows, in int
	}{{tensor.Q4_0, 1, 512}, {tensor.Q8Row, 30, 8}, {tensor.Q6_K, 3, 256}, {tensor.Q8Row, 2, 600}, {tensor.F32, 40, 30}, {tensor.Q8_0, 20, 64}, {tensor.Q8Row, 41, 33}} {
		const out = 33
		var w backend.Weight
		switch s.typ {
		case tensor.Q8Row:
			w = o.int8Weight(out, s.in)
		case tensor.F32:
			w = f32Weight(o.normal(out*s.in), out, s.in)
		default:
			w = o.blockWeight(s.typ, out, s.in)
		}
		x, got, want := o.normal(s.rows*s.in), o.zeros(s.rows*out), make([]float32, s.rows*out)
		k.Linear(got, x, s.rows, k.Pack(w), backend.Epilogue{})
		ref.Linear(want, x, s.rows, ref.Pack(w), backend.Epilogue{})
		compare(t, got, want, 1e-3, name("%s of %dx%d", s.typ, s.rows, s.in))
	}
}

// linearBlocks checks products with GGUF's block types against the values that Dequantize gives: exactly as far as the quantized activations
// allow.
func linearBlocks(t *testing.T, k backend.Kernels) {
	ref := backend.Generic(1)
	for j, typ := range blockTypes {
		for i, rows := range []int{0, 1, 2, 5, 6, 7, 13, 33} {
			in := 256 * (1 + (i+j)%3)
			if typ.BlockLen() == 32 {
				in += 32 * (i % 5)
			}
			out := []int{1, 31, 33, 64, 70}[(i+j)%5]
			o := newOperands(t, uint64(i*100+j))
			w := o.blockWeight(typ, out, in)
			x := o.normal(rows * in)
			for q := range min(40, len(x)) {
				x[q] = 0 // a block of zeros
			}
			values, err := w.Values()
			if err != nil {
				t.Fatal(err)
			}
			got, want := o.zeros(rows*out), make([]float32, rows*out)
			k.Linear(got, x, rows, k.Pack(w), backend.Epilogue{})
			ref.Linear(want, x, rows, ref.Pack(w), backend.Epilogue{})
			for r := range rows {
				for c := range out {
					var sum, mass, step float64
					for b := 0; b < in; b += backend.ActivationBlock {
						top, weights := 0.0, 0.0
						for q := b; q < b+backend.ActivationBlock; q++ {
							v := float64(values[c*in+q])
							sum += v * float64(x[r*in+q])
							mass += math.Abs(v * float64(x[r*in+q]))
							weights += math.Abs(v)
							top = max(top, math.Abs(float64(x[r*in+q])))
						}
						step += weights * top / 254
					}
					near(t, got[r*out+c], sum, step*1.001+reduction(in, mass), "%s linear %dx%dx%d [%d,%d]", typ, rows, out, in, r, c)
					// The integers are the same; sums of blocks may be fused or not. Minima make the parts larger than their sum.
					near(t, got[r*out+c], float64(want[r*out+c]), 4*reduction(in/16, mass+step), "%s linear %dx%dx%d [%d,%d] against generic", typ, rows, out, in, r, c)
				}
			}
			if rows > 1 {
				alone := o.zeros(out)
				k.Linear(alone, x[in:2*in], 1, k.Pack(w), backend.Epilogue{})
				same(t, alone, got[out:2*out], "%s linear: a row alone", typ)
				ep := backend.Epilogue{Bias: o.normal(out), Act: backend.SiLU}
				with := o.zeros(rows * out)
				k.Linear(with, x, rows, k.Pack(w), ep)
				for q := range with {
					v := float64(got[q]) + float64(ep.Bias[q%out])
					near(t, with[q], oracleAct(v, ep.Act), elementwise(v, v), "%s linear with epilogue", typ)
				}
			}
		}
	}
}
