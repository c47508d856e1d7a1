package grad

// Mul returns a·b element by element, of equal shapes.
func (c *Ctx) Mul(a, b *Value) *Value {
	sameShape("Mul", a, b)
	y := c.New(a.Rows, a.Cols)
	c.K.Mul(y.Data, a.Data, b.Data)
	if c.tracks(a, b) {
		c.push(y, func() {
			c.addProduct(a, y.Grad, b.Data)
			c.addProduct(b, y.Grad, a.Data)
		})
	}
	return y
}

// addProduct adds p·q to v's gradient.
func (c *Ctx) addProduct(v *Value, p, q []float32) {
	dst, fresh := c.gradInto(v)
	if dst == nil {
		return
	}
	if fresh {
		c.K.Mul(dst, p, q)
		return
	}
	m := c.arena.Mark()
	t := c.Scratch(len(dst))
	c.K.Mul(t, p, q)
	c.K.Add(dst, dst, t)
	c.arena.Release(m)
}

// MulRow multiplies each row of x by the row v [1, Cols].
func (c *Ctx) MulRow(x, v *Value) *Value {
	rowShape("MulRow", x, v)
	y := c.New(x.Rows, x.Cols)
	for r := range x.Rows {
		at := r * x.Cols
		c.K.Mul(y.Data[at:at+x.Cols], x.Data[at:at+x.Cols], v.Data)
	}
	if c.tracks(x, v) {
		c.push(y, func() {
			dx, dv := c.GradOf(x), c.GradOf(v)
			for r := range x.Rows {
				at := r * x.Cols
				g, in := y.Grad[at:at+x.Cols], x.Data[at:at+x.Cols]
				if dx != nil {
					d := dx[at : at+x.Cols]
					for i, w := range v.Data {
						d[i] += g[i] * w
					}
				}
				for i := range dv {
					dv[i] += g[i] * in[i]
				}
			}
		})
	}
	return y
}
