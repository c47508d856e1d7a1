// Package grad runs a model's ops: in place from an arena when only the result is wanted, or recorded on a tape when gradients are.
// A forward pass is written once against Ctx; whether Ctx records decides which of the two happens. Each op stands in one file with its
// forward and its backward.
package grad

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
)

// Value is a matrix [Rows, Cols] that an op produced. Its storage belongs to the arena of its Ctx.
type Value struct {
	Rows, Cols int
	Data       []float32
	// Grad is allocated, zeroed, when the first backward op adds to it.
	Grad []float32
	// needs is true when some trainable parameter or tracked input lies below.
	needs bool
}

// Needs reports whether a gradient flows into v.
func (v *Value) Needs() bool { return v != nil && v.needs }

// Ctx is one forward pass, and its tape when it records.
type Ctx struct {
	K     backend.Kernels
	arena *Arena
	tape  []func()
	rec   bool
	// Dropout is on only when Train is set; each dropout site draws a fresh seed from seed.
	Train  bool
	seed   uint64
	paused bool
}

// Infer returns a context that keeps nothing but results.
func Infer(k backend.Kernels, a *Arena) *Ctx { return &Ctx{K: k, arena: a} }

// Record returns a context that records a tape for Backward. seed drives dropout when train is true.
func Record(k backend.Kernels, a *Arena, train bool, seed uint64) *Ctx {
	return &Ctx{K: k, arena: a, rec: true, Train: train, seed: seed}
}

// Recording reports whether ops are being taped.
func (c *Ctx) Recording() bool { return c.rec && !c.paused }

// New returns an uninitialised value from the arena.
func (c *Ctx) New(rows, cols int) *Value {
	return &Value{Rows: rows, Cols: cols, Data: c.arena.Alloc(rows * cols)}
}

// Zeros returns a zeroed value from the arena.
func (c *Ctx) Zeros(rows, cols int) *Value {
	v := c.New(rows, cols)
	clear(v.Data)
	return v
}

// Scratch returns uninitialised storage from the arena.
func (c *Ctx) Scratch(n int) []float32 { return c.arena.Alloc(n) }

// Input wraps data (not copied) as a value; tracked inputs receive a gradient.
func (c *Ctx) Input(data []float32, rows, cols int, tracked bool) *Value {
	if len(data) < rows*cols {
		panic(fmt.Sprintf("grad.Input: %d values for %dx%d", len(data), rows, cols))
	}
	return &Value{Rows: rows, Cols: cols, Data: data[:rows*cols], needs: tracked && c.Recording()}
}

// Op registers the result of an op: when recording and some input needs a gradient, out needs one too and back runs in reverse order
// during Backward, only if out received a gradient. Returns out.
func (c *Ctx) Op(out *Value, back func(), inputs ...*Value) *Value {
	if !c.Recording() {
		return out
	}
	for _, in := range inputs {
		if in.Needs() {
			c.push(out, back)
			return out
		}
	}
	return out
}

// OpParam is Op for an op that also has trainable parameters.
func (c *Ctx) OpParam(out *Value, back func(), trainable bool, inputs ...*Value) *Value {
	if c.Recording() && trainable {
		c.push(out, back)
		return out
	}
	return c.Op(out, back, inputs...)
}

func (c *Ctx) push(out *Value, back func()) {
	out.needs = true
	c.tape = append(c.tape, func() {
		if out.Grad != nil {
			back()
		}
	})
}

// GradOf returns v's gradient storage, zeroed at first use, or nil when none flows into v.
func (c *Ctx) GradOf(v *Value) []float32 {
	if !v.Needs() {
		return nil
	}
	if v.Grad == nil {
		v.Grad = c.arena.Alloc(len(v.Data))
		clear(v.Grad)
	}
	return v.Grad
}

// Backward runs the tape from v, whose gradient is seed (all ones when nil), and empties the tape. Parameter gradients are added to
// Param.Grad; gradients of tracked inputs stay in Value.Grad until the arena is reset.
func (c *Ctx) Backward(v *Value, seed []float32) {
	if !v.Needs() {
		c.tape = c.tape[:0]
		return
	}
	g := c.GradOf(v)
	if seed != nil {
		copy(g, seed)
	} else {
		for i := range g {
			g[i] = 1
		}
	}
	for i := len(c.tape) - 1; i >= 0; i-- {
		c.tape[i]()
	}
	clear(c.tape)
	c.tape = c.tape[:0]
}

// DropSeed returns a fresh seed for a dropout site.
func (c *Ctx) DropSeed() uint64 {
	c.seed += 0x9e3779b97f4a7c15
	return c.seed
}

// Block runs one layer. Without a tape, everything that body allocated is given back to the arena except its result, which is copied
// down; with one, it is plain body(x). Residual streams pass through it: out = Block(x, layer).
func (c *Ctx) Block(x *Value, body func(x *Value) *Value) *Value {
	if c.Recording() {
		return body(x)
	}
	m := c.arena.Mark()
	out := body(x)
	if out == x {
		c.arena.Release(m)
		return x
	}
	if out.Rows*out.Cols == len(x.Data) && c.arena.Owns(x.Data) {
		copy(x.Data, out.Data) // the layer's input is dead: reuse its place
		c.arena.Release(m)
		return &Value{Rows: out.Rows, Cols: out.Cols, Data: x.Data}
	}
	// Keep the result at the bottom of the released region; the copy moves down, so overlap is safe with copy.
	src := out.Data
	c.arena.Release(m)
	d := c.arena.Alloc(len(src))
	copy(d, src)
	return &Value{Rows: out.Rows, Cols: out.Cols, Data: d}
}
