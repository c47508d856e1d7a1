//go:build !purego

package native

import (
	"unsafe"

	"github.com/temper-ml/temper/core/tensor"
)

// widenFast is widen for whole vectors; it returns how many rows it wrote. Every level that runs has AVX2 and F16C.
func widenFast(dst []float32, typ tensor.DType, src []byte, n, rows, stride int) int {
	if rows == 0 || n == 0 || len(dst) < n*rows || len(src) < (rows-1)*stride+typ.RowBytes(n) {
		return 0
	}
	switch {
	case typ == tensor.F16 && n%8 == 0:
		widenHalvesAVX2(p(dst), &src[0], n/8, rows, stride)
	case typ == tensor.Q8_0 && n%32 == 0:
		widenQ8AVX2(p(dst), &src[0], n/32, rows, stride)
	default:
		return 0
	}
	return rows
}

// narrowHalves writes whole vectors in half precision and returns how many elements that were.
func narrowHalves(dst []byte, src []float32) int {
	n := len(src) / 8 * 8
	if n > 0 {
		narrowHalvesAVX2(unsafe.SliceData(dst[:2*n]), p(src), n/8)
	}
	return n
}
