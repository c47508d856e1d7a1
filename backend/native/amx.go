package native

import (
	"unsafe"

	"github.com/temper-ml/temper/backend"
)

// Products in the tile registers of AMX: 32 rows by 32 columns at a time, four values of C in a register of 16 rows by 64 bytes. Panels are those of the
// vector units, whose pairs of bfloat16 and groups of four bytes along k are what a tile of B holds. A lies by rows.
//
// An element of C is one chain over k, in steps of a tile's k (16 pairs or groups), whatever rows stand beside it, and so has the same bits
// in every batch and cut.

const (
	amxRows = 32
	amxFew  = 4 // rows of integers below which vectors are faster
	// amxBlock is how many pairs or groups are multiplied before the next panel's turn: 32 rows of A stay in the first-level cache.
	amxBlock = 256
	// amxNear bounds the panels of a piece, in bytes: half of the second-level cache that CPUs with AMX have.
	amxNear = 1 << 20
)

// amxJob is what the assembly reads: rows of A, rs bytes apart, by panels of B, whose groups lie bs and whose panels lie panel bytes apart, into C. A tile
// configuration clears the tiles and costs as much as a few products, hence a call for many panels.
type amxJob struct {
	cfg, tail [64]byte // tile shapes: of whole blocks, of the rest along k
	a         unsafe.Pointer
	rs        int
	b         unsafe.Pointer
	bs, panel int
	c         unsafe.Pointer // rows of 32-bit values, cs bytes apart
	cs        int
	rows      int
	panels    int
	blocks    int            // of 16 groups along k
	rest      int            // groups beyond them
	add       int            // 1: add to C
	next      unsafe.Pointer // where to fetch ahead, 512 bytes a block
}

// shape sets the tile configurations.
func (j *amxJob) shape(rows, rest int) {
	if j.rows == rows && j.rest == rest {
		return
	}
	j.rows, j.rest = rows, rest
	j.cfg, j.tail = tileShapes(rows, 16), tileShapes(rows, rest)
}

// tileShapes is a tile configuration for rows of C and groups of k: palette 1, and for each tile bytes a row and rows.
func tileShapes(rows, groups int) (cfg [64]byte) {
	low, high := min(rows, 16), max(rows-16, 0)
	cfg[0] = 1
	for tile, s := range [8][2]int{{64, low}, {64, low}, {64, high}, {64, high}, {4 * groups, low}, {4 * groups, high}, {64, groups}, {64, groups}} {
		if s[0] > 0 && s[1] > 0 {
			cfg[16+2*tile], cfg[48+tile] = byte(s[0]), byte(s[1])
		}
	}
	return cfg
}

// amxTile multiplies rows of A by panels of B into c: groups 32-bit elements of k, strides in such elements.
func (ws *scratch) amxTile(f func(*amxJob), a unsafe.Pointer, rs, rows int, b unsafe.Pointer, bs, panel, panels, groups int, c *float32, cs int, add bool, ahead *ahead) {
	j := &ws.amx
	j.rs, j.bs, j.panel, j.panels, j.c, j.cs = 4*rs, 4*bs, 4*panel, panels, unsafe.Pointer(c), 4*cs
	for k0 := 0; k0 == 0 || k0 < groups; k0 += amxBlock {
		n := min(amxBlock, groups-k0)
		j.shape(rows, n%16)
		j.blocks, j.add = n/16, 0
		if add || k0 > 0 {
			j.add = 1
		}
		j.a, j.b = unsafe.Add(a, 4*k0), unsafe.Add(b, 4*k0*bs)
		j.next = unsafe.Pointer(ahead.take((*float32)(j.b), 128*j.blocks*panels))
		f(j)
	}
	j.a, j.b, j.c, j.next = nil, nil, nil, nil
}

// pieceAMX is piece for pairs of bfloat16.
func (k *kernels) pieceAMX(ws *scratch, t0, t1, p0, p1 int) {
	g, nr := &k.prod, 2*k.o.w
	ahead := g.ahead(p0, t0, t1, k.pool.threads)
	whole := p1 // panels [p0, whole) are in one place and have all of their columns
	if p1 == g.panels && (g.lastPanel != nil || g.n%nr != 0) {
		whole--
	}
	for t := t0; t < t1; t++ {
		r0, r1 := t*g.m/g.tiles, (t+1)*g.m/g.tiles
		if whole > p0 {
			k.amxPanels(ws, r0, r1, p0, whole, unsafe.Pointer(off(g.b, p0*g.panel)), g.bs, &ahead)
		}
		if whole < p1 {
			b, bs := off(g.b, whole*g.panel), g.bs
			if g.lastPanel != nil {
				b, bs = p(g.lastPanel), nr
			}
			k.amxPanels(ws, r0, r1, whole, p1, unsafe.Pointer(b), bs, &ahead)
		}
	}
}

