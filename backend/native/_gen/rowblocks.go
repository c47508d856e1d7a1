package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
)

// rowBlocksSignature: c[0:w] = one row of quantized activations times w rows of a block type as they are stored, rs bytes apart, where w is the
// width of a vector. xs and corr: see blockSignature. The arithmetic and its order are those of the tiles.
const rowBlocksSignature = "func(blocks int, a *int8, b *byte, rs int, c, xs, corr *float32)"

// rowBlocks is the state of such a kernel. A sub-block of 32 weights of all rows is 8 vectors: AVX-512 has rows i and i+4 in the two halves. Their
// dot products with the activations leave 8 sums for each row, which a tree of unpacking and adding brings to one vector, a row a lane.
type rowBlocks struct {
	*gen
	row          []mem
	base         []gp // of each four rows
	rs           gp
	xs, corr     gp
	acc, none    vec
	ones         mem        // AVX2: a 1 in each word
	signed       bool       // AVX2: the values are signed bytes
	upper        operand.Op // mask of a vector's upper half
	quarter      [3]operand.Op
	low, sixteen vec
}

// farAhead is how far in front of the next rows memory is announced, in bytes: what arrives in the time that a few rows take.
const farAhead = 10 << 10

func (g *gen) emitRowBlocks() {
	g.rowBlocks32("Q4_0", 4, false)
	g.rowBlocks32("Q4_1", 4, true)
	g.rowBlocks32("Q5_0", 5, false)
	g.rowBlocks32("Q5_1", 5, true)
	g.rowBlocks32("Q8_0", 8, false)
	g.rowBlocksK("Q4_K", 4)
	g.rowBlocksK("Q5_K", 5)
	g.rowBlocksQ6K()
}

// walk sets up a kernel and runs body for each block of size bytes and n values.
func (g *gen) walk(typ string, size, n, subs int, prepare func(r *rowBlocks), body func(r *rowBlocks, a gp)) {
	g.fn("row"+typ, rowBlocksSignature)
	g.Doc(fmt.Sprintf("row%s%s multiplies a row of activations with %d rows of %s as they are stored.", typ, g.sfx, g.w, typ))
	blocks, a, b, rs := g.arg("blocks"), g.arg("a"), g.arg("b"), g.arg("rs")
	r := &rowBlocks{gen: g, xs: g.arg("xs"), corr: g.arg("corr"), acc: g.zero()}
	r.rows(b, rs)
	// The next rows, line by line: the order of reading is too short-lived for the processor to guess. What comes after them is announced as well, to
	// the second-level cache: what only passes by the first one (PREFETCHNTA) is gone again before it is used where others share the caches.
	ahead := g.GP64()
	g.LEAQ(mem{Base: r.base[len(r.base)-1], Index: r.rs, Scale: 4}, ahead)
	prepare(r)
	g.countdown(blocks, 1, func() {
		for i := 0; i < g.w*size; i += 64 {
			g.PREFETCHT0(mem{Base: ahead, Disp: i})
			g.PREFETCHT1(mem{Base: ahead, Disp: i + farAhead})
		}
		g.ADDQ(operand.I32(int32(g.w*size)), ahead)
		body(r, a)
		r.advance(size)
		g.ADDQ(operand.I32(int32(n)), a)
		g.ADDQ(operand.I32(int32(4*subs)), r.xs)
		g.ADDQ(operand.I32(int32(4*subs)), r.corr)
	})
	c := g.arg("c")
	g.VMOVUPS(r.acc, mem{Base: c})
	g.ret()
}

// rows addresses a vector's worth of rows from b on, rs bytes apart.
func (r *rowBlocks) rows(b, rs gp) {
	r.row, r.base, r.rs = make([]mem, r.w), make([]gp, r.w/4), rs
	if r.wide() {
		r.none = r.zero()
	} else {
		r.ones = r.bits(0x00010001)
	}
	rs3 := r.GP64()
	r.LEAQ(mem{Base: r.rs, Index: r.rs, Scale: 2}, rs3)
	r.base[0] = b
	for i := 1; i < len(r.base); i++ {
		r.base[i] = r.GP64()
		r.LEAQ(mem{Base: r.base[i-1], Index: r.rs, Scale: 4}, r.base[i])
	}
	for i := range r.row {
		m := mem{Base: r.base[i/4]}
		switch i % 4 {
		case 1, 2:
			m.Index, m.Scale = r.rs, uint8(i%4)
		case 3:
			m.Index, m.Scale = rs3, 1
		}
		r.row[i] = m
	}
}

