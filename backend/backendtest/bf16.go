package backendtest

import (
	"testing"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// bf16Shapes are those of whole products; bf16Tiles adds every height of a tile at one vector of columns and at two.
var bf16Shapes = [][3]int{{1, 1, 1}, {1, 33, 7}, {3, 16, 2}, {13, 40, 65}, {14, 64, 300}, {29, 100, 1025}, {70, 17, 1}, {5, 5, 0}, {2, 130, 64}, {65, 300, 1100}, {33, 64, 1024}}

func bf16Tiles() [][3]int {
	shapes := bf16Shapes
	for rows := 1; rows <= 34; rows++ {
		shapes = append(shapes, [3]int{rows, 16, 37}, [3]int{rows, 40, 6})
	}
	return shapes
}

// RunBF16 checks products that round their operands to bfloat16 against float32 products of rounded operands, and that all of ks, kernels of one level on
// several threads, give the same bits.
func RunBF16(t *testing.T, ks ...backend.Kernels) {
	var last [][]float32
	ref := backend.Generic(1)
	for _, k := range ks {
		o := newOperands(t, 1)
		var results [][]float32
		for i, s := range bf16Tiles() {
			m, n, kk := s[0], s[1], s[2]
			for mode := range 8 {
				g := backend.MatMulArgs{M: m, N: n, K: kk, TransA: mode&1 != 0, TransB: mode&2 != 0, Accumulate: mode&4 != 0, Alpha: []float32{1, 0.5}[(i+mode/3)%2]}
				ra, ca, rb, cb := m, kk, kk, n
				if g.TransA {
					ra, ca = ca, ra
				}
				if g.TransB {
					rb, cb = cb, rb
				}
				g.LDA, g.LDB, g.LDC = ca+1, cb+3*(mode&1), n+2*(i%2)
				g.A, g.B, g.C = o.normal(matrixLen(ra, ca, g.LDA)), o.normal(matrixLen(rb, cb, g.LDB)), o.normal(matrixLen(m, n, g.LDC))
				want := g
				want.A, want.B, want.C = roundedBF16(g.A), roundedBF16(g.B), append([]float32(nil), g.C...)
				k.MatMul(g)
				ref.MatMul(want)
				compare(t, g.C, want.C, 2e-5*(1+float64(kk)/16), name("bf16 matmul %v mode %d", s, mode))
				results = append(results, g.C)
			}
			w, x, got, want := o.normal(n*kk), o.normal(m*kk), o.zeros(m*n), make([]float32, m*n)
			ep := backend.Epilogue{}
			if i%3 != 0 {
				ep.Bias = o.normal(n)
			}
			if i%3 == 2 {
				ep.Residual = o.normal(m * n)
			}
			packed := k.Pack(f32Weight(w, n, kk))
			k.Linear(got, x, m, packed, ep)
			ref.Linear(want, roundedBF16(x), m, ref.Pack(f32Weight(roundedBF16(w), n, kk)), ep)
			compare(t, got, want, 2e-5*(1+float64(kk)/16), name("bf16 linear %v", s))
			results = append(results, got)
			if m > 1 && kk > 0 {
				alone := o.zeros(n)
				if ep.Residual != nil {
					ep.Residual = ep.Residual[n : 2*n]
				}
				k.Linear(alone, x[kk:2*kk], 1, packed, ep)
				same(t, alone, got[n:2*n], "bf16 linear %v: a row alone", s)
			}
		}
		for i := range last {
			same(t, results[i], last[i], "bf16 product %d on %d threads", i, k.Threads())
		}
		last = results
	}
}

// FuzzBF16 is the same at shapes that the fuzzer picks; the seed picks among ks, which round to bfloat16.
func FuzzBF16(f *testing.F, ks ...backend.Kernels) {
	f.Add(uint64(1), uint16(33), uint16(70), uint16(65), byte(0))
	f.Add(uint64(2), uint16(64), uint16(32), uint16(1100), byte(7))
	ref := backend.Generic(1)
	f.Fuzz(func(t *testing.T, seed uint64, m16, n16, k16 uint16, flags byte) {
		k, o := ks[seed%uint64(len(ks))], newOperands(t, seed)
		m, n, kk := int(m16%90), int(n16%140), int(k16%1200)
		g := o.matMul(m, n, kk, flags)
		want := g
		want.A, want.B, want.C = roundedBF16(g.A), roundedBF16(g.B), append([]float32(nil), g.C...)
		k.MatMul(g)
		ref.MatMul(want)
		compare(t, g.C, want.C, 2e-5*(1+float64(kk)/16), "bf16 matmul")
		w, x, got, linear := o.normal(n*kk), o.normal(m*kk), o.zeros(m*n), make([]float32, m*n)
		ep := backend.Epilogue{Bias: o.normal(n)}
		k.Linear(got, x, m, k.Pack(f32Weight(w, n, kk)), ep)
		ref.Linear(linear, roundedBF16(x), m, ref.Pack(f32Weight(roundedBF16(w), n, kk)), ep)
		compare(t, got, linear, 2e-5*(1+float64(kk)/16), "bf16 linear")
	})
}

// roundedBF16 rounds as the kernels do.
func roundedBF16(v []float32) []float32 {
	r := make([]float32, len(v))
	for i, x := range v {
		r[i] = tensor.BF16ToF32(tensor.F32ToBF16(x))
	}
	return r
}
