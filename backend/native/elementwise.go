package native

import (
	"math"

	"github.com/temper-ml/temper/backend"
)

// chunk is the unit of element-wise work, and of the partial sums of Dot and SumSquares, which therefore do not depend on threads.
const chunk = 8192

func (k *kernels) Act(dst, x []float32, a backend.Activation) {
	backend.Need("act", "dst", len(dst), len(x))
	if a == backend.None {
		copy(dst, x)
		return
	}
	k.job = job{a: dst, b: x, act: a}
	k.pool.run(len(x), chunk/2, k.loops.act)
}

func (k *kernels) actLoop(_, lo, hi int) {
	k.o.act[k.job.act](p(k.job.a[lo:hi]), p(k.job.b[lo:hi]), hi-lo)
}

func (k *kernels) ActBackward(dx, dy, x []float32, a backend.Activation) {
	backend.Need("act backward", "dx", len(dx), len(x))
	backend.Need("act backward", "dy", len(dy), len(x))
	if a == backend.None {
		k.Add(dx[:len(x)], dx, dy)
		return
	}
	k.job = job{a: dx, b: dy, c: x, act: a}
	k.pool.run(len(x), chunk/2, k.loops.actBack)
}

func (k *kernels) actBackLoop(_, lo, hi int) {
	k.o.actGrad[k.job.act](p(k.job.a[lo:hi]), p(k.job.b[lo:hi]), p(k.job.c[lo:hi]), hi-lo)
}

func (k *kernels) Add(dst, a, b []float32) {
	backend.Need("add", "a", len(a), len(dst))
	backend.Need("add", "b", len(b), len(dst))
	k.job = job{a: dst, b: a, c: b}
	k.pool.run(len(dst), 4*chunk, k.loops.add)
}

func (k *kernels) addLoop(_, lo, hi int) {
	k.o.add(p(k.job.a[lo:hi]), p(k.job.b[lo:hi]), p(k.job.c[lo:hi]), hi-lo)
}

func (k *kernels) Mul(dst, a, b []float32) {
	backend.Need("mul", "a", len(a), len(dst))
	backend.Need("mul", "b", len(b), len(dst))
	k.job = job{a: dst, b: a, c: b}
	k.pool.run(len(dst), 4*chunk, k.loops.mul)
}

func (k *kernels) mulLoop(_, lo, hi int) {
	k.o.mul(p(k.job.a[lo:hi]), p(k.job.b[lo:hi]), p(k.job.c[lo:hi]), hi-lo)
}

func (k *kernels) Axpy(dst []float32, s float32, x []float32) {
	backend.Need("axpy", "x", len(x), len(dst))
	k.job = job{a: dst, b: x, s: s}
	k.pool.run(len(dst), 4*chunk, k.loops.axpy)
}

func (k *kernels) axpyLoop(_, lo, hi int) {
	k.o.axpy(p(k.job.a[lo:hi]), p(k.job.b[lo:hi]), hi-lo, k.job.s)
}

func (k *kernels) Scale(dst []float32, s float32) {
	k.job = job{a: dst, s: s}
	k.pool.run(len(dst), 4*chunk, k.loops.scale)
}

func (k *kernels) scaleLoop(_, lo, hi int) { k.o.scale(p(k.job.a[lo:hi]), hi-lo, k.job.s) }

func (k *kernels) AddRow(dst, v []float32, rows, cols int) {
	backend.Need("add row", "dst", len(dst), rows*cols)
	backend.Need("add row", "v", len(v), cols)
	k.job = job{a: dst, b: v, cols: cols}
	k.pool.run(rows, 4*grain(cols), k.loops.addRow)
}

func (k *kernels) addRowLoop(_, lo, hi int) {
	n := k.job.cols
	for r := lo; r < hi; r++ {
		d := p(k.job.a[r*n : (r+1)*n])
		k.o.add(d, d, p(k.job.b), n)
	}
}

