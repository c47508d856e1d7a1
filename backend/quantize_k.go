package backend

import "math"

// The searches of llama.cpp's k-quants (pull requests 1684 and 4773), in the same order of operations, so that files come out alike.

// tiny is the magnitude below which a group counts as zero.
const tiny = 1e-15

// fitSymmetric finds the scale of levels -levels … levels-1 that has the least error weighted by x², among 19 around the one of the
// largest value, and writes the levels (from 0) to q.
func fitSymmetric(x []float32, q []int8, levels int) float32 {
	peak := extreme(x)
	if abs(peak) < tiny {
		clear(q)
		return 0
	}
	try := func(id float32) (lx, ll float32) {
		for _, v := range x {
			l := float32(clamp(nearest(id*v), -levels, levels-1))
			w := v * v
			lx += w * v * l
			ll += w * l * l
		}
		return lx, ll
	}
	bestID := -float32(levels) / peak
	lx, ll := try(bestID)
	scale := float32(0)
	if ll != 0 {
		scale = lx / ll
	}
	best := scale * lx
	for step := -9; step <= 9; step++ {
		if step == 0 {
			continue
		}
		id := -(float32(levels) + float32(0.1*float32(step))) / peak
		lx, ll := try(id)
		if ll > 0 && lx*lx > best*ll {
			bestID, scale = id, lx/ll
			best = scale * lx
		}
	}
	for i, v := range x {
		q[i] = int8(clamp(nearest(bestID*v), -levels, levels-1) + levels)
	}
	return scale
}

// fitThreeBit is coordinate descent over the levels -4 … 3 from the plain rounding, at most five rounds.
func fitThreeBit(x []float32) float32 {
	const levels = 4
	peak := extreme(x)
	if abs(peak) < tiny {
		return 0
	}
	id := float32(-levels) / peak
	var q [16]float32
	var lx, ll float32
	for i, v := range x {
		l := float32(clamp(nearest(id*v), -levels, levels-1))
		q[i] = l
		w := v * v
		lx += w * v * l
		ll += w * l * l
	}
	for range 5 {
		changed := false
		for i, v := range x {
			w := v * v
			lx1 := lx - w*v*q[i]
			if lx1 <= 0 {
				continue
			}
			ll1 := ll - w*q[i]*q[i]
			l := float32(clamp(nearest(v*ll1/lx1), -levels, levels-1))
			if l == q[i] {
				continue
			}
			lx1 += w * v * l
			ll1 += w * l * l
			if ll1 > 0 && lx1*lx1*ll > lx*lx*ll1 {
				q[i], lx, ll, changed = l, lx1, ll1, true
			}
		}
		if !changed {
			break
		}
	}
	if ll > 0 {
		return lx / ll
	}
	return 0
}

// fitAffine finds scale and minimum (returned negated, so never below 0) for levels 0 … levels with the least weighted error, squared
// or absolute: from the extent of x, then steps+1 refits by weighted least squares at nearby roundings, each from the best minimum so far.
func fitAffine(x, weight []float32, levels int, from, delta float32, steps int, absolute bool) (scale, negMin float32) {
	low, high := x[0], x[0]
	sumW, sumX := weight[0], weight[0]*x[0]
	for i := 1; i < len(x); i++ {
		low, high = min(low, x[i]), max(high, x[i])
		sumW += weight[i]
		sumX += weight[i] * x[i]
	}
	low = min(low, 0)
	if high == low {
		return 0, -low
	}
	var q [32]float32
	errorOf := func(scale, low float32) float32 {
		sum := float32(0)
		for i, v := range x {
			d := scale*q[i] + low - v
			if absolute {
				d = abs(d)
			} else {
				d *= d
			}
			sum += weight[i] * d
		}
		return sum
	}
	id := float32(levels) / (high - low)
	scale = 1 / id
	for i, v := range x {
		q[i] = float32(clamp(nearest(id*(v-low)), 0, levels))
	}
	best := errorOf(scale, low)
	for step := range steps + 1 {
		id := (from + delta*float32(step) + float32(levels)) / (high - low)
		var sumL, sumL2, sumXL float32
		for i, v := range x {
			l := float32(clamp(nearest(id*(v-low)), 0, levels))
			q[i] = l
			w := weight[i]
			sumL += w * l
			sumL2 += w * l * l
			sumXL += w * l * v
		}
		det := sumW*sumL2 - sumL*sumL
		if det <= 0 {
			continue
		}
		s, m := (sumW*sumXL-sumX*sumL)/det, (sumL2*sumX-sumL*sumXL)/det
		if m > 0 {
			m, s = 0, sumXL/sumL2
		}
		if e := errorOf(s, m); e < best {
			best, scale, low = e, s, m
		}
	}
	return scale, -low
}

func quantizeQ2K(b []byte, x []float32) {
	var scales, mins [16]float32
	var weight [16]float32
	for s := range scales {
		group := x[s*16:][:16]
		for i, v := range group {
			weight[i] = abs(v)
		}
		scales[s], mins[s] = fitAffine(group, weight[:], 3, -0.5, 0.1, 15, true)
	}
	maxScale, maxMin := maxOf(scales[:]), maxOf(mins[:])
	putHalf(b[80:], maxScale/15)
	putHalf(b[82:], maxMin/15)
	for s := range scales {
		var sc, m int
		if maxScale > 0 {
			sc = nearest(15 / maxScale * scales[s])
		}
		if maxMin > 0 {
			m = nearest(15 / maxMin * mins[s])
		}
		b[s] = byte(sc) | byte(m)<<4
	}
	d, dmin := half(b[80:]), half(b[82:])
	for s := range 16 {
		ds, ms := d*float32(b[s]&15), dmin*float32(b[s]>>4)
		if ds == 0 {
			continue
		}
		run := s / 2
		for l, v := range x[s*16:][:16] {
			b[16+run/4*32+s%2*16+l] |= byte(clamp(nearest((v+ms)/ds), 0, 3)) << (run % 4 * 2)
		}
	}
}

