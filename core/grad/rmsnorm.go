package grad

import "fmt"

// RMSNorm divides rows by their root mean square and scales by gain. Rows are groups of len(gain) columns, so that x [tokens,
// heads·size] is normalised per head when gain has size values. With onePlus the factor is 1+gain (Gemma).
func (c *Ctx) RMSNorm(x *Value, gain *Param, eps float32, onePlus bool) *Value {
	cols := gain.T.Len()
	if cols == 0 || x.Cols%cols != 0 {
		panic(fmt.Sprintf("grad.RMSNorm: %s has %d values for %d columns", gain.Name, cols, x.Cols))
	}
	rows := x.Rows * (x.Cols / cols)
	y := c.New(x.Rows, x.Cols)
	tracked := c.Recording() && (x.Needs() || gain.Trainable())
	var rstd []float32
	if tracked {
		rstd = c.Scratch(rows)
	}
	g := gain.Values()
	if onePlus {
		g = c.Scratch(cols)
		for i, v := range gain.Values() {
			g[i] = 1 + v
		}
	}
	c.K.RMSNorm(y.Data, x.Data, g, rows, cols, eps, rstd)
	if tracked {
		c.push(y, func() { c.K.RMSNormBackward(c.GradOf(x), gain.Grad, y.Grad, x.Data, g, rstd, rows, cols) })
	}
	return y
}
