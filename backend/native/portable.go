package native

import (
	"math"
	"unsafe"

	"github.com/temper-ml/temper/backend"
)

// portable is a table of plain Go functions: what a level's assembly must do, for vectors of four, and what a level uses where it has no
// assembly yet.
func portable() ops {
	o := ops{
		level: "portable", w: 4, rows: 8, group: 2, blockRows: 2,
		transpose8:      transpose8Go,
		copyStrided:     copyStridedGo,
		add:             func(dst, a, b *float32, n int) { each3(dst, a, b, n, func(x, y float32) float32 { return x + y }) },
		mul:             func(dst, a, b *float32, n int) { each3(dst, a, b, n, func(x, y float32) float32 { return x * y }) },
		addBiasResidual: addBiasResidualGo,
		axpy: func(dst, x *float32, n int, s float32) {
			each3(dst, dst, x, n, func(d, x float32) float32 { return d + s*x })
		},
		scale: func(dst *float32, n int, s float32) {
			for i, d := 0, list(dst, n); i < n; i++ {
				d[i] *= s
			}
		},
		sum: func(x *float32, n int) float32 {
			return float32(sumOf(x, n, func(v float32) float64 { return float64(v) }))
		},
		maxOf: maxOfGo,
		dot:   dotGo,
		squares64: func(x *float32, n int) float64 {
			return sumOf(x, n, func(v float32) float64 { return float64(v) * float64(v) })
		},
		centredSquares: centredSquaresGo,
		expSum:         expSumGo,
		mulSub: func(p, d *float32, n int, delta float32) {
			each3(p, p, d, n, func(p, d float32) float32 { return p * (d - delta) })
		},
		normRow:        normRowGo,
		normBackSums:   normBackSumsGo,
		normBackDX:     normBackDXGo,
		normBackParams: normBackParamsGo,
		adamW:          adamWGo,
		dots: func(dst, q, k *float32, stride, d, n int, s float32) {
			for i, x := 0, list(dst, n); i < n; i++ {
				x[i] = s * dotGo(q, off(k, i*stride/4), d)
			}
		},
		minMax:         minMaxGo,
		quantizeWords:  quantizeWordsGo,
		quantizeBlocks: quantizeBlocksGo,
	}
	for r := 1; r < len(o.int8Tile); r++ {
		for v := range 2 {
			o.tile[v][r] = func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, cs, n int, alpha float32, acc int, _ *float32, _ int) {
				tileGo(r, k, a, rs, ks, b, bs, c, cs, n, alpha, acc)
			}
		}
		o.int8Tile[r] = func(k int, a *byte, rs int, b *int8, c *float32, cs, n int, _ *int32, sx *float32, _ *int32, sw, bias, res *float32) {
			int8Go(r, 2*o.w, k, a, rs, b, c, cs, n, sx, sw)
			addRowsGo(r, c, bias, res, cs/4, n)
		}
	}
	for r := 1; r <= o.blockRows; r++ {
		for kind := range 2 {
			for size := range 2 {
				o.blocks[kind][size][r] = func(blocks int, a *int8, rs int, b *byte, c *float32, cs, n int, xs, corr *float32, ss int) {
					blocksGo(r, 2*o.w, 16*(size+1), kind == 1, blocks, a, rs, b, c, cs, n, xs, corr, ss)
				}
			}
		}
	}
	for a := backend.GELU; a <= backend.Sigmoid; a++ {
		o.act[a] = func(dst, x *float32, n int) {
			for i, d, s := 0, list(dst, n), list(x, n); i < n; i++ {
				d[i] = backend.Activate(s[i], a)
			}
		}
		o.actGrad[a] = func(dx, dy, x *float32, n int) {
			for i, d, g, s := 0, list(dx, n), list(dy, n), list(x, n); i < n; i++ {
				d[i] += g[i] * backend.ActivateGrad(s[i], a)
			}
		}
	}
	return o
}

