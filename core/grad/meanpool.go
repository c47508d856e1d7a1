package grad

// MeanPool averages the rows of each sequence: sequence i is rows offsets[i]:offsets[i+1] of x. Empty sequences give zeros.
func (c *Ctx) MeanPool(x *Value, offsets []int32) *Value {
	n := len(offsets) - 1
	y := c.Zeros(n, x.Cols)
	for s := range n {
		if rows := int(offsets[s+1] - offsets[s]); rows > 0 {
			d := row(y.Data, s, x.Cols)
			c.K.SumRows(d, x.Data[int(offsets[s])*x.Cols:int(offsets[s+1])*x.Cols], rows, x.Cols)
			c.K.Scale(d, 1/float32(rows))
		}
	}
	if c.tracks(x, nil) {
		c.push(y, func() {
			dx := c.GradOf(x)
			for s := range n {
				w := 1 / float32(offsets[s+1]-offsets[s])
				for r := int(offsets[s]); r < int(offsets[s+1]); r++ {
					c.K.Axpy(row(dx, r, x.Cols), w, row(y.Grad, s, x.Cols))
				}
			}
		})
	}
	return y
}
