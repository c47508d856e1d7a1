package main

import "github.com/mmcloughlin/avo/operand"

// Coefficients below are minimax fits in relative error, found by linear programming over dense Chebyshev points.
var (
	// exp(r) = 1 + r + r²·p(r) on |r| <= ln2/2·1.02, relative error 3.5e-9 before rounding.
	expPoly = []float32{0.49999994, 0.16666509, 0.041668527, 0.008370135, 0.001381165}
	// Φ(-t) = exp(-t²/2)·u·p(u), u = 1/(1+t/4), t in [0, 14], relative error 4.8e-8 before rounding.
	tailPoly = []float32{0.09979625046253204, 0.09854017943143845, 0.1035611480474472, 0.03373408690094948, 0.19966503977775574,
		-0.20245295763015747, 0.2929437756538391, -0.1511414349079132, 0.025353865697979927}
	// tanh(x) = x + x·z·p(z), z = x², |x| <= 0.64, relative error 5.7e-9 before rounding.
	tanhPoly = []float32{-0.33333268761634827, 0.133310928940773, -0.05370965600013733, 0.020538819953799248, -0.005591016262769699}
)

// exp returns e^x. Beyond the range of float32 it gives +Inf (AVX-512) or a huge value (AVX2), and 0 below; NaN stays.
func (g *gen) exp(x vec) vec {
	lo, hi := float32(-104), float32(89)
	if !g.wide() {
		lo, hi = -87.33, 88.37
	}
	c := g.min(g.k(hi), g.max(g.k(lo), x))
	n := g.mul(g.c(1.44269504), c)
	if g.wide() {
		g.VRNDSCALEPS(operand.Imm(8), n, n)
	} else {
		g.VROUNDPS(operand.Imm(8), n, n)
	}
	r := g.copy(c)
	g.VFNMADD231PS(g.c(0.693359375), n, r)
	g.VFNMADD231PS(g.c(-2.12194440e-4), n, r)
	p := g.poly(r, expPoly...)
	g.VFMADD213PS(r, g.mul(r, r), p) // p = r²·p + r
	g.VADDPS(g.c(1), p, p)
	if g.wide() {
		g.VSCALEFPS(n, p, p)
		return p
	}
	e := g.v()
	g.VCVTPS2DQ(n, e)
	g.VPADDD(g.bits(127), e, e)
	g.VPSLLD(operand.Imm(23), e, e)
	g.VMULPS(e, p, p)
	seen := g.v()
	g.VCMPPS(operand.Imm(5), g.c(lo), x, seen) // not less than: NaN counts
	g.VANDPS(seen, p, p)
	return p
}

func (g *gen) abs(x vec) vec { return g.and(g.bits(0x7fffffff), x) }

// sigmoid returns 1/(1+e^-x).
func (g *gen) sigmoid(x vec) vec {
	e := g.exp(g.mul(g.c(-1), x))
	g.VADDPS(g.c(1), e, e)
	return g.div(g.k(1), e)
}

// gaussTail returns t = min(|x|, 20), e = exp(-t²/2) and h = Φ(-t).
func (g *gen) gaussTail(x vec) (t, e, h vec) {
	t = g.min(g.k(20), g.abs(x))
	e = g.exp(g.mul(g.mul(t, t), g.k(-0.5)))
	d := g.k(1)
	g.madd(d, g.c(0.25), t)
	u := g.div(g.k(1), d)
	h = g.mul(e, g.mul(u, g.poly(u, tailPoly...)))
	return t, e, h
}

// where returns yes in the lanes where a < b, no elsewhere (NaN: no).
func (g *gen) where(a vec, b operand.Op, yes, no vec) vec {
	if g.wide() {
		k := g.K()
		g.VCMPPS(operand.Imm(1), b, a, k)
		d := g.copy(no)
		g.VMOVAPS(yes, k, d)
		return d
	}
	m, d := g.v(), g.v()
	g.VCMPPS(operand.Imm(1), b, a, m)
	g.VBLENDVPS(m, yes, no, d)
	return d
}