func list(x *float32, n int) []float32 { return unsafe.Slice(x, n) }

func each3(dst, a, b *float32, n int, f func(x, y float32) float32) {
	d, x, y := list(dst, n), list(a, n), list(b, n)
	for i := range d {
		d[i] = f(x[i], y[i])
	}
}

func sumOf(x *float32, n int, f func(v float32) float64) (s float64) {
	for _, v := range list(x, n) {
		s += f(v)
	}
	return s
}

// addRowsGo adds a row, and a matrix where there is one, to rows of c; strides are ld.
func addRowsGo(rows int, c, row, m *float32, ld, n int) {
	for r := range rows {
		d, b := list(off(c, r*ld), n), list(row, n)
		for i := range d {
			d[i] += b[i]
		}
		if m != nil {
			for i, v := range list(off(m, r*ld), n) {
				d[i] += v
			}
		}
	}
}

func addBiasResidualGo(dst, src, bias, residual *float32, n int) {
	d, s, b, r := list(dst, n), list(src, n), list(bias, n), list(residual, n)
	for i := range d {
		d[i] = s[i] + b[i] + r[i]
	}
}

func tileGo(rows, k int, a *float32, rs, ks int, b *float32, bs int, c *float32, cs, n int, alpha float32, acc int) {
	for r := range rows {
		out := list(off(c, r*cs/4), n)
		for j := range out {
			var s float32
			for i := range k {
				s += *off(a, (r*rs+i*ks)/4) * *off(b, i*bs/4+j)
			}
			if acc != 0 {
				out[j] += alpha * s
			} else {
				out[j] = alpha * s
			}
		}
	}
}

func transpose8Go(dst *float32, ds int, src *float32, ss int, blocks int) {
	for r := range 8 {
		for i, s := 0, list(off(src, r*ss/4), 8*blocks); i < len(s); i++ {
			*off(dst, i*ds/4+r) = s[i]
		}
	}
}

func copyStridedGo(dst *float32, ds int, src *float32, ss int, n, count int) {
	for i := range count {
		copy(list(off(dst, i*ds/4), n), list(off(src, i*ss/4), n))
	}
}

func maxOfGo(x *float32, n int) float32 {
	top := negInf
	for _, v := range list(x, n) {
		top = max(top, v)
	}
	return top
}

func dotGo(x, y *float32, n int) float32 {
	var s [4]float32
	a, b := list(x, n), list(y, n)
	for i := range a {
		s[i%4] += a[i] * b[i]
	}
	return (s[0] + s[2]) + (s[1] + s[3])
}

func centredSquaresGo(x *float32, n int, mean float32) float32 {
	return float32(sumOf(x, n, func(v float32) float64 { return float64(v-mean) * float64(v-mean) }))
}

func expSumGo(dst, src *float32, n int, top float32) float32 {
	d, s := list(dst, n), list(src, n)
	var sum float64
	for i, v := range s {
		e := math.Exp(float64(v - top))
		d[i] = float32(e)
		sum += e
	}
	return float32(sum)
}

func normRowGo(dst, x, gain, bias *float32, n int, mean, rstd float32) {
	d, s, g, b := list(dst, n), list(x, n), list(gain, n), list(bias, n)
	for i := range d {
		d[i] = (s[i]-mean)*rstd*g[i] + b[i]
	}
}

func normBackSumsGo(dy, x, gain *float32, n int, mean, rstd float32) (sum, dot float32) {
	d, s, g := list(dy, n), list(x, n), list(gain, n)
	var a, b float64
	for i := range d {
		v := float64(d[i] * g[i])
		a += v
		b += v * float64((s[i]-mean)*rstd)
	}
	return float32(a), float32(b)
}

