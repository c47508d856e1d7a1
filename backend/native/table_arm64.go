//go:build arm64 && !purego

package native

// levels: NEON is part of every arm64.
func levels() []string { return []string{neon.level} }

func table(string) *ops { return &neon }

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
	}
	return o
}()

// wholeTile lets a kernel that stores all its columns serve tiles that are cut short.
func wholeTile(tile tileFunc, rows, cols int) tileFunc {
	return func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, cs, n int, alpha float32, acc int, next *float32) {
		if n >= cols {
			tile(k, a, rs, ks, b, bs, c, cs, n, alpha, acc, next)
			return
		}
		var t [96]float32
		for r := range rows {
			if acc != 0 {
				copy(t[r*cols:], list(off(c, r*cs/4), n))
			}
		}
		tile(k, a, rs, ks, b, bs, &t[0], 4*cols, cols, alpha, acc, next)
		for r := range rows {
			copy(list(off(c, r*cs/4), n), t[r*cols:])
		}
	}
}
