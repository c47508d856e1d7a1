package native

import (
	"math"

	"github.com/temper-ml/temper/backend"
)

func (k *kernels) Softmax(dst, src []float32, rows, cols int) {
	backend.Need("softmax", "src", len(src), rows*cols)
	backend.Need("softmax", "dst", len(dst), rows*cols)
	k.job = job{a: dst, b: src, cols: cols}
	k.pool.run(rows, grain(4*cols), k.loops.softmax)
}

func (k *kernels) softmaxLoop(_, lo, hi int) {
	n := k.job.cols
	for r := lo; r < hi; r++ {
		d, s := k.job.a[r*n:(r+1)*n], k.job.b[r*n:(r+1)*n]
		top := k.o.maxOf(p(s), n)
		if math.IsInf(float64(top), -1) {
			clear(d)
			continue
		}
		sum := k.o.expSum(p(d), p(s), n, top)
		k.o.scale(p(d), n, 1/sum)
	}
}

func (k *kernels) LayerNorm(dst, x, gain, bias []float32, rows, cols int, eps float32, mean, rstd []float32) {
	backend.CheckNorm("layer norm", dst, x, gain, bias, mean, rstd, rows, cols)
	k.job = k.normJob(dst, x, gain, bias, cols, eps, mean, rstd)
	k.pool.run(rows, grain(2*cols), k.loops.layerNorm)
}

// normJob puts ones for a missing gain and zeros for a missing bias.
func (k *kernels) normJob(dst, x, gain, bias []float32, cols int, eps float32, mean, rstd []float32) job {
	k.constants(cols)
	if gain == nil {
		gain = k.ones
	}
	if bias == nil {
		bias = k.zeros
	}
	return job{a: dst, b: x, c: gain, d: bias, e: mean, f: rstd, cols: cols, s: eps}
}

func (k *kernels) layerNormLoop(_, lo, hi int) {
	j, n := &k.job, k.job.cols
	for r := lo; r < hi; r++ {
		x, dst := p(j.b[r*n:(r+1)*n]), p(j.a[r*n:(r+1)*n])
		var mean, rstd float32
		if k.o.layerNormRow != nil {
			mean, rstd = k.o.layerNormRow(dst, x, p(j.c), p(j.d), n, j.s)
		} else {
			mean = k.o.sum(x, n) / float32(n)
			rstd = float32(1 / math.Sqrt(float64(k.o.centredSquares(x, n, mean))/float64(n)+float64(j.s)))
			k.o.normRow(dst, x, p(j.c), p(j.d), n, mean, rstd)
		}
		if j.e != nil {
			j.e[r] = mean
		}
		if j.f != nil {
			j.f[r] = rstd
		}
	}
}

func (k *kernels) RMSNorm(dst, x, gain []float32, rows, cols int, eps float32, rstd []float32) {
	backend.CheckNorm("rms norm", dst, x, gain, nil, nil, rstd, rows, cols)
	k.job = k.normJob(dst, x, gain, nil, cols, eps, nil, rstd)
	k.pool.run(rows, grain(2*cols), k.loops.rmsNorm)
}

func (k *kernels) rmsNormLoop(_, lo, hi int) {
	j, n := &k.job, k.job.cols
	for r := lo; r < hi; r++ {
		x := p(j.b[r*n : (r+1)*n])
		rstd := float32(1 / math.Sqrt(float64(k.o.centredSquares(x, n, 0))/float64(n)+float64(j.s)))
		k.o.normRow(p(j.a[r*n:(r+1)*n]), x, p(j.c), p(j.d), n, 0, rstd)
		if j.f != nil {
			j.f[r] = rstd
		}
	}
}

func (k *kernels) LayerNormBackward(dx, dgain, dbias, dy, x, gain, mean, rstd []float32, rows, cols int) {
	backend.Need("layer norm backward", "mean", len(mean), rows)
	backend.CheckNormBackward("layer norm backward", dx, dgain, dbias, dy, x, gain, mean, rstd, rows, cols)
	k.normBackward(dx, dgain, dbias, dy, x, gain, mean, rstd, rows, cols)
}

