package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

type (
	vec = reg.VecVirtual
	mem = operand.Mem
	gp  = reg.Register
)

// gen writes the kernels of one instruction set: vectors of w float32 values, functions named …sfx.
type gen struct {
	*build.Context
	w      int
	sfx    string
	consts map[uint32]mem
	named  map[string]mem
	labels int
	mask   operand.Op // of the tail: an opmask register or a vector
	maskT  mem        // AVX2: eight ones, then eight zeros
}

func newGen(c *build.Context, w int, sfx string) *gen {
	return &gen{Context: c, w: w, sfx: sfx, consts: map[uint32]mem{}, named: map[string]mem{}}
}

func (g *gen) wide() bool { return g.w == 16 }

// fn starts the function name+sfx.
func (g *gen) fn(name, signature string) {
	g.Function(name + g.sfx)
	g.Attributes(attr.NOSPLIT)
	g.Pragma("noescape")
	g.SignatureExpr(signature)
	g.mask = nil
}

func (g *gen) ret() {
	g.VZEROUPPER()
	g.RET()
}

func (g *gen) label(s string) string {
	g.labels++
	return fmt.Sprintf("%s%d", s, g.labels)
}

// v is a fresh vector register.
func (g *gen) v() vec {
	if g.wide() {
		return g.ZMM()
	}
	return g.YMM()
}

func (g *gen) arg(name string) gp { return g.Load(g.Param(name), g.GP64()) }

// c is f in every lane, as a memory operand.
func (g *gen) c(f float32) mem { return g.bits(math.Float32bits(f)) }

func (g *gen) bits(b uint32) mem {
	if m, ok := g.consts[b]; ok {
		return m
	}
	m := g.StaticGlobal(fmt.Sprintf("c%08x%s", b, g.sfx))
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 16 {
		g.AddDatum(4*i, operand.U32(b))
	}
	g.consts[b] = m
	return m
}

// k loads the constant f.
func (g *gen) k(f float32) vec {
	v := g.v()
	g.VMOVUPS(g.c(f), v)
	return v
}

// bcast loads the argument of that name into every lane.
func (g *gen) bcast(name string) vec {
	a, err := g.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	v := g.v()
	g.VBROADCASTSS(a.Addr, v)
	return v
}

func (g *gen) zero() vec {
	v := g.v()
	if g.wide() {
		g.VPXORD(v, v, v)
	} else {
		g.VXORPS(v, v, v)
	}
	return v
}

// setMask makes the mask of the first n lanes, 0 <= n <= w.
func (g *gen) setMask(n gp) operand.Op {
	if g.wide() {
		bits, ones, k := g.GP32(), g.GP32(), g.K()
		g.MOVL(operand.I32(-1), ones)
		g.BZHIL(n.(reg.GPVirtual).As32(), ones, bits)
		g.KMOVW(bits, k)
		return k
	}
	if g.maskT.Symbol.Name == "" {
		g.maskT = g.StaticGlobal("masks" + g.sfx)
		g.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range 16 {
			v := uint32(0xffffffff)
			if i >= 8 {
				v = 0
			}
			g.AddDatum(4*i, operand.U32(v))
		}
	}
	p, v := g.GP64(), g.v()
	g.LEAQ(g.maskT, p)
	i := g.GP64()
	g.MOVQ(n, i)
	g.NEGQ(i)
	g.VMOVUPS(mem{Base: p, Index: i, Scale: 4, Disp: 32}, v)
	return v
}

// load reads a vector; in the tail, lanes beyond it are 0 and their memory is not touched.
func (g *gen) load(m mem, tail bool) vec {
	v := g.v()
	switch {
	case !tail:
		g.VMOVUPS(m, v)
	case g.wide():
		g.VMOVUPS_Z(m, g.mask, v)
	default:
		g.VMASKMOVPS(m, g.mask, v)
	}
	return v
}

func (g *gen) store(v vec, m mem, tail bool) {
	switch {
	case !tail:
		g.VMOVUPS(v, m)
	case g.wide():
		g.VMOVUPS(v, g.mask, m)
	default:
		g.VMASKMOVPS(v, g.mask, m)
	}
}

// keep zeroes the lanes of v beyond the tail.
func (g *gen) keep(v vec, tail bool) {
	switch {
	case !tail:
	case g.wide():
		g.VMOVAPS_Z(v, g.mask, v)
	default:
		g.VANDPS(g.mask, v, v)
	}
}

// each runs body over n elements, vector by vector; at(p) is p's current place. The last, partial vector runs with tail set.
func (g *gen) each(n gp, body func(at func(p gp) mem, tail bool)) {
	i, whole := g.GP64(), g.GP64()
	loop, tail, done := g.label("loop"), g.label("tail"), g.label("done")
	at := func(p gp) mem { return mem{Base: p, Index: i, Scale: 4} }
	g.XORQ(i, i)
	g.MOVQ(n, whole)
	g.ANDQ(operand.I32(-g.w), whole)
	g.Label(loop)
	g.CMPQ(i, whole)
	g.JGE(operand.LabelRef(tail))
	body(at, false)
	g.ADDQ(operand.Imm(uint64(g.w)), i)
	g.JMP(operand.LabelRef(loop))
	g.Label(tail)
	g.MOVQ(n, whole)
	g.SUBQ(i, whole)
	g.JZ(operand.LabelRef(done))
	g.mask = g.setMask(whole)
	body(at, true)
	g.Label(done)
}