func normBackDXGo(dx, dy, x, gain *float32, n int, mean, rstd, mg, mgx float32) {
	o, d, s, g := list(dx, n), list(dy, n), list(x, n), list(gain, n)
	for i := range o {
		o[i] += rstd * (d[i]*g[i] - mg - (s[i]-mean)*rstd*mgx)
	}
}

func normBackParamsGo(dgain, dy, x *float32, n int, mean, rstd float32) {
	o, d, s := list(dgain, n), list(dy, n), list(x, n)
	for i := range o {
		o[i] += d[i] * ((s[i] - mean) * rstd)
	}
}

func adamWGo(p, grad, m, v *float32, n int, s *float32) {
	k := list(s, 9)
	for i, p, g, m, v := 0, list(p, n), list(grad, n), list(m, n), list(v, n); i < n; i++ {
		x := g[i] * k[0]
		m[i] = k[1]*m[i] + k[2]*x
		v[i] = k[3]*v[i] + k[4]*x*x
		p[i] = p[i] - k[5]*p[i] - k[6]*m[i]/(float32(math.Sqrt(float64(v[i]*k[7])))+k[8])
	}
}

func minMaxGo(x *float32, n int) (lo, hi float32) {
	for _, v := range list(x, n) {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

func quantizeWordsGo(dst *int16, x *float32, n int, inv float32, zero int32) {
	d := unsafe.Slice(dst, n)
	for i, v := range list(x, n) {
		d[i] = int16(min(max(int32(math.RoundToEven(float64(v*inv)))+zero, 0), 255) - zero)
	}
}

func int8Go(rows, nr, k int, a *byte, rs int, b *int8, c *float32, cs, n int, sx, sw *float32) {
	w := unsafe.Slice(b, 2*k*nr)
	for r := range rows {
		x := unsafe.Slice((*int16)(unsafe.Add(unsafe.Pointer(a), r*rs)), 2*k)
		for j, out := 0, list(off(c, r*cs/4), n); j < n; j++ {
			var s int32
			for i := range k {
				s += int32(x[2*i])*int32(w[(i*nr+j)*2]) + int32(x[2*i+1])*int32(w[(i*nr+j)*2+1])
			}
			out[j] = float32(s) * *off(sx, r) * *off(sw, j)
		}
	}
}

func quantizeBlocksGo(dst *int8, x *float32, blocks int, scale *float32, sums *int32) {
	s := unsafe.Slice(sums, 2*blocks)
	clear(s)
	for b := range blocks {
		q := unsafe.Slice((*int8)(unsafe.Add(unsafe.Pointer(dst), 32*b)), 32)
		*off(scale, b) = backend.QuantizeBlock(q, list(off(x, 32*b), 32))
		for i, v := range q {
			s[2*b+i/16] += int32(v)
		}
	}
}

func blocksGo(rows, nr, size int, minima bool, blocks int, a *int8, rs int, b *byte, c *float32, cs, n int, xs, corr *float32, ss int) {
	bytes := size*nr + 4*nr
	if minima {
		bytes += 4 * nr
	}
	for r := range rows {
		x := unsafe.Slice((*int8)(unsafe.Add(unsafe.Pointer(a), r*rs)), size*blocks)
		for j, out := 0, list(off(c, r*cs/4), n); j < n; j++ {
			var acc float32
			for i := range blocks {
				block := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(b), i*bytes)), bytes)
				scales := (*float32)(unsafe.Pointer(&block[size*nr]))
				var dot int32
				for l, q := range x[i*size : (i+1)*size] {
					dot += int32(q) * int32(block[l/4*4*nr+4*j+l%4])
				}
				scale, cor := *off(xs, r*ss/4+i), off(corr, r*ss/4+i)
				if minima {
					acc += *off(scales, j) * (scale * float32(dot))
					acc -= *off(scales, nr+j) * *cor
				} else {
					acc += *off(scales, j) * (scale * float32(dot+*(*int32)(unsafe.Pointer(cor))))
				}
			}
			out[j] = acc
		}
	}
}
