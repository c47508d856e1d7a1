package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
)

// panelSignature: a vector's worth of rows of a block type as they are stored, rs bytes apart, become columns of a panel of two vectors: for each
// sub-block the unsigned values in groups of four along k for each column, then the columns' scales, then their minima where the type has them.
const panelSignature = "func(blocks int, b *byte, rs int, dst *byte)"

// panelAhead is how far in front memory is announced, in sets of rows: a panel is two of them, and the next one is made after this one was used.
const panelAhead = 2

func (g *gen) emitPanels() {
	g.panel32("Q4_0", 4, false)
	g.panel32("Q4_1", 4, true)
	g.panel32("Q5_0", 5, false)
	g.panel32("Q5_1", 5, true)
	g.panel32("Q8_0", 8, false)
	g.panelK("Q4_K", false)
	g.panelK("Q5_K", true)
	g.panelQ6K()
}

// panel is the state of such a function.
type panel struct {
	*rowBlocks
	dst gp
	low vec
	sub int // bytes of a sub-block
	len int // values of a sub-block
}

func (g *gen) fillPanel(typ string, size, length, subs int, minima bool, prepare, body func(p *panel)) {
	g.fn("panel"+typ, panelSignature)
	g.Doc(fmt.Sprintf("panel%s%s turns %d rows of %s into columns of a panel.", typ, g.sfx, g.w, typ))
	blocks, b, rs := g.arg("blocks"), g.arg("b"), g.arg("rs")
	p := &panel{rowBlocks: &rowBlocks{gen: g}, dst: g.arg("dst"), len: length, sub: length*2*g.w + 8*g.w}
	if minima {
		p.sub += 8 * g.w
	}
	p.rows(b, rs)
	p.quarters()
	ahead := g.GP64()
	g.IMUL3Q(operand.Imm(uint64(panelAhead*g.w)), rs, ahead)
	g.ADDQ(b, ahead)
	p.low = g.load512(g.bits(0x0f0f0f0f))
	prepare(p)
	g.countdown(blocks, 1, func() {
		for i := 0; i < g.w*size; i += 64 {
			g.PREFETCHT1(mem{Base: ahead, Disp: i})
		}
		g.ADDQ(operand.I32(int32(g.w*size)), ahead)
		body(p)
		p.advance(size)
		g.ADDQ(operand.I32(int32(subs*p.sub)), p.dst)
	})
	g.ret()
}

// put stores four values of each row, group by group within a sub-block.
func (p *panel) put(v vec, sub, group int) {
	p.VMOVDQU32(v, mem{Base: p.dst, Disp: sub*p.sub + group*8*p.w})
}

// putScale stores the scales of a sub-block and, unless it is nil, the minima.
func (p *panel) putScale(scale, minimum vec, sub int) {
	at := sub*p.sub + p.len*2*p.w
	p.VMOVUPS(scale, mem{Base: p.dst, Disp: at})
	if minimum != nil {
		p.VMOVUPS(minimum, mem{Base: p.dst, Disp: at + 8*p.w})
	}
}

// nibbles returns the lower and the upper nibbles of v.
func (p *panel) nibbles(v vec) (lower, upper vec) {
	lower, upper = p.ZMM(), p.ZMM()
	p.VPANDD(p.low, v, lower)
	p.VPSRLW(operand.Imm(4), v, upper)
	p.VPANDD(p.low, upper, upper)
	return lower, upper
}

