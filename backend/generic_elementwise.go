package backend

import "math"

// Activate returns a(x), computed in float64 and rounded once.
func Activate(x float32, a Activation) float32 {
	v := float64(x)
	switch a {
	case None:
		return x
	case GELU: // Hendrycks & Gimpel 2016: x·Φ(x)
		return float32(v * 0.5 * math.Erfc(-v*math.Sqrt2/2))
	case GELUTanh:
		return float32(0.5 * v * (1 + math.Tanh(geluC*(v+geluA*v*v*v))))
	case QuickGELU:
		return float32(v * sigmoid(1.702*v))
	case ReLU:
		if x < 0 { // not max: NaN goes through
			return 0
		}
		return x
	case SiLU:
		return float32(v * sigmoid(v))
	case Tanh:
		return float32(math.Tanh(v))
	case Sigmoid:
		return float32(sigmoid(v))
	}
	panic("backend: unknown activation")
}

const (
	geluC = 0.7978845608028654 // sqrt(2/π)
	geluA = 0.044715
)

func sigmoid(v float64) float64 { return 1 / (1 + math.Exp(-v)) }

// ActivateGrad returns a'(x).
func ActivateGrad(x float32, a Activation) float32 {
	v := float64(x)
	switch a {
	case None:
		return 1
	case GELU:
		return float32(0.5*math.Erfc(-v*math.Sqrt2/2) + v*math.Exp(-0.5*v*v)/math.Sqrt(2*math.Pi))
	case GELUTanh:
		t := math.Tanh(geluC * (v + geluA*v*v*v))
		return float32(0.5*(1+t) + 0.5*v*(1-t*t)*geluC*(1+3*geluA*v*v))
	case QuickGELU:
		s := sigmoid(1.702 * v)
		return float32(s + 1.702*v*s*(1-s))
	case ReLU:
		if x > 0 {
			return 1
		}
		return 0
	case SiLU:
		s := sigmoid(v)
		return float32(s + v*s*(1-s))
	case Tanh:
		t := math.Tanh(v)
		return float32(1 - t*t)
	case Sigmoid:
		s := sigmoid(v)
		return float32(s * (1 - s))
	}
	panic("backend: unknown activation")
}

func (g *generic) Act(dst, x []float32, a Activation) {
	Need("act", "dst", len(dst), len(x))
	g.split(len(x), 32, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			dst[i] = Activate(x[i], a)
		}
	})
}

func (g *generic) ActBackward(dx, dy, x []float32, a Activation) {
	Need("act backward", "dx", len(dx), len(x))
	Need("act backward", "dy", len(dy), len(x))
	g.split(len(x), 64, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			dx[i] += dy[i] * ActivateGrad(x[i], a)
		}
	})
}

