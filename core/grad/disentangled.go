package grad

import "github.com/temper-ml/temper/backend"

// DisentangledBias returns DeBERTa's attention biases (He et al., 2021, equation 4): for queries q and keys k [tokens, heads·size], and
// keys pk and queries pq of relative positions [2·span, heads·size] (either may be nil), the element (h, i, j) of a sequence's block
// [heads, len, len] is scale·(q_i·pk_r + k_j·pq_r) with r = bucket(i−j). Blocks begin at at[n] of the data.
func (c *Ctx) DisentangledBias(q, k, pk, pq *Value, seqs []backend.Seq, heads int, scale float32, bucket func(distance int) int) (v *Value, at []int) {
	at = make([]int, len(seqs))
	total, longest := 0, 0
	for i, s := range seqs {
		at[i] = total
		total += heads * s.QLen * s.KLen
		longest = max(longest, s.QLen, s.KLen)
	}
	row := make([]int32, 2*longest+1) // by distance + longest
	for i := range row {
		row[i] = int32(bucket(i - longest))
	}
	y := c.Zeros(total, 1)
	size := q.Cols / heads
	// Two terms of the same form: the rows of x (queries or keys) times the positions' vectors w.
	each := func(x, w *Value, byKey bool, f func(n, h int, s backend.Seq, rows, from, pos int)) {
		if w == nil {
			return
		}
		for n, s := range seqs {
			rows, from := s.QLen, s.QStart
			if byKey {
				rows, from = s.KLen, s.KStart
			}
			for h := range heads {
				f(n, h, s, rows, from*x.Cols+h*size, h*size)
			}
		}
	}
	index := func(n, h int, s backend.Seq, i, j int) int { return at[n] + (h*s.QLen+i)*s.KLen + j }
	spread := func(x, w *Value, byKey bool) {
		each(x, w, byKey, func(n, h int, s backend.Seq, rows, from, pos int) {
			m := c.arena.Mark()
			t := c.Scratch(rows * w.Rows)
			c.K.MatMul(backend.MatMulArgs{M: rows, N: w.Rows, K: size, A: x.Data[from:], B: w.Data[pos:], C: t, LDA: x.Cols, LDB: w.Cols, LDC: w.Rows, TransB: true, Alpha: scale})
			for i := range s.QLen {
				for j := range s.KLen {
					r := i
					if byKey {
						r = j
					}
					y.Data[index(n, h, s, i, j)] += t[r*w.Rows+int(row[i-j+longest])]
				}
			}
			c.arena.Release(m)
		})
	}
	spread(q, pk, false)
	spread(k, pq, true)
	if !c.tracks(q, k) && !c.tracks(pk, pq) {
		return y, at
	}
	collect := func(x, w *Value, byKey bool) {
		if w == nil {
			return
		}
		dx, dw := c.GradOf(x), c.GradOf(w)
		each(x, w, byKey, func(n, h int, s backend.Seq, rows, from, pos int) {
			m := c.arena.Mark()
			t := c.Scratch(rows * w.Rows)
			clear(t)
			for i := range s.QLen {
				for j := range s.KLen {
					r := i
					if byKey {
						r = j
					}
					t[r*w.Rows+int(row[i-j+longest])] += y.Grad[index(n, h, s, i, j)]
				}
			}
			if dx != nil {
				c.K.MatMul(backend.MatMulArgs{M: rows, N: size, K: w.Rows, A: t, B: w.Data[pos:], C: dx[from:], LDA: w.Rows, LDB: w.Cols, LDC: x.Cols, Alpha: scale, Accumulate: true})
			}
			if dw != nil {
				c.K.MatMul(backend.MatMulArgs{M: w.Rows, N: size, K: rows, A: t, B: x.Data[from:], C: dw[pos:], LDA: w.Rows, LDB: x.Cols, LDC: w.Cols, TransA: true, Alpha: scale, Accumulate: true})
			}
			c.arena.Release(m)
		})
	}
	c.push(y, func() {
		collect(q, pk, false)
		collect(k, pq, true)
	})
	return y, at
}
