package backendtest

import (
	"math"
	"testing"

	"github.com/temper-ml/temper/backend"
)

// lengths straddle the vector widths and their unrolled multiples.
var lengths = []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 257, 1000}

// oracleAct is the activation in float64, written apart from the Generic one.
func oracleAct(x float64, a backend.Activation) float64 {
	logistic := func(v float64) float64 { return 0.5 + 0.5*math.Tanh(v/2) }
	switch a {
	case backend.GELU:
		return x / 2 * math.Erfc(-x/math.Sqrt2)
	case backend.GELUTanh:
		return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*math.Pow(x, 3))))
	case backend.QuickGELU:
		return x * logistic(1.702*x)
	case backend.ReLU:
		if x < 0 {
			return 0
		}
		return x
	case backend.SiLU:
		return x * logistic(x)
	case backend.Tanh:
		return math.Tanh(x)
	case backend.Sigmoid:
		return logistic(x)
	}
	return x
}

func activations(t *testing.T, k backend.Kernels) {
	for _, a := range allActivations {
		for _, n := range lengths {
			o := newOperands(t, uint64(n)<<8|uint64(a))
			x := o.spread(n, 12)
			dst := o.zeros(n)
			k.Act(dst, x, a)
			for i := range x {
				want := oracleAct(float64(x[i]), a)
				near(t, dst[i], want, elementwise(0, want), "act %d of %g", a, x[i])
			}
			k.Act(x, x, a)
			same(t, x, dst, "act %d in place", a)
		}
		// Far tails, and NaN goes through.
		x := []float32{-1e30, -200, -90, -30, -10, 30, 90, 200, 1e30, float32(math.NaN()), float32(math.Inf(1)), 0}
		dst := make([]float32, len(x))
		k.Act(dst, x, a)
		for i, v := range x[:len(x)-3] {
			want := oracleAct(float64(v), a)
			near(t, dst[i], want, elementwise(0, want), "act %d of %g", a, v)
		}
		if n := len(x); dst[n-3] == dst[n-3] {
			t.Errorf("act %d of NaN is %g", a, dst[n-3])
		} else if want := oracleAct(math.Inf(1), a); float64(dst[n-2]) != want {
			t.Errorf("act %d of +Inf is %g, want %g", a, dst[n-2], want)
		}
	}
}

func activationGradients(t *testing.T, k backend.Kernels) {
	for _, a := range allActivations {
		for _, n := range lengths {
			o := newOperands(t, uint64(n)<<8|uint64(a)|1<<40)
			x, dy, dx := o.spread(n, 9), o.normal(n), o.normal(n)
			for i := range x { // ReLU has no slope at 0
				if a == backend.ReLU && math.Abs(float64(x[i])) < 1e-3 {
					x[i] = 1
				}
			}
			before := append([]float32(nil), dx...)
			k.ActBackward(dx, dy, x, a)
			for i := range x {
				v := float64(x[i])
				s := slope(func(x []float64) float64 { return oracleAct(x[0], a) }, []float64{v})[0]
				want := float64(before[i]) + s*float64(dy[i])
				near(t, dx[i], want, 2e-6*math.Abs(float64(dy[i]))+4*u*math.Abs(want)+4*u*math.Abs(float64(before[i])), "act %d gradient at %g", a, v)
			}
		}
	}
}

