package grad

// Add returns a+b, of equal shapes.
func (c *Ctx) Add(a, b *Value) *Value {
	sameShape("Add", a, b)
	y := c.New(a.Rows, a.Cols)
	c.K.Add(y.Data, a.Data, b.Data)
	if c.tracks(a, b) {
		c.push(y, func() {
			c.addGrad(b, 1, y.Grad)
			c.passGrad(a, y.Grad)
		})
	}
	return y
}

// passGrad adds g to v's gradient, and lets v have g itself when it has none: g must not be needed any more.
func (c *Ctx) passGrad(v *Value, g []float32) {
	if v.Needs() && v.Grad == nil {
		v.Grad = g
		return
	}
	c.addGrad(v, 1, g)
}

// Sub returns a−b, of equal shapes.
func (c *Ctx) Sub(a, b *Value) *Value {
	sameShape("Sub", a, b)
	y := c.New(a.Rows, a.Cols)
	copy(y.Data, a.Data)
	c.K.Axpy(y.Data, -1, b.Data)
	if c.tracks(a, b) {
		c.push(y, func() {
			c.addGrad(b, -1, y.Grad)
			c.passGrad(a, y.Grad)
		})
	}
	return y
}

// AddRow adds the row v [1, Cols] to each row of x.
func (c *Ctx) AddRow(x, v *Value) *Value {
	rowShape("AddRow", x, v)
	y := c.New(x.Rows, x.Cols)
	copy(y.Data, x.Data)
	c.K.AddRow(y.Data, v.Data, x.Rows, x.Cols)
	if c.tracks(x, v) {
		c.push(y, func() {
			if dv := c.GradOf(v); dv != nil {
				c.K.SumRows(dv, y.Grad, x.Rows, x.Cols)
			}
			c.passGrad(x, y.Grad)
		})
	}
	return y
}
