package grad

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
)

// Linear computes act(x·Wᵀ + b), x [rows, In], W [Out, In] (stored [In, Out] when transposed), b [Out] or nil. Frozen weights run packed,
// in whatever type they are stored; trainable ones as f32 matrices.
func (c *Ctx) Linear(x *Value, w, b *Param, act backend.Activation, transposed bool) *Value {
	l := c.affine(x, w, b, transposed)
	y := c.New(x.Rows, l.out)
	if !c.Recording() || !x.Needs() && !l.trainable() {
		l.forward(c, y.Data, x.Data, x.Rows, act, nil, nil)
		return y
	}
	var pre []float32
	if act != backend.None {
		pre = c.Scratch(len(y.Data))
	}
	l.forward(c, y.Data, x.Data, x.Rows, act, pre, nil)
	c.push(y, func() {
		dx, fresh := c.gradInto(x)
		m := c.arena.Mark()
		dz := y.Grad
		if act != backend.None {
			dz = c.Scratch(len(pre))
			clear(dz)
			c.K.ActBackward(dz, y.Grad, pre, act)
		}
		l.backward(c, dz, x.Data, x.Rows, dx, fresh)
		c.arena.Release(m)
	})
	return y
}

// LinearAdd computes dropout(x·Wᵀ + b) + residual in one value: a layer at the end of a residual branch.
func (c *Ctx) LinearAdd(x *Value, w, b *Param, transposed bool, drop float32, residual *Value) *Value {
	l := c.affine(x, w, b, transposed)
	y := c.New(x.Rows, l.out)
	sameShape("LinearAdd", y, residual)
	p, seed := c.dropSite(drop)
	if p > 0 {
		l.forward(c, y.Data, x.Data, x.Rows, backend.None, nil, nil)
		c.drop(y.Data, y.Data, p, seed)
		c.K.Add(y.Data, y.Data, residual.Data)
	} else {
		l.forward(c, y.Data, x.Data, x.Rows, backend.None, nil, residual.Data)
	}
	if !c.Recording() || !x.Needs() && !l.trainable() && !residual.Needs() {
		return y
	}
	c.push(y, func() {
		dx, fresh := c.gradInto(x)
		m := c.arena.Mark()
		l.backward(c, c.dropped(y.Grad, p, seed), x.Data, x.Rows, dx, fresh)
		c.arena.Release(m)
		c.passGrad(residual, y.Grad)
	})
	return y
}

// affine is the map x·Wᵀ + b of one linear layer.
type affine struct {
	w, b       *Param
	in, out    int
	transposed bool
}

func (c *Ctx) affine(x *Value, w, b *Param, transposed bool) affine {
	l := affine{w: w, b: b, in: w.T.Cols(), out: w.T.Rows(), transposed: transposed}
	if transposed {
		l.in, l.out = l.out, l.in
	}
	if x != nil && x.Cols != l.in {
		panic(fmt.Sprintf("grad.Linear: %s wants %d columns, got %d", w.Name, l.in, x.Cols))
	}
	return l
}

func (l affine) trainable() bool { return l.w.Trainable() || l.b.Trainable() }

// forward writes act(x·Wᵀ + b) + plus to y. pre, when not nil, receives the values before the activation.
func (l affine) forward(c *Ctx, y, x []float32, rows int, act backend.Activation, pre, plus []float32) {
	var bias []float32
	if l.b != nil {
		bias = l.b.Values()
	}
	if !l.w.Trainable() {
		c.K.Linear(y, x, rows, l.w.packedFor(c.K, l.transposed), backend.Epilogue{Bias: bias, Act: act, Residual: plus, Pre: pre})
		return
	}
	z := y
	if pre != nil {
		z = pre
	}
	g := backend.MatMulArgs{M: rows, N: l.out, K: l.in, A: x, B: l.w.Values(), C: z, LDA: l.in, LDB: l.in, LDC: l.out, TransB: true}
	if l.transposed {
		g.TransB, g.LDB = false, l.out
	}
	c.K.MatMul(g)
	if bias != nil {
		c.K.AddRow(z, bias, rows, l.out)
	}
	if act != backend.None {
		c.K.Act(y, z, act)
	} else if pre != nil {
		copy(y, z)
	}
	if plus != nil {
		c.K.Add(y, y, plus)
	}
}

// backward adds the gradients for dz: dW += dzᵀ·x; db += Σrows dz; dx += dz·W, or dx = dz·W when it is fresh. x is read for dW alone.
func (l affine) backward(c *Ctx, dz, x []float32, rows int, dx []float32, fresh bool) {
	w, in, out := l.w, l.in, l.out
	m := c.arena.Mark()
	defer c.arena.Release(m)
	if l.b.Trainable() {
		c.K.SumRows(l.b.Grad, dz, rows, out)
	}
	if w.Trainable() {
		g := backend.MatMulArgs{M: out, N: in, K: rows, A: dz, B: x, C: w.Grad, LDA: out, LDB: in, LDC: in, TransA: true, Accumulate: true}
		if l.transposed {
			g = backend.MatMulArgs{M: in, N: out, K: rows, A: x, B: dz, C: w.Grad, LDA: in, LDB: out, LDC: out, TransA: true, Accumulate: true}
		}
		c.K.MatMul(g)
	}
	if dx != nil && !w.Trainable() && !w.T.DType.Quantized() {
		// A constant weight is packed the other way round, once for all steps.
		var ep backend.Epilogue
		if !fresh {
			ep.Residual = dx
		}
		c.K.Linear(dx, dz, rows, w.packedFor(c.K, !l.transposed), ep)
	} else if dx != nil {
		g := backend.MatMulArgs{M: rows, N: in, K: out, A: dz, B: c.weights(w), C: dx, LDA: out, LDB: in, LDC: in, Accumulate: !fresh}
		if l.transposed {
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