func (k *kernels) RMSNormBackward(dx, dgain, dy, x, gain, rstd []float32, rows, cols int) {
	backend.CheckNormBackward("rms norm backward", dx, dgain, nil, dy, x, gain, nil, rstd, rows, cols)
	k.normBackward(dx, dgain, nil, dy, x, gain, nil, rstd, rows, cols)
}

// normBackward serves both norms: RMS norm has mean 0 and no mean of the gradient.
func (k *kernels) normBackward(dx, dgain, dbias, dy, x, gain, mean, rstd []float32, rows, cols int) {
	k.constants(cols)
	if gain == nil {
		gain = k.ones
	}
	// Parameters first: dx may be dy.
	if dgain != nil {
		k.job = job{a: dgain, b: dy[:rows*cols], c: x, e: mean, f: rstd, cols: cols}
		k.pool.run(cols, columnGrain(rows), k.loops.normBackParams)
	}
	if dbias != nil {
		k.SumRows(dbias, dy, rows, cols)
	}
	if dx != nil {
		k.job = job{a: dx, b: dy, c: x, d: gain, e: mean, f: rstd, cols: cols}
		k.pool.run(rows, grain(4*cols), k.loops.normBackDX)
	}
}

func (k *kernels) normBackParamsLoop(w, lo, hi int) {
	j, cols := &k.job, k.job.cols
	rows, n := len(j.b)/cols, hi-lo
	part := grow(&k.work[w].row, n)
	for r0 := 0; r0 < rows; r0 += backend.RowChunk {
		clear(part)
		for r := r0; r < min(r0+backend.RowChunk, rows); r++ {
			mean := float32(0)
			if j.e != nil {
				mean = j.e[r]
			}
			k.o.normBackParams(p(part), p(j.b[r*cols+lo:r*cols+hi]), p(j.c[r*cols+lo:r*cols+hi]), n, mean, j.f[r])
		}
		d := p(j.a[lo:hi])
		k.o.add(d, d, p(part), n)
	}
}

func (k *kernels) normBackDXLoop(_, lo, hi int) {
	j, n := &k.job, k.job.cols
	for r := lo; r < hi; r++ {
		dy, x := p(j.b[r*n:(r+1)*n]), p(j.c[r*n:(r+1)*n])
		mean, mg := float32(0), float32(0)
		if j.e != nil {
			mean = j.e[r]
		}
		sum, dot := k.o.normBackSums(dy, x, p(j.d), n, mean, j.f[r])
		if j.e != nil {
			mg = sum / float32(n)
		}
		k.o.normBackDX(p(j.a[r*n:(r+1)*n]), dy, x, p(j.d), n, mean, j.f[r], mg, dot/float32(n))
	}
}

func (k *kernels) CrossEntropy(logits []float32, targets []int32, rows, cols int, dlogits []float32, scale float32) float64 {
	backend.CheckCrossEntropy(logits, targets, rows, cols, dlogits)
	if cap(k.prod.sums) < rows {
		k.prod.sums = make([]float64, rows)
	}
	k.job = job{a: logits, b: dlogits, ids: targets, losses: k.prod.sums[:rows], cols: cols, s: scale}
	k.pool.run(rows, grain(4*cols), k.loops.crossEntropy)
	return total(k.job.losses)
}

func (k *kernels) crossEntropyLoop(w, lo, hi int) {
	j, n := &k.job, k.job.cols
	for r := lo; r < hi; r++ {
		x, t := j.a[r*n:(r+1)*n], int(j.ids[r])
		var d []float32
		if j.b != nil {
			d = j.b[r*n : (r+1)*n]
		}
		j.losses[r] = 0
		if t < 0 {
			clear(d)
			continue
		}
		out := d
		if d == nil {
			out = grow(&k.work[w].row, n)
		}
		at := x[t] // before d, which may be x
		top := k.o.maxOf(p(x), n)
		sum := k.o.expSum(p(out), p(x), n, top)
		j.losses[r] = float64(top) + math.Log(float64(sum)) - float64(at)
		if d != nil {
			k.o.scale(p(d), n, j.s/sum)
			d[t] -= j.s
		}
	}
}
