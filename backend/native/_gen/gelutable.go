package main

import (
	"math"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
)

// GELU with AVX-512: x·Φ(x) = max(x, 0) - t·Φ(-t) with t = |x|, where Φ(-t) is a polynomial of degree 5 around the nearest multiple of geluStep.
// A permutation of a register picks each coefficient: a third of the work of an exponential and a division.
// The last of the 16 polynomials is 0: Φ(-5.66) is 7e-9. Interpolation at Chebyshev points errs by less than 6e-9.
const (
	geluStep   = 25.0 / 64
	geluPieces = 16
	geluDegree = 5
)

// geluTables returns the coefficients of each power for the 16 pieces.
func geluTables() (t [geluDegree + 1][geluPieces]float32) {
	for i := range geluPieces - 1 {
		c := interpolate(geluDegree, geluStep/2, func(r float64) float64 {
			return math.Erfc((float64(i)*geluStep+r)/math.Sqrt2) / 2
		})
		for j, v := range c {
			t[j][i] = float32(v)
		}
	}
	return t
}

// interpolate returns the coefficients of the polynomial that meets f at the Chebyshev points of [-half, half].
func interpolate(degree int, half float64, f func(float64) float64) []float64 {
	n := degree + 1
	m := make([][]float64, n) // the system of Vandermonde, with f's value at the end of each row
	for i := range m {
		s := math.Cos(math.Pi * (float64(i) + 0.5) / float64(n))
		row, power := make([]float64, n+1), 1.0
		for j := range n {
			row[j] = power
			power *= s
		}
		row[n] = f(s * half)
		m[i] = row
	}
	for i := range n { // Gauss-Jordan; pivots by size
		p := i
		for r := i; r < n; r++ {
			if math.Abs(m[r][i]) > math.Abs(m[p][i]) {
				p = r
			}
		}
		m[i], m[p] = m[p], m[i]
		for r := range n {
			if r == i {
				continue
			}
			q := m[r][i] / m[i][i]
			for j := i; j <= n; j++ {
				m[r][j] -= q * m[i][j]
			}
		}
	}
	c, scale := make([]float64, n), 1.0
	for i := range c {
		c[i] = m[i][n] / m[i][i] / scale
		scale *= half
	}
	return c
}

// geluByTable writes the activation, four vectors at a time.
func (g *gen) geluByTable() {
	g.fn("gelu", "func(dst, x *float32, n int)")
	g.Doc("gelu" + g.sfx + " applies the activation element by element.")
	dst, x, n := g.arg("dst"), g.arg("x"), g.arg("n")
	values := geluTables()
	tables := make([]vec, len(values))
	for j, row := range values {
		m := g.StaticGlobal("geluTable" + string(rune('0'+j)) + g.sfx)
		g.DataAttributes(attr.RODATA | attr.NOPTR)
		for i, v := range row {
			g.AddDatum(4*i, operand.U32(math.Float32bits(v)))
		}
		tables[j] = g.v()
		g.VMOVUPS(m, tables[j])
	}
	const magic = 3 << 22 // adding it rounds to a whole number, which stands in the low bits
	inv, big, step, top, none := g.k(1/geluStep), g.k(magic), g.k(geluStep), g.k((geluPieces-1)*geluStep), g.zero()
	g.eachBy(n, 4, func(at func(gp) mem, tail bool, _ int) {
		v := g.load(at(x), tail)
		t := g.min(top, g.abs(v))
		i := g.copy(big)
		g.madd(i, inv, t)
		r := g.copy(t)
		g.VFNMADD231PS(step, g.sub(i, big), r)
		var h vec
		for j := len(tables) - 1; j >= 0; j-- {
			c := g.v()
			g.VPERMPS(tables[j], i, c)
			if h != nil {
				g.madd(c, r, h)
			}
			h = c
		}
		d := g.max(none, v)
		g.VFNMADD231PS(t, h, d)
		g.store(d, at(dst), tail)
	})
	g.ret()
}
