package backend

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/temper-ml/temper/core/tensor"
)

// Products with GGUF's block types run in integers as llama.cpp runs them: activations are quantized to int8 in blocks of 32 with a scale each,
// a block of weights meets them in an exact int32 dot product, and the blocks' results are added up in float32, ascending. All types are
// brought to one form for that: unsigned bytes v with a scale for each sub-block, and either one centre for all (w = s·(v - centre)) or a
// minimum for each sub-block (w = s·v - m). What follows is the specification; the integers of other backends are the same.

// BlockForm describes the common form of a block type.
type BlockForm struct {
	Len    int   // elements of a sub-block: 16 or 32
	Centre int32 // subtracted from each value, where Min is false
	Min    bool  // sub-blocks have minima
}

// FormOf returns the form of typ, false for types that are not stored in blocks.
func FormOf(typ tensor.DType) (f BlockForm, ok bool) {
	switch typ {
	case tensor.Q4_0:
		return BlockForm{Len: 32, Centre: 8}, true
	case tensor.Q5_0:
		return BlockForm{Len: 32, Centre: 16}, true
	case tensor.Q8_0, tensor.IQ4_NL, tensor.IQ4_XS:
		return BlockForm{Len: 32, Centre: 128}, true
	case tensor.Q4_1, tensor.Q5_1, tensor.Q4_K, tensor.Q5_K:
		return BlockForm{Len: 32, Min: true}, true
	case tensor.Q2_K:
		return BlockForm{Len: 16, Min: true}, true
	case tensor.Q3_K:
		return BlockForm{Len: 16, Centre: 4}, true
	case tensor.Q6_K:
		return BlockForm{Len: 16, Centre: 32}, true
	}
	return BlockForm{}, false
}

// UnpackBlocks writes the values of len(v) elements (whole blocks of typ), and the scale and minimum of each sub-block; minimum is not
// touched for types without minima.
func UnpackBlocks(v []byte, scale, minimum []float32, typ tensor.DType, src []byte) {
	n, bytes := typ.BlockLen(), typ.BlockBytes()
	f, ok := FormOf(typ)
	if !ok || len(v)%n != 0 {
		panic(fmt.Sprintf("backend: unpack %d elements of %s", len(v), typ))
	}
	Need("unpack "+typ.String(), "data (bytes)", len(src), len(v)/n*bytes)
	sub := n / f.Len
	for i := range len(v) / n {
		var m []float32
		if f.Min {
			m = minimum[i*sub : (i+1)*sub]
		}
		unpackBlock(v[i*n:(i+1)*n], scale[i*sub:(i+1)*sub], m, typ, src[i*bytes:(i+1)*bytes])
	}
}

// nibbles splits 16 bytes: low halves first, then high halves.
func nibbles(v, q []byte) {
	for j, b := range q[:16] {
		v[j], v[j+16] = b&15, b>>4
	}
}

// unpackBlock: the layouts are those of DequantizeRow's expanders.
func unpackBlock(v []byte, s, m []float32, typ tensor.DType, b []byte) {
	switch typ {
	case tensor.Q4_0:
		s[0] = half(b)
		nibbles(v, b[2:])
	case tensor.Q4_1:
		s[0], m[0] = half(b), -half(b[2:])
		nibbles(v, b[4:])
	case tensor.Q5_0, tensor.Q5_1:
		s[0] = half(b)
		b = b[2:]
		if m != nil {
			m[0] = -half(b)
			b = b[2:]
		}
		nibbles(v, b[4:])
		high := binary.LittleEndian.Uint32(b)
		for j := range 32 {
			v[j] |= byte(high>>j&1) << 4
		}
	case tensor.Q8_0:
		s[0] = half(b)
		for j, q := range b[2:34] {
			v[j] = q + 128
		}
	case tensor.IQ4_NL:
		s[0] = half(b)
		nibbles(v, b[2:])
		iq4Bytes(v)
	case tensor.IQ4_XS:
		d, high, low, q := half(b), binary.LittleEndian.Uint16(b[2:]), b[4:8], b[8:136]
		for i := range 8 {
			s[i] = d * float32(int(low[i/2]>>(i%2*4)&15)|int(high>>(2*i)&3)<<4-32)
			nibbles(v[i*32:], q[i*16:])
		}
		iq4Bytes(v)
	case tensor.Q2_K:
		scales, q, d, dmin := b[:16], b[16:80], half(b[80:]), half(b[82:])
		for i, sc := range scales {
			s[i], m[i] = d*float32(sc&15), dmin*float32(sc>>4)
			for l, x := range q[i/8*32+i%2*16:][:16] {
				v[i*16+l] = x >> (i / 2 % 4 * 2) & 3
			}
		}
	case tensor.Q3_K:
		high, q, scales, d := b[:32], b[32:96], b[96:108], half(b[108:])
		for i := range 16 {
			s[i] = d * float32(q3Scale(scales, i))
			for l, x := range q[i/8*32+i%2*16:][:16] {
				v[i*16+l] = x>>(i/2%4*2)&3 + high[i%2*16+l]>>(i/2)&1*4
			}
		}
	case tensor.Q4_K, tensor.Q5_K:
		d, dmin, scales, q := half(b), half(b[2:]), b[4:16], b[16:]
		var high []byte
		if typ == tensor.Q5_K {
			high, q = q[:32], q[32:]
		}
		for i := range 8 {
			sc, mn := k4ScaleMin(scales, i)
			s[i], m[i] = d*float32(sc), dmin*float32(mn)
			for l, x := range q[i/2*32:][:32] {
				v[i*32+l] = x >> (i % 2 * 4) & 15
				if high != nil {
					v[i*32+l] |= high[l] >> i & 1 << 4
				}
			}
		}
	case tensor.Q6_K:
		low, high, scales, d := b[:128], b[128:192], b[192:208], half(b[208:])
		for i := range 16 {
			s[i] = d * float32(int8(scales[i]))
		}
		for run := range 8 {
			h, r := run/4, run%4
			for l := range 32 {
				v[run*32+l] = low[h*64+r%2*32+l]>>(r/2*4)&15 | high[h*32+l]>>(r*2)&3<<4
			}
		}
	}
}

