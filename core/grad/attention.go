package grad

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
)

// AttentionSpec describes attention over packed sequences (see backend.AttentionArgs).
type AttentionSpec struct {
	Heads, KVHeads, HeadDim int
	Seqs                    []backend.Seq
	Scale                   float32
	Causal                  bool
	Window                  int
	Softcap                 float32
	Dropout                 float32 // of attention weights, when training
	// QAt, KAt and VAt are the columns where queries, keys and values begin: they may be parts of one product.
	QAt, KAt, VAt int
	// Bias, when not nil, is added to the scaled scores: a block [Heads, QLen, KLen] per sequence at BiasAt of its data.
	Bias   *Value
	BiasAt []int
}

// Attention computes softmax(scale·q·kᵀ + bias, masked)·v per head: [rows of q, Heads·HeadDim].
func (c *Ctx) Attention(q, k, v *Value, s AttentionSpec) *Value {
	if s.KVHeads == 0 {
		s.KVHeads = s.Heads
	}
	wide, narrow := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	if s.Heads%s.KVHeads != 0 || s.QAt+wide > q.Cols || s.KAt+narrow > k.Cols || s.VAt+narrow > v.Cols {
		panic(fmt.Sprintf("grad.Attention: %d heads (%d for keys) of %d do not fit columns %d, %d, %d", s.Heads, s.KVHeads, s.HeadDim, q.Cols, k.Cols, v.Cols))
	}
	y := c.New(q.Rows, wide)
	a := backend.AttentionArgs{
		Q: q.Data[s.QAt:], K: k.Data[s.KAt:], V: v.Data[s.VAt:], Out: y.Data,
		QStride: q.Cols, KStride: k.Cols, VStride: v.Cols, OStride: wide,
		Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim, Seqs: s.Seqs, Scale: s.Scale, Causal: s.Causal, Window: s.Window, Softcap: s.Softcap,
	}
	if s.Bias != nil {
		a.Bias, a.BiasAt = s.Bias.Data, s.BiasAt
	}
	if c.Train && s.Dropout > 0 {
		a.DropoutP, a.DropoutSeed = s.Dropout, c.DropSeed()
	}
	tracked := c.tracks(q, k) || c.tracks(v, s.Bias)
	if tracked {
		a.LSE = c.Scratch(q.Rows * s.Heads)
	}
	c.K.Attention(a)
	if !tracked {
		return y
	}
	back := a
	c.push(y, func() {
		a := back
		dq, dk, dv := c.GradOf(q), c.GradOf(k), c.GradOf(v)
		if s.Bias != nil {
			a.DBias = c.GradOf(s.Bias)
		}
		// The kernel writes all three; what nobody wants goes to scratch.
		m := c.arena.Mark()
		for _, g := range []struct {
			d *[]float32
			v *Value
		}{{&dq, q}, {&dk, k}, {&dv, v}} {
			if *g.d == nil {
				*g.d = c.Scratch(len(g.v.Data))
			}
		}
		a.DOut, a.DQ, a.DK, a.DV = y.Grad, dq[s.QAt:], dk[s.KAt:], dv[s.VAt:]
		c.K.AttentionBackward(a)
		c.arena.Release(m)
	})
	return y
}