// advance goes to the next block.
func (r *rowBlocks) advance(size int) {
	for _, p := range r.base {
		r.ADDQ(operand.I32(int32(size)), p)
	}
}

func (r *rowBlocks) at(i, disp int) mem { return r.row[i].Offset(disp) }

// quarters makes the masks of a vector's second, third and fourth quarter, which turn needs.
func (r *rowBlocks) quarters() {
	if !r.wide() {
		return
	}
	for i := range r.quarter {
		bits, k := r.GP32(), r.K()
		r.MOVL(operand.U32(0xf0<<(4*i)), bits)
		r.KMOVW(bits, k)
		r.quarter[i] = k
	}
}

// halves makes the mask of the upper half.
func (r *rowBlocks) halves() {
	bits, k := r.GP32(), r.K()
	r.MOVL(operand.U32(0xff00), bits)
	r.KMOVW(bits, k)
	r.upper = k
}

func (g *gen) load512(m mem) vec { v := g.ZMM(); g.VMOVDQU32(m, v); return v }

// wideBytes is a constant of 64 bytes.
func (g *gen) wideBytes(name string, f func(i int) byte) vec {
	m, ok := g.named[name]
	if !ok {
		m = g.constant(name, 64, f)
	}
	return g.load512(m)
}

// dots returns the sums over the lower and the upper halves of 32 values, for pairs of rows that values gives.
func (r *rowBlocks) dots(q vec, values func(i, j int) vec) (lower, upper vec) {
	if !r.wide() {
		return r.narrowDots(q, values)
	}
	var u [2]vec
	for h := range u {
		var s [4]vec
		for i := range s {
			w := values(8*h+i, 8*h+i+4)
			s[i] = r.copy(r.none)
			r.dpbusd(q, w, s[i])
		}
		var t [2]vec
		for i := range t {
			lo, hi := r.ZMM(), r.ZMM()
			r.VPUNPCKLDQ(s[2*i+1], s[2*i], lo)
			r.VPUNPCKHDQ(s[2*i+1], s[2*i], hi)
			r.VPADDD(lo, hi, hi)
			t[i] = hi
		}
		lo, hi := r.ZMM(), r.ZMM()
		r.VPUNPCKLQDQ(t[1], t[0], lo)
		r.VPUNPCKHQDQ(t[1], t[0], hi)
		r.VPADDD(lo, hi, hi)
		u[h] = hi
	}
	lower, upper = r.ZMM(), r.ZMM()
	r.VSHUFI32X4(operand.Imm(0x88), u[1], u[0], lower)
	r.VSHUFI32X4(operand.Imm(0xdd), u[1], u[0], upper)
	return lower, upper
}

// narrowDots is dots for AVX2. Products of two pairs of bytes do not overflow a word: values are below 64, or signed bytes that hand their sign to
// the activations, of which none is -128.
func (r *rowBlocks) narrowDots(q vec, values func(i, j int) vec) (lower, upper vec) {
	var u [2]vec
	for h := range u {
		var t [2]vec
		for i := range t {
			var s [2]vec
			for j := range s {
				w := values(4*h+2*i+j, 0)
				s[j] = r.YMM()
				if r.signed {
					r.VPSIGNB(w, q, s[j])
					r.VPABSB(w, w)
					r.VPMADDUBSW(s[j], w, s[j])
				} else {
					r.VPMADDUBSW(q, w, s[j])
				}
				r.VPMADDWD(r.ones, s[j], s[j])
			}
			t[i] = r.YMM()
			hi := r.YMM()
			r.VPUNPCKLDQ(s[1], s[0], t[i])
			r.VPUNPCKHDQ(s[1], s[0], hi)
			r.VPADDD(hi, t[i], t[i])
		}
		u[h] = r.YMM()
		hi := r.YMM()
		r.VPUNPCKLQDQ(t[1], t[0], u[h])
		r.VPUNPCKHQDQ(t[1], t[0], hi)
		r.VPADDD(hi, u[h], u[h])
	}
	lower, upper = r.YMM(), r.YMM()
	r.VPERM2I128(operand.Imm(0x20), u[1], u[0], lower)
	r.VPERM2I128(operand.Imm(0x31), u[1], u[0], upper)
	return lower, upper
}