// eachBy is each with several vectors in a turn of its loop; i counts them, so that body may keep an accumulator for each.
func (g *gen) eachBy(n gp, vectors int, body func(at func(p gp) mem, tail bool, i int)) {
	i, left := g.GP64(), g.GP64()
	loop, few, one, tail, done := g.label("loop"), g.label("few"), g.label("one"), g.label("tail"), g.label("done")
	g.XORQ(i, i)
	g.MOVQ(n, left)
	g.SUBQ(operand.I32(int32(vectors*g.w)), left)
	g.JL(operand.LabelRef(few))
	g.Label(loop)
	for v := range vectors {
		body(func(p gp) mem { return mem{Base: p, Index: i, Scale: 4, Disp: 4 * g.w * v} }, false, v)
	}
	g.ADDQ(operand.I32(int32(vectors*g.w)), i)
	g.SUBQ(operand.I32(int32(vectors*g.w)), left)
	g.JGE(operand.LabelRef(loop))
	g.Label(few)
	g.ADDQ(operand.I32(int32((vectors-1)*g.w)), left) // what is left, less a vector
	g.JL(operand.LabelRef(tail))
	at := func(p gp) mem { return mem{Base: p, Index: i, Scale: 4} }
	g.Label(one)
	body(at, false, 0)
	g.ADDQ(operand.I32(int32(g.w)), i)
	g.SUBQ(operand.I32(int32(g.w)), left)
	g.JGE(operand.LabelRef(one))
	g.Label(tail)
	g.ADDQ(operand.I32(int32(g.w)), left)
	g.JZ(operand.LabelRef(done))
	g.mask = g.setMask(left)
	body(at, true, 0)
	g.Label(done)
}

// Arithmetic in destination-last order, on fresh registers where a result is returned.

func (g *gen) add(a, b operand.Op) vec { d := g.v(); g.VADDPS(a, b, d); return d }

// sub is a-b.
func (g *gen) sub(a vec, b operand.Op) vec { d := g.v(); g.VSUBPS(b, a, d); return d }
func (g *gen) mul(a operand.Op, b vec) vec { d := g.v(); g.VMULPS(a, b, d); return d }

// div is a/b.
func (g *gen) div(a vec, b operand.Op) vec { d := g.v(); g.VDIVPS(b, a, d); return d }

// max and min return their second operand when either is NaN.
func (g *gen) max(a vec, b operand.Op) vec { d := g.v(); g.VMAXPS(b, a, d); return d }
func (g *gen) min(a vec, b operand.Op) vec { d := g.v(); g.VMINPS(b, a, d); return d }
func (g *gen) and(a operand.Op, b vec) vec { d := g.v(); g.VANDPS(a, b, d); return d }
func (g *gen) or(a operand.Op, b vec) vec  { d := g.v(); g.VORPS(a, b, d); return d }
func (g *gen) copy(a vec) vec              { d := g.v(); g.VMOVAPS(a, d); return d }

// madd adds a·b to d.
func (g *gen) madd(d vec, a operand.Op, b vec) { g.VFMADD231PS(a, b, d) }

// poly is the polynomial with coefficients c[0] + c[1]·x + … by Horner's rule.
func (g *gen) poly(x vec, c ...float32) vec {
	d := g.k(c[len(c)-1])
	for i := len(c) - 2; i >= 0; i-- {
		g.VFMADD213PS(g.c(c[i]), x, d) // d = x·d + c
	}
	return d
}

// hsum adds the lanes of v, pairwise from the widest halves down, into the low lane of an XMM register.
func (g *gen) hsum(v vec) vec { return g.fold(v, func(a, b, d operand.Op) { g.VADDPS(a, b, d) }) }
func (g *gen) hmax(v vec) vec { return g.fold(v, func(a, b, d operand.Op) { g.VMAXPS(a, b, d) }) }

func (g *gen) fold(v vec, op func(a, b, d operand.Op)) vec {
	y := g.YMM()
	if g.wide() {
		g.VEXTRACTF64X4(operand.Imm(1), v, y)
		op(y, v.AsY(), y)
	} else {
		g.VMOVAPS(v, y)
	}
	x, t := g.XMM(), g.XMM()
	g.VEXTRACTF128(operand.Imm(1), y, x)
	op(x, y.AsX(), x)
	g.VMOVHLPS(x, x, t)
	op(t, x, x)
	g.VMOVSHDUP(x, t)
	op(t, x, x)
	return x
}