func elementwiseOps(t *testing.T, k backend.Kernels) {
	for _, n := range lengths {
		o := newOperands(t, uint64(n))
		a, b := o.normal(n), o.normal(n)
		dst := o.zeros(n)
		k.Add(dst, a, b)
		for i := range dst {
			near(t, dst[i], float64(a[i]+b[i]), 0, "add %d", i)
		}
		k.Mul(dst, a, b)
		for i := range dst {
			near(t, dst[i], float64(a[i]*b[i]), 0, "mul %d", i)
		}
		d := o.copyOf(a)
		k.Axpy(d, 0.75, b)
		for i := range d {
			w := float64(a[i]) + 0.75*float64(b[i])
			near(t, d[i], w, u*(math.Abs(w)+math.Abs(float64(b[i]))), "axpy %d", i)
		}
		d = o.copyOf(a)
		k.Scale(d, -1.5)
		for i := range d {
			near(t, d[i], float64(a[i]*-1.5), 0, "scale %d", i)
		}
		d = o.copyOf(a)
		k.Add(d, d, b)
		c := o.copyOf(b)
		k.Add(c, a, c)
		same(t, d, c, "add in place")
		for _, rows := range []int{0, 1, 3} {
			m := o.normal(rows * n)
			was := append([]float32(nil), m...)
			k.AddRow(m, a, rows, n)
			for i := range m {
				near(t, m[i], float64(was[i]+a[i%n]), 0, "add row %d", i)
			}
		}
	}
}

func reductions(t *testing.T, k backend.Kernels) {
	for _, n := range append([]int{10007}, lengths...) {
		o := newOperands(t, uint64(n))
		a, b := o.normal(n), o.normal(n)
		var dot, mass, squares float64
		for i := range a {
			p := float64(a[i]) * float64(b[i])
			dot += p
			mass += math.Abs(p)
			squares += float64(a[i]) * float64(a[i])
		}
		near(t, k.Dot(a, b), dot, reduction(n, mass), "dot of %d", n)
		if got := k.SumSquares(a); math.Abs(got-squares) > 1e-12*float64(n)*squares {
			t.Fatalf("sum of %d squares is %v, want %v", n, got, squares)
		}
	}
	for _, rows := range []int{0, 1, 2, 63, 64, 65, 200} {
		for _, cols := range []int{1, 7, 16, 33, 100} {
			o := newOperands(t, uint64(rows*1000+cols))
			x, dst := o.normal(rows*cols), o.normal(cols)
			was := append([]float32(nil), dst...)
			k.SumRows(dst, x, rows, cols)
			for c := range cols {
				sum, mass := float64(was[c]), math.Abs(float64(was[c]))
				for r := range rows {
					sum += float64(x[r*cols+c])
					mass += math.Abs(float64(x[r*cols+c]))
				}
				near(t, dst[c], sum, reduction(rows, mass), "sum of %d rows, column %d", rows, c)
			}
		}
	}
}

func gatherScatter(t *testing.T, k backend.Kernels) {
	for _, cols := range []int{1, 3, 16, 33, 100} {
		for _, n := range []int{0, 1, 5, 40} {
			o := newOperands(t, uint64(cols*100+n))
			table, ids := o.normal(7*cols), o.ids(n, 7)
			dst, sum := o.zeros(n*cols), o.normal(n*cols)
			was := append([]float32(nil), sum...)
			k.Gather(dst, table, ids, cols, false)
			k.Gather(sum, table, ids, cols, true)
			back := o.copyOf(table)
			k.ScatterAdd(back, was, ids, cols)
			want := append([]float32(nil), table...)
			for i, id := range ids {
				for c := range cols {
					v := table[int(id)*cols+c]
					near(t, dst[i*cols+c], float64(v), 0, "gather row %d", i)
					near(t, sum[i*cols+c], float64(was[i*cols+c]+v), 0, "gather and add row %d", i)
					want[int(id)*cols+c] += was[i*cols+c]
				}
			}
			same(t, back, want, "scatter add of %d rows of %d", n, cols)
		}
	}
}

