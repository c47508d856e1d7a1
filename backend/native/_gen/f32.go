package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
)

// emitF32 writes every float32 kernel of one level.
func emitF32(g *gen) {
	rows := 14
	if !g.wide() {
		rows = 6
	}
	for v := 1; v <= 2; v++ {
		for r := 1; r <= rows; r++ {
			g.tile(r, v)
		}
	}
	g.strip(1)
	if g.wide() {
		g.strip(2)
		g.strip(3)
	}
	g.peak()
	g.packTransposed()

	g.binary("add", func(a vec, b operand.Op) vec { return g.add(b, a) })
	g.binary("mul", func(a vec, b operand.Op) vec { return g.mul(b, a) })
	g.axpy()
	g.scale()
	for _, a := range g.activations() {
		g.act(a)
	}
	g.reduce("sum", "func(x *float32, n int) float32", func(acc []vec, at func(gp) mem, tail bool, p []gp) {
		g.VADDPS(g.load(at(p[0]), tail), acc[0], acc[0])
	}, "x")
	g.reduce("dot", "func(x, y *float32, n int) float32", func(acc []vec, at func(gp) mem, tail bool, p []gp) {
		g.madd(acc[0], g.load(at(p[0]), tail), g.load(at(p[1]), tail))
	}, "x", "y")
	g.centredSquares()
	g.squares64()
	g.maxOf()
	g.expSum()
	g.mulSub()
	g.normRow()
	g.normBackSums()
	g.normBackDX()
	g.normBackParams()
	g.adamW()
	g.epilogue()
	g.softRows()
	g.scaleRows()
	g.layerNorm()
	g.dots()
	g.copyStrided()
	for r := 1; r <= rows; r++ {
		g.tileInt8(r, false)
	}
	if g.wide() {
		g.allBlocks(5, false)
	} else {
		g.allBlocks(2, false)
		emitExpand(g)
	}
	g.quantizeBlocks()
	g.minMax()
	g.quantize(false)
	if g.wide() {
		g.dropRow()
	}
}

// emitVNNI writes what the level avx512vnni has beyond avx512.
func emitVNNI(g *gen) {
	for r := 1; r <= 14; r++ {
		g.tileInt8(r, true)
	}
	g.quantize(true)
	g.sumInt8()
	g.scaleInt8()
	g.allBlocks(6, true)
	g.emitRowBlocks()
	g.emitPanels()
}

func (g *gen) allBlocks(rows int, vnni bool) {
	for _, size := range []int{16, 32} {
		for r := 1; r <= rows; r++ {
			g.tileBlocks(r, size, false, vnni)
			g.tileBlocks(r, size, true, vnni)
		}
	}
}

func (g *gen) binary(name string, op func(a vec, b operand.Op) vec) {
	g.fn(name, "func(dst, a, b *float32, n int)")
	g.Doc(name + g.sfx + " applies the operation element by element.")
	dst, a, b, n := g.arg("dst"), g.arg("a"), g.arg("b"), g.arg("n")
	g.each(n, func(at func(gp) mem, tail bool) {
		g.store(op(g.load(at(a), tail), g.load(at(b), tail)), at(dst), tail)
	})
	g.ret()
}

func (g *gen) axpy() {
	g.fn("axpy", "func(dst, x *float32, n int, s float32)")
	g.Doc("axpy" + g.sfx + " adds s·x to dst.")
	dst, x, n, s := g.arg("dst"), g.arg("x"), g.arg("n"), g.bcast("s")
	g.each(n, func(at func(gp) mem, tail bool) {
		d := g.load(at(dst), tail)
		g.madd(d, g.load(at(x), tail), s)
		g.store(d, at(dst), tail)
	})
	g.ret()
}

func (g *gen) scale() {
	g.fn("scale", "func(dst *float32, n int, s float32)")
	g.Doc("scale" + g.sfx + " multiplies dst by s.")
	dst, n, s := g.arg("dst"), g.arg("n"), g.bcast("s")
	g.each(n, func(at func(gp) mem, tail bool) {
		g.store(g.mul(s, g.load(at(dst), tail)), at(dst), tail)
	})
	g.ret()
}

