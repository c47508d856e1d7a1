package backendtest

import (
	"math"
	"testing"

	"github.com/temper-ml/temper/backend"
)

var rowCounts = []int{0, 1, 3, 5}

var rowWidths = []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 384, 1000}

func softmax(t *testing.T, k backend.Kernels) {
	for _, cols := range rowWidths {
		for _, rows := range rowCounts {
			o := newOperands(t, uint64(rows*10000+cols))
			x := o.spread(rows*cols, 20)
			if rows > 2 && cols > 1 {
				x[0] = float32(math.Inf(-1)) // masked
				x[cols] = 1e6
				x[2*cols] = -1e6
			}
			dst := o.zeros(rows * cols)
			k.Softmax(dst, x, rows, cols)
			for r := range rows {
				top, sum := math.Inf(-1), 0.0
				for _, v := range x[r*cols : (r+1)*cols] {
					top = max(top, float64(v))
				}
				for _, v := range x[r*cols : (r+1)*cols] {
					sum += math.Exp(float64(v) - top)
				}
				for c := range cols {
					d := float64(x[r*cols+c]) - top
					w := math.Exp(d) / sum
					near(t, dst[r*cols+c], w, (12+2*math.Sqrt(float64(cols))+math.Abs(max(d, -100)))*u*w+1e-38, "softmax %dx%d [%d,%d]", rows, cols, r, c)
				}
				alone := o.zeros(cols)
				k.Softmax(alone, x[r*cols:(r+1)*cols], 1, cols)
				same(t, alone, dst[r*cols:(r+1)*cols], "softmax of a row alone")
			}
			k.Softmax(x, x, rows, cols)
			same(t, x, dst, "softmax in place")
		}
		masked := newOperands(t, 1).zeros(cols)
		for i := range masked {
			masked[i] = float32(math.Inf(-1))
		}
		k.Softmax(masked, masked, 1, cols)
		same(t, masked, make([]float32, cols), "softmax of a masked row")
	}
}

// oracleNorm is layer norm (or RMS norm) in float64; gain and bias may be nil.
func oracleNorm(x, gain, bias []float64, rows, cols int, eps float64, rms bool) []float64 {
	y := make([]float64, rows*cols)
	for r := range rows {
		row := x[r*cols : (r+1)*cols]
		mean, variance := 0.0, 0.0
		if !rms {
			for _, v := range row {
				mean += v / float64(cols)
			}
		}
		for _, v := range row {
			variance += (v - mean) * (v - mean) / float64(cols)
		}
		for c, v := range row {
			y[r*cols+c] = (v - mean) / math.Sqrt(variance+eps)
			if gain != nil {
				y[r*cols+c] *= gain[c]
			}
			if bias != nil {
				y[r*cols+c] += bias[c]
			}
		}
	}
	return y
}

func norms(t *testing.T, k backend.Kernels) {
	for _, cols := range rowWidths {
		for i, rows := range rowCounts {
			o := newOperands(t, uint64(rows*10000+cols))
			x := o.normal(rows * cols)
			for j := range x {
				x[j] += 3 // a mean that cancels
			}
			gain, bias := o.normal(cols), o.normal(cols)
			if i%2 == 0 {
				bias = nil
			}
			dst, mean, rstd := o.zeros(rows*cols), o.zeros(rows), o.zeros(rows)
			k.LayerNorm(dst, x, gain, bias, rows, cols, 1e-5, mean, rstd)
			wantBias := wide(bias)
			if bias == nil {
				wantBias = nil
			}
			want := oracleNorm(wide(x), wide(gain), wantBias, rows, cols, 1e-5, false)
			for j := range dst {
				// The mean is rounded to float32 and the difference magnifies that by 1/σ.
				r, c := j/cols, j%cols
				budget := u * math.Abs(float64(gain[c])) * (12*math.Abs(want[j]) + 12*(1+math.Abs(float64(mean[r])))*float64(rstd[r]) + 12)
				near(t, dst[j], want[j], budget+8*u*math.Abs(want[j]), "layer norm %dx%d element %d", rows, cols, j)
			}
			in := o.copyOf(x)
			k.LayerNorm(in, in, gain, bias, rows, cols, 1e-5, nil, nil)
			same(t, in, dst, "layer norm in place without statistics")

			k.RMSNorm(dst, x, gain, rows, cols, 1e-6, rstd)
			want = oracleNorm(wide(x), wide(gain), nil, rows, cols, 1e-6, true)
			for j := range dst {
				near(t, dst[j], want[j], 12*u*math.Abs(want[j]), "rms norm %dx%d element %d", rows, cols, j)
			}
			ones := o.zeros(cols)
			for j := range ones {
				ones[j] = 1
			}
			k.RMSNorm(dst, x, ones, rows, cols, 1e-6, nil)
			in = o.copyOf(x)
			k.RMSNorm(in, in, nil, rows, cols, 1e-6, nil)
			same(t, in, dst, "rms norm without gain, in place")
		}
	}
}

