package grad

// Scale returns s·x.
func (c *Ctx) Scale(x *Value, s float32) *Value {
	y := c.New(x.Rows, x.Cols)
	copy(y.Data, x.Data)
	c.K.Scale(y.Data, s)
	if c.tracks(x, nil) {
		c.push(y, func() { c.addGrad(x, s, y.Grad) })
	}
	return y
}
