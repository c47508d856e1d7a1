package grad

// MaxPool takes the largest value of each column over the rows of each sequence. Empty sequences give zeros.
func (c *Ctx) MaxPool(x *Value, offsets []int32) *Value {
	n := len(offsets) - 1
	y := c.Zeros(n, x.Cols)
	at := make([]int32, n*x.Cols) // row of the largest, −1 for none
	for s := range n {
		for j := range x.Cols {
			best := int32(-1)
			for r := offsets[s]; r < offsets[s+1]; r++ {
				if best < 0 || x.Data[int(r)*x.Cols+j] > x.Data[int(best)*x.Cols+j] {
					best = r
				}
			}
			if at[s*x.Cols+j] = best; best >= 0 {
				y.Data[s*x.Cols+j] = x.Data[int(best)*x.Cols+j]
			}
		}
	}
	if c.tracks(x, nil) {
		c.push(y, func() {
			dx := c.GradOf(x)
			for i, r := range at {
				if r >= 0 {
					dx[int(r)*x.Cols+i%x.Cols] += y.Grad[i]
				}
			}
		})
	}
	return y
}
