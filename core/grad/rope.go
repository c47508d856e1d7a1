package grad

import "github.com/temper-ml/temper/backend"

// RopeSpec describes rotary position embedding (Su et al., 2021) of Heads·HeadDim columns of x from column At.
type RopeSpec struct {
	At, Heads, HeadDim, RotDim int
	Pos                        []int32
	Cos, Sin                   []float32 // [positions, RotDim/2]
	Interleaved                bool
}

// Rope rotates x in place and returns it: x must be a fresh product that no op with a backward of its own has read. The gradient is
// rotated back in place too.
func (c *Ctx) Rope(x *Value, s RopeSpec) *Value {
	r := backend.RopeArgs{X: x.Data[s.At:], Stride: x.Cols, Heads: s.Heads, HeadDim: s.HeadDim, RotDim: s.RotDim,
		Pos: s.Pos, Cos: s.Cos, Sin: s.Sin, Interleaved: s.Interleaved}
	c.K.Rope(r)
	if c.tracks(x, nil) {
		back := r
		c.push(x, func() {
			r := back
			r.X, r.Inverse = x.Grad[s.At:], true
			c.K.Rope(r)
		})
	}
	return x
}
