package backend

import "fmt"

// Need panics when an operand of op is shorter than the call requires. Backends call it before they write anything.
func Need(op, operand string, have, want int) {
	if have < want {
		panic(fmt.Sprintf("backend: %s: %s has %d elements, needs %d", op, operand, have, want))
	}
}

// span is the length of a matrix of rows by cols with the given row stride.
func span(rows, cols, stride int) int {
	if rows <= 0 || cols <= 0 {
		return 0
	}
	return (rows-1)*stride + cols
}

func needMatrix(op, operand string, have, rows, cols, stride int) {
	if rows > 1 && stride < cols {
		panic(fmt.Sprintf("backend: %s: %s has row stride %d for %d columns", op, operand, stride, cols))
	}
	Need(op, operand, have, span(rows, cols, stride))
}

// Check panics when the operands do not fit the dimensions.
func (g MatMulArgs) Check() {
	if g.M < 0 || g.N < 0 || g.K < 0 {
		panic(fmt.Sprintf("backend: matmul: dimensions %dx%dx%d", g.M, g.N, g.K))
	}
	if g.TransA {
		needMatrix("matmul", "a", len(g.A), g.K, g.M, g.LDA)
	} else {
		needMatrix("matmul", "a", len(g.A), g.M, g.K, g.LDA)
	}
	if g.TransB {
		needMatrix("matmul", "b", len(g.B), g.N, g.K, g.LDB)
	} else {
		needMatrix("matmul", "b", len(g.B), g.K, g.N, g.LDB)
	}
	needMatrix("matmul", "c", len(g.C), g.M, g.N, g.LDC)
}

// Check panics when the data do not fit the shape.
func (w Weight) Check() {
	if w.Out < 0 || w.In < 0 {
		panic(fmt.Sprintf("backend: pack: shape %dx%d", w.Out, w.In))
	}
	if w.In%max(w.DType.BlockLen(), 1) != 0 {
		panic(fmt.Sprintf("backend: pack: %d columns are not whole %s blocks of %d", w.In, w.DType, w.DType.BlockLen()))
	}
	Need("pack", w.DType.String()+" data (bytes)", len(w.Data), w.Out*w.DType.RowBytes(w.In))
}

// CheckLinear panics when the operands of Linear do not fit.
func CheckLinear(dst, x []float32, rows, out, in int, ep Epilogue) {
	if rows < 0 {
		panic(fmt.Sprintf("backend: linear: %d rows", rows))
	}
	Need("linear", "x", len(x), rows*in)
	Need("linear", "dst", len(dst), rows*out)
	if ep.Bias != nil {
		Need("linear", "bias", len(ep.Bias), out)
	}
	if ep.Residual != nil {
		Need("linear", "residual", len(ep.Residual), rows*out)
	}
	if ep.Pre != nil {
		Need("linear", "pre", len(ep.Pre), rows*out)
	}
}

// Check panics when the operands do not fit the sequences; backward tells which of the operands are needed.
func (a *AttentionArgs) Check(backward bool) {
	const op = "attention"
	if a.Heads <= 0 || a.KVHeads <= 0 || a.HeadDim <= 0 || a.Heads%a.KVHeads != 0 {
		panic(fmt.Sprintf("backend: attention: %d heads over %d key heads of %d", a.Heads, a.KVHeads, a.HeadDim))
	}
	q, k := 0, 0
	for i, s := range a.Seqs {
		if s.QStart < 0 || s.QLen < 0 || s.KStart < 0 || s.KLen < 0 {
			panic(fmt.Sprintf("backend: attention: sequence %d is %+v", i, s))
		}
		if s.QLen > 0 {
			q = max(q, s.QStart+s.QLen)
		}
		if s.KLen > 0 {
			k = max(k, s.KStart+s.KLen)
		}
	}
	needMatrix(op, "q", len(a.Q), q, a.Heads*a.HeadDim, a.QStride)
	needMatrix(op, "k", len(a.K), k, a.KVHeads*a.HeadDim, a.KStride)
	needMatrix(op, "v", len(a.V), k, a.KVHeads*a.HeadDim, a.VStride)
	needMatrix(op, "out", len(a.Out), q, a.Heads*a.HeadDim, a.OStride)
	if a.LSE != nil || backward {
		Need(op, "lse", len(a.LSE), q*a.Heads)
	}
	if a.Bias != nil || a.DBias != nil {
		Need(op, "bias offsets", len(a.BiasAt), len(a.Seqs))
		for i, s := range a.Seqs {
			n := a.BiasAt[i] + a.Heads*s.QLen*s.KLen
			if a.Bias != nil {
				Need(op, "bias", len(a.Bias), n)
			}
			if a.DBias != nil && backward {
				Need(op, "bias gradient", len(a.DBias), n)
			}
		}
	}
	if !backward {
		return
	}
	needMatrix(op, "out gradient", len(a.DOut), q, a.Heads*a.HeadDim, a.OStride)
	if a.DQ != nil {
		needMatrix(op, "q gradient", len(a.DQ), q, a.Heads*a.HeadDim, a.QStride)
	}
	if a.DK != nil {
		needMatrix(op, "k gradient", len(a.DK), k, a.KVHeads*a.HeadDim, a.KStride)
	}
	if a.DV != nil {
		needMatrix(op, "v gradient", len(a.DV), k, a.KVHeads*a.HeadDim, a.VStride)
	}
}

// KeyRange returns the keys [lo, hi) that query i of s sees.
func (a *AttentionArgs) KeyRange(s Seq, i int) (lo, hi int) {
	p := s.KLen - s.QLen + i
	lo, hi = 0, s.KLen
	if a.Causal {
		hi = min(hi, p+1)
		if a.Window > 0 {
			lo = max(lo, p+1-a.Window)
		}
	} else if a.Window > 0 {
		lo, hi = max(lo, p-a.Window), min(hi, p+a.Window+1)
	}
	return lo, max(hi, lo)
}

// Check panics when the tables or rows are too short.
func (r RopeArgs) Check() {
	if r.RotDim%2 != 0 || r.RotDim > r.HeadDim || r.RotDim < 0 {
		panic(fmt.Sprintf("backend: rope: %d rotated dimensions of %d", r.RotDim, r.HeadDim))
	}
	needMatrix("rope", "x", len(r.X), len(r.Pos), r.Heads*r.HeadDim, r.Stride)
	half := r.RotDim / 2
	for _, p := range r.Pos {
		if p < 0 {
			panic(fmt.Sprintf("backend: rope: position %d", p))
		}
		Need("rope", "cos", len(r.Cos), (int(p)+1)*half)
		Need("rope", "sin", len(r.Sin), (int(p)+1)*half)
	}
}

// Check panics when the four slices differ in length or Step is below 1.
func (a AdamWArgs) Check() {
	Need("adamw", "g", len(a.G), len(a.P))
	Need("adamw", "m", len(a.M), len(a.P))
	Need("adamw", "v", len(a.V), len(a.P))
	if a.Step < 1 {
		panic(fmt.Sprintf("backend: adamw: step %d, steps count from 1", a.Step))
	}
}

// CheckIDs panics when an id is outside of table [n, cols].
func CheckIDs(op string, table int, ids []int32, cols int) {
	for _, id := range ids {
		if id < 0 || (int(id)+1)*cols > table {
			panic(fmt.Sprintf("backend: %s: id %d is outside of a table of %d elements in rows of %d", op, id, table, cols))
		}
	}
}