// reduce writes a kernel that returns the sum of one accumulator's lanes.
func (g *gen) reduce(name, signature string, body func(acc []vec, at func(gp) mem, tail bool, p []gp), params ...string) {
	g.fn(name, signature)
	g.Doc(name + g.sfx + " reduces n elements in lanes, whose sums are then added pairwise.")
	var p []gp
	for _, s := range params {
		p = append(p, g.arg(s))
	}
	acc := []vec{g.zero()}
	g.each(g.arg("n"), func(at func(gp) mem, tail bool) { body(acc, at, tail, p) })
	g.Store(g.hsum(acc[0]), g.ReturnIndex(0))
	g.ret()
}

func (g *gen) centredSquares() {
	g.fn("centredSquares", "func(x *float32, n int, mean float32) float32")
	g.Doc("centredSquares" + g.sfx + " returns Σ (x-mean)².")
	x, n, mean, acc := g.arg("x"), g.arg("n"), g.bcast("mean"), g.zero()
	g.each(n, func(at func(gp) mem, tail bool) {
		d := g.sub(g.load(at(x), tail), mean)
		g.keep(d, tail)
		g.madd(acc, d, d)
	})
	g.Store(g.hsum(acc), g.ReturnIndex(0))
	g.ret()
}

// squares64 sums squares in float64, half a vector at a time.
func (g *gen) squares64() {
	g.fn("squares64", "func(x *float32, n int) float64")
	g.Doc("squares64" + g.sfx + " returns Σ x² accumulated in float64.")
	x, n := g.arg("x"), g.arg("n")
	lo, hi := g.zero(), g.zero()
	g.each(n, func(at func(gp) mem, tail bool) {
		v := g.load(at(x), tail)
		a, b := g.v(), g.v()
		if g.wide() {
			h := g.YMM()
			g.VEXTRACTF64X4(operand.Imm(1), v, h)
			g.VCVTPS2PD(v.AsY(), a)
			g.VCVTPS2PD(h, b)
		} else {
			h := g.XMM()
			g.VEXTRACTF128(operand.Imm(1), v, h)
			g.VCVTPS2PD(v.AsX(), a)
			g.VCVTPS2PD(h, b)
		}
		g.VFMADD231PD(a, a, lo)
		g.VFMADD231PD(b, b, hi)
	})
	g.VADDPD(hi, lo, lo)
	y := g.YMM()
	if g.wide() {
		g.VEXTRACTF64X4(operand.Imm(1), lo, y)
		g.VADDPD(y, lo.AsY(), y)
	} else {
		g.VMOVAPS(lo, y)
	}
	h, t := g.XMM(), g.XMM()
	g.VEXTRACTF128(operand.Imm(1), y, h)
	g.VADDPD(h, y.AsX(), h)
	g.VMOVHLPS(h, h, t)
	g.VADDPD(t, h, h)
	g.Store(h, g.ReturnIndex(0))
	g.ret()
}

func (g *gen) maxOf() {
	g.fn("maxOf", "func(x *float32, n int) float32")
	g.Doc("maxOf" + g.sfx + " returns the largest element, -Inf for none.")
	x, n := g.arg("x"), g.arg("n")
	acc := g.v()
	g.VMOVUPS(g.bits(0xff800000), acc)
	g.each(n, func(at func(gp) mem, tail bool) {
		switch {
		case !tail:
			g.VMAXPS(at(x), acc, acc)
		case g.wide():
			v := g.copy(acc)
			g.VMOVUPS(at(x), g.mask, v)
			g.VMAXPS(v, acc, acc)
		default:
			v := g.load(at(x), true)
			g.VBLENDVPS(g.mask, v, acc, v)
			g.VMAXPS(v, acc, acc)
		}
	})
	g.Store(g.hmax(acc), g.ReturnIndex(0))
	g.ret()
}

