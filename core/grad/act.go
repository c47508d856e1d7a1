package grad

import "github.com/temper-ml/temper/backend"

// Act applies an activation element by element.
func (c *Ctx) Act(x *Value, a backend.Activation) *Value {
	y := c.New(x.Rows, x.Cols)
	c.K.Act(y.Data, x.Data, a)
	if c.tracks(x, nil) {
		c.push(y, func() { c.K.ActBackward(c.GradOf(x), y.Grad, x.Data, a) })
	}
	return y
}
