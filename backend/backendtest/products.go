package backendtest

import (
	"math"
	"testing"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

func f32Weight(w []float32, out, in int) backend.Weight {
	return backend.Weight{DType: tensor.F32, Out: out, In: in, Data: tensor.Bytes(w)}
}

// productShapes straddle the widths of vectors (4, 8, 16) and of register tiles (6, 12, 14, 16, 32), and the blocks of the long loops.
var productShapes = [][3]int{
	{0, 3, 3}, {3, 0, 3}, {3, 3, 0}, {1, 1, 1}, {1, 7, 5}, {2, 8, 16}, {3, 9, 17}, {4, 15, 31}, {5, 16, 32}, {6, 17, 33}, {7, 31, 15}, {8, 32, 64},
	{11, 33, 7}, {12, 47, 65}, {13, 48, 100}, {14, 49, 129}, {15, 63, 3}, {16, 64, 256}, {17, 65, 257}, {29, 95, 511}, {33, 97, 70},
	{1, 130, 513}, {64, 33, 300}, {97, 17, 385}, {130, 70, 600}, {1, 160, 40}, {2, 290, 33}, {3, 129, 17},
}

func matMul(t *testing.T, k backend.Kernels) {
	for i, s := range productShapes {
		for mode := range 8 {
			o := newOperands(t, uint64(i*8+mode))
			m, n, kk := s[0], s[1], s[2]
			g := backend.MatMulArgs{M: m, N: n, K: kk, TransA: mode&1 != 0, TransB: mode&2 != 0, Accumulate: mode&4 != 0}
			g.Alpha = []float32{0, 1, -0.5}[(i+mode)%3]
			ra, ca, rb, cb := m, kk, kk, n
			if g.TransA {
				ra, ca = ca, ra
			}
			if g.TransB {
				rb, cb = cb, rb
			}
			pad := []int{0, 1, 5}[(i+mode/3)%3]
			g.LDA, g.LDB, g.LDC = ca+pad, cb+pad*2, n+pad
			g.A, g.B, g.C = o.normal(matrixLen(ra, ca, g.LDA)), o.normal(matrixLen(rb, cb, g.LDB)), o.normal(matrixLen(m, n, g.LDC))
			before := append([]float32(nil), g.C...)
			k.MatMul(g)
			alpha := float64(g.Alpha)
			if alpha == 0 {
				alpha = 1
			}
			for r := range m {
				for c := range n {
					var sum, mass float64
					for j := range kk {
						a, b := r*g.LDA+j, j*g.LDB+c
						if g.TransA {
							a = j*g.LDA + r
						}
						if g.TransB {
							b = c*g.LDB + j
						}
						p := float64(g.A[a]) * float64(g.B[b])
						sum += p
						mass += math.Abs(p)
					}
					sum *= alpha
					if g.Accumulate {
						sum += float64(before[r*g.LDC+c])
						mass += math.Abs(float64(before[r*g.LDC+c]))
					}
					near(t, g.C[r*g.LDC+c], sum, reduction(kk, mass), "matmul %v mode %d pad %d, c[%d,%d]", s, mode, pad, r, c)
				}
				if r+1 < m && n > 0 {
					same(t, g.C[r*g.LDC+n:(r+1)*g.LDC], before[r*g.LDC+n:(r+1)*g.LDC], "matmul %v mode %d: between rows of c", s, mode)
				}
			}
		}
	}
}

// matMulLayouts checks that the way operands lie in memory does not change a bit.
func matMulLayouts(t *testing.T, k backend.Kernels) {
	for i, s := range [][3]int{{3, 40, 30}, {17, 70, 129}, {115, 65, 513}, {240, 97, 1030}} {
		o := newOperands(t, uint64(i))
		m, n, kk := s[0], s[1], s[2]
		a, b := o.normal(m*kk), o.normal(kk*n)
		aT, bT := o.zeros(m*kk), o.zeros(kk*n)
		for r := range m {
			for j := range kk {
				aT[j*m+r] = a[r*kk+j]
			}
		}
		for j := range kk {
			for c := range n {
				bT[c*kk+j] = b[j*n+c]
			}
		}
		var want []float32
		for mode := range 4 {
			g := backend.MatMulArgs{M: m, N: n, K: kk, A: a, LDA: kk, B: b, LDB: n, C: o.zeros(m * n), LDC: n, TransA: mode&1 != 0, TransB: mode&2 != 0}
			if g.TransA {
				g.A, g.LDA = aT, m
			}
			if g.TransB {
				g.B, g.LDB = bT, kk
			}
			k.MatMul(g)
			if mode == 0 {
				want = g.C
			}
			same(t, g.C, want, "matmul %v, transposed operands %d", s, mode)
		}
	}
}

func matrixLen(rows, cols, stride int) int {
	if rows == 0 || cols == 0 {
		return 0
	}
	return (rows-1)*stride + cols
}

var allActivations = []backend.Activation{backend.None, backend.GELU, backend.GELUTanh, backend.QuickGELU, backend.ReLU, backend.SiLU, backend.Tanh, backend.Sigmoid}

// linearRows covers the paths for few rows, each tile height and its neighbours.
var linearRows = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 31, 48, 65}