func (g *gen) expSum() {
	g.fn("expSum", "func(dst, src *float32, n int, top float32) float32")
	g.Doc("expSum" + g.sfx + " writes exp(src-top) and returns its sum.")
	dst, src, n, top := g.arg("dst"), g.arg("src"), g.arg("n"), g.bcast("top")
	g.Store(g.expInto(dst, src, n, top), g.ReturnIndex(0))
	g.ret()
}

// expInto writes exp(src-top) and returns its sum in the low lane.
func (g *gen) expInto(dst, src, n gp, top vec) vec {
	acc := [2]vec{g.zero(), g.zero()}
	g.eachBy(n, 2, func(at func(gp) mem, tail bool, i int) {
		e := g.exp(g.sub(g.load(at(src), tail), top))
		g.store(e, at(dst), tail)
		g.keep(e, tail)
		g.VADDPS(e, acc[i], acc[i])
	})
	g.VADDPS(acc[1], acc[0], acc[0])
	return g.hsum(acc[0])
}

func (g *gen) mulSub() {
	g.fn("mulSub", "func(p, d *float32, n int, delta float32)")
	g.Doc("mulSub" + g.sfx + " writes p·(d-delta) to p.")
	p, d, n, delta := g.arg("p"), g.arg("d"), g.arg("n"), g.bcast("delta")
	g.each(n, func(at func(gp) mem, tail bool) {
		g.store(g.mul(g.sub(g.load(at(d), tail), delta), g.load(at(p), tail)), at(p), tail)
	})
	g.ret()
}

func (g *gen) normRow() {
	g.fn("normRow", "func(dst, x, gain, bias *float32, n int, mean, rstd float32)")
	g.Doc("normRow" + g.sfx + " writes (x-mean)·rstd·gain + bias.")
	dst, x, gain, bias, n := g.arg("dst"), g.arg("x"), g.arg("gain"), g.arg("bias"), g.arg("n")
	mean, rstd := g.bcast("mean"), g.bcast("rstd")
	g.each(n, func(at func(gp) mem, tail bool) {
		v := g.mul(rstd, g.sub(g.load(at(x), tail), mean))
		b := g.load(at(bias), tail)
		g.madd(b, g.load(at(gain), tail), v)
		g.store(b, at(dst), tail)
	})
	g.ret()
}

func (g *gen) normBackSums() {
	g.fn("normBackSums", "func(dy, x, gain *float32, n int, mean, rstd float32) (sum, dot float32)")
	g.Doc("normBackSums" + g.sfx + " returns Σ dy·gain and Σ dy·gain·(x-mean)·rstd.")
	dy, x, gain, n := g.arg("dy"), g.arg("x"), g.arg("gain"), g.arg("n")
	mean, rstd, sum, dot := g.bcast("mean"), g.bcast("rstd"), g.zero(), g.zero()
	g.each(n, func(at func(gp) mem, tail bool) {
		d := g.mul(g.load(at(dy), tail), g.load(at(gain), tail))
		h := g.mul(rstd, g.sub(g.load(at(x), tail), mean))
		g.VADDPS(d, sum, sum)
		g.madd(dot, d, h)
	})
	g.Store(g.hsum(sum), g.Return("sum"))
	g.Store(g.hsum(dot), g.Return("dot"))
	g.ret()
}

func (g *gen) normBackDX() {
	g.fn("normBackDX", "func(dx, dy, x, gain *float32, n int, mean, rstd, mg, mgx float32)")
	g.Doc("normBackDX" + g.sfx + " adds rstd·(dy·gain - mg - (x-mean)·rstd·mgx) to dx.")
	dx, dy, x, gain, n := g.arg("dx"), g.arg("dy"), g.arg("x"), g.arg("gain"), g.arg("n")
	mean, rstd, mg, mgx := g.bcast("mean"), g.bcast("rstd"), g.bcast("mg"), g.bcast("mgx")
	g.each(n, func(at func(gp) mem, tail bool) {
		d := g.sub(g.mul(g.load(at(dy), tail), g.load(at(gain), tail)), mg)
		h := g.mul(rstd, g.sub(g.load(at(x), tail), mean))
		g.VFNMADD231PS(h, mgx, d)
		out := g.load(at(dx), tail)
		g.madd(out, d, rstd)
		g.store(out, at(dx), tail)
	})
	g.ret()
}

