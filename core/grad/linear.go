package grad

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
)

// Linear computes act(x·Wᵀ + b), x [rows, In], W [Out, In] (stored [In, Out] when transposed), b [Out] or nil. Frozen weights run packed,
// in whatever type they are stored; trainable ones as f32 matrices.
func (c *Ctx) Linear(x *Value, w, b *Param, act backend.Activation, transposed bool) *Value {
	return c.linear(x, w, b, act, transposed, nil)
}

// LinearAdd computes x·Wᵀ + b + residual: a layer at the end of a residual branch, in one pass.
func (c *Ctx) LinearAdd(x *Value, w, b *Param, transposed bool, residual *Value) *Value {
	return c.linear(x, w, b, backend.None, transposed, residual)
}

func (c *Ctx) linear(x *Value, w, b *Param, act backend.Activation, transposed bool, residual *Value) *Value {
	rows, in, out := x.Rows, w.T.Cols(), w.T.Rows()
	if transposed {
		in, out = out, in
	}
	if x.Cols != in {
		panic(fmt.Sprintf("grad.Linear: %s wants %d columns, got %d", w.Name, in, x.Cols))
	}
	y := c.New(rows, out)
	tracked := c.Recording() && (x.Needs() || w.Trainable() || b.Trainable() || residual.Needs())
	var plus []float32
	if residual != nil {
		sameShape("LinearAdd", y, residual)
		plus = residual.Data
	}
	var pre []float32
	if tracked && act != backend.None {
		pre = c.Scratch(rows * out)
	}
	var bias []float32
	if b != nil {
		bias = b.Values()
	}
	if w.Trainable() {
		z := y.Data
		if pre != nil {
			z = pre
		}
		g := backend.MatMulArgs{M: rows, N: out, K: in, A: x.Data, B: w.Values(), C: z, LDA: in, LDB: in, LDC: out, TransB: true}
		if transposed {
			g.TransB, g.LDB = false, out
		}
		c.K.MatMul(g)
		if bias != nil {
			c.K.AddRow(z, bias, rows, out)
		}
		if act != backend.None {
			c.K.Act(y.Data, z, act)
		}
		if plus != nil {
			c.K.Add(y.Data, y.Data, plus)
		}
	} else {
		c.K.Linear(y.Data, x.Data, rows, w.packedFor(c.K, transposed), backend.Epilogue{Bias: bias, Act: act, Residual: plus, Pre: pre})
	}
	if !tracked {
		return y
	}
	c.push(y, func() {
		c.linearBackward(y, x, w, b, pre, act, transposed)
		if residual != nil {
			c.passGrad(residual, y.Grad)
		}
	})
	return y
}

// linearBackward: dz = dy·act'(z); dW += dzᵀ·x; db += Σrows dz; dx += dz·W.
func (c *Ctx) linearBackward(y, x *Value, w, b *Param, pre []float32, act backend.Activation, transposed bool) {
	rows, in, out := x.Rows, x.Cols, y.Cols
	dx, fresh := c.gradInto(x)
	m := c.arena.Mark()
	defer c.arena.Release(m)
	dz := y.Grad
	if act != backend.None {
		dz = c.Scratch(rows * out)
		clear(dz)
		c.K.ActBackward(dz, y.Grad, pre, act)
	}
	if b.Trainable() {
		c.K.SumRows(b.Grad, dz, rows, out)
	}
	if w.Trainable() {
		g := backend.MatMulArgs{M: out, N: in, K: rows, A: dz, B: x.Data, C: w.Grad, LDA: out, LDB: in, LDC: in, TransA: true, Accumulate: true}
		if transposed {
			g = backend.MatMulArgs{M: in, N: out, K: rows, A: x.Data, B: dz, C: w.Grad, LDA: in, LDB: out, LDC: out, TransA: true, Accumulate: true}
		}
		c.K.MatMul(g)
	}
	if dx != nil && !w.Trainable() && !w.T.DType.Quantized() {
		// A constant weight is packed the other way round, once for all steps.
		var ep backend.Epilogue
		if !fresh {
			ep.Residual = dx
		}
		c.K.Linear(dx, dz, rows, w.packedFor(c.K, !transposed), ep)
	} else if dx != nil {
		g := backend.MatMulArgs{M: rows, N: in, K: out, A: dz, B: c.weights(w), C: dx, LDA: out, LDB: in, LDC: in, Accumulate: !fresh}
		if transposed {
			g.TransB, g.LDB = true, out
		}
		c.K.MatMul(g)
	}
}

// weights returns w as f32 for one use: its own storage, or a copy in the arena, so that a quantized base stays small.
func (c *Ctx) weights(w *Param) []float32 {
	if v := w.resident(); v != nil {
		return v
	}
	dst := c.Scratch(w.T.Len())
	expand(dst, w.T)
	return dst
}