// finish adds sub-block sub to the result. minimum is nil for types without.
func (r *rowBlocks) finish(sum, scale, minimum vec, sub int) {
	x, k := mem{Base: r.xs, Disp: 4 * sub}, mem{Base: r.corr, Disp: 4 * sub}
	if !r.wide() {
		t := r.YMM()
		if minimum == nil && !r.signed {
			r.VPBROADCASTD(k, t)
			r.VPADDD(t, sum, sum)
		}
		r.VCVTDQ2PS(sum, sum)
		f := r.YMM()
		r.VBROADCASTSS(x, f)
		r.VMULPS(f, sum, sum)
		r.VFMADD231PS(scale, sum, r.acc)
		if minimum != nil {
			b := r.YMM()
			r.VBROADCASTSS(k, b)
			r.VFNMADD231PS(b, minimum, r.acc)
		}
		return
	}
	if minimum == nil {
		r.VPADDD_BCST(k, sum, sum)
	}
	r.VCVTDQ2PS(sum, sum)
	r.VMULPS_BCST(x, sum, sum)
	r.VFMADD231PS(scale, sum, r.acc)
	if minimum != nil {
		r.VFNMADD231PS_BCST(k, minimum, r.acc)
	}
}

func (r *rowBlocks) activations(a gp, disp int) vec {
	if !r.wide() {
		return r.load(mem{Base: a, Disp: disp}, false)
	}
	q := r.ZMM()
	r.VBROADCASTI64X4(mem{Base: a, Disp: disp}, q)
	return q
}

// gatherHalves reads the half-precision number at disp of each row.
func (r *rowBlocks) gatherHalves(disp int) vec {
	if !r.wide() {
		x, y, first := r.XMM(), r.YMM(), r.GP32()
		r.MOVWLZX(r.at(0, disp), first)
		r.VMOVD(first, x)
		for i := 1; i < 8; i++ {
			r.VPINSRW(operand.Imm(uint64(i)), r.at(i, disp), x, x)
		}
		r.VCVTPH2PS(x, y)
		return y
	}
	var x [2]vec
	for h := range x {
		x[h] = r.XMM()
		from := r.none.AsX() // see tileBlocks
		for i := range 8 {
			r.VPINSRW(operand.Imm(uint64(i)), r.at(8*h+i, disp), from, x[h])
			from = x[h]
		}
	}
	y, z := r.YMM(), r.ZMM()
	r.VINSERTI32X4(operand.Imm(1), x[1], x[0].AsY(), y)
	r.VCVTPH2PS(y, z)
	return z
}

// turn reads 16 bytes at disp of each row: four vectors of dwords, a row a lane.
func (r *rowBlocks) turn(disp int) [4]vec {
	var o [4]vec
	copy(o[:], r.turnWords(disp, 4))
	return o
}

// turnWords is turn for the first n dwords of those bytes.
func (r *rowBlocks) turnWords(disp, n int) []vec {
	var s, t [4]vec
	for i := range s {
		if !r.wide() {
			x, y := r.XMM(), r.YMM()
			r.VMOVDQU(r.at(i, disp), x)
			r.VINSERTI128(operand.Imm(1), r.at(i+4, disp), x.AsY(), y)
			s[i] = y
			continue
		}
		z := r.ZMM()
		r.VBROADCASTI32X4(r.at(i, disp), z)
		for j, k := range r.quarter {
			r.VBROADCASTI32X4(r.at(i+4*(j+1), disp), k, z)
		}
		s[i] = z
	}
	o := make([]vec, n)
	for i := range o {
		lo, hi := 0, 2
		if i >= 2 {
			lo, hi = 1, 3
		}
		for _, j := range []int{lo, hi} {
			if i%2 == 0 {
				t[j] = r.v()
				if j%2 == 0 {
					r.VPUNPCKLDQ(s[j+1], s[j], t[j])
				} else {
					r.VPUNPCKHDQ(s[j], s[j-1], t[j])
				}
			}
		}
		o[i] = r.v()
		if i%2 == 0 {
			r.VPUNPCKLQDQ(t[hi], t[lo], o[i])
		} else {
			r.VPUNPCKHQDQ(t[hi], t[lo], o[i])
		}
	}
	return o
}

// pair reads 32 bytes at disp of rows i and j, or of row i alone.
func (r *rowBlocks) pair(i, j, disp int) vec {
	if !r.wide() {
		return r.load(r.at(i, disp), false)
	}
	y, z := r.YMM(), r.ZMM()
	r.VMOVDQU32(r.at(i, disp), y)
	r.VINSERTI64X4(operand.Imm(1), r.at(j, disp), y.AsZ(), z)
	return z
}