func (g *gen) normBackParams() {
	g.fn("normBackParams", "func(dgain, dy, x *float32, n int, mean, rstd float32)")
	g.Doc("normBackParams" + g.sfx + " adds dy·(x-mean)·rstd to dgain.")
	dgain, dy, x, n := g.arg("dgain"), g.arg("dy"), g.arg("x"), g.arg("n")
	mean, rstd := g.bcast("mean"), g.bcast("rstd")
	g.each(n, func(at func(gp) mem, tail bool) {
		h := g.mul(rstd, g.sub(g.load(at(x), tail), mean))
		out := g.load(at(dgain), tail)
		g.madd(out, h, g.load(at(dy), tail))
		g.store(out, at(dgain), tail)
	})
	g.ret()
}

// adamW takes its scalars from a table: gradient scale, β1, 1-β1, β2, 1-β2, lr·wd, lr/(1-β1^t), 1/(1-β2^t), ε.
func (g *gen) adamW() {
	g.fn("adamW", "func(p, grad, m, v *float32, n int, s *float32)")
	g.Doc("adamW" + g.sfx + " is one step of AdamW; s holds gradient scale, β1, 1-β1, β2, 1-β2, lr·wd, lr/(1-β1^t), 1/(1-β2^t), ε.")
	p, gr, m, v, n, s := g.arg("p"), g.arg("grad"), g.arg("m"), g.arg("v"), g.arg("n"), g.arg("s")
	var k [9]vec
	for i := range k {
		k[i] = g.v()
		g.VBROADCASTSS(mem{Base: s, Disp: 4 * i}, k[i])
	}
	g.each(n, func(at func(gp) mem, tail bool) {
		x := g.mul(k[0], g.load(at(gr), tail))
		mm := g.mul(k[1], g.load(at(m), tail))
		g.madd(mm, x, k[2])
		g.store(mm, at(m), tail)
		g.VMULPS(x, x, x)
		vv := g.mul(k[3], g.load(at(v), tail))
		g.madd(vv, x, k[4])
		g.store(vv, at(v), tail)
		g.VMULPS(k[7], vv, vv)
		g.VSQRTPS(vv, vv)
		g.VADDPS(k[8], vv, vv)
		g.VMULPS(k[6], mm, mm)
		g.VDIVPS(vv, mm, mm)
		w := g.load(at(p), tail)
		g.VFNMADD231PS(k[5], w, w)
		g.VSUBPS(mm, w, w)
		g.store(w, at(p), tail)
	})
	g.ret()
}

func (g *gen) epilogue() {
	g.fn("addBiasResidual", "func(dst, src, bias, residual *float32, n int)")
	g.Doc("addBiasResidual" + g.sfx + " writes src + bias + residual.")
	dst, src, bias, res, n := g.arg("dst"), g.arg("src"), g.arg("bias"), g.arg("residual"), g.arg("n")
	g.each(n, func(at func(gp) mem, tail bool) {
		g.store(g.add(g.load(at(res), tail), g.add(g.load(at(bias), tail), g.load(at(src), tail))), at(dst), tail)
	})
	g.ret()
}

