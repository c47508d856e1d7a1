package grad

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

const (
	outputBytes = 128 << 20 // of the logits that exist at a time
	outputRows  = 16        // at least so many rows at a time
	outputBlock = 8192      // rows of the matrix that are expanded at a time
)

// OutputLossSpec describes the end of a language model.
type OutputLossSpec struct {
	// Targets are the classes, one a row; negative ones are ignored.
	Targets []int32
	// Scale multiplies the logits (0 is 1), then Softcap bounds them: Softcap·tanh(z/Softcap) (0 is none).
	Scale, Softcap float32
	// Weight multiplies the loss.
	Weight float32
	// Piece is the number of rows that pass at a time; 0 is as many as have logits of 128 MiB, 16 at least.
	Piece int
}

// OutputLoss computes Weight·Σ −log softmax(x·Wᵀ + b)[target] [1, 1] over the rows of x for a frozen output layer W [Out, In], and the sum before Weight
// in float64. Rows pass in pieces, forward and gradient at once, so that the logits of one piece exist at a time and W is never expanded as a
// whole: over a large vocabulary they would be most of the memory of training. What is kept for Backward is the gradient of x.
func (c *Ctx) OutputLoss(x *Value, w, b *Param, s OutputLossSpec) (*Value, float64) {
	l := c.affine(x, w, b, false)
	if l.trainable() {
		panic(fmt.Sprintf("grad.OutputLoss: %s is trainable", w.Name))
	}
	if len(s.Targets) != x.Rows {
		panic(fmt.Sprintf("grad.OutputLoss: %d targets for %d rows", len(s.Targets), x.Rows))
	}
	for _, t := range s.Targets {
		if int(t) >= l.out {
			panic(fmt.Sprintf("grad.OutputLoss: target %d of %d classes", t, l.out))
		}
	}
	if s.Scale == 0 {
		s.Scale = 1
	}
	y := c.New(1, 1)
	tracked := c.tracks(x, nil)
	var dx []float32
	if tracked {
		dx = c.Scratch(len(x.Data))
	}
	piece := s.Piece
	if piece <= 0 {
		piece = max(outputRows, outputBytes/4/l.out)
	}
	piece = min(piece, x.Rows)
	sum := 0.0
	m := c.arena.Mark()
	z := c.Scratch(piece * l.out)
	dz := z // the gradient takes the logits' place, unless the bound's needs them
	if tracked && s.Softcap > 0 {
		dz = c.Scratch(piece * l.out)
	}
	for r := 0; r < x.Rows; r += piece {
		n := min(piece, x.Rows-r)
		z := z[:n*l.out]
		l.forward(c, z, x.Data[r*l.in:(r+n)*l.in], n, backend.None, nil, nil)
		if s.Scale != 1 {
			c.K.Scale(z, s.Scale)
		}
		if s.Softcap > 0 {
			c.K.Scale(z, 1/s.Softcap)
			c.K.Act(z, z, backend.Tanh)
			c.K.Scale(z, s.Softcap)
		}
		if !tracked {
			sum += c.K.CrossEntropy(z, s.Targets[r:r+n], n, l.out, nil, 1)
			continue
		}
		d := dz[:n*l.out]
		sum += c.K.CrossEntropy(z, s.Targets[r:r+n], n, l.out, d, s.Weight*s.Scale)
		if s.Softcap > 0 { // d tanh is 1 − tanh²
			for i, v := range z {
				v /= s.Softcap
				d[i] *= 1 - v*v
			}
		}
		c.outputBack(dx[r*l.in:(r+n)*l.in], d, n, l)
	}
	c.arena.Release(m)
	y.Data[0] = float32(float64(s.Weight) * sum)
	if tracked {
		c.push(y, func() { c.addGrad(x, y.Grad[0], dx) })
	}
	return y, sum
}

// outputBack writes dz·W to dx, expanding W block by block.
func (c *Ctx) outputBack(dx, dz []float32, rows int, l affine) {
	whole := l.w.resident()
	m := c.arena.Mark()
	defer c.arena.Release(m)
	var block []float32
	if whole == nil {
		block = c.Scratch(min(outputBlock, l.out) * l.in)
	}
	t := l.w.T
	stride := t.DType.RowBytes(l.in)
	for at := 0; at < l.out; at += outputBlock {
		n := min(outputBlock, l.out-at)
		v := block
		if whole != nil {
			v = whole[at*l.in:]
		} else {
			part := tensor.Tensor{Name: t.Name, DType: t.DType, Shape: []int{n, l.in}, Data: t.Data[at*stride : (at+n)*stride]}
			if t.Scales != nil {
				part.Scales = t.Scales[at : at+n]
			}
			expand(v[:n*l.in], part)
		}
		c.K.MatMul(backend.MatMulArgs{M: rows, N: l.in, K: n, A: dz[at:], LDA: l.out, B: v, LDB: l.in, C: dx, LDC: l.in, Accumulate: at > 0})
	}
}