// amxPanels computes rows [r0, r1) by panels [p0, p1), which lie at b.
func (k *kernels) amxPanels(ws *scratch, r0, r1, p0, p1 int, b unsafe.Pointer, bs int, ahead *ahead) {
	g, o := &k.prod, k.o
	nr, rows := 2*o.w, r1-r0
	c0, c1 := p0*nr, min(p1*nr, g.n)
	a := unsafe.Pointer(p(g.a))
	if g.k > 0 {
		a = unsafe.Pointer(p(g.a[r0*g.rs:]))
	}
	run := func(c *float32, ldc int, add bool) {
		ws.amxTile(o.amxBF16, a, g.rs, rows, b, bs, g.panel, p1-p0, g.k, c, ldc, add, ahead)
	}
	onto := g.ep == nil && g.alpha == 1 // C itself begins the chain, or is what it leaves
	if onto && c1 == p1*nr {
		run(p(g.c[r0*g.ldc+c0:]), g.ldc, g.accumulate)
		return
	}
	ldc := (p1 - p0) * nr
	near := grow(&ws.tile, rows*ldc)
	if onto && g.accumulate {
		for r := range rows {
			copy(near[r*ldc:], g.c[(r0+r)*g.ldc+c0:][:c1-c0])
		}
	}
	run(p(near), ldc, onto && g.accumulate)
	for r := range rows {
		src := near[r*ldc:][:c1-c0]
		if g.ep != nil {
			k.finish(src, r0+r, c0)
			continue
		}
		dst := g.c[(r0+r)*g.ldc+c0:][:c1-c0]
		switch {
		case onto:
			copy(dst, src)
		case g.accumulate:
			o.axpy(p(dst), p(src), len(src), g.alpha)
		default:
			copy(dst, src)
			o.scale(p(dst), len(dst), g.alpha)
		}
	}
}

// pieceInt8AMX is pieceInt8 in tiles of AMX.
func (k *kernels) pieceInt8AMX(ws *scratch, t0, t1, p0, p1 int) {
	g, o, w := &k.prod, k.o, k.prod.int8
	nr := 2 * o.w
	c0, c1 := p0*nr, min(p1*nr, g.n)
	size, ldc := w.groups*nr, (p1-p0)*nr
	var ep backend.Epilogue
	if g.ep != nil {
		ep = *g.ep
	}
	apart := ep.Pre != nil || ep.Act != backend.None && ep.Residual != nil
	var b unsafe.Pointer
	if size > 0 {
		b = unsafe.Pointer(&w.panels[0])
	}
	ahead := g.panelsAhead((*float32)(b), size, p0, t0, t1, k.pool.threads)
	b = unsafe.Add(b, 4*p0*size)
	bias := p(k.zeros)
	if ep.Bias != nil && !apart {
		bias = p(ep.Bias[c0:])
	}
	for t := t0; t < t1; t++ {
		r0, r1 := t*g.m/g.tiles, (t+1)*g.m/g.tiles
		near := grow(&ws.tile, (r1-r0)*ldc)
		ws.amxTile(o.amxInt8, unsafe.Pointer(unsafe.SliceData(g.q[r0*g.qs:])), g.qs/4, r1-r0, b, nr, size, p1-p0, w.groups, p(near), ldc, false, &ahead)
		for r := r0; r < r1; r++ {
			sums := near[(r-r0)*ldc:][:c1-c0]
			dst := g.c[r*g.ldc+c0:][:c1-c0]
			if apart {
				dst = sums
			}
			var residual *float32
			if ep.Residual != nil && !apart {
				residual = p(ep.Residual[r*g.ldc+c0:])
			}
			o.scaleInt8(p(dst), (*int32)(unsafe.Pointer(p(sums))), len(dst), g.zero[r], g.scale[r], &w.sums[c0], &w.scales[c0], bias, residual)
			switch {
			case apart:
				k.finish(dst, r, c0)
			case ep.Act != backend.None:
				o.act[ep.Act](p(dst), p(dst), len(dst))
			}
		}
	}
}

// pairByRows rounds a matrix [n, rows] that is stored along k to pairs by rows, ld apart: [rows, ld].
func (k *kernels) pairByRows(buf *[]float32, src []float32, stride, n, rows int) (dst []float32, ld int) {
	ld = pairs(n)
	if ld%64 == 0 {
		ld += 16 // or rows would compete for the same lines of a cache
	}
	k.constants(rows)
	dst = grow(buf, rows*ld)
	k.job = job{a: dst, b: src, cols: rows, stride: stride, n: n, rows: ld}
	k.pool.run((pairs(n)+15)/16, grain(16*rows), k.loops.pairByRows)
	return dst, ld
}

func (k *kernels) pairByRowsLoop(w, lo, hi int) {
	j, ws := &k.job, k.work[w]
	for i0 := 16 * lo; i0 < min(16*hi, pairs(j.n)); i0 += 16 {
		np := min(16, pairs(j.n)-i0)
		t := grow(&ws.panel, 16*j.cols)
		for i := range np {
			odd := p(k.zeros)
			if at := 2*(i0+i) + 1; at < j.n {
				odd = p(j.b[at*j.stride:])
			}
			k.o.pairBF16(p(t[i*j.cols:]), p(j.b[2*(i0+i)*j.stride:]), odd, j.cols)
		}
		i := 0
		for ; i+8 <= np; i += 8 {
			k.o.transpose8(p(j.a[i0+i:]), 4*j.rows, p(t[i*j.cols:]), 4*j.cols, j.cols/8)
			for c := j.cols / 8 * 8; c < j.cols; c++ {
				for q := i; q < i+8; q++ {
					j.a[c*j.rows+i0+q] = t[q*j.cols+c]
				}
			}
		}
		for ; i < np; i++ {
			for c := range j.cols {
				j.a[c*j.rows+i0+i] = t[i*j.cols+c]
			}
		}
	}
}
