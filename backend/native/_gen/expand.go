package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
)

// expandSignature: blocks of a GGUF row become sub-blocks in a common form: the unsigned values, then the scale, and the minimum where the type has
// one, as float32. See backend.UnpackBlocks, which does the same.
const expandSignature = "func(dst, src *byte, blocks int)"

// emitExpand writes the functions for the common block types. They use AVX2 and F16C at every level: they wait for memory anyway.
func emitExpand(g *gen) {
	g.expand32("Q4_0", 4, false)
	g.expand32("Q4_1", 4, true)
	g.expand32("Q5_0", 5, false)
	g.expand32("Q5_1", 5, true)
	g.expand32("Q8_0", 8, false)
	g.expandK("Q4_K", false)
	g.expandK("Q5_K", true)
	g.expandQ6K()
	g.emitRowBlocks()
	emitStored(g)
}

func (g *gen) expandFn(typ, what string) (dst, src, blocks gp) {
	g.fn("expand"+typ, expandSignature)
	g.Doc(fmt.Sprintf("expand%s%s turns blocks of %s into %s.", typ, g.sfx, typ, what))
	return g.arg("dst"), g.arg("src"), g.arg("blocks")
}

// expand32 is for blocks of 32 values of 4, 5 or 8 bits with one half-precision scale, and a minimum that is stored negated.
func (g *gen) expand32(typ string, bits int, minimum bool) {
	what := "32 values and a scale"
	if minimum {
		what = "32 values, a scale and a minimum"
	}
	dst, src, blocks := g.expandFn(typ, what)
	at, out := 2, 36
	if minimum {
		at, out = 4, 40
	}
	load := func(m mem) vec { v := g.YMM(); g.VMOVDQU(m, v); return v }
	var low, bit, pick, fifth, sign vec
	if bits == 8 {
		sign = load(g.bits(0x80808080))
	} else {
		low = load(g.bits(0x0f0f0f0f))
	}
	if bits == 5 {
		fifth = load(g.bits(0x10101010))
		bit, pick = load(g.bytes("bit", func(i int) byte { return 1 << (i % 8) })), load(g.bytes("pick", func(i int) byte { return byte(i / 8) }))
	}
	var flip vec
	if minimum {
		flip = g.XMM()
		g.VMOVDQU(g.bits(0x80000000), flip)
	}
	g.countdown(blocks, 1, func() {
		q, v := at, g.YMM()
		var high vec
		if bits == 5 {
			high = g.YMM()
			g.VPBROADCASTD(mem{Base: src, Disp: at}, high)
			g.VPSHUFB(pick, high, high)
			g.VPAND(bit, high, high)
			g.VPCMPEQB(bit, high, high)
			g.VPAND(fifth, high, high)
			q += 4
		}
		bytes := q + 16
		if bits == 8 {
			g.VPXOR(mem{Base: src, Disp: q}, sign, v)
			bytes = q + 32
		} else {
			x, y := g.XMM(), g.XMM()
			g.VMOVDQU(mem{Base: src, Disp: q}, x)
			g.VPSRLW(operand.Imm(4), x, y)
			g.VINSERTI128(operand.Imm(1), y, x.AsY(), v)
			g.VPAND(low, v, v)
		}
		if high != nil {
			g.VPOR(high, v, v)
		}
		g.VMOVDQU(v, mem{Base: dst})
		s := g.XMM()
		if minimum {
			g.VMOVD(mem{Base: src}, s)
			g.VCVTPH2PS(s, s)
			g.VMOVSS(s, mem{Base: dst, Disp: 32})
			g.VXORPS(flip, s, s)
			g.VMOVSHDUP(s, s)
			g.VMOVSS(s, mem{Base: dst, Disp: 36})
		} else {
			h := g.GP32()
			g.MOVWLZX(mem{Base: src}, h)
			g.VMOVD(h, s)
			g.VCVTPH2PS(s, s)
			g.VMOVSS(s, mem{Base: dst, Disp: 32})
		}
		g.ADDQ(operand.Imm(uint64(bytes)), src)
		g.ADDQ(operand.Imm(uint64(out)), dst)
	})
	g.ret()
}

// bytes is a constant of 32 bytes.
func (g *gen) bytes(name string, f func(i int) byte) mem {
	if m, ok := g.named[name]; ok {
		return m
	}
	return g.constant(name, 32, f)
}

func (g *gen) constant(name string, n int, f func(i int) byte) mem {
	m := g.StaticGlobal(name + g.sfx)
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range n {
		g.AddDatum(i, operand.U8(f(i)))
	}
	g.named[name] = m
	return m
}

