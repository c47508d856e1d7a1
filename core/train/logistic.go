package train

import (
	"context"
	"fmt"
	"math"

	"github.com/temper-ml/temper/backend"
)

// Logistic is a linear classifier: logits = x·Wᵀ + b, W [Classes, Dim].
type Logistic struct {
	Classes, Dim int
	W, B         []float32
	Loss         float64
	Iterations   int
}

// FitLogistic fits logistic regression on rows of x [n, dim] by L-BFGS, minimising C·Σ loss + ½‖W‖² with a free intercept: the objective
// of scikit-learn's LogisticRegression(C). Two classes have one weight vector, which is then spread over both as 0 and w.
func FitLogistic(ctx context.Context, k backend.Kernels, x []float32, dim int, y []int32, classes int, c float64, weights []float64) (*Logistic, error) {
	n := len(y)
	if n == 0 || classes < 2 || dim <= 0 || len(x) != n*dim || c <= 0 {
		return nil, fmt.Errorf("logistic regression: %d values for %d rows of %d, %d classes, C %g: expected rows, two classes and a positive C", len(x), n, dim, classes, c)
	}
	for _, v := range x {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("logistic regression: a feature is not a finite number (%g): are the model's weights?", v)
		}
	}
	rows := classes
	if classes == 2 {
		rows = 1
	}
	w32, z, dw := make([]float32, rows*dim), make([]float32, n*rows), make([]float32, rows*dim)
	p := make([]float64, rows)
	weight := func(y int32) float64 {
		if weights == nil {
			return 1
		}
		return weights[y]
	}
	// Parameters: W [rows, dim], then b [rows]. Products run on the kernels in float32, sums over the data in float64.
	objective := func(v, g []float64) float64 {
		for i := range w32 {
			w32[i] = float32(v[i])
		}
		k.MatMul(backend.MatMulArgs{M: n, N: rows, K: dim, A: x, LDA: dim, B: w32, LDB: dim, TransB: true, C: z, LDC: rows})
		b, gb := v[rows*dim:], g[rows*dim:]
		clear(gb)
		var loss float64
		for i, label := range y {
			zi := z[i*rows : (i+1)*rows]
			cw := c * weight(label)
			if rows == 1 {
				s, t := float64(zi[0])+b[0], float64(label)
				loss += cw * (max(s, 0) - s*t + math.Log1p(math.Exp(-math.Abs(s))))
				d := cw * (1/(1+math.Exp(-s)) - t)
				gb[0] += d
				zi[0] = float32(d)
				continue
			}
			for j := range zi {
				zi[j] += float32(b[j])
			}
			loss += cw * (logSoftmax(p, zi) - float64(zi[label]))
			for j := range zi {
				d := p[j]
				if j == int(label) {
					d--
				}
				gb[j] += cw * d
				zi[j] = float32(cw * d)
			}
		}
		k.MatMul(backend.MatMulArgs{M: rows, N: dim, K: n, A: z, LDA: rows, TransA: true, B: x, LDB: dim, C: dw, LDC: dim})
		for i, d := range dw {
			g[i] = float64(d) + v[i]
			loss += 0.5 * v[i] * v[i]
		}
		return loss
	}
	v := make([]float64, rows*dim+rows)
	loss, it, err := lbfgs(ctx, v, objective, 1e-5*c*math.Sqrt(float64(n)), 500)
	if err != nil {
		return nil, err
	}
	out := &Logistic{Classes: classes, Dim: dim, W: make([]float32, classes*dim), B: make([]float32, classes), Loss: loss / (c * float64(n)), Iterations: it}
	at := (classes - rows) * dim
	for i, q := range v[:rows*dim] {
		out.W[at+i] = float32(q)
	}
	for i, q := range v[rows*dim:] {
		out.B[classes-rows+i] = float32(q)
	}
	return out, nil
}