func rope(t *testing.T, k backend.Kernels) {
	for _, c := range []struct {
		heads, dim, rot int
		interleaved     bool
	}{{1, 2, 2, false}, {3, 32, 32, false}, {2, 20, 12, true}, {2, 64, 16, false}, {1, 34, 34, true}, {4, 8, 0, false}} {
		o := newOperands(t, uint64(c.dim))
		const rows, positions = 9, 30
		half := c.rot / 2
		cos, sin := o.zeros(positions*half), o.zeros(positions*half)
		for i := range cos {
			a := float64(i/half) * math.Pow(10000, -float64(i%half)/float64(half))
			cos[i], sin[i] = float32(math.Cos(a)), float32(math.Sin(a))
		}
		stride := c.heads*c.dim + 3
		x := o.normal((rows-1)*stride + c.heads*c.dim)
		was := append([]float32(nil), x...)
		r := backend.RopeArgs{X: x, Stride: stride, Heads: c.heads, HeadDim: c.dim, RotDim: c.rot, Pos: o.ids(rows, positions), Cos: cos, Sin: sin, Interleaved: c.interleaved}
		k.Rope(r)
		want := wide(was)
		for i, p := range r.Pos {
			for h := range c.heads {
				for j := range half {
					a, b := i*stride+h*c.dim+j, i*stride+h*c.dim+j+half
					if c.interleaved {
						a, b = i*stride+h*c.dim+2*j, i*stride+h*c.dim+2*j+1
					}
					cs, sn := float64(cos[int(p)*half+j]), float64(sin[int(p)*half+j])
					want[a], want[b] = want[a]*cs-want[b]*sn, want[b]*cs+want[a]*sn
				}
			}
		}
		for i := range x {
			near(t, x[i], want[i], 4*u*(math.Abs(want[i])+1), "rope %+v element %d", c, i)
		}
		r.Inverse = true
		k.Rope(r)
		for i := range x {
			near(t, x[i], float64(was[i]), 16*u*(math.Abs(float64(was[i]))+1), "rope and back %+v element %d", c, i)
		}
	}
}

func adamW(t *testing.T, k backend.Kernels) {
	for _, n := range lengths {
		for _, step := range []int{1, 2, 1000} {
			o := newOperands(t, uint64(n))
			a := backend.AdamWArgs{P: o.normal(n), G: o.normal(n), M: o.normal(n), V: o.normal(n), LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WD: 0.01, GradScale: 0.7, Step: step}
			for i := range a.V {
				a.V[i] *= a.V[i]
			}
			if step == 1 {
				clear(a.M)
				clear(a.V)
			}
			if step == 2 {
				a.GradScale = 0 // stands for 1
			}
			p, m, v := wide(a.P), wide(a.M), wide(a.V)
			k.AdamW(a)
			scale := float64(a.GradScale)
			if scale == 0 {
				scale = 1
			}
			b1, b2, lr := float64(a.Beta1), float64(a.Beta2), float64(a.LR)
			for i := range p {
				g := float64(a.G[i]) * scale
				m[i] = b1*m[i] + (1-b1)*g
				v[i] = b2*v[i] + (1-b2)*g*g
				p[i] -= lr * float64(a.WD) * p[i]
				p[i] -= lr * (m[i] / (1 - math.Pow(b1, float64(step)))) / (math.Sqrt(v[i]/(1-math.Pow(b2, float64(step)))) + float64(a.Eps))
				near(t, a.M[i], m[i], 1e-6*(math.Abs(m[i])+math.Abs(g)), "adamw m[%d]", i)
				near(t, a.V[i], v[i], 1e-6*v[i], "adamw v[%d]", i)
				// 1-β is rounded to float32, which moves the step by up to 1e-4 of itself at β2 = 0.999.
				near(t, a.P[i], p[i], 4*u*math.Abs(p[i])+2e-4*lr, "adamw p[%d] step %d", i, step)
			}
		}
	}
}

func dropout(t *testing.T, k backend.Kernels) {
	d, ok := k.(backend.Dropper)
	if !ok {
		t.Skip("no backend.Dropper")
	}
	for _, n := range append([]int{20001}, lengths...) {
		for _, p := range []float32{0, 0.1, 0.5, 0.999, 1.0 / 3} {
			o := newOperands(t, uint64(n))
			x := o.normal(n)
			dst := o.zeros(n)
			d.Dropout(dst, x, p, 77)
			for i, v := range x {
				want := float32(0)
				if backend.DropoutKeep(77, uint64(i), p) {
					want = v * (1 / (1 - p))
				}
				near(t, dst[i], float64(want), 0, "dropout of %d at %g, element %d", n, p, i)
			}
			d.Dropout(x, x, p, 77)
			same(t, x, dst, "dropout in place")
		}
	}
}