// expandK is for Q4_K and Q5_K: d, dmin, 6-bit scales and minima in 12 bytes, fifth bits [32], nibbles [128].
func (g *gen) expandK(typ string, fifth bool) {
	dst, src, blocks := g.expandFn(typ, "8 times 32 values, a scale and a minimum")
	const sub = 40
	low, local := g.YMM(), g.AllocLocal(64)
	g.VMOVDQU(g.bits(0x0f0f0f0f), low)
	var fifthBit vec
	if fifth {
		fifthBit = g.YMM()
		g.VMOVDQU(g.bits(0x10101010), fifthBit)
	}
	g.countdown(blocks, 1, func() {
		q := 16
		var high vec
		if fifth {
			high = g.YMM()
			g.VMOVDQU(mem{Base: src, Disp: 16}, high)
			q = 48
		}
		for s := range 8 {
			v := g.YMM()
			g.VMOVDQU(mem{Base: src, Disp: q + s/2*32}, v)
			if s%2 == 1 {
				g.VPSRLW(operand.Imm(4), v, v)
			}
			g.VPAND(low, v, v)
			if fifth {
				h := g.YMM()
				if s <= 4 {
					g.VPSLLW(operand.Imm(uint64(4-s)), high, h)
				} else {
					g.VPSRLW(operand.Imm(uint64(s-4)), high, h)
				}
				g.VPAND(fifthBit, h, h)
				g.VPOR(h, v, v)
			}
			g.VMOVDQU(v, mem{Base: dst, Disp: s * sub})
		}
		// Scales and minima: 0 to 3 in the low six bits of words 0 and 1, the others in the nibbles of word 2 below the two high bits there.
		word := func(i int) gp { r := g.GP32(); g.MOVL(mem{Base: src, Disp: 4 + 4*i}, r); return r }
		join := func(nibbles, tops gp, shift uint64) gp {
			if shift > 0 {
				g.SHRL(operand.Imm(shift), nibbles)
			}
			g.ANDL(operand.U32(0x0f0f0f0f), nibbles)
			g.SHRL(operand.Imm(2), tops)
			g.ANDL(operand.U32(0x30303030), tops)
			g.ORL(tops, nibbles)
			return nibbles
		}
		six := func(r gp) gp { g.ANDL(operand.U32(0x3f3f3f3f), r); return r }
		dd := g.XMM()
		g.VMOVD(mem{Base: src}, dd)
		g.VCVTPH2PS(dd, dd)
		for m := range 2 {
			x, v, d := g.XMM(), g.YMM(), g.YMM()
			g.VMOVD(six(word(m)), x)
			g.VPINSRD(operand.Imm(1), join(word(2), word(m), uint64(4*m)), x, x)
			g.VPMOVZXBD(x, v)
			g.VCVTDQ2PS(v, v)
			if m == 1 {
				g.VMOVSHDUP(dd, dd)
			}
			g.VBROADCASTSS(dd, d)
			g.VMULPS(d, v, v)
			g.VMOVUPS(v, local.Offset(32*m))
		}
		for s := range 8 {
			for m := range 2 {
				r := g.GP32()
				g.MOVL(local.Offset(32*m+4*s), r)
				g.MOVL(r, mem{Base: dst, Disp: s*sub + 32 + 4*m})
			}
		}
		g.ADDQ(operand.I32(int32(q+128)), src)
		g.ADDQ(operand.I32(8*sub), dst)
	})
	g.ret()
}

// expandQ6K: low nibbles [128], high pairs of bits [64], int8 scales [16], d.
func (g *gen) expandQ6K() {
	dst, src, blocks := g.expandFn("Q6_K", "16 times 16 values and a scale")
	const sub = 20
	low, pair, local := g.YMM(), g.YMM(), g.AllocLocal(64)
	g.VMOVDQU(g.bits(0x0f0f0f0f), low)
	g.VMOVDQU(g.bits(0x30303030), pair)
	g.countdown(blocks, 1, func() {
		for run := range 8 {
			h, r := run/4, run%4
			v, t := g.YMM(), g.YMM()
			g.VMOVDQU(mem{Base: src, Disp: h*64 + r%2*32}, v)
			if r >= 2 {
				g.VPSRLW(operand.Imm(4), v, v)
			}
			g.VPAND(low, v, v)
			g.VMOVDQU(mem{Base: src, Disp: 128 + h*32}, t)
			switch r {
			case 0, 1:
				g.VPSLLW(operand.Imm(uint64(4-2*r)), t, t)
			case 3:
				g.VPSRLW(operand.Imm(2), t, t)
			}
			g.VPAND(pair, t, t)
			g.VPOR(t, v, v)
			g.VMOVDQU(v.AsX(), mem{Base: dst, Disp: 2 * run * sub})
			g.VEXTRACTI128(operand.Imm(1), v, mem{Base: dst, Disp: (2*run + 1) * sub})
		}
		h, x, d := g.GP32(), g.XMM(), g.YMM()
		g.MOVWLZX(mem{Base: src, Disp: 208}, h)
		g.VMOVD(h, x)
		g.VCVTPH2PS(x, x)
		g.VBROADCASTSS(x, d)
		for half := range 2 {
			v := g.YMM()
			g.VPMOVSXBD(mem{Base: src, Disp: 192 + 8*half}, v)
			g.VCVTDQ2PS(v, v)
			g.VMULPS(d, v, v)
			g.VMOVUPS(v, local.Offset(32*half))
		}
		for s := range 16 {
			r := g.GP32()
			g.MOVL(local.Offset(4*s), r)
			g.MOVL(r, mem{Base: dst, Disp: s*sub + 16})
		}
		g.ADDQ(operand.I32(210), src)
		g.ADDQ(operand.I32(16*sub), dst)
	})
	g.ret()
}
