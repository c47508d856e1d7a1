//go:build !purego

package native

import (
	"unsafe"

	"github.com/temper-ml/temper/core/tensor"
)

// widenFast is widen for whole vectors of half precision; it returns how many rows it wrote.
func widenFast(dst []float32, typ tensor.DType, src []byte, n, rows, stride int) int {
	if typ != tensor.F16 || n%8 != 0 || rows == 0 || n == 0 || len(dst) < n*rows || len(src) < (rows-1)*stride+typ.RowBytes(n) {
		return 0
	}
	widenHalvesNEON(p(dst), &src[0], n/8, rows, stride)
	return rows
}

// narrowHalves writes whole vectors in half precision and returns how many elements that were.
func narrowHalves(dst []byte, src []float32) int {
	n := len(src) / 8 * 8
	if n > 0 {
		narrowHalvesNEON(unsafe.SliceData(dst[:2*n]), p(src), n/8)
	}
	return n
}
