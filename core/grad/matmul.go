package grad

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
)

// MatMul returns op(a)·op(b): a [M, K] ([K, M] when transA), b [K, N] ([N, K] when transB).
func (c *Ctx) MatMul(a, b *Value, transA, transB bool) *Value {
	m, k := a.Rows, a.Cols
	if transA {
		m, k = k, m
	}
	kb, n := b.Rows, b.Cols
	if transB {
		kb, n = n, kb
	}
	if k != kb {
		panic(fmt.Sprintf("grad.MatMul: inner sizes %d and %d", k, kb))
	}
	y := c.New(m, n)
	c.K.MatMul(backend.MatMulArgs{M: m, N: n, K: k, A: a.Data, B: b.Data, C: y.Data, LDA: a.Cols, LDB: b.Cols, LDC: n, TransA: transA, TransB: transB})
	if !c.tracks(a, b) {
		return y
	}
	c.push(y, func() {
		if da, fresh := c.gradInto(a); da != nil {
			g := backend.MatMulArgs{M: m, N: k, K: n, A: y.Grad, B: b.Data, C: da, LDA: n, LDB: b.Cols, LDC: a.Cols, TransB: !transB, Accumulate: !fresh}
			if transA { // daᵀ: [k, m] = op(b)·dyᵀ
				g = backend.MatMulArgs{M: k, N: m, K: n, A: b.Data, B: y.Grad, C: da, LDA: b.Cols, LDB: n, LDC: a.Cols, TransA: transB, TransB: true, Accumulate: !fresh}
			}
			c.K.MatMul(g)
		}
		if db, fresh := c.gradInto(b); db != nil {
			g := backend.MatMulArgs{M: k, N: n, K: m, A: a.Data, B: y.Grad, C: db, LDA: a.Cols, LDB: n, LDC: b.Cols, TransA: !transA, Accumulate: !fresh}
			if transB { // [n, k] = dyᵀ·op(a)
				g = backend.MatMulArgs{M: n, N: k, K: m, A: y.Grad, B: a.Data, C: db, LDA: n, LDB: a.Cols, LDC: b.Cols, TransA: true, TransB: transA, Accumulate: !fresh}
			}
			c.K.MatMul(g)
		}
	})
	return y
}
