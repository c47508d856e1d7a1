package grad

// Block runs one layer, out = body(x), so that memory is reused. The residual stream passes through it: x must not be used afterwards,
// and values from outside that body reads must be listed in shared when they may need gradients.
//
//   - When nothing of body is taped (no tape, or all below and in it is frozen), everything that it allocated is given back except its
//     result, which takes the place of x.
//   - With a tape, the gradients of values inside are given back when the layer's backward is done.
//   - With Ctx.Checkpoint, activations inside are given back too, and body runs a second time during Backward.
//
// body must do the same each time it runs.
func (c *Ctx) Block(x *Value, body func(x *Value) *Value, shared ...*Value) *Value {
	if c.Recording() && c.Checkpoint {
		return c.recompute(x, body, shared)
	}
	m := c.arena.Mark()
	at := len(c.tape)
	if c.Recording() {
		// The entry that runs last: all gradients inside are spent.
		c.tape = append(c.tape, step{})
	}
	out := body(x)
	if c.Recording() {
		if len(c.tape) > at+1 || x.Needs() {
			var after Mark
			c.tape[at].back = func() { c.arena.Release(after) }
			c.tape = append(c.tape, step{nil, func() {
				// Storage that outlives the layer comes first. (out has its gradient already, if it is to get one.)
				c.GradOf(x)
				for _, s := range shared {
					c.GradOf(s)
				}
				after = c.arena.Mark()
			}})
			return out
		}
		c.tape = c.tape[:at]
	}
	return c.takePlace(m, x, out)
}

// takePlace releases to m but keeps out, in the place of x where it fits: the layer's input is dead.
func (c *Ctx) takePlace(m Mark, x, out *Value) *Value {
	if out == x {
		c.arena.Release(m)
		return x
	}
	if len(out.Data) == len(x.Data) && c.arena.Owns(x.Data) {
		copy(x.Data, out.Data)
		x.Rows, x.Cols = out.Rows, out.Cols
		c.arena.Release(m)
		return x
	}
	return c.keep(m, out)
}

// Compact runs f and gives back everything that it allocated except its result, unless gradients flow through f.
func (c *Ctx) Compact(f func() *Value) *Value {
	m, at := c.arena.Mark(), len(c.tape)
	out := f()
	if len(c.tape) > at || out.Needs() || !c.arena.Owns(out.Data) {
		return out
	}
	return c.keep(m, out)
}

// keep releases to m but keeps v, moved to the bottom of the released region. The copy moves down, so overlap is safe.
func (c *Ctx) keep(m Mark, v *Value) *Value {
	src, rows, cols := v.Data, v.Rows, v.Cols
	c.arena.Release(m)
	d := c.arena.Alloc(len(src))
	copy(d, src)
	return c.wrap(d, rows, cols)
}

// recompute runs body, forgets its tape and records a single step that runs it again (Chen et al., 2016).
func (c *Ctx) recompute(x *Value, body func(x *Value) *Value, shared []*Value) *Value {
	seed := c.seed
	in := c.wrap(x.Data, x.Rows, x.Cols)
	m, at := c.arena.Mark(), len(c.tape)
	out := body(in)
	taped := len(c.tape) > at || x.Needs()
	clear(c.tape[at:])
	c.tape = c.tape[:at]
	if out == in {
		return x
	}
	if !taped { // all below and in it is frozen
		return c.takePlace(m, x, out)
	}
	out = c.keep(m, out)
	c.push(out, func() {
		c.GradOf(x)
		for _, s := range shared {
			c.GradOf(s)
		}
		m, at, now := c.arena.Mark(), len(c.tape), c.seed
		c.seed, c.Checkpoint = seed, false
		again := body(x)
		c.seed, c.Checkpoint = now, true
		if again.Needs() && again != x {
			again.Grad = out.Grad
			c.unwind(at)
		}
		clear(c.tape[at:])
		c.tape = c.tape[:at]
		c.arena.Release(m)
	})
	return out
}
