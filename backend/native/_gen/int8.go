package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// int8Signature: C [rows, n] = (Σ a·w - zero[r]·wsum[c])·sx[r]·sw[c] + bias[c] + res[r, c]; res, with C's strides, may be nil. A holds groups of values along k, k groups a row, rows rs bytes apart;
// B holds the same groups for each column of a panel of two vectors. wsum and sw have as many values as the panel has columns.
const int8Signature = "func(k int, a *byte, rs int, b *int8, c *float32, cs, n int, zero *int32, sx *float32, wsum *int32, sw, bias, res *float32)"

// tileInt8 writes the integer tile of rows by two vectors. With vnni, groups are 4 unsigned bytes of A times 4 signed bytes of B
// (VPDPBUSD); otherwise 2 words of A times 2 bytes of B that are widened (VPMADDWD), which is exact as well.
func (g *gen) tileInt8(rows int, vnni bool) {
	name := "int8Words"
	if vnni {
		name = "int8VNNI"
	}
	g.fn(fmt.Sprintf("%s%d", name, rows), int8Signature)
	g.Doc(fmt.Sprintf("%s%d%s computes an integer tile of %d rows and two vectors of columns, scales it and stores n columns.", name, rows, g.sfx, rows))
	step := g.GP64()
	g.MOVQ(operand.U32(4), step) // a group of A is 4 bytes in both layouts
	at, advance := g.rowAddressesOf("a", "rs", step, rows)
	k, b := g.arg("k"), g.arg("b")
	acc := make([][]vec, rows)
	for r := range acc {
		acc[r] = []vec{g.zero(), g.zero()}
	}
	g.countdown(k, 2, func() {
		var w [2]vec
		for v := range w {
			w[v] = g.v()
			if vnni {
				g.VMOVDQU32(mem{Base: b, Disp: 4 * g.w * v}, w[v])
			} else {
				g.VPMOVSXBW(mem{Base: b, Disp: 2 * g.w * v}, w[v])
			}
		}
		for r := range acc {
			x := g.v()
			g.VPBROADCASTD(at(r), x)
			for v := range w {
				if vnni {
					g.dpbusd(w[v], x, acc[r][v])
					continue
				}
				if v == 1 { // x is not needed any more
					g.VPMADDWD(w[v], x, x)
					g.VPADDD(x, acc[r][v], acc[r][v])
					continue
				}
				t := g.v()
				g.VPMADDWD(w[v], x, t)
				g.VPADDD(t, acc[r][v], acc[r][v])
			}
		}
		if vnni {
			g.ADDQ(operand.I32(int32(8*g.w)), b)
		} else {
			g.ADDQ(operand.I32(int32(4*g.w)), b)
		}
		advance()
	})
	sx, wsum, sw := g.arg("sx"), g.arg("wsum"), g.arg("sw")
	if vnni {
		zero := g.arg("zero")
		for v := range 2 {
			s := g.v()
			g.VMOVDQU32(mem{Base: wsum, Disp: 4 * g.w * v}, s)
			for r := range acc {
				z := g.v()
				g.VPBROADCASTD(mem{Base: zero, Disp: 4 * r}, z)
				g.VPMULLD(s, z, z)
				g.VPSUBD(z, acc[r][v], acc[r][v])
			}
		}
	}
	for r := range acc {
		x := g.v()
		g.VBROADCASTSS(mem{Base: sx, Disp: 4 * r}, x)
		for v := range acc[r] {
			g.VCVTDQ2PS(acc[r][v], acc[r][v])
			g.VMULPS(x, acc[r][v], acc[r][v])
			g.VMULPS(mem{Base: sw, Disp: 4 * g.w * v}, acc[r][v], acc[r][v])
		}
	}
	bias, res := g.arg("bias"), g.arg("res")
	plain := g.label("plain")
	g.addRows(acc, bias)
	g.TESTQ(res, res)
	g.JZ(operand.LabelRef(plain))
	g.addMatrix(acc, res)
	g.Label(plain)
	g.storeRows(acc)
	g.ret()
}

