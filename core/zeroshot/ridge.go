package zeroshot

import "math"

// ridge is regularised least squares on one-hot targets, over embeddings of examples and of the labels' words together. Its answers for each
// example left out of the fit come in closed form (Rifkin & Lippert, 2007), so that it can be weighed against prototypes at no cost.
type ridge struct {
	w    [][]float64 // per label, then the intercept
	left [][]float64 // scores of each example when it is left out
}

// maxRidge bounds the rows of a fit, which takes their cube.
const maxRidge = 1500

// fitRidge fits rows x with classes y; lambda is the penalty. Only the first n rows get left-out scores. It returns nil when the system
// cannot be solved.
func fitRidge(x [][]float32, y []int, labels, n int, lambda float64) *ridge {
	m := len(x)
	a := make([][]float64, m)
	for i := range a {
		a[i] = make([]float64, m)
		for j := range i + 1 {
			a[i][j] = dot(x[i], x[j]) + 1 // the 1 is the intercept's
		}
		a[i][i] += lambda
	}
	inv := invert(a)
	if inv == nil {
		return nil
	}
	target := func(i, l int) float64 {
		if y[i] == l {
			return 1 - 1/float64(labels)
		}
		return -1 / float64(labels)
	}
	r := &ridge{w: make([][]float64, labels), left: make([][]float64, n)}
	for i := range r.left {
		r.left[i] = make([]float64, labels)
	}
	dim := len(x[0])
	for l := range labels {
		r.w[l] = make([]float64, dim+1)
		for i := range m {
			alpha := 0.0
			for j := range m {
				alpha += inv[i][j] * target(j, l)
			}
			for k, v := range x[i] {
				r.w[l][k] += alpha * float64(v)
			}
			r.w[l][dim] += alpha
			if i < n {
				r.left[i][l] = target(i, l) - alpha/inv[i][i]
			}
		}
	}
	return r
}

func (r *ridge) scores(x []float32) []float64 {
	out := make([]float64, len(r.w))
	for l, w := range r.w {
		s := w[len(x)]
		for k, v := range x {
			s += w[k] * float64(v)
		}
		out[l] = s
	}
	return out
}

// invert returns the inverse of a positive definite matrix given by its lower triangle, nil if it is not one: by Cholesky's factors.
func invert(a [][]float64) [][]float64 {
	n := len(a)
	for i := range n { // a becomes L
		for j := range i + 1 {
			s := a[i][j]
			for k, v := range a[j][:j] {
				s -= v * a[i][k]
			}
			if i > j {
				a[i][j] = s / a[j][j]
			} else if !(s > 0) {
				return nil
			} else {
				a[i][i] = math.Sqrt(s)
			}
		}
	}
	low := make([][]float64, n) // columns of L⁻¹: low[j][i], i >= j
	for j := range n {
		c := make([]float64, n)
		c[j] = 1 / a[j][j]
		for i := j + 1; i < n; i++ {
			s := 0.0
			for k := j; k < i; k++ {
				s -= a[i][k] * c[k]
			}
			c[i] = s / a[i][i]
		}
		low[j] = c
	}
	out := make([][]float64, n)
	for i := range out {
		out[i] = make([]float64, n)
	}
	for i := range n {
		for j := range i + 1 {
			s := 0.0
			for k := i; k < n; k++ {
				s += low[i][k] * low[j][k]
			}
			out[i][j], out[j][i] = s, s
		}
	}
	return out
}