// dots writes n dot products of one vector with rows, four rows at a time.
func (g *gen) dots() {
	g.fn("dots", "func(dst, q, k *float32, stride, d, n int, s float32)")
	g.Doc("dots" + g.sfx + " writes s·(q·k_j) for n rows k_j of d values that lie stride bytes apart.")
	dst, q, k, stride, d, n := g.arg("dst"), g.arg("q"), g.arg("k"), g.arg("stride"), g.arg("d"), g.arg("n")
	s := g.XMM()
	g.Load(g.Param("s"), s)
	rows := func(count int) {
		acc := make([]vec, count)
		p := make([]gp, count)
		for i := range acc {
			acc[i] = g.zero()
			p[i] = g.GP64()
			if i == 0 {
				g.MOVQ(k, p[i])
			} else {
				g.LEAQ(mem{Base: p[i-1], Index: stride, Scale: 1}, p[i])
			}
		}
		g.each(d, func(at func(gp) mem, tail bool) {
			x := g.load(at(q), tail)
			for i := range acc {
				g.madd(acc[i], g.load(at(p[i]), tail), x)
			}
		})
		for i := range acc {
			x := g.hsum(acc[i])
			g.VMULSS(s, x, x)
			g.VMOVSS(x, mem{Base: dst, Disp: 4 * i})
		}
		g.ADDQ(operand.Imm(uint64(4*count)), dst)
		g.LEAQ(mem{Base: p[count-1], Index: stride, Scale: 1}, k)
	}
	four, one, done := g.label("four"), g.label("one"), g.label("done")
	g.Label(four)
	g.CMPQ(n, operand.Imm(4))
	g.JL(operand.LabelRef(one))
	rows(4)
	g.SUBQ(operand.Imm(4), n)
	g.JMP(operand.LabelRef(four))
	g.Label(one)
	g.TESTQ(n, n)
	g.JZ(operand.LabelRef(done))
	rows(1)
	g.DECQ(n)
	g.JMP(operand.LabelRef(one))
	g.Label(done)
	g.ret()
}

// packTransposed copies 8 rows of 8·blocks columns to 8·blocks rows of 8 columns, an 8x8 transposition in registers at a time.
func (g *gen) packTransposed() {
	g.fn("transpose8", "func(dst *float32, ds int, src *float32, ss int, blocks int)")
	g.Doc("transpose8" + g.sfx + " copies 8 rows (ss bytes apart) of 8·blocks values to 8·blocks rows (ds bytes apart) of 8 values.")
	dst, ds, src, ss, blocks := g.arg("dst"), g.arg("ds"), g.arg("src"), g.arg("ss"), g.arg("blocks")
	ss3, ds3 := g.GP64(), g.GP64()
	g.LEAQ(mem{Base: ss, Index: ss, Scale: 2}, ss3)
	g.LEAQ(mem{Base: ds, Index: ds, Scale: 2}, ds3)
	four := func(p, s, s3 gp) func(i int) mem {
		q := g.GP64()
		g.LEAQ(mem{Base: p, Index: s, Scale: 4}, q)
		return func(i int) mem {
			m := mem{Base: p}
			if i >= 4 {
				m.Base = q
			}
			switch i % 4 {
			case 1, 2:
				m.Index, m.Scale = s, uint8(i%4)
			case 3:
				m.Index, m.Scale = s3, 1
			}
			return m
		}
	}
	loop, done := g.label("loop"), g.label("done")
	g.Label(loop)
	g.TESTQ(blocks, blocks)
	g.JZ(operand.LabelRef(done))
	at := four(src, ss, ss3)
	r := make([]vec, 8)
	for i := range r {
		r[i] = g.YMM()
		g.VMOVUPS(at(i), r[i])
	}
	t := make([]vec, 8)
	for i := range 4 {
		t[2*i], t[2*i+1] = g.YMM(), g.YMM()
		g.VUNPCKLPS(r[2*i+1], r[2*i], t[2*i])
		g.VUNPCKHPS(r[2*i+1], r[2*i], t[2*i+1])
	}
	s := make([]vec, 8)
	for i := range 2 { // rows 4i … 4i+3
		for j := range 2 {
			s[4*i+2*j], s[4*i+2*j+1] = g.YMM(), g.YMM()
			g.VSHUFPS(operand.Imm(0x44), t[4*i+2+j], t[4*i+j], s[4*i+2*j])
			g.VSHUFPS(operand.Imm(0xee), t[4*i+2+j], t[4*i+j], s[4*i+2*j+1])
		}
	}
	out := four(dst, ds, ds3)
	for i := range 4 {
		lo, hi := g.YMM(), g.YMM()
		g.VPERM2F128(operand.Imm(0x20), s[4+i], s[i], lo)
		g.VPERM2F128(operand.Imm(0x31), s[4+i], s[i], hi)
		g.VMOVUPS(lo, out(i))
		g.VMOVUPS(hi, out(i+4))
	}
	g.ADDQ(operand.Imm(32), src)
	g.LEAQ(mem{Base: dst, Index: ds, Scale: 8}, dst)
	g.DECQ(blocks)
	g.JMP(operand.LabelRef(loop))
	g.Label(done)
	g.ret()
}

