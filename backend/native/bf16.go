package native

import (
	"unsafe"

	"github.com/temper-ml/temper/backend"
)

// A bfloat16 product is a float32 product whose elements of A and B are pairs of bfloat16 along k: packing, tiles and the order of sums are
// the same, over half as many k. The odd last value of k is paired with 0.

func pairs(n int) int { return (n + 1) / 2 }

// pairRows rounds rows of n values (row stride ld) to pairs: [rows, pairs(n)].
func (o *ops) pairRows(dst, src []float32, ld, rows, n int) []float32 {
	np := pairs(n)
	if np == 0 {
		return dst[:0]
	}
	for r := range rows {
		d := unsafe.Slice((*uint16)(unsafe.Pointer(p(dst[r*np:]))), 2*np)
		o.toBF16(&d[0], p(src[r*ld:]), n)
		if n%2 != 0 {
			d[n] = 0
		}
	}
	return dst[:rows*np]
}

// pairMatrix is pairRows over the workers, into *buf.
func (k *kernels) pairMatrix(buf *[]float32, src []float32, ld, rows, n int) []float32 {
	dst := grow(buf, rows*pairs(n))
	if len(dst) == 0 {
		return dst
	}
	k.job = job{a: dst, b: src, cols: n, stride: ld}
	k.pool.run(rows, grain(n), k.loops.pairRows)
	return dst
}

func (k *kernels) pairRowsLoop(_, lo, hi int) {
	j := &k.job
	np := pairs(j.cols)
	k.o.pairRows(j.a[lo*np:hi*np], j.b[lo*j.stride:], j.stride, hi-lo, j.cols)
}

// pairTransposed rounds a matrix [n, cols] that is stored along k by rows: [pairs(n), cols].
func (k *kernels) pairTransposed(buf *[]float32, src []float32, ld, n, cols int) []float32 {
	k.constants(cols)
	dst := grow(buf, pairs(n)*cols)
	k.job = job{a: dst, b: src, cols: cols, stride: ld, n: n}
	k.pool.run(pairs(n), grain(cols), k.loops.pairTransposed)
	return dst
}

func (k *kernels) pairTransposedLoop(_, lo, hi int) {
	j := &k.job
	for i := lo; i < hi; i++ {
		odd := p(k.zeros)
		if 2*i+1 < j.n {
			odd = p(j.b[(2*i+1)*j.stride:])
		}
		k.o.pairBF16(p(j.a[i*j.cols:]), p(j.b[2*i*j.stride:]), odd, j.cols)
	}
}

// pairOperands turns the operands of a product, and k.prod's view of A, into pairs.
func (k *kernels) pairOperands(a *backend.MatMulArgs) {
	g := &k.prod
	g.bf16, g.amx = true, k.o.amxBF16 != nil
	if a.TransA && g.amx {
		g.a, g.rs = k.pairByRows(&g.pairsA, a.A, a.LDA, a.K, a.M)
		g.ks = 1
		a.LDA, a.TransA = g.rs, false
	} else if a.TransA {
		g.a = k.pairTransposed(&g.pairsA, a.A, a.LDA, a.K, a.M)
		a.LDA = a.M
		g.ks = a.M
	} else {
		g.a = k.pairMatrix(&g.pairsA, a.A, a.LDA, a.M, a.K)
		a.LDA = pairs(a.K)
		g.rs = a.LDA
	}
	if a.TransB {
		a.B = k.pairMatrix(&g.pairsB, a.B, a.LDB, a.N, a.K)
		a.LDB = pairs(a.K)
	} else {
		a.B = k.pairTransposed(&g.pairsB, a.B, a.LDB, a.K, a.N)
		a.LDB = a.N
	}
	a.K = pairs(a.K)
	g.k = a.K
}
