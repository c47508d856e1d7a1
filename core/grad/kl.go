package grad

import "math"

// KL returns [1, 1]: the mean over rows of KL(softmax(a) ‖ softmax(b)), differentiable in both.
func (c *Ctx) KL(a, b *Value) *Value {
	sameShape("KL", a, b)
	y := c.Zeros(1, 1)
	if a.Rows == 0 {
		return y
	}
	tracked := c.tracks(a, b)
	m := c.arena.Mark()
	la, lb, per := c.Scratch(len(a.Data)), c.Scratch(len(b.Data)), c.Scratch(a.Rows)
	var sum float64
	for r := range a.Rows {
		pa, pb := row(la, r, a.Cols), row(lb, r, a.Cols)
		logSoftmax(pa, row(a.Data, r, a.Cols))
		logSoftmax(pb, row(b.Data, r, a.Cols))
		var kl float64
		for i, l := range pa {
			kl += math.Exp(float64(l)) * float64(l-pb[i])
		}
		per[r] = float32(kl)
		sum += kl
	}
	y.Data[0] = float32(sum / float64(a.Rows))
	if !tracked {
		c.arena.Release(m)
		return y
	}
	c.push(y, func() { // dKL/da = p·(log p − log q − KL), dKL/db = q − p
		s := y.Grad[0] / float32(a.Rows)
		da, db := c.GradOf(a), c.GradOf(b)
		for i := range la {
			p, q := float32(math.Exp(float64(la[i]))), float32(math.Exp(float64(lb[i])))
			if da != nil {
				da[i] += s * p * (la[i] - lb[i] - per[i/a.Cols])
			}
			if db != nil {
				db[i] += s * (q - p)
			}
		}
	})
	return y
}