// copyStrided moves the short rows that panels are made of; a call of copy for each would cost more than the copy.
func (g *gen) copyStrided() {
	g.fn("copyStrided", "func(dst *float32, ds int, src *float32, ss int, n, count int)")
	g.Doc("copyStrided" + g.sfx + " copies count rows of n values, n at most a vector, between row strides ds and ss in bytes.")
	dst, ds, src, ss, n, count := g.arg("dst"), g.arg("ds"), g.arg("src"), g.arg("ss"), g.arg("n"), g.arg("count")
	g.mask = g.setMask(n)
	g.countdown(count, 4, func() {
		g.store(g.load(mem{Base: src}, true), mem{Base: dst}, true)
		g.ADDQ(ss, src)
		g.ADDQ(ds, dst)
	})
	g.ret()
}

// dropRow multiplies w[j] by keep or 0 as backend.DropoutKeep decides for the counters z, z+golden, …; AVX-512 only.
func (g *gen) dropRow() {
	g.fn("dropRow", "func(dst, x *float32, n int, z uint64, threshold uint32, keep float32)")
	g.Doc("dropRow" + g.sfx + " writes x·keep where the hash of the element's counter reaches threshold, 0 elsewhere. Counters start at z and step by the golden ratio.")
	const golden = 0x9e3779b97f4a7c15
	dst, x, n, keep := g.arg("dst"), g.arg("x"), g.arg("n"), g.bcast("keep")
	limit := g.ZMM()
	t := g.GP32()
	g.Load(g.Param("threshold"), t)
	g.VPBROADCASTD(t, limit)
	lanes := g.StaticGlobal("dropLanes" + g.sfx)
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range uint64(8) {
		g.AddDatum(int(8*i), operand.U64(i*golden))
	}
	wide := func(v uint64) vec {
		r, d := g.GP64(), g.ZMM()
		g.MOVQ(operand.U64(v), r)
		g.VPBROADCASTQ(r, d)
		return d
	}
	step, m1, m2 := wide((golden&(1<<61-1))*8), wide(0xbf58476d1ce4e5b9), wide(0x94d049bb133111eb)
	z := g.ZMM()
	g.VPBROADCASTQ(g.arg("z"), z)
	g.VPADDQ(lanes, z, z)
	hash := func() vec {
		h, s := g.ZMM(), g.ZMM()
		g.VPSRLQ(operand.Imm(30), z, s)
		g.VPXORQ(s, z, h)
		g.VPMULLQ(m1, h, h)
		g.VPSRLQ(operand.Imm(27), h, s)
		g.VPXORQ(s, h, h)
		g.VPMULLQ(m2, h, h)
		g.VPSRLQ(operand.Imm(31), h, s)
		g.VPXORQ(s, h, h)
		g.VPSRLQ(operand.Imm(40), h, h)
		g.VPADDQ(step, z, z)
		y := g.YMM()
		g.VPMOVQD(h, y)
		return y
	}
	g.each(n, func(at func(gp) mem, tail bool) {
		lo, hi := hash(), hash()
		h, k := g.ZMM(), g.K()
		g.VINSERTI64X4(operand.Imm(1), hi, lo.AsZ(), h)
		g.VPCMPUD(operand.Imm(5), limit, h, k) // h >= limit
		v := g.load(at(x), tail)
		g.VMULPS_Z(keep, v, k, v)
		g.store(v, at(dst), tail)
	})
	g.ret()
}