func (k *kernels) SumRows(dst, x []float32, rows, cols int) {
	backend.Need("sum rows", "dst", len(dst), cols)
	backend.Need("sum rows", "x", len(x), rows*cols)
	k.job = job{a: dst, b: x, cols: cols, losses: nil, s: 0}
	k.job.ids = nil
	k.job.c = x[:rows*cols]
	k.pool.run(cols, columnGrain(rows), k.loops.sumRows)
}

// columnGrain is the number of columns in a piece of a reduction over rows: whole cache lines.
func columnGrain(rows int) int { return max(64, grain(rows)/64*64) }

func (k *kernels) sumRowsLoop(w, lo, hi int) {
	cols, x := k.job.cols, k.job.c
	rows, n := len(x)/cols, hi-lo
	part := grow(&k.work[w].row, n)
	for r0 := 0; r0 < rows; r0 += backend.RowChunk {
		clear(part)
		for r := r0; r < min(r0+backend.RowChunk, rows); r++ {
			k.o.add(p(part), p(part), p(x[r*cols+lo:r*cols+hi]), n)
		}
		d := p(k.job.a[lo:hi])
		k.o.add(d, d, p(part), n)
	}
}

// partials returns storage for one float64 for each chunk of n elements.
func (k *kernels) partials(n int) []float64 {
	c := (n + chunk - 1) / chunk
	if cap(k.prod.sums) < c {
		k.prod.sums = make([]float64, c+c/4)
	}
	return k.prod.sums[:c]
}

func (k *kernels) Dot(a, b []float32) float32 {
	backend.Need("dot", "b", len(b), len(a))
	k.job = job{a: a, b: b, losses: k.partials(len(a))}
	k.pool.run(len(k.job.losses), 2, k.loops.dot)
	return float32(total(k.job.losses))
}

func (k *kernels) dotLoop(_, lo, hi int) {
	for c := lo; c < hi; c++ {
		from, to := c*chunk, min((c+1)*chunk, len(k.job.a))
		k.job.losses[c] = float64(k.o.dot(p(k.job.a[from:to]), p(k.job.b[from:to]), to-from))
	}
}

func (k *kernels) SumSquares(x []float32) float64 {
	k.job = job{a: x, losses: k.partials(len(x))}
	k.pool.run(len(k.job.losses), 2, k.loops.squares)
	return total(k.job.losses)
}

func (k *kernels) squaresLoop(_, lo, hi int) {
	for c := lo; c < hi; c++ {
		from, to := c*chunk, min((c+1)*chunk, len(k.job.a))
		k.job.losses[c] = k.o.squares64(p(k.job.a[from:to]), to-from)
	}
}

func total(v []float64) (sum float64) {
	for _, x := range v {
		sum += x
	}
	return sum
}

func (k *kernels) Gather(dst, table []float32, ids []int32, cols int, add bool) {
	backend.Need("gather", "dst", len(dst), len(ids)*cols)
	backend.CheckIDs("gather", len(table), ids, cols)
	k.job = job{a: dst, b: table, ids: ids, cols: cols, flag: add}
	k.pool.run(len(ids), 2*grain(cols), k.loops.gather)
}

func (k *kernels) gatherLoop(_, lo, hi int) {
	n := k.job.cols
	for i := lo; i < hi; i++ {
		d, t := k.job.a[i*n:(i+1)*n], k.job.b[int(k.job.ids[i])*n:(int(k.job.ids[i])+1)*n]
		if k.job.flag {
			k.o.add(p(d), p(d), p(t), n)
		} else {
			copy(d, t)
		}
	}
}

func (k *kernels) ScatterAdd(table, src []float32, ids []int32, cols int) {
	backend.Need("scatter add", "src", len(src), len(ids)*cols)
	backend.CheckIDs("scatter add", len(table), ids, cols)
	k.job = job{a: table, b: src, ids: ids, cols: cols}
	k.pool.run(cols, columnGrain(len(ids)), k.loops.scatter) // by columns: the order of ids holds in each
}

