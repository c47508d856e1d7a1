package native

import (
	"unsafe"

	"github.com/temper-ml/temper/core/tensor"
)

// ops is the table of a level's assembly. Pointers are to the first of n elements; functions touch no memory beyond them.
type ops struct {
	level string
	w     int // float32 lanes of a vector; a panel is two vectors wide
	rows  int // of the largest register tile

	tile  [2][15]tileFunc // by vectors-1 and rows
	strip [4]stripFunc    // by rows, nil where the tiles serve

	// bfloat16 products on pairs along k, which are stored as float32 elements; nil where the level has none.
	bf16Tile *[2][15]tileFunc
	pairBF16 func(dst, even, odd *float32, n int)
	toBF16   func(dst *uint16, x *float32, n int)

	// Products in tile registers, nil where the level has none, and what finishes a row of integer sums.
	amxInt8, amxBF16 func(j *amxJob)
	scaleInt8        func(dst *float32, acc *int32, n int, zero int32, sx float32, wsum *int32, sw, bias, res *float32)

	// Integer products: groups of A and B along k (2 words by bytes, or 4 bytes), tiles by rows, and how a row of A is quantized.
	group         int
	int8Tile      [15]int8Func
	sumInt8       func(x *byte, n int) int32 // of signed bytes, n a multiple of 4; nil: one by one
	minMax        func(x *float32, n int) (lo, hi float32)
	quantizeWords func(dst *int16, x *float32, n int, inv float32, zero int32)
	quantizeBytes func(dst *byte, x *float32, n int, inv float32, zero int32) // nil where the level works in words

	// Products with block types, by minima, sub-blocks of 16 or 32, and rows, of which a tile has at most blockRows.
	blockRows      int
	blocks         [2][2][7]blockFunc
	quantizeBlocks func(dst *int8, x *float32, blocks int, scale *float32, sums *int32)
	// expand reads block types as they are stored; weights of types that are missing here are repacked.
	expand map[tensor.DType]expandFunc
	// fillPanel makes half of a panel (a vector's worth of columns) of some of the same types; expand serves the others, and short panels.
	fillPanel map[tensor.DType]panelFunc
	// blockRow multiplies one row with rowWidth columns as they are stored, for some of the same types.
	blockRow map[tensor.DType]blockRowFunc
	rowWidth int

	transpose8 func(dst *float32, ds int, src *float32, ss int, blocks int)

	copyStrided func(dst *float32, ds int, src *float32, ss int, n, count int)
	dropRow     func(dst, x *float32, n int, z uint64, threshold uint32, keep float32) // nil: DropoutKeep one by one

	add, mul        func(dst, a, b *float32, n int)
	addBiasResidual func(dst, src, bias, residual *float32, n int)
	axpy            func(dst, x *float32, n int, s float32)
	scale           func(dst *float32, n int, s float32)
	sum, maxOf      func(x *float32, n int) float32
	dot             func(x, y *float32, n int) float32
	squares64       func(x *float32, n int) float64
	centredSquares  func(x *float32, n int, mean float32) float32
	expSum          func(dst, src *float32, n int, top float32) float32
	mulSub          func(p, d *float32, n int, delta float32)
	// Whole rows at once; nil: op by op.
	softRows     func(x *float32, stride, rows, n int, sums *float32)
	scaleRows    func(x *float32, stride, rows, n int, s *float32)
	layerNormRow func(dst, x, gain, bias *float32, n int, eps float32) (mean, rstd float32)

	normRow        func(dst, x, gain, bias *float32, n int, mean, rstd float32)
	normBackSums   func(dy, x, gain *float32, n int, mean, rstd float32) (sum, dot float32)
	normBackDX     func(dx, dy, x, gain *float32, n int, mean, rstd, mg, mgx float32)
	normBackParams func(dgain, dy, x *float32, n int, mean, rstd float32)
	adamW          func(p, grad, m, v *float32, n int, s *float32)
	dots           func(dst, q, k *float32, stride, d, n int, s float32)
	act            [8]func(dst, x *float32, n int)
	actGrad        [8]func(dx, dy, x *float32, n int)
	peakFMA        func(n int) float32
}

// tileFunc: see tileSignature in _gen/gemm.go.
type tileFunc func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, cs, n int, alpha float32, acc int, next *float32, pace int)

type stripFunc func(k int, a *float32, rs, ks int, b *float32, bs, panel int, c *float32, cs int, alpha float32, acc int)

// int8Func: see int8Signature in _gen/int8.go.
type int8Func func(k int, a *byte, rs int, b *int8, c *float32, cs, n int, zero *int32, sx *float32, wsum *int32, sw, bias, res *float32)

// blockFunc: see blockSignature in _gen/int8.go.
type blockFunc func(blocks int, a *int8, rs int, b *byte, c *float32, cs, n int, xs, corr *float32, ss int)

// expandFunc: see expandSignature in _gen/expand.go.
type expandFunc func(dst, src *byte, blocks int)

// panelFunc: see panelSignature in _gen/panels.go.
type panelFunc func(blocks int, b *byte, rs int, dst *byte)

// blockRowFunc: see rowBlocksSignature in _gen/rowblocks.go.
type blockRowFunc func(blocks int, a *int8, b *byte, rs int, c, xs, corr *float32)

// p is the address of the first element, also of an empty slice.
func p(x []float32) *float32 { return unsafe.SliceData(x) }

// off is p moved by n elements. It must stay within p's allocation, or be used for no element.
func off(x *float32, n int) *float32 {
	return (*float32)(unsafe.Add(unsafe.Pointer(x), 4*n))
}

// aligned returns n floats at a multiple of 64 bytes.
func aligned(n int) []float32 {
	v := make([]float32, n+16)
	skip := int(-uintptr(unsafe.Pointer(&v[0])) % 64 / 4)
	return v[skip : skip+n : skip+n]
}
