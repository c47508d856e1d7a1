package grad

import "fmt"

// Sum returns [1, 1]: the sum of all elements.
func (c *Ctx) Sum(x *Value) *Value {
	var sum float64
	for _, v := range x.Data {
		sum += float64(v)
	}
	y := c.Zeros(1, 1)
	y.Data[0] = float32(sum)
	if c.tracks(x, nil) {
		c.push(y, func() {
			dx := c.GradOf(x)
			for i := range dx {
				dx[i] += y.Grad[0]
			}
		})
	}
	return y
}

// Dot returns [1, 1]: Σ x·w for constant weights w.
func (c *Ctx) Dot(x *Value, w []float32) *Value {
	if len(w) != len(x.Data) {
		panic(fmt.Sprintf("grad.Dot: %d weights for %d values", len(w), len(x.Data)))
	}
	var sum float64
	for i, v := range x.Data {
		sum += float64(v) * float64(w[i])
	}
	y := c.Zeros(1, 1)
	y.Data[0] = float32(sum)
	if c.tracks(x, nil) {
		c.push(y, func() { c.addGrad(x, y.Grad[0], w) })
	}
	return y
}
