package main

import "github.com/mmcloughlin/avo/operand"

// softRows turns rows of scores into weights before normalisation, without leaving the vector unit between their maximum and their sum.
func (g *gen) softRows() {
	g.fn("softRows", "func(x *float32, stride, rows, n int, sums *float32)")
	g.Doc("softRows" + g.sfx + " writes exp(x - the row's largest) over rows of n values that lie stride bytes apart, and their sums; n is at least 1.")
	x, stride, rows, n, sums := g.arg("x"), g.arg("stride"), g.arg("rows"), g.arg("n"), g.arg("sums")
	loop, done := g.label("row"), g.label("end")
	g.Label(loop)
	g.TESTQ(rows, rows)
	g.JZ(operand.LabelRef(done))
	// Not below -3.4e38: a row of -Inf has the weights exp(-Inf) = 0.
	tops := [2]vec{g.v(), g.v()}
	for _, t := range tops {
		g.VMOVUPS(g.bits(0xff7fffff), t)
	}
	g.eachBy(n, 2, func(at func(gp) mem, tail bool, i int) {
		switch {
		case !tail:
			g.VMAXPS(at(x), tops[i], tops[i])
		case g.wide():
			v := g.copy(tops[i])
			g.VMOVUPS(at(x), g.mask, v)
			g.VMAXPS(v, tops[i], tops[i])
		default:
			v := g.load(at(x), true)
			g.VBLENDVPS(g.mask, v, tops[i], v)
			g.VMAXPS(v, tops[i], tops[i])
		}
	})
	g.VMAXPS(tops[1], tops[0], tops[0])
	top := g.v()
	g.VBROADCASTSS(g.hmax(tops[0]), top)
	g.VMOVSS(g.expInto(x, x, n, top), mem{Base: sums})
	g.ADDQ(operand.Imm(4), sums)
	g.ADDQ(stride, x)
	g.DECQ(rows)
	g.JMP(operand.LabelRef(loop))
	g.Label(done)
	g.ret()
}

// scaleRows multiplies each row by its own factor.
func (g *gen) scaleRows() {
	g.fn("scaleRows", "func(x *float32, stride, rows, n int, s *float32)")
	g.Doc("scaleRows" + g.sfx + " multiplies rows of n values that lie stride bytes apart by s[row].")
	x, stride, rows, n, s := g.arg("x"), g.arg("stride"), g.arg("rows"), g.arg("n"), g.arg("s")
	g.countdown(rows, 1, func() {
		f := g.v()
		g.VBROADCASTSS(mem{Base: s}, f)
		g.eachBy(n, 2, func(at func(gp) mem, tail bool, _ int) {
			g.store(g.mul(f, g.load(at(x), tail)), at(x), tail)
		})
		g.ADDQ(operand.Imm(4), s)
		g.ADDQ(stride, x)
	})
	g.ret()
}

// layerNorm normalises one row in three passes over what the first left in cache.
func (g *gen) layerNorm() {
	g.fn("layerNormRow", "func(dst, x, gain, bias *float32, n int, eps float32) (mean, rstd float32)")
	g.Doc("layerNormRow" + g.sfx + " writes (x-mean)·rstd·gain + bias with rstd = 1/sqrt(variance + eps), n at least 1.")
	dst, x, gain, bias, n := g.arg("dst"), g.arg("x"), g.arg("gain"), g.arg("bias"), g.arg("n")
	count := g.XMM()
	g.VXORPS(count, count, count)
	g.VCVTSI2SSQ(n, count, count)
	join := func(acc [4]vec) vec {
		g.VADDPS(acc[1], acc[0], acc[0])
		g.VADDPS(acc[3], acc[2], acc[2])
		g.VADDPS(acc[2], acc[0], acc[0])
		s := g.hsum(acc[0])
		g.VDIVSS(count, s, s)
		return s
	}
	sums := [4]vec{g.zero(), g.zero(), g.zero(), g.zero()}
	g.eachBy(n, 4, func(at func(gp) mem, tail bool, i int) { g.VADDPS(g.load(at(x), tail), sums[i], sums[i]) })
	m := join(sums)
	g.Store(m, g.Return("mean"))
	mean := g.v()
	g.VBROADCASTSS(m, mean)
	squares := [4]vec{g.zero(), g.zero(), g.zero(), g.zero()}
	g.eachBy(n, 4, func(at func(gp) mem, tail bool, i int) {
		d := g.sub(g.load(at(x), tail), mean)
		g.keep(d, tail)
		g.madd(squares[i], d, d)
	})
	s, one, e := join(squares), g.XMM(), g.XMM()
	g.Load(g.Param("eps"), e)
	g.VADDSS(e, s, s)
	g.VSQRTSS(s, s, s)
	g.VMOVSS(g.c(1), one)
	g.VDIVSS(s, one, s)
	g.Store(s, g.Return("rstd"))
	rstd := g.v()
	g.VBROADCASTSS(s, rstd)
	g.eachBy(n, 2, func(at func(gp) mem, tail bool, _ int) {
		v := g.mul(rstd, g.sub(g.load(at(x), tail), mean))
		b := g.load(at(bias), tail)
		g.madd(b, g.load(at(gain), tail), v)
		g.store(b, at(dst), tail)
	})
	g.ret()
}
