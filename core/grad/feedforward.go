package grad

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
)

// feedRows is how many rows pass through a frozen feed-forward part at a time, so that what lies between its layers stays in the cache.
const feedRows = 256

// pieceOf is how many rows pass at a time: frozen matrices take any number of rows alike, a trainable one sums over all of them at once.
func pieceOf(rows int, trained bool) int {
	if trained {
		return rows
	}
	return min(rows, feedRows)
}

// FeedForward computes dropout(act(x·Upᵀ + b)·Downᵀ + b') + x, the second half of a block. Of what lies between it keeps the values before
// the activation alone, where Linear and LinearAdd would keep those after it too; a trainable Down computes those anew. Values and gradients
// equal theirs to the bit.
func (c *Ctx) FeedForward(x *Value, up, upBias, down, downBias *Param, transposed bool, act backend.Activation, drop float32) *Value {
	u, d := c.affine(x, up, upBias, transposed), c.affine(nil, down, downBias, transposed)
	if d.in != u.out || d.out != x.Cols {
		panic(fmt.Sprintf("grad.FeedForward: %s gives %d columns, %s wants %d and gives %d, the residual has %d", up.Name, u.out, down.Name, d.in, d.out, x.Cols))
	}
	rows, wide, trained := x.Rows, u.out, u.trainable() || d.trainable()
	tracked := c.Recording() && (x.Needs() || trained)
	y := c.New(rows, d.out)
	kept := 0
	if tracked {
		kept = rows * wide
	}
	pre := c.Scratch(kept)
	piece := pieceOf(rows, trained)
	p, seed := c.dropSite(drop)
	m := c.arena.Mark()
	h := c.Scratch(piece * wide)
	for r := 0; r < rows; r += piece {
		n := min(piece, rows-r)
		var z []float32
		if tracked {
			z = pre[r*wide : (r+n)*wide]
		}
		out, plus := y.Data[r*d.out:(r+n)*d.out], x.Data[r*u.in:(r+n)*u.in]
		u.forward(c, h[:n*wide], plus, n, act, z, nil)
		if p > 0 {
			plus = nil
		}
		d.forward(c, out, h[:n*wide], n, backend.None, nil, plus)
	}
	c.arena.Release(m)
	if p > 0 {
		c.drop(y.Data, y.Data, p, seed)
		c.K.Add(y.Data, y.Data, x.Data)
	}
	if !tracked {
		return y
	}
	c.push(y, func() {
		m := c.arena.Mark()
		dy := c.dropped(y.Grad, p, seed)
		// Where x had no gradient it has y's now. Adding to it below spoils no dy: a piece is read before its own rows are written.
		c.passGrad(x, y.Grad)
		dx := x.Grad
		dh, t := c.Scratch(piece*wide), c.Scratch(piece*wide)
		for r := 0; r < rows; r += piece {
			n := min(piece, rows-r)
			z, dh, t := pre[r*wide:(r+n)*wide], dh[:n*wide], t[:n*wide]
			if d.w.Trainable() {
				c.K.Act(t, z, act)
			}
			d.backward(c, dy[r*d.out:(r+n)*d.out], t, n, dh, true)
			clear(t)
			c.K.ActBackward(t, dh, z, act)
			var into []float32
			if dx != nil {
				into = dx[r*u.in : (r+n)*u.in]
			}
			u.backward(c, t, x.Data[r*u.in:(r+n)*u.in], n, into, false)
		}
		c.arena.Release(m)
	})
	return y
}