// scaleInt8 is what tileInt8 does with its sums, for a row of sums.
func (g *gen) scaleInt8() {
	g.fn("scaleInt8", "func(dst *float32, acc *int32, n int, zero int32, sx float32, wsum *int32, sw, bias, res *float32)")
	g.Doc("scaleInt8" + g.sfx + " writes n values of a row, (acc - zero·wsum)·sx·sw + bias + res; res may be nil.")
	dst, acc, n, wsum, sw, bias, res := g.arg("dst"), g.arg("acc"), g.arg("n"), g.arg("wsum"), g.arg("sw"), g.arg("bias"), g.arg("res")
	zr, zero, sx := g.GP32(), g.v(), g.bcast("sx")
	g.Load(g.Param("zero"), zr)
	g.VPBROADCASTD(zr, zero)
	row := func(body func(v vec, at func(gp) mem, tail bool)) {
		g.each(n, func(at func(gp) mem, tail bool) {
			s := g.load(at(wsum), tail)
			g.VPMULLD(zero, s, s)
			v := g.load(at(acc), tail)
			g.VPSUBD(s, v, v)
			g.VCVTDQ2PS(v, v)
			g.VMULPS(sx, v, v)
			g.VMULPS(g.load(at(sw), tail), v, v)
			g.VADDPS(g.load(at(bias), tail), v, v)
			body(v, at, tail)
		})
		g.ret()
	}
	plain := g.label("plain")
	g.TESTQ(res, res)
	g.JZ(operand.LabelRef(plain))
	row(func(v vec, at func(gp) mem, tail bool) {
		g.VADDPS(g.load(at(res), tail), v, v)
		g.store(v, at(dst), tail)
	})
	g.Label(plain)
	row(func(v vec, at func(gp) mem, tail bool) { g.store(v, at(dst), tail) })
}

// columnsOf runs body for each of the two vectors of columns that has any of n columns, with tail set where it has not all.
func (g *gen) columnsOf(body func(v int, tail bool)) {
	n := g.arg("n")
	done := g.label("done")
	for v := range 2 {
		left := g.GP64()
		masked, next := g.label("masked"), g.label("next")
		g.MOVQ(n, left)
		if v == 1 {
			g.SUBQ(operand.Imm(uint64(g.w)), left)
			g.JLE(operand.LabelRef(done))
		}
		g.CMPQ(left, operand.Imm(uint64(g.w)))
		g.JL(operand.LabelRef(masked))
		body(v, false)
		g.JMP(operand.LabelRef(next))
		g.Label(masked)
		g.mask = g.setMask(left)
		body(v, true)
		g.Label(next)
	}
	g.Label(done)
}

// addRows adds n values of row to each row of acc [rows][2].
func (g *gen) addRows(acc [][]vec, row gp) {
	g.columnsOf(func(v int, tail bool) {
		b := g.load(mem{Base: row, Disp: 4 * g.w * v}, tail)
		for r := range acc {
			g.VADDPS(b, acc[r][v], acc[r][v])
		}
	})
}

// addMatrix adds n columns of a matrix with c's stride to acc [rows][2].
func (g *gen) addMatrix(acc [][]vec, m gp) {
	cs := g.arg("cs")
	g.columnsOf(func(v int, tail bool) {
		p := g.GP64()
		g.LEAQ(mem{Base: m, Disp: 4 * g.w * v}, p)
		for r := range acc {
			if tail {
				g.VADDPS(g.load(mem{Base: p}, true), acc[r][v], acc[r][v])
			} else {
				g.VADDPS(mem{Base: p}, acc[r][v], acc[r][v])
			}
			g.ADDQ(cs, p)
		}
	})
}

// storeRows writes acc [rows][2] to c, n columns of it.
func (g *gen) storeRows(acc [][]vec) {
	c, cs, n := g.arg("c"), g.arg("cs"), g.arg("n")
	done := g.label("done")
	for v := range 2 {
		p, left := g.GP64(), g.GP64()
		masked, next := g.label("masked"), g.label("next")
		g.LEAQ(mem{Base: c, Disp: 4 * g.w * v}, p)
		g.MOVQ(n, left)
		if v == 1 {
			g.SUBQ(operand.Imm(uint64(g.w)), left)
			g.JLE(operand.LabelRef(done))
		}
		g.CMPQ(left, operand.Imm(uint64(g.w)))
		g.JL(operand.LabelRef(masked))
		for r := range acc {
			g.store(acc[r][v], mem{Base: p}, false)
			g.ADDQ(cs, p)
		}
		g.JMP(operand.LabelRef(next))
		g.Label(masked)
		g.mask = g.setMask(left)
		for r := range acc {
			g.store(acc[r][v], mem{Base: p}, true)
			g.ADDQ(cs, p)
		}
		g.Label(next)
	}
	g.Label(done)
}

