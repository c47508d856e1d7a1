package grad

import "fmt"

// MSE returns [1, 1]: the mean over all elements of (x−target)².
func (c *Ctx) MSE(x *Value, target []float32) *Value {
	if len(target) != len(x.Data) {
		panic(fmt.Sprintf("grad.MSE: %d targets for %d values", len(target), len(x.Data)))
	}
	y := c.Zeros(1, 1)
	if len(target) == 0 {
		return y
	}
	var sum float64
	for i, v := range x.Data {
		d := float64(v - target[i])
		sum += d * d
	}
	y.Data[0] = float32(sum / float64(len(target)))
	if c.tracks(x, nil) {
		c.push(y, func() {
			s := 2 * y.Grad[0] / float32(len(target))
			dx := c.GradOf(x)
			for i, v := range x.Data {
				dx[i] += s * (v - target[i])
			}
		})
	}
	return y
}