func (g *generic) Add(dst, a, b []float32) {
	Need("add", "a", len(a), len(dst))
	Need("add", "b", len(b), len(dst))
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func (g *generic) Mul(dst, a, b []float32) {
	Need("mul", "a", len(a), len(dst))
	Need("mul", "b", len(b), len(dst))
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

func (g *generic) Axpy(dst []float32, s float32, x []float32) {
	Need("axpy", "x", len(x), len(dst))
	for i := range dst {
		dst[i] += s * x[i]
	}
}

func (g *generic) Scale(dst []float32, s float32) {
	for i := range dst {
		dst[i] *= s
	}
}

func (g *generic) AddRow(dst, v []float32, rows, cols int) {
	Need("add row", "dst", len(dst), rows*cols)
	Need("add row", "v", len(v), cols)
	for r := range rows {
		d := dst[r*cols : (r+1)*cols]
		for c := range d {
			d[c] += v[c]
		}
	}
}

// RowChunk is the number of rows that a sum over rows (SumRows, the gain and bias gradients of norms) adds up before it goes into the
// total. The order is: rows ascending in a chunk, chunks ascending.
const RowChunk = 64

// sumRows adds Σ_r term(r, c) to dst[c] in the order of RowChunk.
func (g *generic) sumRows(dst []float32, rows, cols int, term func(r, c int) float32) {
	Need("sum rows", "dst", len(dst), cols)
	g.split(cols, 4*rows, func(lo, hi int) {
		part := make([]float32, hi-lo)
		for r0 := 0; r0 < rows; r0 += RowChunk {
			clear(part)
			for r := r0; r < min(r0+RowChunk, rows); r++ {
				for c := lo; c < hi; c++ {
					part[c-lo] += term(r, c)
				}
			}
			for c := lo; c < hi; c++ {
				dst[c] += part[c-lo]
			}
		}
	})
}

func (g *generic) SumRows(dst, x []float32, rows, cols int) {
	Need("sum rows", "x", len(x), rows*cols)
	g.sumRows(dst, rows, cols, func(r, c int) float32 { return x[r*cols+c] })
}

func (g *generic) Dot(a, b []float32) float32 {
	Need("dot", "b", len(b), len(a))
	var s float64
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return float32(s)
}

func (g *generic) SumSquares(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return s
}

func (g *generic) Gather(dst, table []float32, ids []int32, cols int, add bool) {
	Need("gather", "dst", len(dst), len(ids)*cols)
	CheckIDs("gather", len(table), ids, cols)
	for i, id := range ids {
		d, t := dst[i*cols:(i+1)*cols], table[int(id)*cols:(int(id)+1)*cols]
		if !add {
			copy(d, t)
			continue
		}
		for c := range d {
			d[c] += t[c]
		}
	}
}

func (g *generic) ScatterAdd(table, src []float32, ids []int32, cols int) {
	Need("scatter add", "src", len(src), len(ids)*cols)
	CheckIDs("scatter add", len(table), ids, cols)
	for i, id := range ids {
		s, t := src[i*cols:(i+1)*cols], table[int(id)*cols:(int(id)+1)*cols]
		for c := range s {
			t[c] += s[c]
		}
	}
}

func (g *generic) Rope(r RopeArgs) {
	r.Check()
	half := r.RotDim / 2
	for i, p := range r.Pos {
		cos, sin := r.Cos[int(p)*half:(int(p)+1)*half], r.Sin[int(p)*half:(int(p)+1)*half]
		for h := range r.Heads {
			x := r.X[i*r.Stride+h*r.HeadDim : i*r.Stride+(h+1)*r.HeadDim]
			for j := range half {
				a, b := j, j+half
				if r.Interleaved {
					a, b = 2*j, 2*j+1
				}
				c, s := cos[j], sin[j]
				if r.Inverse {
					s = -s
				}
				x[a], x[b] = x[a]*c-x[b]*s, x[b]*c+x[a]*s
			}
		}
	}
}

func (g *generic) AdamW(a AdamWArgs) {
	a.Check()
	scale := a.GradScale
	if scale == 0 {
		scale = 1
	}
	c1 := float32(1 / (1 - math.Pow(float64(a.Beta1), float64(a.Step))))
	c2 := float32(1 / (1 - math.Pow(float64(a.Beta2), float64(a.Step))))
	g.split(len(a.P), 32, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			gr := a.G[i] * scale
			m := a.Beta1*a.M[i] + (1-a.Beta1)*gr
			v := a.Beta2*a.V[i] + (1-a.Beta2)*gr*gr
			a.M[i], a.V[i] = m, v
			p := a.P[i] - a.LR*a.WD*a.P[i]
			a.P[i] = p - a.LR*(m*c1)/(float32(math.Sqrt(float64(v*c2)))+a.Eps)
		}
	})
}

// Dropout implements Dropper.
func (g *generic) Dropout(dst, x []float32, p float32, seed uint64) {
	Need("dropout", "dst", len(dst), len(x))
	keep := 1 / (1 - p)
	g.split(len(x), 8, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			if DropoutKeep(seed, uint64(i), p) {
				dst[i] = x[i] * keep
			} else {
				dst[i] = 0
			}
		}
	})
}
