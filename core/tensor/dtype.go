// Package tensor holds shapes, element types, block layouts and storage. It does no arithmetic beyond converting 16-bit floats.
package tensor

import "fmt"

// DType names how the elements of a tensor are stored. Block types (Q4_0 …) store several elements together with their scales.
type DType uint8

// Element types. The first group stores one element at a time, the second in blocks as GGUF defines them.
const (
	Invalid DType = iota
	F32
	F16
	BF16
	F64
	I8
	U8
	I16
	I32
	I64
	Bool

	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q8_0
	Q2_K
	Q3_K
	Q4_K
	Q5_K
	Q6_K
	IQ4_NL
	IQ4_XS

	// Q8Row is temper's int8 weight type: a row of int8 values and one f32 scale per row (output channel), symmetric.
	// A tensor of this type keeps Shape[last] int8 values per row in Data and its scales in Tensor.Scales.
	Q8Row
)

type layout struct {
	name  string
	block int // elements in a block
	bytes int // bytes of a block
}

var layouts = [...]layout{
	Invalid: {"invalid", 1, 0},
	F32:     {"f32", 1, 4}, F16: {"f16", 1, 2}, BF16: {"bf16", 1, 2}, F64: {"f64", 1, 8},
	I8: {"i8", 1, 1}, U8: {"u8", 1, 1}, I16: {"i16", 1, 2}, I32: {"i32", 1, 4}, I64: {"i64", 1, 8}, Bool: {"bool", 1, 1},
	Q4_0: {"q4_0", 32, 18}, Q4_1: {"q4_1", 32, 20}, Q5_0: {"q5_0", 32, 22}, Q5_1: {"q5_1", 32, 24}, Q8_0: {"q8_0", 32, 34},
	Q2_K: {"q2_k", 256, 84}, Q3_K: {"q3_k", 256, 110}, Q4_K: {"q4_k", 256, 144}, Q5_K: {"q5_k", 256, 176}, Q6_K: {"q6_k", 256, 210},
	IQ4_NL: {"iq4_nl", 32, 18}, IQ4_XS: {"iq4_xs", 256, 136},
	Q8Row: {"q8_row", 1, 1},
}

// String returns the lower-case name: "f32", "q4_k".
func (d DType) String() string {
	if int(d) < len(layouts) {
		return layouts[d].name
	}
	return fmt.Sprintf("dtype(%d)", uint8(d))
}

// ParseDType is the inverse of String.
func ParseDType(s string) (DType, error) {
	for d, l := range layouts {
		if d != int(Invalid) && l.name == s {
			return DType(d), nil
		}
	}
	return Invalid, fmt.Errorf("unknown element type %q", s)
}

// BlockLen is the number of elements stored together: 1 for plain types.
func (d DType) BlockLen() int { return layouts[d].block }

// BlockBytes is the size of such a block in bytes.
func (d DType) BlockBytes() int { return layouts[d].bytes }

// Quantized reports whether elements are stored as integers with scales.
func (d DType) Quantized() bool { return d >= Q4_0 }

// RowBytes is the storage of n consecutive elements; n must be a multiple of BlockLen.
func (d DType) RowBytes(n int) int { return n / layouts[d].block * layouts[d].bytes }
