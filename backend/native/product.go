package native

import (
	"fmt"
	"math"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// A product C = A·B runs in register tiles over panels of B: two vectors of columns, stored k by k. Whatever tile an element falls into, it is
// summed in the same order: k ascends in one chain of multiply-adds within each of the blocks that kBlock cuts, and the blocks are
// added in order. That makes one row, a batch, any number of threads and any cut into pieces agree bit for bit.

// kLimit bounds a block of k: a panel of 512 rows by 32 columns is 64 KB, so that several stay in the second-level cache.
const kLimit = 512

// kBlock is the length of the blocks that k is cut into.
func kBlock(k int) int {
	blocks := max(1, (k+kLimit-1)/kLimit)
	return (k + blocks - 1) / blocks
}

// product is the multiplication in progress.
type product struct {
	m, n, k    int
	a          []float32
	rs, ks     int // strides of A in elements, between rows and along k
	packA      bool
	bf16       bool // elements of A and B are pairs of bfloat16, k counts pairs
	amx        bool // in tile registers, A by rows
	b          *float32
	panel, bs  int       // strides of B in elements, between panels and along k
	lastPanel  []float32 // a packed copy of the last panel where b is not packed and the panel is short
	c          []float32
	ldc        int
	alpha      float32
	accumulate bool
	ep         *backend.Epilogue
	epilogue   backend.Epilogue

	tiles, panels    int // rows in tiles, columns in panels
	rowCut, panelCut int // tiles and panels in a piece
	keep
	src    []float32 // what packPanels reads
	ld     int
	trans  bool
	weight backend.Weight

	blocks *packedBlocks // the weight of a product with a block type, nil otherwise
	int8   *packedInt8   // the weight of an integer product, nil otherwise
}

// keep is storage that stays from call to call.
type keep struct {
	sums           []float64
	packed         []float32 // B of MatMul
	pairsA, pairsB []float32 // operands as pairs of bfloat16
	q              []byte    // quantized activations, in rows of qs bytes
	qs             int
	zero           []int32 // and their zero points, or sums
	corr           []float32
	scale          []float32
}

// transposed reports whether A's rows lie side by side and have to be copied: pieceTransposed does it.
func (g *product) transposed() bool { return g.packA && g.rs == 1 && g.ep == nil && g.blocks == nil }

// split sets the pieces of the product. A piece is about 8 tiles by as many panels as fit into half of a 1 MB second-level cache.
func (k *kernels) split() (pieces int) {
	g := &k.prod
	nr := 2 * k.o.w
	most := k.o.rows
	if g.blocks != nil {
		most = k.o.blockRows
	}
	if g.amx {
		most = amxRows
	}
	g.tiles, g.panels = (g.m+most-1)/most, (g.n+nr-1)/nr
	deep := g.k
	if g.transposed() {
		deep = kBlock(g.k) // all tiles of a piece pass before the next block of k
	}
	group := max(1, min(8, 160<<10/max(1, deep*nr)))
	if g.amx {
		bytes := 4 * g.k * nr
		if g.int8 != nil {
			bytes = g.k * nr
		}
		group = max(1, min(8, amxNear/max(1, bytes)))
	}
	cut := 8
	if g.blocks != nil {
		cut = max(8, 512<<10/max(1, g.qs*most)) // panels may have to be made: once for as many rows as stay in cache
	}
	g.rowCut, g.panelCut = min(cut, g.tiles), min(group, g.panels)
	count := func() int { return ((g.tiles + g.rowCut - 1) / g.rowCut) * ((g.panels + g.panelCut - 1) / g.panelCut) }
	// Cut further for the workers' sake, down to a few microseconds each.
	for t := k.pool.threads; t > 1 && count() < 4*t && g.rowCut*most*g.panelCut*nr*g.k > 1<<18; {
		switch {
		case g.blocks == nil && g.rowCut > 1 && g.rowCut*most >= g.panelCut*nr || g.panelCut == 1 && g.rowCut > 1:
			g.rowCut = (g.rowCut + 1) / 2
		case g.panelCut > 1:
			g.panelCut = (g.panelCut + 1) / 2
		default:
			return count()
		}
	}
	return count()
}

// multiply runs the product that is set up in k.prod.
func (k *kernels) multiply() {
	g := &k.prod
	if g.m == 0 || g.n == 0 {
		return
	}
	pieces := k.split()
	if 2*g.m*g.n*g.k < 1<<15 {
		k.multiplyLoop(0, 0, pieces)
		return
	}
	k.pool.run(pieces, 1, k.loops.multiply)
}

func (k *kernels) multiplyLoop(w, lo, hi int) {
	g := &k.prod
	across := (g.panels + g.panelCut - 1) / g.panelCut
	for i := lo; i < hi; i++ {
		t, p := i/across*g.rowCut, i%across*g.panelCut
		if g.blocks != nil {
			k.pieceBlocks(k.work[w], t, min(t+g.rowCut, g.tiles), p, min(p+g.panelCut, g.panels))
			continue
		}
		if g.amx && g.int8 != nil {
			k.pieceInt8AMX(k.work[w], t, min(t+g.rowCut, g.tiles), p, min(p+g.panelCut, g.panels))
			continue
		}
		if g.amx {
			k.pieceAMX(k.work[w], t, min(t+g.rowCut, g.tiles), p, min(p+g.panelCut, g.panels))
			continue
		}
		if g.int8 != nil {
			k.pieceInt8(k.work[w], t, min(t+g.rowCut, g.tiles), p, min(p+g.panelCut, g.panels))
			continue
		}
		k.piece(k.work[w], t, min(t+g.rowCut, g.tiles), p, min(p+g.panelCut, g.panels))
	}
}

// piece computes tiles [t0, t1) of rows by panels [p0, p1).
func (k *kernels) piece(ws *scratch, t0, t1, p0, p1 int) {
	g, o := &k.prod, k.o
	nr := 2 * o.w
	c0, c1 := p0*nr, min(p1*nr, g.n)
	kb := max(kBlock(g.k), 1)
	ahead := g.ahead(p0, t0, t1, k.pool.threads)
	if g.transposed() {
		k.pieceTransposed(ws, t0, t1, p0, p1, ahead)
		return
	}
	for t := t0; t < t1; t++ {
		r0, r1 := t*g.m/g.tiles, (t+1)*g.m/g.tiles
		rows := r1 - r0
		var c *float32
		ldc := g.ldc
		if g.ep == nil {
			c = p(g.c[r0*ldc+c0:])
		} else {
			ldc = (p1 - p0) * nr
			c = p(grow(&ws.tile, rows*ldc))
		}
		for k0 := 0; k0 == 0 || k0 < g.k; k0 += kb {
			kn := min(kb, g.k-k0)
			var a *float32
			rs, ks := g.rs, g.ks
			if kn > 0 {
				a = p(g.a[r0*g.rs+k0*g.ks:])
				if g.packA {
					a, rs, ks = p(k.packRows(ws, g.a[r0*g.rs+k0*g.ks:], g.rs, g.ks, rows, kn)), 1, rows
				}
			}
			k.acrossPanels(a, rs, ks, rows, k0, kn, p0, p1, c, ldc, &ahead)
		}
		if g.ep != nil {
			for r := range rows {
				k.finish(ws.tile[r*ldc:r*ldc+c1-c0], r0+r, c0)
			}
		}
	}
}

// wideTiles is how many tiles of a transposed A are read at once.
const wideTiles = 8

// pieceTransposed is piece for an A whose rows lie side by side, as in gradients of weights. A tile alone would take a few values from each of
// many distant lines, over and over; a copy of several tiles' values takes whole lines.
func (k *kernels) pieceTransposed(ws *scratch, t0, t1, p0, p1 int, ahead ahead) {
	g := &k.prod
	c0, kb := p0*2*k.o.w, max(kBlock(g.k), 1)
	for from := t0; from < t1; from += wideTiles {
		to := min(from+wideTiles, t1)
		w0, wide := from*g.m/g.tiles, to*g.m/g.tiles-from*g.m/g.tiles
		for k0 := 0; k0 == 0 || k0 < g.k; k0 += kb {
			kn := min(kb, g.k-k0)
			near := grow(&ws.row, wide*kn)
			for i := range kn {
				at := (k0+i)*g.ks + w0
				copy(near[i*wide:(i+1)*wide], g.a[at:at+wide])
			}
			for t := from; t < to; t++ {
				r0, r1 := t*g.m/g.tiles, (t+1)*g.m/g.tiles
				rows := r1 - r0
				var a *float32
				if kn > 0 {
					a = p(k.packRows(ws, near[r0-w0:], 1, wide, rows, kn))
				}
				k.acrossPanels(a, 1, rows, rows, k0, kn, p0, p1, p(g.c[r0*g.ldc+c0:]), g.ldc, &ahead)
			}
		}
	}
}

// acrossPanels multiplies rows of A, values [k0, k0+kn) of each, by panels [p0, p1) into c.
func (k *kernels) acrossPanels(a *float32, rs, ks, rows, k0, kn, p0, p1 int, c *float32, ldc int, ahead *ahead) {
	g, o := &k.prod, k.o
	nr := 2 * o.w
	c0 := p0 * nr
	acc := 0
	if k0 > 0 || g.accumulate {
		acc = 1
	}
	for q := p0; q < p1; {
		b, bs := off(g.b, q*g.panel+k0*g.bs), g.bs
		if q == g.panels-1 && g.lastPanel != nil {
			b, bs = p(g.lastPanel[min(k0*nr, len(g.lastPanel)):]), nr
		}
		at := off(c, q*nr-c0)
		n := min(nr, g.n-q*nr)
		if !g.bf16 && rows < len(o.strip) && o.strip[rows] != nil && q+4 <= p1 && (q+4)*nr <= g.n && (q+4 < g.panels || g.lastPanel == nil) {
			o.strip[rows](kn, a, 4*rs, 4*ks, b, 4*bs, 4*g.panel, at, 4*ldc, g.alpha, acc)
			q += 4
			continue
		}
		vecs := 2
		if n <= o.w {
			vecs = 1
		}
		tiles := &o.tile
		if g.bf16 {
			tiles = o.bf16Tile
		}
		next := ahead.take(b, kn*ahead.pace/4)
		tiles[vecs-1][rows](kn, a, 4*rs, 4*ks, b, 4*bs, at, 4*ldc, n, g.alpha, acc, next, ahead.pace)
		q++
	}
}

// ahead is the part of B that a worker is likely to want next, which tiles fetch while they compute: B comes from memory otherwise, at the
// speed of memory, whenever a network's weights do not fit the caches.
type ahead struct {
	at   *float32
	left int // elements
	pace int // bytes for every k of a tile: the fewer tiles a panel serves, the more each of them has to fetch
}

// ahead is what comes after panels from p0 on and tiles [t0, t1) when threads share the pieces.
func (g *product) ahead(p0, t0, t1, threads int) ahead {
	if g.bs*g.k != g.panel || g.lastPanel != nil { // strided
		return ahead{}
	}
	return g.panelsAhead(g.b, g.panel, p0, t0, t1, threads)
}

// panelsAhead is ahead for panels that lie side by side at b, panel elements each.
func (g *product) panelsAhead(b *float32, panel, p0, t0, t1, threads int) ahead {
	q := p0 + threads*g.panelCut
	if g.panelCut >= g.panels { // all of it is here already
		return ahead{}
	}
	if q >= g.panels {
		if t1 >= g.tiles {
			return ahead{}
		}
		q = 0
	}
	pace := 16
	for pace < 64 && pace*(t1-t0) < 128 {
		pace *= 2
	}
	return ahead{off(b, q*panel), min(g.panelCut, g.panels-q) * panel, pace}
}

// take is where a tile that fetches n elements is to begin; b where there is nothing to fetch.
func (a *ahead) take(b *float32, n int) *float32 {
	if a.left < n || n == 0 {
		a.pace = 0
		return b
	}
	at := a.at
	a.at, a.left = off(at, n), a.left-n
	return at
}

// finish applies the epilogue to a piece of an output row, which starts at column c0; src holds the product.
func (k *kernels) finish(src []float32, row, c0 int) {
	g, o, n := &k.prod, k.o, len(src)
	at := row*g.ldc + c0
	dst, ep := g.c[at:at+n], g.ep
	bias, residual := k.zeros, k.zeros
	if ep.Bias != nil {
		bias = ep.Bias[c0 : c0+n]
	}
	if ep.Residual != nil {
		residual = ep.Residual[at : at+n]
	}
	if ep.Act == backend.None && ep.Pre == nil {
		o.addBiasResidual(p(dst), p(src), p(bias), p(residual), n)
		return
	}
	if ep.Pre == nil && ep.Residual == nil {
		o.addBiasResidual(p(dst), p(src), p(bias), p(residual), n)
		o.act[ep.Act](p(dst), p(dst), n)
		return
	}
	o.add(p(src), p(src), p(bias), n)
	if ep.Pre != nil {
		copy(ep.Pre[at:at+n], src)
	}
	if ep.Act != backend.None {
		o.act[ep.Act](p(src), p(src), n)
	}
	o.add(p(dst), p(src), p(residual), n)
}

// packRows copies rows of A so that the values of one k lie together. It serves transposed A, and strides at which the rows of a tile
// would compete for the same lines of the first-level cache.
func (k *kernels) packRows(ws *scratch, a []float32, rs, ks, rows, kn int) []float32 {
	d := grow(&ws.panel, rows*kn)
	if rs == 1 {
		k.o.copyStrided(p(d), 4*rows, p(a), 4*ks, rows, kn)
		return d
	}
	from := 0
	if rows >= 8 && ks == 1 { // two overlapping transpositions cover up to 16 rows
		from = kn / 8 * 8
		k.o.transpose8(p(d), 4*rows, p(a), 4*rs, kn/8)
		k.o.transpose8(p(d[rows-8:]), 4*rows, p(a[(rows-8)*rs:]), 4*rs, kn/8)
	}
	for r := range rows {
		s := a[r*rs:]
		for i, at := from, from*rows+r; i < kn; i, at = i+1, at+rows {
			d[at] = s[i*ks]
		}
	}
	return d
}

func (k *kernels) MatMul(a backend.MatMulArgs) {
	a.Check()
	if a.M == 0 || a.N == 0 {
		return
	}
	g := &k.prod
	nr := 2 * k.o.w
	*g = product{m: a.M, k: a.K, a: a.A, rs: a.LDA, ks: 1, c: a.C, ldc: a.LDC, alpha: a.Alpha, accumulate: a.Accumulate, keep: g.keep}
	if g.alpha == 0 {
		g.alpha = 1
	}
	if a.TransA {
		g.rs, g.ks = 1, a.LDA
	}
	if k.bf16 && a.K > 0 {
		k.pairOperands(&a)
	}
	g.packA = a.M > 1 && a.N > 2*nr && (a.TransA || a.LDA%1024 == 0)
	// Columns of B that are packed at once: at most 64 MB.
	step := max(16*nr, 16<<20/max(a.K, 1)/nr*nr)
	for n0 := 0; n0 < a.N; n0 += step {
		g.n = min(step, a.N-n0)
		g.c = a.C[n0:]
		panels := (g.n + nr - 1) / nr
		if a.K == 0 {
			g.b, g.lastPanel = nil, nil
			k.multiply()
			continue
		}
		at := n0
		if a.TransB {
			at = n0 * a.LDB
		}
		g.src, g.ld, g.trans = a.B[at:], a.LDB, a.TransB
		if !a.TransB && a.M <= 3*k.o.rows && a.LDB%1024 != 0 { // used as it lies
			g.b, g.panel, g.bs, g.lastPanel = p(g.src), nr, a.LDB, nil
			if g.n%nr != 0 {
				g.lastPanel = grow(&g.packed, a.K*nr)
				k.packPanel(g.lastPanel, panels-1)
			}
		} else {
			g.b, g.panel, g.bs, g.lastPanel = p(grow(&g.packed, panels*a.K*nr)), a.K*nr, nr, nil
			k.pool.run(panels, grain(a.K*nr/2), k.loops.packPanels)
		}
		k.multiply()
	}
}

func (k *kernels) packPanelsLoop(_, lo, hi int) {
	g, size := &k.prod, k.prod.k*2*k.o.w
	for q := lo; q < hi; q++ {
		k.packPanel(g.packed[q*size:(q+1)*size], q)
	}
}

// packPanel writes panel q of B, from k.prod.src, with zeros beyond its last column.
func (k *kernels) packPanel(dst []float32, q int) {
	g := &k.prod
	nr := 2 * k.o.w
	cols := min(nr, g.n-q*nr)
	if g.trans {
		k.packTransposed(dst, g.src[q*nr*g.ld:], g.ld, cols, g.k, nr)
		return
	}
	for i := range g.k {
		d, s := dst[i*nr:(i+1)*nr], g.src[i*g.ld+q*nr:][:cols]
		copy(d, s)
		clear(d[cols:])
	}
}

// packTransposed writes dst[i·nr+r] = src[r·ld+i] for rows r < rows <= nr and i < n, with zeros for the other r.
func (k *kernels) packTransposed(dst, src []float32, ld, rows, n, nr int) {
	if n == 0 {
		return
	}
	r, blocks := 0, n/8
	for ; r+8 <= rows; r += 8 {
		k.o.transpose8(p(dst[r:]), 4*nr, p(src[r*ld:]), 4*ld, blocks)
		for i := 8 * blocks; i < n; i++ {
			for j := r; j < r+8; j++ {
				dst[i*nr+j] = src[j*ld+i]
			}
		}
	}
	if r == nr {
		return
	}
	for i := range n {
		d := dst[i*nr : (i+1)*nr]
		for j := r; j < rows; j++ {
			d[j] = src[j*ld+i]
		}
		clear(d[rows:])
	}
}

// packed is a weight as panels of columns (its output channels).
type packed struct {
	o       *ops
	bf16    bool
	out, in int
	k       int // in, or pairs of it
	panels  []float32
}

func (w *packed) Shape() (out, in int) { return w.out, w.in }
func (w *packed) Bytes() int           { return 4 * len(w.panels) }

// HoldsSource tells whether the weight still reads the data that it was packed from.
func (w *packed) HoldsSource() bool { return false }

func (k *kernels) Pack(w backend.Weight) backend.Packed {
	w.Check()
	if w.RunsInIntegers() && !k.exact {
		return k.packInt8(w)
	}
	if w.RunsInBlocks() && !k.exact {
		return k.packBlocks(w)
	}
	if _, err := (backend.Weight{DType: w.DType, In: w.In}).Values(); err != nil {
		panic(fmt.Sprintf("native: pack: %v", err)) // here, not in a worker
	}
	if w.DType == tensor.Q8Row {
		backend.Need("pack", "scales", len(w.Scales), w.Out)
	}
	nr := 2 * k.o.w
	panels := (w.Out + nr - 1) / nr
	pw := &packed{o: k.o, bf16: k.bf16, out: w.Out, in: w.In, k: w.In}
	if k.bf16 {
		pw.k = pairs(w.In)
	}
	pw.panels = k.held.take(panels * pw.k * nr)
	k.prod.weight, k.job = w, job{a: pw.panels}
	k.pool.run(panels, 1, k.loops.packWeight)
	k.prod.weight = backend.Weight{}
	return pw
}

// packWeightLoop expands and packs one panel's rows at a time, so that a quantized matrix never stands whole in float32 beside its panels.
func (k *kernels) packWeightLoop(_, lo, hi int) {
	w, nr := k.prod.weight, 2*k.o.w
	bytes := w.DType.RowBytes(w.In)
	for q := lo; q < hi; q++ {
		r0, r1 := q*nr, min((q+1)*nr, w.Out)
		part := backend.Weight{DType: w.DType, Out: r1 - r0, In: w.In, Data: w.Data[r0*bytes : r1*bytes]}
		if w.DType == tensor.Q8Row {
			part.Scales = w.Scales[r0:r1]
		}
		v, err := part.Values()
		if err != nil {
			panic(fmt.Sprintf("native: pack: %v", err))
		}
		n := w.In
		if k.bf16 {
			n = pairs(w.In)
			v = k.o.pairRows(make([]float32, (r1-r0)*n), v, w.In, r1-r0, w.In)
		}
		k.packTransposed(k.job.a[q*n*nr:(q+1)*n*nr], v, n, r1-r0, n, nr)
	}
}

func (k *kernels) Linear(dst, x []float32, rows int, pw backend.Packed, ep backend.Epilogue) {
	if q, ok := pw.(*packedInt8); ok && q.o == k.o {
		k.linearInt8(dst, x, rows, q, ep)
		return
	}
	if q, ok := pw.(*packedBlocks); ok && q.o == k.o {
		k.linearBlocks(dst, x, rows, q, ep)
		return
	}
	w, ok := pw.(*packed)
	if !ok || w.o != k.o || w.bf16 != k.bf16 {
		panic(fmt.Sprintf("native: linear: weight of type %T was packed by another backend or level", pw))
	}
	backend.CheckLinear(dst, x, rows, w.out, w.in, ep)
	g := &k.prod
	nr := 2 * k.o.w
	if w.bf16 {
		x = k.pairMatrix(&g.pairsA, x, w.in, rows, w.in)
	}
	*g = product{bf16: w.bf16, m: rows, n: w.out, k: w.k, a: x, rs: w.k, ks: 1, b: p(w.panels), panel: w.k * nr, bs: nr, c: dst, ldc: w.out, alpha: 1, keep: g.keep}
	g.amx = w.bf16 && k.o.amxBF16 != nil
	g.packA = rows > 8 && w.k%1024 == 0
	k.setEpilogue(ep)
	k.multiply()
}

func (k *kernels) setEpilogue(ep backend.Epilogue) {
	if ep.Bias != nil || ep.Residual != nil || ep.Pre != nil || ep.Act != backend.None {
		k.prod.epilogue = ep
		k.prod.ep = &k.prod.epilogue
		k.constants(16 * k.o.w) // a piece is at most 8 panels wide
	}
}

var negInf = float32(math.Inf(-1))
