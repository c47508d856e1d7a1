package backend

import (
	"encoding/binary"
	"fmt"

	"github.com/temper-ml/temper/core/tensor"
)

// Dequantize returns the values of t as float32: a view where it is stored so, otherwise a new slice. Block types are expanded exactly
// as GGUF's reference (gguf-py) does; rows must be whole blocks.
func Dequantize(t tensor.Tensor) ([]float32, error) {
	if !t.DType.Quantized() {
		return t.F32()
	}
	rows, cols := t.Rows(), t.Cols()
	if cols%t.DType.BlockLen() != 0 {
		return nil, fmt.Errorf("tensor %s: rows of %d elements are no whole blocks of %s (%d)", t.Name, cols, t.DType, t.DType.BlockLen())
	}
	if need := t.DType.RowBytes(rows * cols); len(t.Data) < need {
		return nil, fmt.Errorf("tensor %s: %d bytes of %s data for shape %v, need %d", t.Name, len(t.Data), t.DType, t.Shape, need)
	}
	if t.DType == tensor.Q8Row && len(t.Scales) < rows {
		return nil, fmt.Errorf("tensor %s: %d scales for %d rows", t.Name, len(t.Scales), rows)
	}
	out := make([]float32, rows*cols)
	DequantizeRow(out, t.DType, t.Data)
	if t.DType == tensor.Q8Row {
		for r := range rows {
			for i := range out[r*cols : (r+1)*cols] {
				out[r*cols+i] *= t.Scales[r]
			}
		}
	}
	return out, nil
}

// DequantizeRow expands len(dst) elements of any type that holds real numbers; len(dst) is a whole number of blocks. tensor.Q8Row values
// are not scaled: their scales stand elsewhere. It panics when src is too short.
func DequantizeRow(dst []float32, typ tensor.DType, src []byte) {
	n, bytes := typ.BlockLen(), typ.BlockBytes()
	if len(dst)%n != 0 || len(src) < len(dst)/n*bytes {
		panic(fmt.Sprintf("dequantize %s: %d bytes for %d elements", typ, len(src), len(dst)))
	}
	expand := expanders[typ]
	if expand == nil {
		v, err := tensor.Tensor{DType: typ, Shape: []int{len(dst)}, Data: src}.F32()
		if err != nil {
			panic(err)
		}
		copy(dst, v)
		return
	}
	if typ == tensor.Q8Row {
		expand(dst, src)
		return
	}
	for i := range len(dst) / n {
		expand(dst[i*n:(i+1)*n:(i+1)*n], src[i*bytes:(i+1)*bytes:(i+1)*bytes])
	}
}

// expanders turn one block into its values. Products are rounded before they are added to (the float32 conversions), as the reference
// does: a fused multiply-add would give other bits on some machines.
var expanders = [...]func(y []float32, b []byte){
	tensor.F16:    expandF16,
	tensor.BF16:   expandBF16,
	tensor.Q8Row:  expandI8,
	tensor.Q4_0:   expandQ4_0,
	tensor.Q4_1:   expandQ4_1,
	tensor.Q5_0:   expandQ5_0,
	tensor.Q5_1:   expandQ5_1,
	tensor.Q8_0:   expandQ8_0,
	tensor.Q2_K:   expandQ2K,
	tensor.Q3_K:   expandQ3K,
	tensor.Q4_K:   expandQ4K,
	tensor.Q5_K:   expandQ5K,
	tensor.Q6_K:   expandQ6K,
	tensor.IQ4_NL: expandIQ4NL,
	tensor.IQ4_XS: expandIQ4XS,
}

func half(b []byte) float32 { return tensor.F16ToF32(binary.LittleEndian.Uint16(b)) }

func expandF16(y []float32, b []byte) {
	for i := range y {
		y[i] = half(b[2*i:])
	}
}

func expandBF16(y []float32, b []byte) {
	for i := range y {
		y[i] = tensor.BF16ToF32(binary.LittleEndian.Uint16(b[2*i:]))
	}
}

func expandI8(y []float32, b []byte) {
	for i := range y {
		y[i] = float32(int8(b[i]))
	}
}

// Blocks of 32: a scale d (half), sometimes a minimum m (half), then nibbles: byte j holds elements j (low) and j+16 (high).

func expandQ4_0(y []float32, b []byte) {
	d, q := half(b), b[2:18]
	for j, v := range q {
		y[j] = float32(int(v&15)-8) * d
		y[j+16] = float32(int(v>>4)-8) * d
	}
}

func expandQ4_1(y []float32, b []byte) {
	d, m, q := half(b), half(b[2:]), b[4:20]
	for j, v := range q {
		y[j] = float32(float32(v&15)*d) + m
		y[j+16] = float32(float32(v>>4)*d) + m
	}
}

// The fifth bits stand in a 32-bit word, bit i for element i.

func expandQ5_0(y []float32, b []byte) {
	d, h, q := half(b), binary.LittleEndian.Uint32(b[2:]), b[6:22]
	for j, v := range q {
		y[j] = float32(int(v&15)|int(h>>j&1)<<4-16) * d
		y[j+16] = float32(int(v>>4)|int(h>>(j+16)&1)<<4-16) * d
	}
}

func expandQ5_1(y []float32, b []byte) {
	d, m, h, q := half(b), half(b[2:]), binary.LittleEndian.Uint32(b[4:]), b[8:24]
	for j, v := range q {
		y[j] = float32(float32(uint32(v&15)|h>>j&1<<4)*d) + m
		y[j+16] = float32(float32(uint32(v>>4)|h>>(j+16)&1<<4)*d) + m
	}
}

func expandQ8_0(y []float32, b []byte) {
	d := half(b)
	for j, v := range b[2:34] {
		y[j] = float32(int8(v)) * d
	}
}

// iq4Values are the levels of the 4-bit types whose steps are not even (llama.cpp, "non-linear" quants).
var iq4Values = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

func expandIQ4NL(y []float32, b []byte) {
	d, q := half(b), b[2:18]
	for j, v := range q {
		y[j] = d * iq4Values[v&15]
		y[j+16] = d * iq4Values[v>>4]
	}
}
