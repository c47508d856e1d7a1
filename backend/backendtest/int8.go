package backendtest

import (
	"math"
	"testing"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// int8Weight draws a tensor.Q8Row weight; its bytes end at a guard page.
func (o *operands) int8Weight(out, in int) backend.Weight {
	w := backend.Weight{DType: tensor.Q8Row, Out: out, In: in, Data: guardedBytes(o.t, out*in), Scales: o.zeros(out)}
	for i := range w.Data {
		w.Data[i] = byte(int8(o.rng.IntN(255) - 127))
	}
	for i := range w.Scales {
		w.Scales[i] = float32(0.5+o.rng.Float64()) / 127
	}
	return w
}

// linearInt8 checks integer products: near the float64 product within what rounding activations to 8 bits may cost, and equal to Generic in
// every bit.
func linearInt8(t *testing.T, k backend.Kernels) {
	ref := backend.Generic(1)
	for i, rows := range linearRows {
		for j, s := range [][2]int{{1, 1}, {5, 3}, {16, 4}, {17, 15}, {31, 33}, {32, 64}, {33, 100}, {48, 384}, {65, 257}, {2, 1024}, {100, 7}, {40, 0}} {
			out, in := s[0], s[1]
			o := newOperands(t, uint64(i*100+j))
			w := o.int8Weight(out, in)
			x := o.normal(rows * in)
			switch (i + j) % 4 {
			case 1: // one-sided, as after an activation
				for q := range x {
					x[q] = max(x[q], 0)
				}
			case 2: // all-zero row, extremes
				for q := range min(in, len(x)) {
					x[q] = 0
				}
			case 3:
				for q := range x {
					x[q] = -float32(math.Abs(float64(x[q]))) * 1000
				}
			}
			got, want := o.zeros(rows*out), make([]float32, rows*out)
			k.Linear(got, x, rows, k.Pack(w), backend.Epilogue{})
			ref.Linear(want, x, rows, ref.Pack(w), backend.Epilogue{})
			same(t, got, want, "int8 linear %d rows %v against generic", rows, s)
			for r := range rows {
				lo, hi := 0.0, 0.0
				for _, v := range x[r*in : (r+1)*in] {
					lo, hi = min(lo, float64(v)), max(hi, float64(v))
				}
				for c := range out {
					var sum, mass float64
					for q := range in {
						v := float64(int8(w.Data[c*in+q])) * float64(w.Scales[c])
						sum += v * float64(x[r*in+q])
						mass += math.Abs(v)
					}
					// Half a step of rounding, and as much for the zero point's own rounding at the ends of the range.
					near(t, got[r*out+c], sum, mass*(hi-lo)/255*1.001+1e-6, "int8 linear %d rows %v [%d,%d]", rows, s, r, c)
				}
			}
			ep := backend.Epilogue{Bias: o.normal(out), Act: backend.GELU, Residual: o.normal(rows * out), Pre: o.zeros(rows * out)}
			k.Linear(got, x, rows, k.Pack(w), ep)
			pre := append([]float32(nil), ep.Pre...)
			ref.Linear(want, x, rows, ref.Pack(w), ep)
			same(t, pre, ep.Pre, "int8 linear %d rows %v before its activation", rows, s)
			for q := range got {
				near(t, got[q], float64(want[q]), elementwise(float64(pre[q]), float64(want[q]))+2*u*math.Abs(float64(ep.Residual[q])), "int8 linear %d rows %v with epilogue [%d]", rows, s, q)
			}
			if rows > 1 {
				alone := o.zeros(out)
				k.Linear(alone, x[in:2*in], 1, k.Pack(w), backend.Epilogue{})
				k.Linear(got, x, rows, k.Pack(w), backend.Epilogue{})
				same(t, alone, got[out:2*out], "int8 linear: a row alone")
			}
		}
	}
}

// weightTypes checks Linear for the other storage types against float32 weights of the same values.
func weightTypes(t *testing.T, k backend.Kernels) {
	const rows, out, in = 3, 37, 64
	o := newOperands(t, 3)
	values, x := o.normal(out*in), o.normal(rows*in)
	half, brain := make([]uint16, out*in), make([]uint16, out*in)
	for i, v := range values {
		half[i], brain[i] = tensor.F32ToF16(v), tensor.F32ToBF16(v)
	}
	for _, w := range []backend.Weight{{DType: tensor.F16, Out: out, In: in, Data: tensor.Bytes(half)}, {DType: tensor.BF16, Out: out, In: in, Data: tensor.Bytes(brain)}} {
		v, err := w.Values()
		if err != nil {
			t.Fatal(err)
		}
		got, want := o.zeros(rows*out), o.zeros(rows*out)
		k.Linear(got, x, rows, k.Pack(w), backend.Epilogue{})
		backend.Generic(1).Linear(want, x, rows, backend.Generic(1).Pack(f32Weight(v, out, in)), backend.Epilogue{})
		compare(t, got, want, 1e-5, w.DType.String()+" weights")
	}
	mustPanic(t, "packing an unknown type", func() { k.Pack(backend.Weight{DType: tensor.Bool + 100, Out: 1, In: 1, Data: make([]byte, 64)}) })
	mustPanic(t, "packing without scales", func() {
		k.Pack(backend.Weight{DType: tensor.Q8Row, Out: 2, In: 2, Data: make([]byte, 4), Scales: make([]float32, 1)})
	})
}
