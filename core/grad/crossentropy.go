package grad

import "fmt"

// CrossEntropy returns [1, 1]: the mean over rows with target >= 0 of −log softmax(logits)[target]. Negative targets (−100) are
// ignored; without any other the loss is 0.
func (c *Ctx) CrossEntropy(logits *Value, targets []int32) *Value {
	if len(targets) != logits.Rows {
		panic(fmt.Sprintf("grad.CrossEntropy: %d targets for %d rows", len(targets), logits.Rows))
	}
	n := 0
	for _, t := range targets {
		if int(t) >= logits.Cols {
			panic(fmt.Sprintf("grad.CrossEntropy: target %d of %d classes", t, logits.Cols))
		}
		if t >= 0 {
			n++
		}
	}
	y := c.Zeros(1, 1)
	if n == 0 {
		return y
	}
	sum := c.K.CrossEntropy(logits.Data, targets, logits.Rows, logits.Cols, nil, 1)
	y.Data[0] = float32(sum / float64(n))
	if c.tracks(logits, nil) {
		c.push(y, func() {
			dx, fresh := c.gradInto(logits)
			m := c.arena.Mark()
			d := dx
			if !fresh {
				d = c.Scratch(len(dx))
			}
			c.K.CrossEntropy(logits.Data, targets, logits.Rows, logits.Cols, d, y.Grad[0]/float32(n))
			if !fresh {
				c.K.Add(dx, dx, d)
			}
			c.arena.Release(m)
		})
	}
	return y
}
