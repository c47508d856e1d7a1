package distill

import (
	"fmt"
	"math"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// relations returns [1, 1]: how far the relations among the rows of x are from those among the rows of a teacher's, after Wang et al., 2021 (MiniLMv2):
// within each sequence and for each of heads equal parts of the columns, softmax(X·Xᵀ/√d) is compared by KL(teacher ‖ student), the mean over tokens and
// heads. x is [tokens, heads·d]; teacher [tokens, heads·d'] is a constant, and its width may differ.
func relations(c *grad.Ctx, x *grad.Value, teacher []float32, width int, offsets []int32, heads int) *grad.Value {
	if x.Cols%heads != 0 || width%heads != 0 || len(teacher) != x.Rows*width {
		panic(fmt.Sprintf("distill.relations: %d columns and %d of the teacher (%d values for %d rows) in %d heads", x.Cols, width, len(teacher), x.Rows, heads))
	}
	dS, dT := x.Cols/heads, width/heads
	scaleS, scaleT := float32(1/math.Sqrt(float64(dS))), float32(1/math.Sqrt(float64(dT)))
	size, longest := 0, 0
	for i := range len(offsets) - 1 {
		n := int(offsets[i+1] - offsets[i])
		size += heads * n * n
		longest = max(longest, n)
	}
	y := c.Zeros(1, 1)
	diff := c.Scratch(size) // softmax of the student less that of the teacher
	p := c.Scratch(longest * longest)
	share := 1 / (float64(heads) * float64(x.Rows))
	var loss float64
	at := 0
	for i := range len(offsets) - 1 {
		lo, n := int(offsets[i]), int(offsets[i+1]-offsets[i])
		for h := range heads {
			q := diff[at : at+n*n]
			at += n * n
			similar(c, q, x.Data[lo*x.Cols+h*dS:], n, dS, x.Cols, scaleS)
			similar(c, p[:n*n], teacher[lo*width+h*dT:], n, dT, width, scaleT)
			for r := range n {
				loss += divergence(p[r*n:(r+1)*n], q[r*n:(r+1)*n])
			}
			for j := range q {
				q[j] -= p[j]
			}
		}
	}
	y.Data[0] = float32(loss * share)
	return c.Op(y, func() { // of the scores: (q − p)·share; of x: (d + dᵀ)·x·scale
		dx := c.GradOf(x)
		s := y.Grad[0] * float32(share) * scaleS
		sum := c.Scratch(longest * longest)
		at := 0
		for i := range len(offsets) - 1 {
			lo, n := int(offsets[i]), int(offsets[i+1]-offsets[i])
			for h := range heads {
				d := diff[at : at+n*n]
				at += n * n
				for r := range n {
					for k := range n {
						sum[r*n+k] = s * (d[r*n+k] + d[k*n+r])
					}
				}
				c.K.MatMul(backend.MatMulArgs{M: n, N: dS, K: n, A: sum, LDA: n, B: x.Data[lo*x.Cols+h*dS:], LDB: x.Cols, C: dx[lo*x.Cols+h*dS:], LDC: x.Cols, Accumulate: true})
			}
		}
	}, x)
}

// similar writes x·xᵀ·scale [n, n]; x has n rows of d, stride apart.
func similar(c *grad.Ctx, dst, x []float32, n, d, stride int, scale float32) {
	c.K.MatMul(backend.MatMulArgs{M: n, N: n, K: d, A: x, LDA: stride, B: x, LDB: stride, TransB: true, C: dst, LDC: n})
	c.K.Scale(dst[:n*n], scale)
}

// divergence turns two rows of scores into their softmax and returns KL(p ‖ q).
func divergence(p, q []float32) float64 {
	lp, lq := logSum(p), logSum(q)
	var kl float64
	for i := range p {
		a, b := float64(p[i])-lp, float64(q[i])-lq
		e := math.Exp(a)
		kl += e * (a - b)
		p[i], q[i] = float32(e), float32(math.Exp(b))
	}
	return kl
}

func logSum(v []float32) float64 {
	top := math.Inf(-1)
	for _, x := range v {
		top = max(top, float64(x))
	}
	var s float64
	for _, x := range v {
		s += math.Exp(float64(x) - top)
	}
	return top + math.Log(s)
}
