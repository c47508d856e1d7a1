package grad

import "fmt"

// LayerNorm normalises each row of x to mean 0 and variance 1, then scales by gain [Cols] and adds bias [Cols] (nil for none).
func (c *Ctx) LayerNorm(x *Value, gain, bias *Param, eps float32) *Value {
	if gain.T.Len() != x.Cols {
		panic(fmt.Sprintf("grad.LayerNorm: %s has %d values for %d columns", gain.Name, gain.T.Len(), x.Cols))
	}
	y := c.New(x.Rows, x.Cols)
	tracked := c.Recording() && (x.Needs() || gain.Trainable() || bias.Trainable())
	var mean, rstd, b []float32
	if tracked {
		mean, rstd = c.Scratch(x.Rows), c.Scratch(x.Rows)
	}
	if bias != nil {
		b = bias.Values()
	}
	c.K.LayerNorm(y.Data, x.Data, gain.Values(), b, x.Rows, x.Cols, eps, mean, rstd)
	if tracked {
		c.push(y, func() {
			var db []float32
			if bias != nil {
				db = bias.Grad
			}
			c.K.LayerNormBackward(c.GradOf(x), gain.Grad, db, y.Grad, x.Data, gain.Values(), mean, rstd, x.Rows, x.Cols)
		})
	}
	return y
}
