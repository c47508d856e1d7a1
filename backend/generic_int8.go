package backend

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/temper-ml/temper/core/tensor"
)

// Products with tensor.Q8Row weights run in integers: each row of activations is quantized as it comes to unsigned bytes around a zero point
// (asymmetric, over its own range and 0), the dot products are exact in int32, and one multiplication by each scale makes them float32.
// What follows is the specification; other backends give the same bits.

// MaxInt8Columns bounds In for integer products: beyond it the sums might leave int32. Wider weights are expanded to float32.
const MaxInt8Columns = 1 << 15

// ActivationRange returns the scale, its inverse and the zero point for a row whose values lie in [lo, hi], lo <= 0 <= hi.
func ActivationRange(lo, hi float32) (scale, inverse float32, zero int32) {
	if hi == lo {
		return 1, 1, 0
	}
	scale = (hi - lo) / 255
	inverse = 255 / (hi - lo)
	return scale, inverse, int32(math.RoundToEven(float64(-lo * inverse)))
}

// QuantizeActivations writes q = clamp(round(x/scale) + zero, 0, 255), ties to even, so that x ≈ scale·(q - zero).
func QuantizeActivations(dst []byte, x []float32) (scale float32, zero int32) {
	Need("quantize activations", "dst", len(dst), len(x))
	var lo, hi float32
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	scale, inverse, zero := ActivationRange(lo, hi)
	for i, v := range x {
		dst[i] = byte(min(max(int32(math.RoundToEven(float64(v*inverse)))+zero, 0), 255))
	}
	return scale, zero
}

// int8Weight keeps the source's values and scales.
type int8Weight struct {
	out, in int
	w       []int8
	scales  []float32
}

func (w *int8Weight) Shape() (out, in int) { return w.out, w.in }
func (w *int8Weight) Bytes() int           { return 0 }

// HoldsSource implements SourceHolder.
func (w *int8Weight) HoldsSource() bool { return true }

// RunsInIntegers reports whether products with w quantize their activations.
func (w Weight) RunsInIntegers() bool { return w.DType == tensor.Q8Row && w.In <= MaxInt8Columns }

func (g *generic) packInt8(w Weight) *int8Weight {
	if len(w.Scales) < w.Out {
		panic(fmt.Sprintf("backend: pack: q8_row weight has %d scales for %d rows", len(w.Scales), w.Out))
	}
	data := w.Data[:w.Out*w.In]
	return &int8Weight{out: w.Out, in: w.In, w: unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(data))), len(data)), scales: w.Scales}
}

func (g *generic) linearInt8(dst, x []float32, rows int, w *int8Weight, ep Epilogue) {
	g.split(rows, 2*w.in*w.out, func(lo, hi int) {
		q := make([]byte, w.in)
		for r := lo; r < hi; r++ {
			scale, zero := QuantizeActivations(q, x[r*w.in:(r+1)*w.in])
			for o := range w.out {
				row := w.w[o*w.in : (o+1)*w.in]
				var sum int32
				for i, v := range q {
					sum += (int32(v) - zero) * int32(row[i])
				}
				at := r*w.out + o
				dst[at] = ep.apply(float32(sum)*scale*w.scales[o], o, at)
			}
		}
	})
}

// apply finishes one output: bias of column o, activation, residual at its place.
func (ep *Epilogue) apply(s float32, o, at int) float32 {
	if ep.Bias != nil {
		s += ep.Bias[o]
	}
	if ep.Pre != nil {
		ep.Pre[at] = s
	}
	s = Activate(s, ep.Act)
	if ep.Residual != nil {
		s += ep.Residual[at]
	}
	return s
}
