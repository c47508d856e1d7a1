package train

import (
	"context"
	"math"
)

// lbfgs minimises a smooth convex function from x, in place (Nocedal & Wright, 2006, algorithm 7.5; Armijo backtracking, curvature pairs
// kept only where they are positive). f returns the value and writes the gradient. It stops when the largest gradient entry falls below
// tol, when no step lowers the value, or after limit iterations, and returns the value and the number of iterations.
func lbfgs(ctx context.Context, x []float64, f func(x, g []float64) float64, tol float64, limit int) (float64, int, error) {
	const memory = 10
	n := len(x)
	g, xNew, gNew, d := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	var ss, ys [][]float64
	var rhos []float64
	value := f(x, g)
	for it := range limit {
		if err := ctx.Err(); err != nil {
			return value, it, err
		}
		if maxAbs(g) < tol {
			return value, it, nil
		}
		copy(d, g)
		alpha := make([]float64, len(ss))
		for i := len(ss) - 1; i >= 0; i-- {
			alpha[i] = rhos[i] * dot(ss[i], d)
			axpy(d, -alpha[i], ys[i])
		}
		step := 1.0
		if k := len(ss) - 1; k >= 0 {
			scale(d, dot(ss[k], ys[k])/dot(ys[k], ys[k]))
		} else {
			step = 1 / max(1, math.Sqrt(dot(g, g)))
		}
		for i := range ss {
			axpy(d, alpha[i]-rhos[i]*dot(ys[i], d), ss[i])
		}
		slope := -dot(g, d)
		if slope >= 0 { // rounding has spoilt the direction: start again from the gradient
			copy(d, g)
			ss, ys, rhos = nil, nil, nil
			slope, step = -dot(g, g), 1/max(1, math.Sqrt(dot(g, g)))
		}
		moved := false
		var next float64
		for range 40 {
			for i := range x {
				xNew[i] = x[i] - step*d[i]
			}
			next = f(xNew, gNew)
			if next <= value+1e-4*step*slope {
				moved = true
				break
			}
			step /= 2
		}
		if !moved {
			return value, it, nil
		}
		s, y := make([]float64, n), make([]float64, n)
		for i := range x {
			s[i], y[i] = xNew[i]-x[i], gNew[i]-g[i]
		}
		if sy := dot(s, y); sy > 1e-12*dot(y, y) {
			ss, ys, rhos = append(ss, s), append(ys, y), append(rhos, 1/sy)
			if len(ss) > memory {
				ss, ys, rhos = ss[1:], ys[1:], rhos[1:]
			}
		}
		value = next
		copy(x, xNew)
		copy(g, gNew)
	}
	return value, limit, nil
}

func dot(a, b []float64) float64 {
	var s float64
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

func axpy(y []float64, a float64, x []float64) {
	for i, v := range x {
		y[i] += a * v
	}
}

func scale(x []float64, a float64) {
	for i := range x {
		x[i] *= a
	}
}

func maxAbs(x []float64) float64 {
	var m float64
	for _, v := range x {
		m = max(m, math.Abs(v))
	}
	return m
}

// Minimise finds a minimum of f, which returns its value and writes its gradient to g, from x on, in place, by L-BFGS. It stops when no
// component of the gradient is above tol, or after limit iterations.
func Minimise(ctx context.Context, x []float64, f func(x, g []float64) float64, tol float64, limit int) error {
	_, _, err := lbfgs(ctx, x, f, tol, limit)
	return err
}