func iq4Bytes(v []byte) {
	for i, q := range v {
		v[i] = byte(int(iq4Values[q]) + 128)
	}
}

// ActivationBlock is the number of activations that share a scale in products with block types.
const ActivationBlock = 32

// QuantizeBlock writes round(x·127/max|x|), ties to even, and returns the scale max|x|/127.
func QuantizeBlock(dst []int8, x []float32) (scale float32) {
	var top float32
	for _, v := range x {
		top = max(top, v, -v)
	}
	if top == 0 {
		clear(dst[:len(x)])
		return 0
	}
	inverse := 127 / top
	for i, v := range x {
		dst[i] = int8(max(min(math.RoundToEven(float64(v*inverse)), 127), -127))
	}
	return top / 127
}

// RunsInBlocks reports whether products with w quantize their activations in blocks.
func (w Weight) RunsInBlocks() bool {
	_, ok := FormOf(w.DType)
	return ok && w.In > 0
}

// blockWeight is a block type in the common form, [out, in] values and [out, in/form.Len] scales.
type blockWeight struct {
	form     BlockForm
	out, in  int
	v        []byte
	scale, m []float32
}

func (w *blockWeight) Shape() (out, in int) { return w.out, w.in }
func (w *blockWeight) Bytes() int           { return len(w.v) + 4*len(w.scale) + 4*len(w.m) }

// HoldsSource implements SourceHolder.
func (w *blockWeight) HoldsSource() bool { return false }

func packBlocks(w Weight) *blockWeight {
	form, _ := FormOf(w.DType)
	b := &blockWeight{form: form, out: w.Out, in: w.In, v: make([]byte, w.Out*w.In), scale: make([]float32, w.Out*w.In/form.Len)}
	if form.Min {
		b.m = make([]float32, len(b.scale))
	}
	UnpackBlocks(b.v, b.scale, b.m, w.DType, w.Data)
	return b
}

func (g *generic) linearBlocks(dst, x []float32, rows int, w *blockWeight, ep Epilogue) {
	n := w.form.Len
	g.split(rows, 2*w.in*w.out, func(lo, hi int) {
		q, scales := make([]int8, w.in), make([]float32, w.in/ActivationBlock)
		for r := lo; r < hi; r++ {
			for b := range scales {
				scales[b] = QuantizeBlock(q[b*ActivationBlock:], x[r*w.in+b*ActivationBlock:][:ActivationBlock])
			}
			for o := range w.out {
				var acc float32
				for b := range w.in / n {
					var dot, sum int32
					for i := b * n; i < (b+1)*n; i++ {
						dot += int32(w.v[o*w.in+i]) * int32(q[i])
						sum += int32(q[i])
					}
					at, xs := o*w.in/n+b, scales[b*n/ActivationBlock]
					if w.form.Min {
						acc += w.scale[at] * (xs * float32(dot))
						acc -= w.m[at] * (xs * float32(sum))
					} else {
						acc += w.scale[at] * (xs * float32(dot-w.form.Centre*sum))
					}
				}
				dst[r*w.out+o] = ep.apply(acc, o, r*w.out+o)
			}
		}
	})
}
