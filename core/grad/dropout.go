package grad

import "github.com/temper-ml/temper/backend"

// Dropout zeroes elements with probability p and scales the others by 1/(1−p), when training. The mask is a function of a seed
// (backend.DropoutKeep), so nothing is stored.
func (c *Ctx) Dropout(x *Value, p float32) *Value {
	if !c.Train || p <= 0 {
		return x
	}
	seed := c.DropSeed()
	y := c.New(x.Rows, x.Cols)
	s := 1 / (1 - p)
	if p >= 1 {
		s = 0
	}
	for i, v := range x.Data {
		if backend.DropoutKeep(seed, uint64(i), p) {
			y.Data[i] = v * s
		} else {
			y.Data[i] = 0
		}
	}
	if c.tracks(x, nil) {
		c.push(y, func() {
			dx := c.GradOf(x)
			for i, g := range y.Grad {
				if backend.DropoutKeep(seed, uint64(i), p) {
					dx[i] += g * s
				}
			}
		})
	}
	return y
}
