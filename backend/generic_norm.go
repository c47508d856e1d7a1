package backend

import "math"

func (g *generic) Softmax(dst, src []float32, rows, cols int) {
	Need("softmax", "src", len(src), rows*cols)
	Need("softmax", "dst", len(dst), rows*cols)
	g.split(rows, 32*cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			softmaxRow(dst[r*cols:(r+1)*cols], src[r*cols:(r+1)*cols])
		}
	})
}

// softmaxRow writes exp(s - max)/Σ; a row of only -Inf becomes zeros. It returns log Σ exp(s).
func softmaxRow(d, s []float32) float64 {
	top := float32(math.Inf(-1))
	for _, v := range s {
		top = max(top, v)
	}
	if math.IsInf(float64(top), -1) {
		clear(d)
		return math.Inf(-1)
	}
	var sum float64
	for i, v := range s {
		e := math.Exp(float64(v) - float64(top))
		d[i] = float32(e)
		sum += e
	}
	inv := float32(1 / sum)
	for i := range d {
		d[i] *= inv
	}
	return float64(top) + math.Log(sum)
}

func at(v []float32, i int, otherwise float32) float32 {
	if v == nil {
		return otherwise
	}
	return v[i]
}

func (g *generic) LayerNorm(dst, x, gain, bias []float32, rows, cols int, eps float32, mean, rstd []float32) {
	CheckNorm("layer norm", dst, x, gain, bias, mean, rstd, rows, cols)
	g.split(rows, 8*cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			xr, dr := x[r*cols:(r+1)*cols], dst[r*cols:(r+1)*cols]
			var sum, sq float64
			for _, v := range xr {
				sum += float64(v)
			}
			m := sum / float64(cols)
			for _, v := range xr {
				sq += (float64(v) - m) * (float64(v) - m)
			}
			mu, rs := float32(m), float32(1/math.Sqrt(sq/float64(cols)+float64(eps)))
			for c, v := range xr {
				dr[c] = (v-mu)*rs*at(gain, c, 1) + at(bias, c, 0)
			}
			if mean != nil {
				mean[r] = mu
			}
			if rstd != nil {
				rstd[r] = rs
			}
		}
	})
}

// CheckNorm panics when an operand of a norm is too short; nil ones are skipped (gain, bias, mean, rstd).
func CheckNorm(op string, dst, x, gain, bias, mean, rstd []float32, rows, cols int) {
	Need(op, "x", len(x), rows*cols)
	Need(op, "dst", len(dst), rows*cols)
	if gain != nil {
		Need(op, "gain", len(gain), cols)
	}
	if bias != nil {
		Need(op, "bias", len(bias), cols)
	}
	if mean != nil {
		Need(op, "mean", len(mean), rows)
	}
	if rstd != nil {
		Need(op, "rstd", len(rstd), rows)
	}
}

// CheckNormBackward panics when an operand of a norm's backward is too short. mean is nil for RMS norm.
func CheckNormBackward(op string, dx, dgain, dbias, dy, x, gain, mean, rstd []float32, rows, cols int) {
	Need(op, "dy", len(dy), rows*cols)
	Need(op, "x", len(x), rows*cols)
	Need(op, "rstd", len(rstd), rows)
	if mean != nil {
		Need(op, "mean", len(mean), rows)
	}
	if dx != nil {
		Need(op, "dx", len(dx), rows*cols)
	}
	if gain != nil {
		Need(op, "gain", len(gain), cols)
	}
	if dgain != nil {
		Need(op, "dgain", len(dgain), cols)
	}
	if dbias != nil {
		Need(op, "dbias", len(dbias), cols)
	}
}

