package grad

import (
	"fmt"
	"math"
)

// BCEWithLogits returns [1, 1]: the mean over all elements of −t·log σ(x) − (1−t)·log(1−σ(x)).
func (c *Ctx) BCEWithLogits(x *Value, target []float32) *Value {
	if len(target) != len(x.Data) {
		panic(fmt.Sprintf("grad.BCEWithLogits: %d targets for %d values", len(target), len(x.Data)))
	}
	y := c.Zeros(1, 1)
	if len(target) == 0 {
		return y
	}
	var sum float64
	for i, v := range x.Data {
		z, t := float64(v), float64(target[i])
		sum += max(z, 0) - z*t + math.Log1p(math.Exp(-math.Abs(z)))
	}
	y.Data[0] = float32(sum / float64(len(target)))
	if c.tracks(x, nil) {
		c.push(y, func() {
			s := y.Grad[0] / float32(len(target))
			dx := c.GradOf(x)
			for i, v := range x.Data {
				dx[i] += s * (float32(1/(1+math.Exp(-float64(v)))) - target[i])
			}
		})
	}
	return y
}
