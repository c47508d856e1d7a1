// Package grad runs a model's ops: in place from an arena when only the result is wanted, or recorded on a tape when gradients are.
// A forward pass is written once against Ctx; whether Ctx records decides which of the two happens. Each op stands in one file with its
// forward and its backward.
//
// Ops panic when shapes do not fit: whoever builds a graph (a model, an adapter, a loss) has checked its inputs.
package grad

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
)

// Value is a matrix [Rows, Cols] that an op produced. It and its storage belong to the arena of its Ctx and are gone when that is reset.
type Value struct {
	Rows, Cols int
	Data       []float32
	// Grad is allocated when the first backward op adds to it.
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
	tape  []step
	rec   bool
	// Train switches dropout on; each dropout site draws a fresh seed from seed.
	Train bool
	// Checkpoint makes Block keep only its input and run its body again during Backward: less memory for a third more time.
	// Gradients are the same to the bit.
	Checkpoint bool
	seed       uint64
	paused     bool
}

// step is an entry of the tape. back runs when out received a gradient, or always when out is nil.
type step struct {
	out  *Value
	back func()
}

// Infer returns a context that keeps nothing but results.
func Infer(k backend.Kernels, a *Arena) *Ctx { return &Ctx{K: k, arena: a} }

// Record returns a context that records a tape for Backward. seed drives dropout when train is true.
func Record(k backend.Kernels, a *Arena, train bool, seed uint64) *Ctx {
	return &Ctx{K: k, arena: a, rec: true, Train: train, seed: seed}
}

// Recording reports whether ops are being taped.
func (c *Ctx) Recording() bool { return c.rec && !c.paused }

// NoGrad runs f without taping: its results are constants for what follows.
func (c *Ctx) NoGrad(f func()) {
	was := c.paused
	c.paused = true
	defer func() { c.paused = was }()
	f()
}

// New returns an uninitialised value from the arena.
func (c *Ctx) New(rows, cols int) *Value {
	return c.wrap(c.arena.Alloc(rows*cols), rows, cols)
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
	v := c.wrap(data[:rows*cols], rows, cols)
	v.needs = tracked && c.Recording()
	return v
}

// Param views a parameter as a value, so that any op may use it: a matrix as [Rows, Cols], a vector as one row. Gradients go to p.Grad.
func (c *Ctx) Param(p *Param) *Value {
	v := c.wrap(p.Values(), p.T.Rows(), p.T.Cols())
	if p.Trainable() && c.Recording() {
		v.Grad, v.needs = p.Grad, true
	}
	return v
}

// Detach returns the same data as a constant.
func (c *Ctx) Detach(x *Value) *Value { return c.wrap(x.Data, x.Rows, x.Cols) }

// Copy returns a constant copy of x that ops in place and Block leave alone.
func (c *Ctx) Copy(x *Value) *Value {
	v := c.New(x.Rows, x.Cols)
	copy(v.Data, x.Data)
	return v
}

func (c *Ctx) wrap(data []float32, rows, cols int) *Value {
	v := c.arena.value()
	v.Rows, v.Cols, v.Data = rows, cols, data
	return v
}

// Op registers the result of an op: when recording and some input needs a gradient, out needs one too and back runs in reverse order
// during Backward, only if out received a gradient. Returns out. (Ops of this package ask tracks first, so that no closure is made
// when nothing is recorded.)
func (c *Ctx) Op(out *Value, back func(), inputs ...*Value) *Value {
	return c.OpParam(out, back, false, inputs...)
}

// OpParam is Op for an op that also has trainable parameters.
func (c *Ctx) OpParam(out *Value, back func(), trainable bool, inputs ...*Value) *Value {
	if !c.Recording() {
		return out
	}
	for _, in := range inputs {
		trainable = trainable || in.Needs()
	}
	if trainable {
		c.push(out, back)
	}
	return out
}

// tracks reports whether an op over these inputs must be taped.
func (c *Ctx) tracks(a, b *Value) bool { return c.Recording() && (a.Needs() || b.Needs()) }

func (c *Ctx) push(out *Value, back func()) {
	out.needs = true
	c.tape = append(c.tape, step{out, back})
}

// GradOf returns v's gradient storage, zeroed at first use, or nil when none flows into v.
func (c *Ctx) GradOf(v *Value) []float32 {
	g, fresh := c.gradInto(v)
	if fresh {
		clear(g)
	}
	return g
}

// gradInto is GradOf without the zeroing: when fresh is true the caller must write every element instead of adding.
func (c *Ctx) gradInto(v *Value) (g []float32, fresh bool) {
	if !v.Needs() {
		return nil, false
	}
	if v.Grad == nil {
		v.Grad = c.arena.Alloc(len(v.Data))
		return v.Grad, true
	}
	return v.Grad, false
}

// addGrad adds s·g to v's gradient, if v wants one.
func (c *Ctx) addGrad(v *Value, s float32, g []float32) {
	dst, fresh := c.gradInto(v)
	switch {
	case dst == nil:
	case fresh && s == 1:
		copy(dst, g)
	case fresh:
		clear(dst)
		c.K.Axpy(dst, s, g)
	case s == 1:
		c.K.Add(dst, dst, g)
	default:
		c.K.Axpy(dst, s, g)
	}
}

// Backward runs the tape from v, whose gradient is seed (all ones when nil), and empties the tape. Parameter gradients are added to
// Param.Grad; gradients of tracked inputs stay in Value.Grad until the arena is reset. Gradients of values inside a Block are given
// back once the block is done.
func (c *Ctx) Backward(v *Value, seed []float32) {
	if v.Needs() {
		g := c.GradOf(v)
		for i := range g {
			if seed != nil {
				g[i] += seed[i]
			} else {
				g[i]++
			}
		}
		c.unwind(0)
	}
	clear(c.tape)
	c.tape = c.tape[:0]
}

// unwind runs the tape backwards down to entry from.
func (c *Ctx) unwind(from int) {
	for i := len(c.tape) - 1; i >= from; i-- {
		if s := c.tape[i]; s.out == nil || s.out.Grad != nil {
			s.back()
		}
	}
}

// DropSeed returns a fresh seed for a dropout site.
func (c *Ctx) DropSeed() uint64 {
	c.seed += 0x9e3779b97f4a7c15
	return c.seed
}
