package main

import "github.com/mmcloughlin/avo/operand"

// emitStored writes the functions that turn rows of stored keys and values into float32 and back. They use AVX2 and F16C at every level.
func emitStored(g *gen) {
	g.fn("widenHalves", "func(dst *float32, src *byte, groups, rows, ss int)")
	g.Doc("widenHalves" + g.sfx + " writes rows of groups of half-precision numbers, ss bytes apart, one after the other as float32. A group is 8 of them.")
	dst, src, n, rows, ss := g.arg("dst"), g.arg("src"), g.arg("groups"), g.arg("rows"), g.arg("ss")
	at, left := g.GP64(), g.GP64()
	g.countdown(rows, 1, func() {
		g.MOVQ(src, at)
		g.MOVQ(n, left)
		g.countdown(left, 1, func() {
			v := g.YMM()
			g.VCVTPH2PS(mem{Base: at}, v)
			g.VMOVUPS(v, mem{Base: dst})
			g.ADDQ(operand.Imm(16), at)
			g.ADDQ(operand.Imm(32), dst)
		})
		g.ADDQ(ss, src)
	})
	g.ret()

	g.fn("narrowHalves", "func(dst *byte, src *float32, groups int)")
	g.Doc("narrowHalves" + g.sfx + " writes groups of numbers in half precision, rounded to nearest even. A group is 8 of them.")
	dst, src, n = g.arg("dst"), g.arg("src"), g.arg("groups")
	g.countdown(n, 1, func() {
		v := g.YMM()
		g.VMOVUPS(mem{Base: src}, v)
		g.VCVTPS2PH(operand.Imm(0), v, mem{Base: dst})
		g.ADDQ(operand.Imm(32), src)
		g.ADDQ(operand.Imm(16), dst)
	})
	g.ret()

	g.fn("widenQ8", "func(dst *float32, src *byte, groups, rows, ss int)")
	g.Doc("widenQ8" + g.sfx + " is widenHalves" + g.sfx + " for rows of Q8_0. A group is a block of 32.")
	dst, src, n, rows, ss = g.arg("dst"), g.arg("src"), g.arg("groups"), g.arg("rows"), g.arg("ss")
	at, left = g.GP64(), g.GP64()
	g.countdown(rows, 1, func() {
		g.MOVQ(src, at)
		g.MOVQ(n, left)
		g.countdown(left, 1, func() {
			h, x, s := g.GP32(), g.XMM(), g.YMM()
			g.MOVWLZX(mem{Base: at}, h)
			g.VMOVD(h, x)
			g.VCVTPH2PS(x, x)
			g.VBROADCASTSS(x, s)
			for i := range 4 {
				v := g.YMM()
				g.VPMOVSXBD(mem{Base: at, Disp: 2 + 8*i}, v)
				g.VCVTDQ2PS(v, v)
				g.VMULPS(s, v, v)
				g.VMOVUPS(v, mem{Base: dst, Disp: 32 * i})
			}
			g.ADDQ(operand.Imm(34), at)
			g.ADDQ(operand.Imm(128), dst)
		})
		g.ADDQ(ss, src)
	})
	g.ret()
}