func (g *gen) rowBlocks32(typ string, bits int, minimum bool) {
	head := 2
	if minimum {
		head = 4
	}
	quants := head
	if bits == 5 {
		quants += 4
	}
	size := quants + 16
	if bits == 8 {
		size = quants + 32
	}
	var sign, shift, bit, pick vec
	g.walk(typ, size, 32, 1, func(r *rowBlocks) {
		if !r.wide() {
			r.signed = bits == 8
			return
		}
		r.halves()
		if bits == 8 {
			sign = r.load512(r.bits(0x80808080))
			return
		}
		r.low = r.load512(r.bits(0x0f0f0f0f))
		shift = r.wideBytes("nibble", func(i int) byte { return byte(i / 16 % 2 * 4 * (1 - i%2)) })
		if bits == 5 {
			r.sixteen = r.load512(r.bits(0x10101010))
			bit = r.wideBytes("bits", func(i int) byte { return 1 << (i % 8) })
			pick = r.wideBytes("picks", func(i int) byte { return byte(i % 32 / 8) })
		}
	}, func(r *rowBlocks, a gp) {
		q := r.activations(a, 0)
		sum, other := r.dots(q, func(i, j int) vec {
			if bits == 8 {
				v := r.pair(i, j, quants)
				if r.wide() {
					r.VPXORD(sign, v, v)
				}
				return v
			}
			if !r.wide() {
				x, y, v := r.XMM(), r.XMM(), r.YMM()
				r.VMOVDQU(r.at(i, quants), x)
				r.VPSRLW(operand.Imm(4), x, y)
				r.VINSERTI128(operand.Imm(1), y, x.AsY(), v)
				r.VPAND(r.bits(0x0f0f0f0f), v, v)
				if bits == 5 {
					h := r.YMM()
					r.VPBROADCASTD(r.at(i, head), h)
					r.VPSHUFB(r.named["pick"], h, h)
					r.VPAND(r.named["bit"], h, h)
					r.VPCMPEQB(r.named["bit"], h, h)
					r.VPAND(r.bits(0x10101010), h, h)
					r.VPOR(h, v, v)
				}
				return v
			}
			v := r.ZMM()
			r.VBROADCASTI32X4(r.at(i, quants), v)
			r.VBROADCASTI32X4(r.at(j, quants), r.upper, v)
			r.VPSRLVW(shift, v, v)
			r.VPANDD(r.low, v, v)
			if bits == 5 {
				h, k := r.ZMM(), r.K()
				r.VPBROADCASTD(r.at(i, head), h)
				r.VPBROADCASTD(r.at(j, head), r.upper, h)
				r.VPSHUFB(pick, h, h)
				r.VPTESTMB(bit, h, k)
				r.VPADDB(r.sixteen, v, k, v)
			}
			return v
		})
		r.VPADDD(other, sum, sum)
		if !minimum {
			r.finish(sum, r.gatherHalves(0), nil, 0)
			return
		}
		scale, m := r.gatherHalves(0), r.gatherHalves(2)
		flipped := r.v()
		if r.wide() {
			r.VPXORD(r.bits(0x80000000), m, flipped) // stored negated
		} else {
			r.VXORPS(r.bits(0x80000000), m, flipped)
		}
		r.finish(sum, scale, flipped, 0)
	})
}

// both writes a & m to d.
func (r *rowBlocks) both(a vec, m mem, d vec) {
	if r.wide() {
		r.VPANDD(m, a, d)
	} else {
		r.VPAND(m, a, d)
	}
}

// either adds the bits of a to d.
func (r *rowBlocks) either(a, d vec) {
	if r.wide() {
		r.VPORD(a, d, d)
	} else {
		r.VPOR(a, d, d)
	}
}

// rowBlocksK is Q4_K or Q5_K, whose fifth bits stand before the rest.
func (g *gen) rowBlocksK(typ string, bits int) {
	low, fifth := g.bits(0x0f0f0f0f), g.bits(0x10101010)
	size, quants := 144, 16
	if bits == 5 {
		size, quants = 176, 48
	}
	var local mem
	// kept returns v from where there is room for it: AVX2 has too few registers.
	kept := func(v vec, i int) operand.Op {
		if g.wide() {
			return v
		}
		m := local.Offset(32 * i)
		g.VMOVUPS(v, m)
		return m
	}
	g.walk(typ, size, 256, 8, func(r *rowBlocks) {
		r.quarters()
		if !g.wide() {
			local = g.AllocLocal(6 * 32)
		}
	}, func(r *rowBlocks, a gp) {
		scales := r.scalesK(kept)
		for s := range 8 {
			sum, other := r.dots(r.activations(a, 32*s), func(i, j int) vec {
				v := r.pair(i, j, quants+s/2*32)
				if s%2 == 1 {
					r.VPSRLW(operand.Imm(4), v, v)
				}
				r.both(v, low, v)
				if bits == 5 {
					h := r.pair(i, j, 16)
					if s < 4 {
						r.VPSLLW(operand.Imm(uint64(4-s)), h, h)
					} else if s > 4 {
						r.VPSRLW(operand.Imm(uint64(s-4)), h, h)
					}
					r.both(h, fifth, h)
					r.either(h, v)
				}
				return v
			})
			r.VPADDD(other, sum, sum)
			scale, minimum := scales(s)
			r.finish(sum, scale, minimum, s)
		}
	})
}

