package grad

import "math"

// Softmax normalises each row.
func (c *Ctx) Softmax(x *Value) *Value {
	y := c.New(x.Rows, x.Cols)
	c.K.Softmax(y.Data, x.Data, x.Rows, x.Cols)
	if c.tracks(x, nil) {
		c.push(y, func() { // dx = y·(dy − Σ dy·y)
			dx := c.GradOf(x)
			for r := range x.Rows {
				p, g, d := row(y.Data, r, x.Cols), row(y.Grad, r, x.Cols), row(dx, r, x.Cols)
				dot := c.K.Dot(p, g)
				for i := range d {
					d[i] += p[i] * (g[i] - dot)
				}
			}
		})
	}
	return y
}

// LogSoftmax returns the logarithm of each row's softmax.
func (c *Ctx) LogSoftmax(x *Value) *Value {
	y := c.New(x.Rows, x.Cols)
	for r := range x.Rows {
		logSoftmax(row(y.Data, r, x.Cols), row(x.Data, r, x.Cols))
	}
	if c.tracks(x, nil) {
		c.push(y, func() { // dx = dy − softmax·Σ dy
			dx := c.GradOf(x)
			for r := range x.Rows {
				lp, g, d := row(y.Data, r, x.Cols), row(y.Grad, r, x.Cols), row(dx, r, x.Cols)
				var sum float32
				for _, v := range g {
					sum += v
				}
				for i := range d {
					d[i] += g[i] - float32(math.Exp(float64(lp[i])))*sum
				}
			}
		})
	}
	return y
}

func logSoftmax(dst, x []float32) {
	if len(x) == 0 {
		return
	}
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	var sum float64
	for _, v := range x {
		sum += math.Exp(float64(v - top))
	}
	lse := float32(math.Log(sum))
	for i, v := range x {
		dst[i] = v - top - lse
	}
}

func row(x []float32, r, cols int) []float32 { return x[r*cols : (r+1)*cols] }