func linear(t *testing.T, k backend.Kernels) {
	for i, rows := range linearRows {
		for j, s := range [][2]int{{1, 1}, {5, 3}, {8, 16}, {31, 33}, {32, 64}, {33, 100}, {48, 384}, {65, 257}, {2, 700}, {100, 7}, {150, 40}} {
			out, in := s[0], s[1]
			o := newOperands(t, uint64(i*100+j))
			w := o.normal(out * in)
			x := o.normal(rows * in)
			p := k.Pack(f32Weight(w, out, in))
			gotOut, gotIn := p.Shape()
			if gotOut != out || gotIn != in {
				t.Fatalf("packed shape is %dx%d, want %dx%d", gotOut, gotIn, out, in)
			}
			ep := backend.Epilogue{Act: allActivations[(i+j)%len(allActivations)]}
			if (i+j)%3 != 0 {
				ep.Bias = o.normal(out)
			}
			dst := o.zeros(rows * out)
			if (i+j)%2 != 0 {
				ep.Residual = o.normal(rows * out)
			}
			if (i+j)%4 == 3 { // in place: the residual stream
				copy(dst, ep.Residual)
			}
			residual := append([]float32(nil), ep.Residual...)
			if (i+j)%4 == 3 {
				ep.Residual = dst
			}
			if (i+j)%5 < 2 {
				ep.Pre = o.zeros(rows * out)
			}
			k.Linear(dst, x, rows, p, ep)
			for r := range rows {
				for c := range out {
					var pre, mass float64
					for q := range in {
						v := float64(x[r*in+q]) * float64(w[c*in+q])
						pre += v
						mass += math.Abs(v)
					}
					if ep.Bias != nil {
						pre += float64(ep.Bias[c])
						mass += math.Abs(float64(ep.Bias[c]))
					}
					budget := reduction(in, mass)
					if ep.Pre != nil {
						near(t, ep.Pre[r*out+c], pre, budget, "linear %d rows %v: pre[%d,%d]", rows, s, r, c)
					}
					want := oracleAct(pre, ep.Act)
					budget = 1.2*budget + elementwise(pre, want)
					if residual != nil {
						want += float64(residual[r*out+c])
						budget += u * math.Abs(want)
					}
					near(t, dst[r*out+c], want, budget, "linear %d rows %v act %d: dst[%d,%d]", rows, s, ep.Act, r, c)
				}
			}
		}
	}
}

// linearRowAlone checks that a row has the same bits alone as in every batch, at every place.
func linearRowAlone(t *testing.T, k backend.Kernels) {
	o := newOperands(t, 5)
	for _, s := range [][2]int{{33, 100}, {384, 384}, {70, 513}} {
		out, in := s[0], s[1]
		p := k.Pack(f32Weight(o.normal(out*in), out, in))
		ep := backend.Epilogue{Bias: o.normal(out), Act: backend.GELU}
		const most = 67
		x := o.normal(most * in)
		alone := make([]float32, most*out)
		for r := range most {
			k.Linear(alone[r*out:(r+1)*out], x[r*in:(r+1)*in], 1, p, ep)
		}
		for _, rows := range append([]int{40, most}, linearRows[2:]...) {
			for _, from := range []int{0, most - rows} {
				dst := o.zeros(rows * out)
				k.Linear(dst, x[from*in:(from+rows)*in], rows, p, ep)
				same(t, dst, alone[from*out:(from+rows)*out], "linear %v: %d rows from %d, against each alone", s, rows, from)
			}
		}
	}
}
