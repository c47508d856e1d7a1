//go:build arm64 && !purego

package native

import (
	"math"
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

// levels: NEON is part of every arm64, SDOT of most since 2018.
func levels() []string {
	l := []string{neon.level}
	if cpuid.CPU.Has(cpuid.ASIMDDP) {
		l = append(l, neonDot.level)
	}
	return l
}

func table(level string) *ops {
	if level == neonDot.level {
		return &neonDot
	}
	return &neon
}

// neonDot is neon with SDOT for integer products. SDOT takes signed bytes, so activations are stored less 128.
var neonDot = func() ops {
	o := neon
	o.level, o.group, o.quantizeBytes, o.quantizeWords = "neondot", 4, quantizeLess128, nil
	for r := 1; r <= o.rows; r++ {
		o.int8Tile[r] = func(k int, a *byte, rs int, b *int8, c *float32, cs, n int, zero *int32, sx *float32, wsum *int32, sw, bias, res *float32) {
			var sums [96]int32
			int8Dot(r, k, a, rs, b, &sums[0])
			scaleSums(r, sums[:], c, cs/4, n, zero, sx, wsum, sw, bias, res)
		}
	}
	return o
}()

func int8Dot(rows, k int, a *byte, rs int, b *int8, c *int32) {
	switch rows {
	case 1:
		int8Dot1NEON(k, a, rs, b, c)
	case 2:
		int8Dot2NEON(k, a, rs, b, c)
	case 3:
		int8Dot3NEON(k, a, rs, b, c)
	case 4:
		int8Dot4NEON(k, a, rs, b, c)
	case 5:
		int8Dot5NEON(k, a, rs, b, c)
	case 6:
		int8Dot6NEON(k, a, rs, b, c)
	case 7:
		int8Dot7NEON(k, a, rs, b, c)
	case 8:
		int8Dot8NEON(k, a, rs, b, c)
	case 9:
		int8Dot9NEON(k, a, rs, b, c)
	case 10:
		int8Dot10NEON(k, a, rs, b, c)
	case 11:
		int8Dot11NEON(k, a, rs, b, c)
	case 12:
		int8Dot12NEON(k, a, rs, b, c)
	}
}

// scaleSums writes (sums - (zero-128)·wsum)·sx·sw + bias + res. Conversions keep the compiler from fusing products into sums.
func scaleSums(rows int, sums []int32, c *float32, ld, n int, zero *int32, sx *float32, wsum *int32, sw, bias, res *float32) {
	zeros, scales := unsafe.Slice(zero, rows), list(sx, rows)
	ws, s, b := unsafe.Slice(wsum, n), list(sw, n), list(bias, n)
	for r := range rows {
		z, x := zeros[r]-128, scales[r]
		row, dst := sums[8*r:8*r+n], list(off(c, r*ld), n)
		for j, v := range row {
			dst[j] = float32(float32(v-z*ws[j])*x*s[j]) + b[j]
		}
		if res != nil {
			for j, v := range list(off(res, r*ld), n) {
				dst[j] += v
			}
		}
	}
}

func quantizeLess128(dst *byte, x *float32, n int, inv float32, zero int32) {
	d := unsafe.Slice(dst, n)
	for i, v := range list(x, n) {
		d[i] = byte(min(max(int32(math.RoundToEven(float64(v*inv)))+zero, 0), 255)) ^ 128
	}
}

// neon has tiles in assembly; what is left runs in plain Go.
var neon = func() ops {
	o := portable()
	o.level, o.rows = "neon", 12
	for v, rows := range [2][]tileFunc{
		{gemm1x1NEON, gemm2x1NEON, gemm3x1NEON, gemm4x1NEON, gemm5x1NEON, gemm6x1NEON, gemm7x1NEON, gemm8x1NEON, gemm9x1NEON, gemm10x1NEON, gemm11x1NEON, gemm12x1NEON},
		{gemm1x2NEON, gemm2x2NEON, gemm3x2NEON, gemm4x2NEON, gemm5x2NEON, gemm6x2NEON, gemm7x2NEON, gemm8x2NEON, gemm9x2NEON, gemm10x2NEON, gemm11x2NEON, gemm12x2NEON},
	} {
		for r, tile := range rows {
			o.tile[v][r+1] = wholeTile(tile, r+1, 4*(v+1))
		}
		clear(o.tile[v][o.rows+1:])
	}
	clear(o.int8Tile[o.rows+1:])
	return o
}()

// wholeTile lets a kernel that stores all its columns serve tiles that are cut short.
func wholeTile(tile tileFunc, rows, cols int) tileFunc {
	return func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, cs, n int, alpha float32, acc int, next *float32, pace int) {
		if n >= cols {
			tile(k, a, rs, ks, b, bs, c, cs, n, alpha, acc, next, pace)
			return
		}
		var t [96]float32
		for r := range rows {
			if acc != 0 {
				copy(t[r*cols:], list(off(c, r*cs/4), n))
			}
		}
		tile(k, a, rs, ks, b, bs, &t[0], 4*cols, cols, alpha, acc, next, pace)
		for r := range rows {
			copy(list(off(c, r*cs/4), n), t[r*cols:])
		}
	}
}