// maxOf is the largest value, at least 0.
func maxOf(v []float32) float32 {
	m := float32(0)
	for _, x := range v {
		m = max(m, x)
	}
	return m
}

func quantizeQ3K(b []byte, x []float32) {
	var scales [16]float32
	for s := range scales {
		scales[s] = fitThreeBit(x[s*16:][:16])
	}
	high, q, packed := b[:32], b[32:96], b[96:108]
	if peak := extreme(scales[:]); peak != 0 {
		id := -32 / peak
		for s, scale := range scales {
			l := clamp(nearest(id*scale), -32, 31) + 32
			packed[s%8] |= byte(l&15) << (s / 8 * 4)
			packed[8+s%4] |= byte(l>>4) << (s / 4 * 2)
		}
		putHalf(b[108:], 1/id)
	}
	d := half(b[108:])
	for s := range 16 {
		ds := d * float32(q3Scale(packed, s))
		run := s / 2
		for l, v := range x[s*16:][:16] {
			level := 0 // the reference leaves the search's own level where the scale vanishes; it then stands for nothing
			if ds != 0 {
				level = clamp(nearest(v/ds), -4, 3)
			}
			level += 4
			if level > 3 {
				high[s%2*16+l] |= 1 << run
				level -= 4
			}
			q[run/4*32+s%2*16+l] |= byte(level) << (run % 4 * 2)
		}
	}
}

// k4Scales fits 8 sub-blocks of 32, packs their scales and minima in 6 bits each and returns both in units of the values.
func k4Scales(head []byte, x []float32, levels int, from float32, steps int) (scales, mins [8]float32) {
	var weight [32]float32
	for s := range 8 {
		group := x[s*32:][:32]
		sum := float32(0)
		for _, v := range group {
			sum += v * v
		}
		mean := float32(math.Sqrt(float64(sum / 32)))
		for i, v := range group {
			weight[i] = mean + abs(v)
		}
		scales[s], mins[s] = fitAffine(group, weight[:], levels, from, 0.1, steps, false)
	}
	maxScale, maxMin := maxOf(scales[:]), maxOf(mins[:])
	var idScale, idMin float32
	if maxScale > 0 {
		idScale = 63 / maxScale
	}
	if maxMin > 0 {
		idMin = 63 / maxMin
	}
	putHalf(head, maxScale/63)
	putHalf(head[2:], maxMin/63)
	d, dmin := half(head), half(head[2:])
	packed := head[4:16]
	for s := range 8 {
		// A negative scale cannot be stored; the reference wraps it around and clips, which comes to the largest.
		sc, m := min(63, int(uint8(nearest(idScale*scales[s])))), min(63, int(uint8(nearest(idMin*mins[s]))))
		if s < 4 {
			packed[s] = byte(sc)
			packed[s+4] = byte(m)
		} else {
			packed[s+4] = byte(sc&15 | m&15<<4)
			packed[s-4] |= byte(sc >> 4 << 6)
			packed[s] |= byte(m >> 4 << 6)
		}
		scales[s], mins[s] = d*float32(sc), dmin*float32(m)
	}
	return scales, mins
}

func quantizeQ4K(b []byte, x []float32) {
	scales, mins := k4Scales(b[:16], x, 15, -1, 20)
	for s := range 8 {
		if scales[s] == 0 {
			continue
		}
		for l, v := range x[s*32:][:32] {
			b[16+s/2*32+l] |= byte(clamp(nearest((v+mins[s])/scales[s]), 0, 15)) << (s % 2 * 4)
		}
	}
}

func quantizeQ5K(b []byte, x []float32) {
	scales, mins := k4Scales(b[:16], x, 31, -0.5, 15)
	for s := range 8 {
		if scales[s] == 0 {
			continue
		}
		for l, v := range x[s*32:][:32] {
			q := clamp(nearest((v+mins[s])/scales[s]), 0, 31)
			b[48+s/2*32+l] |= byte(q&15) << (s % 2 * 4)
			b[16+l] |= byte(q>>4) << s
		}
	}
}

func quantizeQ6K(b []byte, x []float32) {
	var scales [16]float32
	var levels [16]int8
	for s := range scales {
		scales[s] = fitSymmetric(x[s*16:][:16], levels[:], 32)
	}
	peak := extreme(scales[:])
	if abs(peak) < tiny {
		return
	}
	id := -128 / peak
	putHalf(b[208:], 1/id)
	d := half(b[208:])
	for s, scale := range scales {
		b[192+s] = byte(int8(min(127, nearest(id*scale))))
		ds := d * float32(int8(b[192+s]))
		run := s / 2
		h, r := run/4, run%4
		for l, v := range x[s*16:][:16] {
			q := 0
			if ds != 0 {
				q = clamp(nearest(v/ds), -32, 31)
			}
			q += 32
			at := s%2*16 + l
			b[h*64+r%2*32+at] |= byte(q&15) << (r / 2 * 4)
			b[128+h*32+at] |= byte(q>>4) << (r * 2)
		}
	}
}