func normGradients(t *testing.T, k backend.Kernels) {
	for _, rms := range []bool{false, true} {
		for _, cols := range []int{1, 2, 7, 16, 17, 40} {
			for _, rows := range []int{1, 3} {
				o := newOperands(t, uint64(rows*10000+cols))
				x, dy, gain, bias := o.normal(rows*cols), o.normal(rows*cols), o.normal(cols), o.normal(cols)
				for i := range x {
					x[i] += 0.5
				}
				y, mean, rstd := o.zeros(rows*cols), o.zeros(rows), o.zeros(rows)
				dx, dgain, dbias := o.normal(rows*cols), o.normal(cols), o.normal(cols)
				wasX, wasG, wasB := append([]float32(nil), dx...), append([]float32(nil), dgain...), append([]float32(nil), dbias...)
				const eps = 0.1 // large, so that one column has a slope worth testing
				if rms {
					k.RMSNorm(y, x, gain, rows, cols, eps, rstd)
					k.RMSNormBackward(dx, dgain, dy, x, gain, rstd, rows, cols)
				} else {
					k.LayerNorm(y, x, gain, bias, rows, cols, eps, mean, rstd)
					k.LayerNormBackward(dx, dgain, dbias, dy, x, gain, mean, rstd, rows, cols)
				}
				loss := func(x, gain, bias []float64) (sum float64) {
					for i, v := range oracleNorm(x, gain, bias, rows, cols, eps, rms) {
						sum += v * float64(dy[i])
					}
					return sum
				}
				fx, fg, fb := wide(x), wide(gain), wide(bias)
				check := func(what string, got, was []float32, want []float64) {
					for i := range got {
						near(t, got[i]-was[i], want[i], finite(want[i], 1), "rms %v %dx%d %s[%d]", rms, rows, cols, what, i)
					}
				}
				check("dx", dx, wasX, slope(func(v []float64) float64 { return loss(v, fg, fb) }, fx))
				check("dgain", dgain, wasG, slope(func(v []float64) float64 { return loss(fx, v, fb) }, fg))
				if !rms {
					check("dbias", dbias, wasB, slope(func(v []float64) float64 { return loss(fx, fg, v) }, fb))
				}
			}
		}
	}
	// Long and wide, against Generic; each gradient may be left out.
	ref := backend.Generic(1)
	for _, s := range [][2]int{{130, 65}, {3, 384}, {70, 16}} {
		o := newOperands(t, uint64(s[0]))
		rows, cols := s[0], s[1]
		x, dy, gain := o.normal(rows*cols), o.normal(rows*cols), o.normal(cols)
		y, mean, rstd := o.zeros(rows*cols), o.zeros(rows), o.zeros(rows)
		ref.LayerNorm(y, x, gain, nil, rows, cols, 1e-5, mean, rstd)
		got, want := [3][]float32{o.zeros(rows * cols), o.zeros(cols), o.zeros(cols)}, [3][]float32{o.zeros(rows * cols), o.zeros(cols), o.zeros(cols)}
		ref.LayerNormBackward(want[0], want[1], want[2], dy, x, gain, mean, rstd, rows, cols)
		k.LayerNormBackward(got[0], nil, nil, dy, x, gain, mean, rstd, rows, cols)
		k.LayerNormBackward(nil, got[1], got[2], dy, x, gain, mean, rstd, rows, cols)
		for i := range got {
			for j := range got[i] {
				near(t, got[i][j], float64(want[i][j]), 1e-5*(1+math.Abs(float64(want[i][j]))), "layer norm gradient %d %v[%d]", i, s, j)
			}
		}
		ref.RMSNorm(y, x, nil, rows, cols, 1e-5, rstd)
		a, b := o.zeros(rows*cols), o.zeros(rows*cols)
		ref.RMSNormBackward(a, nil, dy, x, nil, rstd, rows, cols)
		k.RMSNormBackward(b, nil, dy, x, nil, rstd, rows, cols)
		for j := range a {
			near(t, b[j], float64(a[j]), 1e-5*(1+math.Abs(float64(a[j]))), "rms norm gradient %v[%d]", s, j)
		}
	}
}

func crossEntropy(t *testing.T, k backend.Kernels) {
	for _, cols := range rowWidths {
		for _, rows := range rowCounts {
			o := newOperands(t, uint64(rows*10000+cols))
			x, targets := o.normal(rows*cols), o.ids(rows, cols)
			for i := range x {
				x[i] *= 4
			}
			if rows > 1 {
				targets[1] = -100 // ignored
			}
			d := o.normal(rows * cols)
			got := k.CrossEntropy(x, targets, rows, cols, d, 0.5)
			var want float64
			for r := range rows {
				top, sum := math.Inf(-1), 0.0
				for _, v := range x[r*cols : (r+1)*cols] {
					top = max(top, float64(v))
				}
				for _, v := range x[r*cols : (r+1)*cols] {
					sum += math.Exp(float64(v) - top)
				}
				if targets[r] >= 0 {
					want += top + math.Log(sum) - float64(x[r*cols+int(targets[r])])
				}
				for c := range cols {
					w := 0.5 * math.Exp(float64(x[r*cols+c])-top) / sum
					if c == int(targets[r]) {
						w -= 0.5
					}
					if targets[r] < 0 {
						w = 0
					}
					near(t, d[r*cols+c], w, 2e-6*(math.Abs(w)+0.1), "cross entropy %dx%d gradient [%d,%d]", rows, cols, r, c)
				}
			}
			if math.Abs(got-want) > 3e-6*(1+want) {
				t.Fatalf("cross entropy of %dx%d is %v, want %v", rows, cols, got, want)
			}
			if again := k.CrossEntropy(x, targets, rows, cols, nil, 0); again != got {
				t.Fatalf("cross entropy without gradient is %v, with it %v", again, got)
			}
			if k.CrossEntropy(x, targets, rows, cols, x, 0.5); true {
				same(t, x, d, "cross entropy gradient in place")
			}
		}
	}
}