// dpbusd adds Σ of four products (unsigned bytes of x, signed bytes of w) to each lane of acc. avo does not know the instruction.
func (g *gen) dpbusd(w, x, acc reg.Register) { g.raw("VPDPBUSD", w, x, acc) }

func (g *gen) raw(op string, w, x, acc reg.Register) {
	g.Instruction(&ir.Instruction{Opcode: op, Operands: []operand.Op{w, x, acc}, Inputs: []operand.Op{w, x, acc}, Outputs: []operand.Op{acc}})
}

// sumInt8 adds signed bytes up by products with 1.
func (g *gen) sumInt8() {
	g.fn("sumInt8", "func(x *byte, n int) int32")
	g.Doc("sumInt8" + g.sfx + " returns the sum of n signed bytes, n a multiple of 4.")
	x, n := g.arg("x"), g.arg("n")
	g.SHRQ(operand.Imm(2), n)
	ones := g.v()
	g.VMOVUPS(g.bits(0x01010101), ones)
	acc := [4]vec{g.zero(), g.zero(), g.zero(), g.zero()}
	g.eachBy(n, 4, func(at func(gp) mem, tail bool, i int) { g.dpbusd(g.load(at(x), tail), ones, acc[i]) })
	for i := 1; i < len(acc); i++ {
		g.VPADDD(acc[i], acc[0], acc[0])
	}
	s := g.GP32()
	g.VMOVD(g.sumInts(acc[0]), s)
	g.Store(s, g.ReturnIndex(0))
	g.ret()
}

// minMax writes the smallest and largest element, and 0 if it is smaller or larger.
func (g *gen) minMax() {
	g.fn("minMax", "func(x *float32, n int) (lo, hi float32)")
	g.Doc("minMax" + g.sfx + " returns the range of x and 0.")
	x, n := g.arg("x"), g.arg("n")
	var los, his [4]vec
	for i := range los {
		los[i], his[i] = g.zero(), g.zero()
	}
	g.eachBy(n, len(los), func(at func(gp) mem, tail bool, i int) {
		v := g.load(at(x), tail)
		g.VMINPS(v, los[i], los[i])
		g.VMAXPS(v, his[i], his[i])
	})
	for i := 1; i < len(los); i++ {
		g.VMINPS(los[i], los[0], los[0])
		g.VMAXPS(his[i], his[0], his[0])
	}
	lo, hi := los[0], his[0]
	g.Store(g.fold(lo, func(a, b, d operand.Op) { g.VMINPS(a, b, d) }), g.Return("lo"))
	g.Store(g.hmax(hi), g.Return("hi"))
	g.ret()
}

// quantize writes min(max(round(x·inv) + zero, 0), 255), as bytes, or less zero, as words.
func (g *gen) quantize(bytes bool) {
	name, typ := "quantizeWords", "*int16"
	if bytes {
		name, typ = "quantizeBytes", "*byte"
	}
	g.fn(name, "func(dst "+typ+", x *float32, n int, inv float32, zero int32)")
	g.Doc(name + g.sfx + " rounds x·inv to even, adds zero and clamps to 0 … 255; words are stored less zero. n is a multiple of a vector.")
	dst, x, n, inv := g.arg("dst"), g.arg("x"), g.arg("n"), g.bcast("inv")
	zr, zero, top, none := g.GP32(), g.v(), g.v(), g.zero()
	g.Load(g.Param("zero"), zr)
	zx := g.XMM()
	g.VMOVD(zr, zx)
	g.VPBROADCASTD(zx, zero)
	g.VMOVUPS(g.bits(255), top)
	loop, done := g.label("loop"), g.label("done")
	g.Label(loop)
	g.SUBQ(operand.Imm(uint64(g.w)), n)
	g.JL(operand.LabelRef(done))
	v := g.mul(inv, g.load(mem{Base: x}, false))
	g.VCVTPS2DQ(v, v)
	g.VPADDD(zero, v, v)
	g.VPMAXSD(none, v, v)
	g.VPMINSD(top, v, v)
	if !bytes {
		g.VPSUBD(zero, v, v)
	}
	switch {
	case bytes && g.wide():
		o := g.XMM()
		g.VPMOVDB(v, o)
		g.VMOVUPS(o, mem{Base: dst})
		g.ADDQ(operand.Imm(16), dst)
	case g.wide():
		o := g.YMM()
		g.VPMOVDW(v, o)
		g.VMOVUPS(o, mem{Base: dst})
		g.ADDQ(operand.Imm(32), dst)
	default:
		h := g.XMM()
		g.VEXTRACTI128(operand.Imm(1), v, h)
		g.VPACKSSDW(h, v.AsX(), h)
		g.VMOVUPS(h, mem{Base: dst})
		g.ADDQ(operand.Imm(16), dst)
	}
	g.ADDQ(operand.Imm(uint64(4*g.w)), x)
	g.JMP(operand.LabelRef(loop))
	g.Label(done)
	g.ret()
}

