package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
)

// tileSignature: C [rows, n] = alpha·A·B, or += with acc != 0. A is read at a + row·rs + k·ks, B at b + k·bs (two vectors of columns), all
// strides in bytes. Each element of C is one chain of fused multiply-adds over k, ascending. Meanwhile what will be wanted next is
// fetched into the second-level cache, from next on, pace bytes (at most a line of 64) for every k.
const tileSignature = "func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, cs, n int, alpha float32, acc int, next *float32, pace int)"

// rowAddresses gives the addresses of rows of A relative to pointers that advance with k: five rows a pointer.
func (g *gen) rowAddresses(rows int) (at func(row int) mem, advance func()) {
	return g.rowAddressesOf("a", "rs", g.arg("ks"), rows)
}

func (g *gen) rowAddressesOf(a, stride string, ks gp, rows int) (at func(row int) mem, advance func()) {
	base, rs := g.arg(a), g.arg(stride)
	ptrs := []gp{base}
	rs3 := g.GP64()
	if rows > 3 {
		g.LEAQ(mem{Base: rs, Index: rs, Scale: 2}, rs3)
	}
	for len(ptrs)*5 < rows {
		p := g.GP64()
		g.LEAQ(mem{Base: ptrs[len(ptrs)-1], Index: rs, Scale: 4}, p)
		g.ADDQ(rs, p)
		ptrs = append(ptrs, p)
	}
	at = func(row int) mem {
		m := mem{Base: ptrs[row/5]}
		switch row % 5 {
		case 1, 2, 4:
			m.Index, m.Scale = rs, uint8(row%5)
		case 3:
			m.Index, m.Scale = rs3, 1
		}
		return m
	}
	return at, func() {
		for _, p := range ptrs {
			g.ADDQ(ks, p)
		}
	}
}

// tile writes the kernel for rows by vecs vectors.
func (g *gen) tile(rows, vecs int) { g.tileOf("gemm", rows, vecs) }

// tileOf writes a float32 tile ("gemm"), or one whose elements of A and B are pairs of bfloat16 along k ("bf16x").
func (g *gen) tileOf(name string, rows, vecs int) {
	g.fn(fmt.Sprintf("%s%dx%d", name, rows, vecs), tileSignature)
	g.Doc(fmt.Sprintf("%s%dx%d%s computes a tile of %d rows and %d vectors of columns, of which n columns are stored.", name, rows, vecs, g.sfx, rows, vecs))
	at, advance := g.rowAddresses(rows)
	k, b, bs := g.arg("k"), g.arg("b"), g.arg("bs")
	acc := make([][]vec, rows)
	for r := range acc {
		for range vecs {
			acc[r] = append(acc[r], g.zero())
		}
	}
	next, pace := g.arg("next"), g.arg("pace")
	step := func() {
		g.PREFETCHT1(mem{Base: next})
		g.ADDQ(pace, next)
		row := make([]vec, vecs)
		for v := range row {
			row[v] = g.load(mem{Base: b, Disp: 4 * g.w * v}, false)
		}
		for r := range acc {
			if name == "bf16x" {
				x := g.v()
				g.VBROADCASTSS(at(r), x)
				for v := range row {
					g.raw("VDPBF16PS", row[v], x, acc[r][v])
				}
				continue
			}
			if g.wide() && vecs == 1 {
				g.VFMADD231PS_BCST(at(r), row[0], acc[r][0])
				continue
			}
			x := g.v()
			g.VBROADCASTSS(at(r), x)
			for v := range row {
				g.VFMADD231PS(x, row[v], acc[r][v])
			}
		}
		g.ADDQ(bs, b)
		advance()
	}
	g.countdown(k, 4, step)
	g.storeTile(acc)
	g.ret()
}

// countdown runs step k times, unrolled.
func (g *gen) countdown(k gp, unroll int, step func()) {
	loop, rest, one, done := g.label("loop"), g.label("rest"), g.label("one"), g.label("done")
	g.SUBQ(operand.Imm(uint64(unroll)), k)
	g.JL(operand.LabelRef(rest))
	g.Label(loop)
	for range unroll {
		step()
	}
	g.SUBQ(operand.Imm(uint64(unroll)), k)
	g.JGE(operand.LabelRef(loop))
	g.Label(rest)
	g.ADDQ(operand.Imm(uint64(unroll)), k)
	g.JZ(operand.LabelRef(done))
	g.Label(one)
	step()
	g.DECQ(k)
	g.JNZ(operand.LabelRef(one))
	g.Label(done)
}

