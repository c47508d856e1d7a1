package backend

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/temper-ml/temper/core/tensor"
)

// CanQuantize reports whether Quantize writes the type.
func CanQuantize(typ tensor.DType) bool {
	return typ == tensor.F32 || int(typ) < len(quantizers) && quantizers[typ] != nil
}

// Quantize stores src in dst as typ: rounding for floating types, for block types the same search for scales that llama.cpp makes without an
// importance matrix. len(src) is a whole number of blocks; values must be finite. It returns the bytes written and panics when
// dst is too short or the type cannot be written (see CanQuantize); tensor.Q8Row has its own function, QuantizeRows.
func Quantize(dst []byte, typ tensor.DType, src []float32) int {
	n, bytes := typ.BlockLen(), typ.BlockBytes()
	if !CanQuantize(typ) || len(src)%n != 0 || len(dst) < len(src)/n*bytes {
		panic(fmt.Sprintf("quantize %s: %d bytes for %d elements", typ, len(dst), len(src)))
	}
	if typ == tensor.F32 {
		for i, v := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		}
		return 4 * len(src)
	}
	quantize := quantizers[typ]
	for i := range len(src) / n {
		b := dst[i*bytes : (i+1)*bytes : (i+1)*bytes]
		clear(b)
		quantize(b, src[i*n:(i+1)*n:(i+1)*n])
	}
	return len(src) / n * bytes
}

// QuantizeRows stores src [rows, cols] as int8 with one scale per row, max|row|/127, rounding to nearest even (tensor.Q8Row).
func QuantizeRows(dst []byte, scales, src []float32, rows, cols int) {
	if len(dst) < rows*cols || len(scales) < rows || len(src) < rows*cols {
		panic(fmt.Sprintf("quantize q8_row: %d bytes, %d scales, %d values for [%d, %d]", len(dst), len(scales), len(src), rows, cols))
	}
	for r := range rows {
		row := src[r*cols : (r+1)*cols]
		d := absMax(row) / 127
		scales[r] = d
		id := inverse(d)
		for i, v := range row {
			dst[r*cols+i] = byte(int8(clamp(nearest(v*id), -127, 127)))
		}
	}
}

var quantizers = [...]func(b []byte, x []float32){
	tensor.F16:    func(b []byte, x []float32) { binary.LittleEndian.PutUint16(b, tensor.F32ToF16(x[0])) },
	tensor.BF16:   func(b []byte, x []float32) { binary.LittleEndian.PutUint16(b, tensor.F32ToBF16(x[0])) },
	tensor.Q4_0:   quantizeQ4_0,
	tensor.Q4_1:   quantizeQ4_1,
	tensor.Q5_0:   quantizeQ5_0,
	tensor.Q5_1:   quantizeQ5_1,
	tensor.Q8_0:   quantizeQ8_0,
	tensor.Q2_K:   quantizeQ2K,
	tensor.Q3_K:   quantizeQ3K,
	tensor.Q4_K:   quantizeQ4K,
	tensor.Q5_K:   quantizeQ5K,
	tensor.Q6_K:   quantizeQ6K,
	tensor.IQ4_NL: quantizeIQ4NL,
	tensor.IQ4_XS: quantizeIQ4XS,
}

func putHalf(b []byte, v float32) { binary.LittleEndian.PutUint16(b, tensor.F32ToF16(v)) }

