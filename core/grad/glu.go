package grad

import "github.com/temper-ml/temper/backend"

// GLU returns act(gate)·up (Shazeer, 2020), of equal shapes.
func (c *Ctx) GLU(gate, up *Value, act backend.Activation) *Value {
	sameShape("GLU", gate, up)
	y := c.New(gate.Rows, gate.Cols)
	if !c.tracks(gate, up) {
		c.K.Act(y.Data, gate.Data, act)
		c.K.Mul(y.Data, y.Data, up.Data)
		return y
	}
	a := c.Scratch(len(y.Data))
	c.K.Act(a, gate.Data, act)
	c.K.Mul(y.Data, a, up.Data)
	c.push(y, func() {
		dgate := c.GradOf(gate)
		c.addProduct(up, y.Grad, a)
		if dgate != nil {
			m := c.arena.Mark()
			t := c.Scratch(len(dgate))
			c.K.Mul(t, y.Grad, up.Data)
			c.K.ActBackward(dgate, t, gate.Data, act)
			c.arena.Release(m)
		}
	})
	return y
}
