package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// Tensor is a dense row-major array: a name, a shape and its bytes (little-endian), which may be mapped from a file and are then
// read-only. The zero value is an empty tensor.
type Tensor struct {
	Name   string
	DType  DType
	Shape  []int
	Data   []byte
	Scales []float32 // Q8Row only: one per row
}

// Len is the number of elements.
func (t Tensor) Len() int { return Elements(t.Shape) }

// Rows is the product of all dimensions but the last; a vector has one row.
func (t Tensor) Rows() int {
	if len(t.Shape) == 0 {
		return 1
	}
	return Elements(t.Shape[:len(t.Shape)-1])
}

// Cols is the last dimension; 1 for a scalar.
func (t Tensor) Cols() int {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[len(t.Shape)-1]
}

// Elements is the product of the dimensions, 1 for none.
func Elements(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// New returns a zeroed f32 tensor.
func New(name string, shape ...int) Tensor {
	return FromF32(name, make([]float32, Elements(shape)), shape...)
}

// FromF32 wraps v without copying; len(v) must equal the product of shape.
func FromF32(name string, v []float32, shape ...int) Tensor {
	if len(v) != Elements(shape) {
		panic(fmt.Sprintf("tensor %s: %d values for shape %v", name, len(v), shape))
	}
	return Tensor{Name: name, DType: F32, Shape: shape, Data: Bytes(v)}
}

// Bytes views v as bytes.
func Bytes[T float32 | float64 | int32 | int64 | uint32 | uint16 | int8](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(v[0])))
}

// View views b as elements of type T without copying. It reports false when b is not aligned for T or is not a whole number of elements.
func View[T float32 | float64 | int32 | int64 | uint32 | uint16 | int8](b []byte) ([]T, bool) {
	var z T
	size := int(unsafe.Sizeof(z))
	if len(b) == 0 {
		return nil, true
	}
	if len(b)%size != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%unsafe.Alignof(z) != 0 {
		return nil, false
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/size), true
}

// F32 returns the elements as float32: a view where storage is aligned f32, otherwise a converted copy. Quantized types are not
// handled here (see backend.Dequantize) and give an error.
func (t Tensor) F32() ([]float32, error) {
	n := t.Len()
	if need := t.DType.RowBytes(n); len(t.Data) < need {
		return nil, fmt.Errorf("tensor %s: %d bytes of %s data for shape %v, need %d", t.Name, len(t.Data), t.DType, t.Shape, need)
	}
	if t.DType == F32 {
		if v, ok := View[float32](t.Data[:n*4]); ok {
			return v, nil
		}
	}
	out := make([]float32, n)
	b := t.Data
	switch t.DType {
	case F32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[i*4:]))
		}
	case F16:
		for i := range out {
			out[i] = F16ToF32(binary.LittleEndian.Uint16(b[i*2:]))
		}
	case BF16:
		for i := range out {
			out[i] = BF16ToF32(binary.LittleEndian.Uint16(b[i*2:]))
		}
	case F64:
		for i := range out {
			out[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b[i*8:])))
		}
	case I8:
		for i := range out {
			out[i] = float32(int8(b[i]))
		}
	case U8, Bool:
		for i := range out {
			out[i] = float32(b[i])
		}
	case I32:
		for i := range out {
			out[i] = float32(int32(binary.LittleEndian.Uint32(b[i*4:])))
		}
	case I64:
		for i := range out {
			out[i] = float32(int64(binary.LittleEndian.Uint64(b[i*8:])))
		}
	default:
		return nil, fmt.Errorf("tensor %s: cannot read %s as float32", t.Name, t.DType)
	}
	return out, nil
}

// F16ToF32 converts an IEEE half.
func F16ToF32(h uint16) float32 {
	sign, exp, man := uint32(h>>15)<<31, uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch {
	case exp == 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | man<<13)
	case exp != 0:
		return math.Float32frombits(sign | (exp+112)<<23 | man<<13)
	}
	f := float32(man) * (1.0 / (1 << 24)) // subnormal: man * 2^-24, exact
	return math.Float32frombits(sign | math.Float32bits(f))
}

// F32ToF16 rounds to nearest even; values beyond the range become infinities.
func F32ToF16(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b>>16) & 0x8000
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return sign | 0x7e00
	case b >= 0x477ff000: // rounds to 65520 or more
		return sign | 0x7c00
	case b < 0x38800000: // below 2^-14: subnormal
		// Adding 0.5 aligns the mantissa so that the hardware rounds to nearest even.
		d := math.Float32bits(math.Float32frombits(b) + 0.5)
		return sign | uint16(d-0x3f000000)
	}
	return sign | uint16((b-0x38000000+0xfff+(b>>13)&1)>>13)
}

// BF16ToF32 converts a bfloat16.
func BF16ToF32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// F32ToBF16 rounds to nearest even.
func F32ToBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + (b>>16)&1) >> 16)
}
