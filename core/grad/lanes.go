package grad

import "github.com/temper-ml/temper/backend"

// Apart runs f for each of n parts of a batch that do not see each other, so that what one part computes stays in cache: one after the
// other, or, where side is set and the kernels have lanes, side by side. f gets a context of its own, whose values are gone when it returns:
// it copies what is to stay. Apart returns false, and runs nothing, when c records or draws dropout: a tape has one order.
func (c *Ctx) Apart(n int, side bool, f func(c *Ctx, part int)) bool {
	if c.Recording() || c.Train {
		return false
	}
	if l, ok := c.K.(backend.Lanes); ok && side {
		lanes := l.Lanes()
		ctx := make([]*Ctx, len(lanes))
		for i, k := range lanes {
			ctx[i] = Infer(k, c.arena.lane(i))
		}
		l.Each(n, func(lane, i int) {
			f(ctx[lane], i)
			ctx[lane].arena.Reset()
		})
		return true
	}
	for i := range n {
		m := c.arena.Mark()
		f(c, i)
		c.arena.Release(m)
	}
	return true
}

// lane is an arena of its own for each worker, kept for the next call.
func (a *Arena) lane(i int) *Arena {
	for len(a.lanes) <= i {
		a.lanes = append(a.lanes, &Arena{})
	}
	return a.lanes[i]
}

// home is whoever packs weights for k: kernels that share packed weights have one home.
func home(k backend.Kernels) backend.Kernels {
	if l, ok := k.(backend.Lane); ok {
		return l.Home()
	}
	return k
}