// storeTile scales acc [rows][vecs] and writes it to c, masked when n is short of the tile.
func (g *gen) storeTile(acc [][]vec) {
	c, cs, n, add := g.arg("c"), g.arg("cs"), g.arg("n"), g.arg("acc")
	vecs := len(acc[0])
	alpha := g.bcast("alpha")
	for r := range acc {
		for v := range acc[r] {
			g.VMULPS(alpha, acc[r][v], acc[r][v])
		}
	}
	masked, done := g.label("masked"), g.label("stored")
	g.CMPQ(n, operand.Imm(uint64(vecs*g.w)))
	g.JL(operand.LabelRef(masked))
	write := func(v0, v1 int, tail bool, end string) {
		plain := g.label("plain")
		p := g.GP64()
		g.MOVQ(c, p)
		g.TESTQ(add, add)
		g.JZ(operand.LabelRef(plain))
		for r := range acc {
			for v := v0; v < v1; v++ {
				m := mem{Base: p, Disp: 4 * g.w * v}
				if tail {
					g.VADDPS(g.load(m, true), acc[r][v], acc[r][v])
				} else {
					g.VADDPS(m, acc[r][v], acc[r][v])
				}
				g.store(acc[r][v], m, tail)
			}
			if r+1 < len(acc) {
				g.ADDQ(cs, p)
			}
		}
		g.JMP(operand.LabelRef(end))
		g.Label(plain)
		for r := range acc {
			for v := v0; v < v1; v++ {
				g.store(acc[r][v], mem{Base: p, Disp: 4 * g.w * v}, tail)
			}
			if r+1 < len(acc) {
				g.ADDQ(cs, p)
			}
		}
		g.JMP(operand.LabelRef(end))
	}
	write(0, vecs, false, done)
	g.Label(masked)
	for v := range vecs { // a whole vector where there is one, then its masked neighbour
		next := g.label("next")
		left := g.GP64()
		g.MOVQ(n, left)
		if v > 0 {
			g.SUBQ(operand.Imm(uint64(v*g.w)), left)
			g.JLE(operand.LabelRef(done))
		}
		if v+1 < vecs {
			short := g.label("short")
			g.CMPQ(left, operand.Imm(uint64(g.w)))
			g.JL(operand.LabelRef(short))
			write(v, v+1, false, next)
			g.Label(short)
		}
		g.mask = g.setMask(left)
		write(v, v+1, true, done)
		g.Label(next)
	}
	g.Label(done)
}

// strip writes the kernel for few rows over four panels at once, which has enough independent chains to hide the latency of an FMA.
func (g *gen) strip(rows int) {
	g.fn(fmt.Sprintf("gemmStrip%d", rows), "func(k int, a *float32, rs, ks int, b *float32, bs, panel int, c *float32, cs int, alpha float32, acc int)")
	g.Doc(fmt.Sprintf("gemmStrip%d%s is the tile kernel for %d rows over four whole panels that lie panel bytes apart.", rows, g.sfx, rows))
	at, advance := g.rowAddresses(rows)
	k, b, bs, panel := g.arg("k"), g.arg("b"), g.arg("bs"), g.arg("panel")
	panel3 := g.GP64()
	g.LEAQ(mem{Base: panel, Index: panel, Scale: 2}, panel3)
	acc := make([][]vec, rows)
	for r := range acc {
		for range 8 {
			acc[r] = append(acc[r], g.zero())
		}
	}
	g.countdown(k, 2, func() {
		x := make([]vec, rows)
		for r := range x {
			x[r] = g.v()
			g.VBROADCASTSS(at(r), x[r])
		}
		for v := range 8 {
			m := mem{Base: b, Disp: v % 2 * 4 * g.w}
			switch v / 2 {
			case 1, 2:
				m.Index, m.Scale = panel, uint8(v/2)
			case 3:
				m.Index, m.Scale = panel3, 1
			}
			if rows == 1 {
				g.VFMADD231PS(m, x[0], acc[0][v])
				continue
			}
			w := g.load(m, false)
			for r := range x {
				g.VFMADD231PS(x[r], w, acc[r][v])
			}
		}
		g.ADDQ(bs, b)
		advance()
	})
	c, cs, add := g.arg("c"), g.arg("cs"), g.arg("acc")
	alpha := g.bcast("alpha")
	plain, done := g.label("plain"), g.label("stored")
	for r := range acc {
		for v := range acc[r] {
			g.VMULPS(alpha, acc[r][v], acc[r][v])
		}
	}
	g.TESTQ(add, add)
	g.JZ(operand.LabelRef(plain))
	p := g.GP64()
	g.MOVQ(c, p)
	for r := range acc {
		for v := range acc[r] {
			g.VADDPS(mem{Base: p, Disp: 4 * g.w * v}, acc[r][v], acc[r][v])
		}
		g.ADDQ(cs, p)
	}
	g.Label(plain)
	for r := range acc {
		for v := range acc[r] {
			g.store(acc[r][v], mem{Base: c, Disp: 4 * g.w * v}, false)
		}
		g.ADDQ(cs, c)
	}
	g.Label(done)
	g.ret()
}

// peak writes the loop that measures the peak rate of fused multiply-adds: 12 chains, n rounds.
func (g *gen) peak() {
	g.fn("peakFMA", "func(n int) float32")
	g.Doc("peakFMA" + g.sfx + " runs n rounds of 12 independent vector multiply-adds.")
	n := g.arg("n")
	x := g.k(1e-9)
	acc := make([]vec, 12)
	for i := range acc {
		acc[i] = g.zero()
	}
	g.countdown(n, 4, func() {
		for i := range acc {
			g.VFMADD231PS(x, x, acc[i])
		}
	})
	for i := 1; i < len(acc); i++ {
		g.VADDPS(acc[i], acc[0], acc[0])
	}
	g.Store(g.hsum(acc[0]), g.ReturnIndex(0))
	g.ret()
}
