package grad

import (
	"math"

	"github.com/temper-ml/temper/backend"
)

// Dropout zeroes elements with probability p and scales the others by 1/(1−p), when training. The mask is a function of a seed
// (backend.DropoutKeep), so nothing is stored.
func (c *Ctx) Dropout(x *Value, p float32) *Value {
	if !c.Train || p <= 0 {
		return x
	}
	seed := c.DropSeed()
	y := c.New(x.Rows, x.Cols)
	c.drop(y.Data, x.Data, p, seed)
	if c.tracks(x, nil) {
		c.push(y, func() {
			dx, fresh := c.gradInto(x)
			if fresh {
				c.drop(dx, y.Grad, p, seed)
				return
			}
			m := c.arena.Mark()
			t := c.Scratch(len(dx))
			c.drop(t, y.Grad, p, seed)
			c.K.Add(dx, dx, t)
			c.arena.Release(m)
		})
	}
	return y
}

// dropSite returns the probability of a dropout site, 0 when not training, and its seed.
func (c *Ctx) dropSite(p float32) (float32, uint64) {
	if !c.Train || p <= 0 {
		return 0, 0
	}
	return p, c.DropSeed()
}

// dropped returns g through the mask of seed, in scratch storage; g itself when p is 0.
func (c *Ctx) dropped(g []float32, p float32, seed uint64) []float32 {
	if p == 0 {
		return g
	}
	t := c.Scratch(len(g))
	c.drop(t, g, p, seed)
	return t
}

func (c *Ctx) drop(dst, src []float32, p float32, seed uint64) {
	if k, ok := c.K.(backend.Dropper); ok && p < 1 {
		k.Dropout(dst, src, p, seed)
		return
	}
	dropout(dst, src, p, seed)
}

// dropout is backend.DropoutKeep over a slice: the same hash with its steps added up, compared as integers, without branches.
func dropout(dst, src []float32, p float32, seed uint64) {
	const step = 0x9e3779b97f4a7c15
	s := 1 / (1 - p)
	if p >= 1 {
		s = 0
	}
	least := int64(math.Ceil(float64(p) * (1 << 24))) // of the hash's upper 24 bits
	dst = dst[:len(src)]
	for i, v := range src {
		seed += step
		z := (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		drop := uint32((int64(z>>40) - least) >> 63) // all ones when below
		dst[i] = math.Float32frombits(math.Float32bits(v*s) &^ drop)
	}
}