func (g *gen) panel32(typ string, bits int, minimum bool) {
	quants := 2
	if minimum {
		quants = 4
	}
	if bits == 5 {
		quants += 4
	}
	size := quants + 16
	if bits == 8 {
		size = quants + 32
	}
	var sign, sixteen vec
	var pick [4]vec
	var bit [2]vec
	g.fillPanel(typ, size, 32, 1, minimum, func(p *panel) {
		switch bits {
		case 8:
			sign = p.load512(p.bits(0x80808080))
		case 5:
			sixteen = p.load512(p.bits(0x10101010))
			for i := range pick {
				pick[i] = p.wideBytes(fmt.Sprintf("spread%d", i), func(j int) byte { return byte(j%16/4*4 + i) })
			}
			bit[0] = p.load512(p.bits(0x08040201))
			bit[1] = p.load512(p.bits(0x80402010))
		}
	}, func(p *panel) {
		head := p.turnWords(0, 1+bits%2) // with the fifth bits
		scale := p.halfOf(head[0], 0)
		var low vec
		if minimum {
			low = p.ZMM()
			p.VPXORD(p.bits(0x80000000), p.halfOf(head[0], 1), low) // stored negated
		}
		p.putScale(scale, low, 0)
		fifth := head[len(head)-1]
		if bits == 5 && !minimum { // the four bytes after the scale
			hi, lo := p.ZMM(), p.ZMM()
			p.VPSLLD(operand.Imm(16), fifth, hi)
			p.VPSRLD(operand.Imm(16), head[0], lo)
			fifth = p.ZMM()
			p.VPORD(hi, lo, fifth)
		}
		add := func(v vec, group int) {
			if bits == 5 {
				h, k := p.ZMM(), p.K()
				p.VPSHUFB(pick[group/2], fifth, h)
				p.VPTESTMB(bit[group%2], h, k)
				p.VPADDB(sixteen, v, k, v)
			}
			p.put(v, 0, group)
		}
		if bits == 8 {
			for half := range 2 {
				for i, v := range p.turn(quants + 16*half) {
					p.VPXORD(sign, v, v)
					p.put(v, 0, 4*half+i)
				}
			}
			return
		}
		for i, v := range p.turn(quants) {
			lower, upper := p.nibbles(v)
			add(lower, i)
			add(upper, 4+i)
		}
	})
}

// panelK is Q4_K or Q5_K, whose fifth bits stand before the rest.
func (g *gen) panelK(typ string, fifth bool) {
	size, quants := 144, 16
	if fifth {
		size, quants = 176, 48
	}
	var sixteen vec
	g.fillPanel(typ, size, 32, 8, true, func(p *panel) {
		if fifth {
			sixteen = p.load512(p.bits(0x10101010))
		}
	}, func(p *panel) {
		scales := p.scalesK(func(v vec, _ int) operand.Op { return v })
		for s := range 8 {
			scale, minimum := scales(s)
			p.putScale(scale, minimum, s)
		}
		for half := range 2 {
			var high [4]vec
			if fifth {
				high = p.turn(16 + 16*half)
			}
			for pair := range 4 {
				for i, v := range p.turn(quants + 32*pair + 16*half) {
					lower, upper := p.nibbles(v)
					for j, v := range []vec{lower, upper} {
						s := 2*pair + j
						if fifth {
							h := p.ZMM()
							if s <= 4 {
								p.VPSLLW(operand.Imm(uint64(4-s)), high[i], h)
							} else {
								p.VPSRLW(operand.Imm(uint64(s-4)), high[i], h)
							}
							p.VPANDD(sixteen, h, h)
							p.VPORD(h, v, v)
						}
						p.put(v, s, 4*half+i)
					}
				}
			}
		}
	})
}

func (g *gen) panelQ6K() {
	var pairBits vec
	g.fillPanel("Q6_K", 210, 16, 16, false, func(p *panel) {
		pairBits = p.load512(p.bits(0x30303030))
	}, func(p *panel) {
		scales, d := p.turn(192), p.gatherHalves(208)
		for s := range 16 {
			p.putScale(p.scaleQ6K(scales, d, s), nil, s)
		}
		for h := range 2 {
			for half := range 2 {
				high := p.turn(128 + 32*h + 16*half)
				for odd := range 2 {
					for i, v := range p.turn(64*h + 32*odd + 16*half) {
						lower, upper := p.nibbles(v)
						for j, v := range []vec{lower, upper} {
							t := p.ZMM()
							run := 2*j + odd
							switch run {
							case 0, 1:
								p.VPSLLW(operand.Imm(uint64(4-2*run)), high[i], t)
								p.VPANDD(pairBits, t, t)
							case 2:
								p.VPANDD(pairBits, high[i], t)
							default:
								p.VPSRLW(operand.Imm(2), high[i], t)
								p.VPANDD(pairBits, t, t)
							}
							p.VPORD(t, v, v)
							p.put(v, 2*(4*h+run)+half, i)
						}
					}
				}
			}
		}
	})
}