func (k *kernels) scatterLoop(_, lo, hi int) {
	n := k.job.cols
	for i, id := range k.job.ids {
		t := p(k.job.a[int(id)*n+lo : int(id)*n+hi])
		k.o.add(t, t, p(k.job.b[i*n+lo:i*n+hi]), hi-lo)
	}
}

func (k *kernels) Rope(r backend.RopeArgs) {
	r.Check()
	k.job = job{rope: r}
	k.pool.run(len(r.Pos), grain(4*r.Heads*r.RotDim), k.loops.rope)
}

func (k *kernels) ropeLoop(_, lo, hi int) {
	r := &k.job.rope
	half := r.RotDim / 2
	for i := lo; i < hi; i++ {
		at := int(r.Pos[i]) * half
		cos, sin := r.Cos[at:at+half], r.Sin[at:at+half]
		for h := range r.Heads {
			x := r.X[i*r.Stride+h*r.HeadDim:][:r.RotDim]
			sign := float32(1)
			if r.Inverse {
				sign = -1
			}
			if r.Interleaved {
				for j, c := range cos {
					s := sign * sin[j]
					x[2*j], x[2*j+1] = x[2*j]*c-x[2*j+1]*s, x[2*j+1]*c+x[2*j]*s
				}
				continue
			}
			a, b := x[:half], x[half:2*half]
			for j, c := range cos {
				s := sign * sin[j]
				a[j], b[j] = a[j]*c-b[j]*s, b[j]*c+a[j]*s
			}
		}
	}
}

func (k *kernels) AdamW(a backend.AdamWArgs) {
	a.Check()
	scale := a.GradScale
	if scale == 0 {
		scale = 1
	}
	c1 := 1 / (1 - math.Pow(float64(a.Beta1), float64(a.Step)))
	c2 := 1 / (1 - math.Pow(float64(a.Beta2), float64(a.Step)))
	k.job = job{a: a.P, b: a.G, c: a.M, d: a.V}
	k.job.table = [9]float32{scale, a.Beta1, 1 - a.Beta1, a.Beta2, 1 - a.Beta2, a.LR * a.WD, float32(float64(a.LR) * c1), float32(c2), a.Eps}
	k.pool.run(len(a.P), chunk, k.loops.adamW)
}

func (k *kernels) adamWLoop(_, lo, hi int) {
	j := &k.job
	k.o.adamW(p(j.a[lo:hi]), p(j.b[lo:hi]), p(j.c[lo:hi]), p(j.d[lo:hi]), hi-lo, &j.table[0])
}

// Dropout implements backend.Dropper.
func (k *kernels) Dropout(dst, x []float32, prob float32, seed uint64) {
	backend.Need("dropout", "dst", len(dst), len(x))
	k.job = job{a: dst, b: x, s: prob, seed: seed}
	k.pool.run(len(x), chunk, k.loops.dropout)
}

func (k *kernels) dropoutLoop(_, lo, hi int) {
	k.dropout(k.job.a[lo:hi], k.job.b[lo:hi], k.job.s, k.job.seed, uint64(lo))
}

// dropout writes x/(1-prob) where backend.DropoutKeep keeps elements first, first+1, …, and 0 elsewhere.
func (k *kernels) dropout(dst, x []float32, prob float32, seed, first uint64) {
	keep := 1 / (1 - prob)
	if k.o.dropRow != nil {
		// float32(h)/2^24 >= prob, exactly, for the 24 high bits h of the hash.
		threshold := uint32(math.Ceil(float64(prob) * (1 << 24)))
		k.o.dropRow(p(dst), p(x), len(x), seed+(first+1)*0x9e3779b97f4a7c15, threshold, keep)
		return
	}
	for i, v := range x {
		if backend.DropoutKeep(seed, first+uint64(i), prob) {
			dst[i] = v * keep
		} else {
			dst[i] = 0
		}
	}
}
