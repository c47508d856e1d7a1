package main

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/mmcloughlin/avo/operand"
)

// emitBF16 writes what the level avx512bf16 has beyond avx512vnni.
func emitBF16(g *gen) {
	for v := 1; v <= 2; v++ {
		for r := 1; r <= 14; r++ {
			g.tileOf("bf16x", r, v)
		}
	}

	g.fn("pairBF16", "func(dst, even, odd *float32, n int)")
	g.Doc("pairBF16" + g.sfx + " writes n pairs of bfloat16, rounded to nearest even: the value of even in the low half.")
	dst, even, odd, n := g.arg("dst"), g.arg("even"), g.arg("odd"), g.arg("n")
	g.each(n, func(at func(gp) mem, tail bool) {
		lo, hi := g.roundBF16(g.load(at(even), tail)), g.roundBF16(g.load(at(odd), tail))
		g.VPSRLD(operand.Imm(16), lo, lo)
		g.VPANDD(g.bits(0xffff0000), hi, hi)
		g.VPORD(lo, hi, hi)
		g.store(hi, at(dst), tail)
	})
	g.ret()

	g.fn("toBF16", "func(dst *uint16, x *float32, n int)")
	g.Doc("toBF16" + g.sfx + " rounds to bfloat16, to nearest even.")
	dst, x, n := g.arg("dst"), g.arg("x"), g.arg("n")
	g.each(n, func(at func(gp) mem, tail bool) {
		v := g.roundBF16(g.load(at(x), tail))
		g.VPSRLD(operand.Imm(16), v, v)
		m := at(dst)
		m.Scale = 2
		if tail {
			g.VPMOVDW(v, g.mask, m)
		} else {
			g.VPMOVDW(v, m)
		}
	})
	g.ret()
}

// roundBF16 leaves the rounded value in the upper half of each lane. NaN stays NaN.
func (g *gen) roundBF16(x vec) vec {
	r := g.v()
	g.VPSRLD(operand.Imm(16), x, r)
	g.VPANDD(g.bits(1), r, r)
	g.VPADDD(g.bits(0x7fff), r, r)
	g.VPADDD(x, r, r)
	nan := g.K()
	g.VCMPPS(operand.Imm(3), x, x, nan)
	q := g.v()
	g.VPORD(g.bits(0x00400000), x, q)
	g.VMOVAPS(q, nan, r)
	return r
}

var dpbf16 = regexp.MustCompile(`VDPBF16PS\s+Z(\d+), Z(\d+), Z(\d+)`)

// encodeBF16 replaces VDPBF16PS, which Go's assembler does not know, by its bytes: EVEX.512.F3.0F38.W0 52 /r.
func encodeBF16(asm []byte) []byte {
	return dpbf16.ReplaceAllFunc(asm, func(line []byte) []byte {
		m := dpbf16.FindSubmatch(line)
		var r [3]byte // second source (rm), first source (vvvv), destination (reg)
		for i := range r {
			n, err := strconv.Atoi(string(m[i+1]))
			if err != nil {
				panic(err)
			}
			r[i] = byte(n)
		}
		inverted := func(v byte, bit uint, to uint) byte { return (^v >> bit & 1) << to }
		p0 := inverted(r[2], 3, 7) | inverted(r[0], 4, 6) | inverted(r[0], 3, 5) | inverted(r[2], 4, 4) | 2
		p1 := ^r[1]&15<<3 | 1<<2 | 2
		p2 := byte(0x40) | inverted(r[1], 4, 3)
		modrm := 0xc0 | r[2]&7<<3 | r[0]&7
		return fmt.Appendf(nil, "BYTE $0x62; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x52; BYTE $0x%02x // %s", p0, p1, p2, modrm, line)
	})
}
