package grad

import "math"

// Normalize divides each row by its L2 norm, or by eps where that is larger (torch.nn.functional.normalize has 1e-12).
func (c *Ctx) Normalize(x *Value, eps float32) *Value {
	y := c.New(x.Rows, x.Cols)
	copy(y.Data, x.Data)
	inv := c.Scratch(x.Rows)
	for r := range x.Rows {
		inv[r] = 1 / max(float32(math.Sqrt(c.K.SumSquares(row(x.Data, r, x.Cols)))), eps)
		c.K.Scale(row(y.Data, r, x.Cols), inv[r])
	}
	if c.tracks(x, nil) {
		c.push(y, func() { // dx = (dy − y·(y·dy))/‖x‖; below eps the divisor is a constant
			dx := c.GradOf(x)
			for r := range x.Rows {
				g, d := row(y.Grad, r, x.Cols), row(dx, r, x.Cols)
				c.K.Axpy(d, inv[r], g)
				if inv[r] < 1/eps {
					u := row(y.Data, r, x.Cols)
					c.K.Axpy(d, -inv[r]*c.K.Dot(u, g), u)
				}
			}
		})
	}
	return y
}