// blockSignature: C [rows, n] = Σ over blocks of s·xs·(Σ v·q + corr), or with minima s·xs·(Σ v·q) - m·corr. A holds int8 activations, rows rs
// bytes apart; B holds for each block the unsigned weights in groups of 4 along k for each column of a panel, then the columns' scales, then
// their minima. xs (scales of activations) and corr have a value a block, rows ss bytes apart; corr is int32, with minima float32.
const blockSignature = "func(blocks int, a *int8, rs int, b *byte, c *float32, cs, n int, xs, corr *float32, ss int)"

// tileBlocks writes the kernel for rows by two vectors and blocks of size values.
func (g *gen) tileBlocks(rows, size int, minima, vnni bool) {
	name := fmt.Sprintf("blocks%d", size)
	if vnni {
		name = fmt.Sprintf("blocksVNNI%d", size)
	}
	if minima {
		name += "Min"
	}
	g.fn(fmt.Sprintf("%sx%d", name, rows), blockSignature)
	g.Doc(fmt.Sprintf("%sx%d%s multiplies %d rows of activations with two vectors of columns, block by block, and stores n columns.", name, rows, g.sfx, rows))
	step := g.GP64()
	g.MOVQ(operand.U32(4), step)
	at, advance := g.rowAddressesOf("a", "rs", step, rows)
	b, blocks, xs, corr, ss := g.arg("b"), g.arg("blocks"), g.arg("xs"), g.arg("corr"), g.arg("ss")
	acc := make([][]vec, rows)
	for r := range acc {
		acc[r] = []vec{g.zero(), g.zero()}
	}
	side := func(p gp, row int) mem { // value of this block for a row: at most 6 rows, so p and p+3·ss
		return mem{Base: p, Index: ss, Scale: uint8(row)}
	}
	xs3, corr3, ss3 := g.GP64(), g.GP64(), g.GP64()
	if rows > 3 {
		g.LEAQ(mem{Base: ss, Index: ss, Scale: 2}, ss3)
		g.LEAQ(mem{Base: xs, Index: ss3, Scale: 1}, xs3)
		g.LEAQ(mem{Base: corr, Index: ss3, Scale: 1}, corr3)
	}
	pick := func(p, p3 gp, r int) mem {
		if r >= 3 {
			p, r = p3, r-3
		}
		if r == 0 {
			return mem{Base: p}
		}
		return side(p, r)
	}
	var none vec
	if minima {
		none = g.zero()
	}
	g.countdown(blocks, 1, func() {
		sum := make([][2]vec, rows)
		for r := range sum {
			if !minima {
				k := g.v()
				g.VPBROADCASTD(pick(corr, corr3, r), k)
				sum[r] = [2]vec{k, g.copy(k)}
				continue
			}
			// A register cleared by itself would count as read, and stay occupied around the loop.
			sum[r] = [2]vec{g.copy(none), g.copy(none)}
		}
		for group := range size / 4 {
			w := [2]vec{g.v(), g.v()}
			for v := range w {
				g.VMOVUPS(mem{Base: b, Disp: group*8*g.w + 4*g.w*v}, w[v])
			}
			if vnni {
				for r := range sum {
					x := g.v()
					g.VPBROADCASTD(at(r), x)
					g.dpbusd(x, w[0], sum[r][0])
					g.dpbusd(x, w[1], sum[r][1])
				}
			} else {
				g.dotWords(w, sum, at)
			}
			advance()
		}
		scales := size / 4 * 8 * g.w
		for r := range sum {
			x, k := g.v(), g.v()
			g.VBROADCASTSS(pick(xs, xs3, r), x)
			if minima {
				g.VBROADCASTSS(pick(corr, corr3, r), k)
			}
			for v := range sum[r] {
				g.VCVTDQ2PS(sum[r][v], sum[r][v])
				g.VMULPS(x, sum[r][v], sum[r][v])
				g.VFMADD231PS(mem{Base: b, Disp: scales + 4*g.w*v}, sum[r][v], acc[r][v])
				if minima {
					g.VFNMADD231PS(mem{Base: b, Disp: scales + 8*g.w + 4*g.w*v}, k, acc[r][v])
				}
			}
		}
		bytes := scales + 8*g.w
		if minima {
			bytes += 8 * g.w
		}
		g.ADDQ(operand.I32(int32(bytes)), b)
		for _, p := range []gp{xs, corr, xs3, corr3} {
			if (p == xs3 || p == corr3) && rows <= 3 {
				continue
			}
			g.ADDQ(operand.Imm(4), p)
		}
	})
	g.storeRows(acc)
	g.ret()
}