func inverse(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// nearest rounds to the nearest integer, ties to even, for |v| < 2^22: adding 1.5·2^23 leaves the integer in the low mantissa bits.
func nearest(v float32) int {
	return int(math.Float32bits(v+12582912)&0x7fffff) - 0x400000
}

func clamp(v, low, high int) int { return min(max(v, low), high) }

func abs(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

func absMax(x []float32) float32 {
	m := float32(0)
	for _, v := range x {
		m = max(m, abs(v))
	}
	return m
}

// extreme is the value of largest magnitude, with its sign; the first of equals.
func extreme(x []float32) float32 {
	m, a := float32(0), float32(0)
	for _, v := range x {
		if abs(v) > a {
			m, a = v, abs(v)
		}
	}
	return m
}

func extent(x []float32) (low, high float32) {
	low, high = x[0], x[0]
	for _, v := range x {
		low, high = min(low, v), max(high, v)
	}
	return low, high
}

// quantizeQ4_0 gives the value of largest magnitude the level -8, so that the wider side of the range is used.
func quantizeQ4_0(b []byte, x []float32) {
	d := extreme(x) / -8
	id := inverse(d)
	putHalf(b, d)
	for j := range 16 {
		lo, hi := min(15, int(x[j]*id+8.5)), min(15, int(x[j+16]*id+8.5))
		b[2+j] = byte(lo) | byte(hi)<<4
	}
}

func quantizeQ4_1(b []byte, x []float32) {
	low, high := extent(x)
	d := (high - low) / 15
	id := inverse(d)
	putHalf(b, d)
	putHalf(b[2:], low)
	for j := range 16 {
		lo, hi := min(15, int((x[j]-low)*id+0.5)), min(15, int((x[j+16]-low)*id+0.5))
		b[4+j] = byte(lo) | byte(hi)<<4
	}
}

func quantizeQ5_0(b []byte, x []float32) {
	d := extreme(x) / -16
	id := inverse(d)
	putHalf(b, d)
	bits := uint32(0)
	for j := range 16 {
		lo, hi := min(31, int(x[j]*id+16.5)), min(31, int(x[j+16]*id+16.5))
		b[6+j] = byte(lo&15) | byte(hi&15)<<4
		bits |= uint32(lo>>4)<<j | uint32(hi>>4)<<(j+16)
	}
	binary.LittleEndian.PutUint32(b[2:], bits)
}

func quantizeQ5_1(b []byte, x []float32) {
	low, high := extent(x)
	d := (high - low) / 31
	id := inverse(d)
	putHalf(b, d)
	putHalf(b[2:], low)
	bits := uint32(0)
	for j := range 16 {
		lo, hi := min(31, int((x[j]-low)*id+0.5)), min(31, int((x[j+16]-low)*id+0.5))
		b[8+j] = byte(lo&15) | byte(hi&15)<<4
		bits |= uint32(lo>>4)<<j | uint32(hi>>4)<<(j+16)
	}
	binary.LittleEndian.PutUint32(b[4:], bits)
}

func quantizeQ8_0(b []byte, x []float32) {
	d := absMax(x) / 127
	id := inverse(d)
	putHalf(b, d)
	for j, v := range x {
		v *= id
		// Ties away from zero, as C's roundf.
		b[2+j] = byte(int8(int(v + float32(math.Copysign(0.5, float64(v))))))
	}
}

// nearestIQ4 is the index of the level nearest to v, the lower of equals as the reference.
func nearestIQ4(v float32) int {
	switch {
	case v <= iq4Values[0]:
		return 0
	case v >= iq4Values[15]:
		return 15
	}
	lo, hi := 0, 15
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if v < iq4Values[mid] {
			hi = mid
		} else {
			lo = mid
		}
	}
	if v-iq4Values[lo] < iq4Values[hi]-v {
		return lo
	}
	return hi
}

// iq4Scale finds the scale of 32 values whose weighted error is least, weights x², among 15 around the one of the largest value.
func iq4Scale(x []float32) float32 {
	peak := extreme(x)
	if abs(peak) < tiny {
		return 0
	}
	fit := func(id float32) (qx, qq float32) {
		for _, v := range x {
			q, w := iq4Values[nearestIQ4(id*v)], v*v
			qx += w * q * v
			qq += w * q * q
		}
		return qx, qq
	}
	// The sign of the first guess turns the largest value to the larger level, -127.
	qx, qq := fit(inverse(-peak / iq4Values[0]))
	d := qx / qq
	best := d * qx
	for try := -7; try <= 7; try++ {
		qx, qq := fit((float32(try) + iq4Values[0]) / peak)
		if qq > 0 && qx*qx > best*qq {
			d = qx / qq
			best = d * qx
		}
	}
	return d
}

func quantizeIQ4NL(b []byte, x []float32) {
	d := iq4Scale(x)
	putHalf(b, d)
	iq4Levels(b[2:], x, inverse(d))
}

func iq4Levels(q []byte, x []float32, id float32) {
	for j := range 16 {
		q[j] = byte(nearestIQ4(id*x[j])) | byte(nearestIQ4(id*x[j+16]))<<4
	}
}

func quantizeIQ4XS(b []byte, x []float32) {
	var scales [8]float32
	for s := range scales {
		scales[s] = iq4Scale(x[s*32:][:32])
	}
	d := -extreme(scales[:]) / 32
	id := inverse(d)
	putHalf(b, d)
	high := uint16(0)
	for s, scale := range scales {
		l := clamp(nearest(id*scale), -32, 31)
		iq4Levels(b[8+s*16:], x[s*32:][:32], inverse(d*float32(l)))
		l += 32
		b[4+s/2] |= byte(l&15) << (s % 2 * 4)
		high |= uint16(l>>4) << (2 * s)
	}
	binary.LittleEndian.PutUint16(b[2:], high)
}