func (g *gen) tanh(x vec) vec {
	t := g.abs(x)
	e := g.exp(g.mul(g.c(2), g.min(g.k(12), t)))
	g.VADDPS(g.c(1), e, e)
	big := g.sub(g.k(1), g.div(g.k(2), e))
	z := g.mul(t, t)
	small := g.copy(t)
	g.madd(small, g.mul(t, z), g.poly(z, tanhPoly...))
	return g.or(g.and(g.bits(0x80000000), x), g.where(t, g.c(0.625), small, big))
}

// geluInner returns 2·sqrt(2/π)·(x + 0.044715·x³), whose sigmoid is GELU's factor in its tanh form.
func (g *gen) geluInner(x vec) vec {
	d := g.k(1)
	g.madd(d, g.c(0.044715), g.mul(x, x))
	return g.mul(g.c(1.5957691216057308), g.mul(x, d))
}

// clamp limits x to ±l; NaN stays.
func (g *gen) clamp(x vec, l float32) vec { return g.min(g.k(l), g.max(g.k(-l), x)) }

type activation struct {
	name        string
	value, grad func(x vec) vec
}

func (g *gen) activations() []activation {
	gated := func(beta float32) (value, grad func(x vec) vec) { // x·σ(βx)
		value = func(x vec) vec { return g.mul(x, g.sigmoid(g.mul(g.c(beta), x))) }
		grad = func(x vec) vec {
			s := g.sigmoid(g.mul(g.c(beta), x))
			d := g.copy(s)
			g.madd(d, g.mul(g.mul(g.c(beta), x), s), g.sub(g.k(1), s))
			return d
		}
		return value, grad
	}
	siluV, siluG := gated(1)
	quickV, quickG := gated(1.702)
	return []activation{
		{"gelu", func(x vec) vec {
			t, _, h := g.gaussTail(x)
			r := g.max(g.zero(), x)
			g.VFNMADD231PS(t, h, r)
			return r
		}, func(x vec) vec {
			_, e, h := g.gaussTail(x)
			d := g.where(x, g.zero(), h, g.sub(g.k(1), h))
			g.madd(d, g.mul(g.c(0.3989422804), x), e)
			return d
		}},
		{"geluTanh", func(x vec) vec { return g.mul(x, g.sigmoid(g.geluInner(x))) }, func(x vec) vec {
			x = g.clamp(x, 20)
			s := g.sigmoid(g.geluInner(x))
			slope := g.k(1.5957691216057308)
			g.madd(slope, g.c(3*0.044715*1.5957691216057308), g.mul(x, x))
			d := g.copy(s)
			g.madd(d, g.mul(g.mul(x, slope), s), g.sub(g.k(1), s))
			return d
		}},
		{"quickGELU", quickV, quickG},
		{"relu", func(x vec) vec { return g.max(g.zero(), x) }, func(x vec) vec {
			return g.where(g.zero(), x, g.k(1), g.zero())
		}},
		{"silu", siluV, siluG},
		{"tanh", g.tanh, func(x vec) vec {
			t := g.tanh(x)
			d := g.k(1)
			g.VFNMADD231PS(t, t, d)
			return d
		}},
		{"sigmoid", g.sigmoid, func(x vec) vec {
			s := g.sigmoid(x)
			return g.mul(s, g.sub(g.k(1), s))
		}},
	}
}

func (g *gen) act(a activation) {
	if a.name == "gelu" && g.wide() {
		g.geluByTable()
	} else {
		g.fn(a.name, "func(dst, x *float32, n int)")
		g.Doc(a.name + g.sfx + " applies the activation element by element.")
		dst, x, n := g.arg("dst"), g.arg("x"), g.arg("n")
		g.each(n, func(at func(gp) mem, tail bool) {
			g.store(a.value(g.load(at(x), tail)), at(dst), tail)
		})
		g.ret()
	}

	g.fn(a.name+"Grad", "func(dx, dy, x *float32, n int)")
	g.Doc(a.name + "Grad" + g.sfx + " adds dy times the slope at x to dx.")
	dx, dy, x, n := g.arg("dx"), g.arg("dy"), g.arg("x"), g.arg("n")
	g.each(n, func(at func(gp) mem, tail bool) {
		s := a.grad(g.load(at(x), tail))
		d := g.load(at(dx), tail)
		g.madd(d, g.load(at(dy), tail), s)
		g.store(d, at(dx), tail)
	})
	g.ret()
}