// dotWords does what dpbusd does, with bytes widened to words: VPMADDUBSW would saturate.
func (g *gen) dotWords(w [2]vec, sum [][2]vec, at func(row int) mem) {
	var odd [2]vec
	for v := range w {
		odd[v] = g.v()
		g.VPSRLW(operand.Imm(8), w[v], odd[v])
		g.VPSLLW(operand.Imm(8), w[v], w[v])
		g.VPSRLW(operand.Imm(8), w[v], w[v])
	}
	for r := range sum {
		x, t := g.v(), g.v()
		g.VPBROADCASTD(at(r), x)
		for v := range w {
			g.VPSRAW(operand.Imm(8), x, t)
			g.VPMADDWD(odd[v], t, t)
			g.VPADDD(t, sum[r][v], sum[r][v])
			g.VPSLLW(operand.Imm(8), x, t)
			g.VPSRAW(operand.Imm(8), t, t)
			g.VPMADDWD(w[v], t, t)
			g.VPADDD(t, sum[r][v], sum[r][v])
		}
	}
}

// quantizeBlocks quantizes blocks of 32 activations, see backend.QuantizeBlock, and writes the sums of the bytes of both halves.
func (g *gen) quantizeBlocks() {
	g.fn("quantizeBlocks", "func(dst *int8, x *float32, blocks int, scale *float32, sums *int32)")
	g.Doc("quantizeBlocks" + g.sfx + " quantizes blocks of 32 values to int8, with a scale and the sums of both halves for each.")
	dst, x, blocks, scale, sums := g.arg("dst"), g.arg("x"), g.arg("blocks"), g.arg("scale"), g.arg("sums")
	k127 := g.XMM()
	g.VMOVSS(g.c(127), k127)
	none := g.zero()
	n := 32 / g.w
	g.countdown(blocks, 1, func() {
		var all vec
		for i := range n {
			a := g.abs(g.load(mem{Base: x, Disp: 4 * g.w * i}, false))
			if i > 0 {
				a = g.max(a, all)
			}
			all = a
		}
		top := g.hmax(all)
		s := g.XMM()
		g.VDIVSS(k127, top, s)
		g.VMOVSS(s, mem{Base: scale})
		g.VDIVSS(top, k127, s)
		inv, tops := g.v(), g.v()
		g.VBROADCASTSS(s, inv)
		g.VBROADCASTSS(top, tops)
		inv = g.where(none, tops, inv, none) // not Inf for a block of zeros
		for half := range 2 {
			var sum vec
			for i := half * n / 2; i < (half+1)*n/2; i++ {
				v := g.mul(inv, g.load(mem{Base: x, Disp: 4 * g.w * i}, false))
				g.VCVTPS2DQ(v, v)
				o := g.XMM()
				if g.wide() {
					g.VPMOVSDB(v, o)
					g.VMOVUPS(o, mem{Base: dst, Disp: 16 * i})
				} else {
					g.VEXTRACTF128(operand.Imm(1), v, o)
					g.VPACKSSDW(o, v.AsX(), o)
					g.VPACKSSWB(o, o, o)
					g.VMOVQ(o, mem{Base: dst, Disp: 8 * i})
				}
				if i == half*n/2 {
					sum = v
				} else {
					g.VPADDD(v, sum, sum)
				}
			}
			g.VMOVD(g.sumInts(sum), mem{Base: sums, Disp: 4 * half})
		}
		g.ADDQ(operand.I32(128), x)
		g.ADDQ(operand.Imm(32), dst)
		g.ADDQ(operand.Imm(4), scale)
		g.ADDQ(operand.Imm(8), sums)
	})
	g.ret()
}

func (g *gen) sumInts(v vec) vec { return g.fold(v, func(a, b, d operand.Op) { g.VPADDD(a, b, d) }) }