func (g *generic) LayerNormBackward(dx, dgain, dbias, dy, x, gain, mean, rstd []float32, rows, cols int) {
	Need("layer norm backward", "mean", len(mean), rows)
	CheckNormBackward("layer norm backward", dx, dgain, dbias, dy, x, gain, mean, rstd, rows, cols)
	// Parameters first: dx may be dy.
	if dgain != nil {
		g.sumRows(dgain, rows, cols, func(r, c int) float32 { return dy[r*cols+c] * ((x[r*cols+c] - mean[r]) * rstd[r]) })
	}
	if dbias != nil {
		g.sumRows(dbias, rows, cols, func(r, c int) float32 { return dy[r*cols+c] })
	}
	if dx == nil {
		return
	}
	g.split(rows, 12*cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			var sg, sgx float64
			for c := range cols {
				d := dy[r*cols+c] * at(gain, c, 1)
				sg += float64(d)
				sgx += float64(d) * float64((x[r*cols+c]-mean[r])*rstd[r])
			}
			mg, mgx := float32(sg/float64(cols)), float32(sgx/float64(cols))
			for c := range cols {
				d := dy[r*cols+c] * at(gain, c, 1)
				dx[r*cols+c] += rstd[r] * (d - mg - (x[r*cols+c]-mean[r])*rstd[r]*mgx)
			}
		}
	})
}

func (g *generic) RMSNorm(dst, x, gain []float32, rows, cols int, eps float32, rstd []float32) {
	CheckNorm("rms norm", dst, x, gain, nil, nil, rstd, rows, cols)
	g.split(rows, 6*cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			xr, dr := x[r*cols:(r+1)*cols], dst[r*cols:(r+1)*cols]
			var sq float64
			for _, v := range xr {
				sq += float64(v) * float64(v)
			}
			rs := float32(1 / math.Sqrt(sq/float64(cols)+float64(eps)))
			for c, v := range xr {
				dr[c] = v * rs * at(gain, c, 1)
			}
			if rstd != nil {
				rstd[r] = rs
			}
		}
	})
}

func (g *generic) RMSNormBackward(dx, dgain, dy, x, gain, rstd []float32, rows, cols int) {
	CheckNormBackward("rms norm backward", dx, dgain, nil, dy, x, gain, nil, rstd, rows, cols)
	if dgain != nil {
		g.sumRows(dgain, rows, cols, func(r, c int) float32 { return dy[r*cols+c] * (x[r*cols+c] * rstd[r]) })
	}
	if dx == nil {
		return
	}
	g.split(rows, 12*cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			var sgx float64
			for c := range cols {
				sgx += float64(dy[r*cols+c]*at(gain, c, 1)) * float64(x[r*cols+c]*rstd[r])
			}
			mgx := float32(sgx / float64(cols))
			for c := range cols {
				d := dy[r*cols+c] * at(gain, c, 1)
				dx[r*cols+c] += rstd[r] * (d - x[r*cols+c]*rstd[r]*mgx)
			}
		}
	})
}

func (g *generic) CrossEntropy(logits []float32, targets []int32, rows, cols int, dlogits []float32, scale float32) float64 {
	CheckCrossEntropy(logits, targets, rows, cols, dlogits)
	losses := make([]float64, rows)
	g.split(rows, 40*cols, func(lo, hi int) {
		p := make([]float32, cols)
		for r := lo; r < hi; r++ {
			t := int(targets[r])
			if t < 0 {
				if dlogits != nil {
					clear(dlogits[r*cols : (r+1)*cols])
				}
				continue
			}
			at := float64(logits[r*cols+t])
			losses[r] = softmaxRow(p, logits[r*cols:(r+1)*cols]) - at
			if dlogits == nil {
				continue
			}
			d := dlogits[r*cols : (r+1)*cols]
			for c := range d {
				d[c] = scale * p[c]
			}
			d[t] = scale * (p[t] - 1)
		}
	})
	var sum float64
	for _, l := range losses {
		sum += l
	}
	return sum
}

// CheckCrossEntropy panics when an operand is too short or a target is not a column.
func CheckCrossEntropy(logits []float32, targets []int32, rows, cols int, dlogits []float32) {
	Need("cross entropy", "logits", len(logits), rows*cols)
	Need("cross entropy", "targets", len(targets), rows)
	if dlogits != nil {
		Need("cross entropy", "dlogits", len(dlogits), rows*cols)
	}
	for _, t := range targets[:rows] {
		Need("cross entropy", "row (for its target)", cols, int(t)+1)
	}
}
