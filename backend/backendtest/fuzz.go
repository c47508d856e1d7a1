package backendtest

import (
	"math"
	"testing"

	"github.com/temper-ml/temper/backend"
)

// Fuzz compares products, with weights of every kind, and attention of ks with Generic at shapes that the fuzzer picks; the seed picks the kernels.
func Fuzz(f *testing.F, ks ...backend.Kernels) {
	f.Add(uint64(1), uint16(17), uint16(33), uint16(65), byte(0))
	f.Add(uint64(2), uint16(1), uint16(128), uint16(300), byte(0xff))
	ref := backend.Generic(1)
	f.Fuzz(func(t *testing.T, seed uint64, m16, n16, k16 uint16, flags byte) {
		k, o := ks[seed%uint64(len(ks))], newOperands(t, seed)
		m, n, kk := int(m16%90), int(n16%140), int(k16%600)
		g := o.matMul(m, n, kk, flags)
		want := g
		want.C = append([]float32(nil), g.C...)
		k.MatMul(g)
		ref.MatMul(want)
		compare(t, g.C, want.C, 2*reduction(kk, float64(kk+1)), "matmul")

		w, x := o.normal(n*kk), o.normal(m*kk)
		ep := backend.Epilogue{Bias: o.normal(n), Act: allActivations[int(flags)%len(allActivations)]}
		a, b := o.zeros(m*n), o.zeros(m*n)
		k.Linear(a, x, m, k.Pack(f32Weight(w, n, kk)), ep)
		ref.Linear(b, x, m, ref.Pack(f32Weight(w, n, kk)), ep)
		compare(t, a, b, 3*reduction(kk, float64(kk+1))+1e-6, "linear")

		stored := o.int8Weight(n, kk)
		k.Linear(a, x, m, k.Pack(stored), backend.Epilogue{})
		ref.Linear(b, x, m, ref.Pack(stored), backend.Epilogue{})
		same(t, a, b, "int8 linear")

		typ := blockTypes[seed/8%uint64(len(blockTypes))]
		blocks := o.blockWeight(typ, n, (kk+typ.BlockLen()-1)/typ.BlockLen()*typ.BlockLen())
		y := o.normal(m * blocks.In)
		k.Linear(a, y, m, k.Pack(blocks), backend.Epilogue{})
		ref.Linear(b, y, m, ref.Pack(blocks), backend.Epilogue{})
		// Sums within blocks are exact; those of blocks are a chain of products that may be fused.
		mass := float64(0)
		if values, err := blocks.Values(); err == nil {
			for _, v := range values {
				mass = max(mass, math.Abs(float64(v)))
			}
		}
		compare(t, a, b, 8*reduction(blocks.In/16+1, 4*mass*float64(blocks.In+1)), typ.String()+" linear")

		c := attentionCase{heads: 1 + int(flags>>6), kvHeads: 1, dim: 1 + kk%70, causal: flags&1 != 0, window: int(flags>>1) & 7, bias: flags&16 != 0,
			seqs: [][2]int{{m % 40, m%40 + n%30}, {n % 20, n % 20}}}
		if flags&32 != 0 {
			c.softcap, c.dropout = 3, 0.25
		}
		p := c.args(o, true)
		q := p
		q.Out, q.LSE = o.zeros(len(p.Out)), o.zeros(len(p.LSE))
		q.DQ, q.DK, q.DV = o.copyOf(p.DQ), o.copyOf(p.DK), o.copyOf(p.DV)
		if p.DBias != nil {
			q.DBias = o.copyOf(p.DBias)
		}
		k.Attention(p)
		ref.Attention(q)
		compare(t, p.Out, q.Out, 1e-5, "attention")
		k.AttentionBackward(p)
		ref.AttentionBackward(q)
		compare(t, p.DQ, q.DQ, 1e-4, "dq")
		compare(t, p.DK, q.DK, 1e-4, "dk")
		compare(t, p.DV, q.DV, 1e-4, "dv")
		compare(t, p.DBias, q.DBias, 1e-4, "dbias")
	})
}

func compare(t testing.TB, got, want []float32, budget float64, what string) {
	t.Helper()
	for i := range want {
		near(t, got[i], float64(want[i]), budget*(1+math.Abs(float64(want[i]))), "%s[%d]", what, i)
	}
}

// matMul draws the operands of a product; flags say what is transposed, what is added to, and how far the rows lie apart.
func (o *operands) matMul(m, n, kk int, flags byte) backend.MatMulArgs {
	g := backend.MatMulArgs{M: m, N: n, K: kk, TransA: flags&1 != 0, TransB: flags&2 != 0, Accumulate: flags&4 != 0}
	ra, ca, rb, cb := m, kk, kk, n
	if g.TransA {
		ra, ca = ca, ra
	}
	if g.TransB {
		rb, cb = cb, rb
	}
	pad := int(flags>>3) % 4
	g.LDA, g.LDB, g.LDC = ca+pad, cb+pad, n+pad
	g.A, g.B, g.C = o.normal(matrixLen(ra, ca, g.LDA)), o.normal(matrixLen(rb, cb, g.LDB)), o.normal(matrixLen(m, n, g.LDC))
	return g
}