// scalesK reads the heads of blocks of Q4_K or Q5_K and returns what gives scale and minimum of a sub-block, a row a lane. See expandK.
func (r *rowBlocks) scalesK(kept func(v vec, i int) operand.Op) func(sub int) (scale, minimum vec) {
	head := r.turn(0)
	d := [2]operand.Op{kept(r.halfOf(head[0], 0), 0), kept(r.halfOf(head[0], 1), 1)}
	// Bytes of sub-blocks 0 to 3 and 4 to 7, of scales and of minima.
	var words [2][2]operand.Op
	for m := range 2 {
		w, n, t := r.v(), r.v(), r.v()
		r.both(head[1+m], r.bits(0x3f3f3f3f), w)
		if m == 0 {
			r.both(head[3], r.bits(0x0f0f0f0f), n)
		} else {
			r.VPSRLD(operand.Imm(4), head[3], n)
			r.both(n, r.bits(0x0f0f0f0f), n)
		}
		r.VPSRLD(operand.Imm(2), head[1+m], t)
		r.both(t, r.bits(0x30303030), t)
		r.either(t, n)
		words[m] = [2]operand.Op{kept(w, 2+2*m), kept(n, 3+2*m)}
	}
	return func(s int) (scale, minimum vec) {
		var f [2]vec
		for m := range f {
			f[m] = r.v()
			from := words[m][s/4]
			if !r.wide() {
				r.VMOVUPS(from, f[m])
				from = f[m]
			}
			r.VPSRLD(operand.Imm(uint64(s%4*8)), from, f[m])
			r.both(f[m], r.bits(0xff), f[m])
			r.VCVTDQ2PS(f[m], f[m])
			r.VMULPS(d[m], f[m], f[m])
		}
		return f[0], f[1]
	}
}

// halfOf converts the half-precision numbers in the lower (0) or upper (1) halves of words.
func (r *rowBlocks) halfOf(words vec, upper int) vec {
	t, z, y := r.v(), r.v(), r.YMM()
	if upper == 1 {
		r.VPSRLD(operand.Imm(16), words, t)
	} else {
		r.both(words, r.bits(0xffff), t)
	}
	if r.wide() {
		r.VPMOVDW(t, y)
		r.VCVTPH2PS(y, z)
		return z
	}
	r.VPACKUSDW(t, t, y)
	r.VPERMQ(operand.Imm(8), y, y)
	r.VCVTPH2PS(y.AsX(), z)
	return z
}

// scaleQ6K returns the scale of a sub-block of Q6_K times d, given the transposed scales.
func (r *rowBlocks) scaleQ6K(scales [4]vec, d vec, sub int) vec {
	f := r.v()
	r.VPSLLD(operand.Imm(uint64(24-sub%4*8)), scales[sub/4], f)
	r.VPSRAD(operand.Imm(24), f, f)
	r.VCVTDQ2PS(f, f)
	r.VMULPS(d, f, f)
	return f
}

func (g *gen) rowBlocksQ6K() {
	low, pairBits := g.bits(0x0f0f0f0f), g.bits(0x30303030)
	g.walk("Q6_K", 210, 256, 16, (*rowBlocks).quarters, func(r *rowBlocks, a gp) {
		scales, d := r.turn(192), r.gatherHalves(208)
		for run := range 8 {
			h, k := run/4, run%4
			var sums [2]vec
			sums[0], sums[1] = r.dots(r.activations(a, 32*run), func(i, j int) vec {
				v, t := r.pair(i, j, h*64+k%2*32), r.pair(i, j, 128+h*32)
				if k >= 2 {
					r.VPSRLW(operand.Imm(4), v, v)
				}
				r.both(v, low, v)
				switch k {
				case 0, 1:
					r.VPSLLW(operand.Imm(uint64(4-2*k)), t, t)
				case 3:
					r.VPSRLW(operand.Imm(2), t, t)
				}
				r.both(t, pairBits, t)
				r.either(t, v)
				return v
			})
			for half, sum := range sums {
				s := 2*run + half
				r.finish(sum, r.scaleQ6K(scales, d, s), nil, s)
			}
		}
	})
}
