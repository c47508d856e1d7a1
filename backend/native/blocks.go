package native

import (
	"unsafe"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// packedBlocks is a weight of a block type in panels of columns (its output channels). A panel is one stream: for each sub-block the unsigned
// values in groups of four along k for each column, then the columns' scales, then their minima. Where the level has a function to expand
// the type, the weight stays as it is stored, in two thirds to half of the memory, and each piece of a product makes the panels that it is about
// to use, in cache.
type packedBlocks struct {
	o          *ops
	form       backend.BlockForm
	out, in    int
	blockBytes int // of one sub-block of a panel
	panels     []byte

	source backend.Weight // where panels is nil
	expand expandFunc
	row    blockRowFunc // may be nil
	fill   panelFunc    // may be nil
}

func (w *packedBlocks) Shape() (out, in int) { return w.out, w.in }
func (w *packedBlocks) Bytes() int           { return len(w.panels) }

// HoldsSource implements backend.SourceHolder.
func (w *packedBlocks) HoldsSource() bool { return w.expand != nil }

func (k *kernels) packBlocks(w backend.Weight) *packedBlocks {
	nr := 2 * k.o.w
	form, _ := backend.FormOf(w.DType)
	q := &packedBlocks{o: k.o, form: form, out: w.Out, in: w.In, blockBytes: form.Len*nr + 4*nr}
	if form.Min {
		q.blockBytes += 4 * nr
	}
	if q.expand = k.o.expand[w.DType]; q.expand != nil {
		q.source, q.row, q.fill = w, k.o.blockRow[w.DType], k.o.fillPanel[w.DType]
		return q
	}
	panels := (w.Out + nr - 1) / nr
	size := panels * (w.In / form.Len) * q.blockBytes
	q.panels = unsafe.Slice((*byte)(unsafe.Pointer(p(aligned(size/4)))), size)
	k.prod.weight, k.prod.blocks = w, q
	k.pool.run(panels, 1, k.loops.packBlocks)
	k.prod.weight, k.prod.blocks = backend.Weight{}, nil
	return q
}

func (k *kernels) packBlocksLoop(_, lo, hi int) {
	w, q, nr := k.prod.weight, k.prod.blocks, 2*k.o.w
	n, bytes := q.form.Len, w.DType.RowBytes(w.In)
	v, scale, minimum := make([]byte, w.In), make([]float32, w.In/n), make([]float32, w.In/n)
	for c := lo * nr; c < min(hi*nr, w.Out); c++ {
		backend.UnpackBlocks(v, scale, minimum, w.DType, w.Data[c*bytes:(c+1)*bytes])
		panel := q.panels[c/nr*len(scale)*q.blockBytes:]
		col := c % nr
		for b := range scale {
			block := panel[b*q.blockBytes : (b+1)*q.blockBytes]
			for i := 0; i < n; i += 4 {
				copy(block[i*nr+4*col:i*nr+4*col+4], v[b*n+i:])
			}
			f, _ := tensor.View[float32](block[n*nr:])
			f[col] = scale[b]
			if q.form.Min {
				f[nr+col] = minimum[b]
			}
		}
	}
}

// linearBlocks: see backend's Generic for the arithmetic.
func (k *kernels) linearBlocks(dst, x []float32, rows int, w *packedBlocks, ep backend.Epilogue) {
	backend.CheckLinear(dst, x, rows, w.out, w.in, ep)
	if rows == 0 || w.out == 0 {
		return
	}
	g := &k.prod
	*g = product{m: rows, n: w.out, k: w.in, a: x, c: dst, ldc: w.out, blocks: w, keep: g.keep}
	g.qs = w.in
	if g.qs%1024 == 0 {
		g.qs += 64
	}
	if n := rows * g.qs; cap(g.q) < n {
		g.q = unsafe.Slice((*byte)(unsafe.Pointer(p(aligned(n/4+n/16)))), n/4*4+n/16*4)
	}
	subs := w.in / w.form.Len
	grow(&g.scale, rows*subs)
	grow(&g.corr, rows*subs)
	if n := rows * w.in / 16; cap(g.zero) < n {
		g.zero = make([]int32, n+n/4)
	}
	g.q, g.zero = g.q[:rows*g.qs], g.zero[:rows*w.in/16]
	g.scale, g.corr = g.scale[:rows*subs], g.corr[:rows*subs]
	k.setEpilogue(ep)
	k.pool.run(rows, grain(w.in), k.loops.quantizeBlocks)
	k.multiply()
}

// quantizeBlocksLoop quantizes rows of activations. Their scales and sums are then spread to one for each sub-block of the weights.
func (k *kernels) quantizeBlocksLoop(_, lo, hi int) {
	g, w := &k.prod, k.prod.blocks
	blocks, subs := g.k/backend.ActivationBlock, g.k/w.form.Len
	for r := lo; r < hi; r++ {
		sums := g.zero[r*2*blocks : (r+1)*2*blocks]
		scale, corr := g.scale[r*subs:(r+1)*subs], g.corr[r*subs:(r+1)*subs]
		k.o.quantizeBlocks((*int8)(unsafe.Pointer(&g.q[r*g.qs])), p(g.a[r*g.k:]), blocks, p(scale), &sums[0])
		for b := subs - 1; b >= 0; b-- {
			var sum int32
			if w.form.Len == 16 {
				scale[b], sum = scale[b/2], sums[b]
			} else {
				sum = sums[2*b] + sums[2*b+1]
			}
			if w.form.Min {
				corr[b] = scale[b] * float32(sum)
			} else {
				*(*int32)(unsafe.Pointer(&corr[b])) = -w.form.Centre * sum
			}
		}
	}
}

// blockPanel returns panel q of w: a stream of blocks, one for each sub-block along k.
func (k *kernels) blockPanel(ws *scratch, w *packedBlocks, q int) *byte {
	nr, subs := 2*k.o.w, w.in/w.form.Len
	if w.expand == nil {
		return &w.panels[q*subs*w.blockBytes]
	}
	size := w.source.DType.RowBytes(w.in)
	if w.fill != nil && w.out-q*nr >= nr {
		panel := grow(&ws.row, subs*w.blockBytes/4)
		for c := 0; c < nr; c += k.o.w {
			w.fill(w.in/w.source.DType.BlockLen(), &w.source.Data[(q*nr+c)*size], size, (*byte)(unsafe.Pointer(&panel[c])))
		}
		return (*byte)(unsafe.Pointer(&panel[0]))
	}
	// Rows of sub-blocks, in words of four bytes: a panel is their transposition.
	words := roundUp(subs*(w.blockBytes/4/nr), 8)
	stride := words
	if stride%256 == 0 {
		stride += 8
	}
	rows, panel := grow(&ws.panel, 8*stride), grow(&ws.row, words*nr)
	for c := 0; c < min(nr, w.out-q*nr); c += 8 {
		for r := range min(8, w.out-q*nr-c) {
			w.expand((*byte)(unsafe.Pointer(&rows[r*stride])), &w.source.Data[(q*nr+c+r)*size], w.in/w.source.DType.BlockLen())
		}
		k.o.transpose8(p(panel[c:]), 4*nr, p(rows), 4*stride, words/8)
	}
	return (*byte)(unsafe.Pointer(&panel[0]))
}

// fewRows is how many rows meet a weight as it is stored, one after the other, where more are worth a panel that is slow to make.
const fewRows = 3

// asStored tells whether rows meet w as it is stored.
func (w *packedBlocks) asStored(rows int) bool {
	return w.row != nil && (rows == 1 || w.fill == nil && rows <= fewRows)
}

// pieceBlocks computes tiles [t0, t1) of rows by panels [p0, p1).
func (k *kernels) pieceBlocks(ws *scratch, t0, t1, p0, p1 int) {
	g, o, w := &k.prod, k.o, k.prod.blocks
	nr := 2 * o.w
	subs := g.k / w.form.Len
	kind := 0
	if w.form.Min {
		kind = 1
	}
	kernel := &o.blocks[kind][w.form.Len/16-1]
	size, blocks := w.source.DType.RowBytes(g.k), g.k/w.source.DType.BlockLen()
	for q := p0; q < p1; q++ {
		c0, n := q*nr, min(nr, g.n-q*nr)
		if n == nr && w.asStored(g.m) {
			for r := t0 * g.m / g.tiles; r < t1*g.m/g.tiles; r++ {
				c := p(g.c[r*g.ldc+c0:])
				if g.ep != nil {
					c = p(grow(&ws.tile, nr))
				}
				for i := 0; i < nr; i += o.rowWidth {
					w.row(blocks, (*int8)(unsafe.Pointer(&g.q[r*g.qs])), &w.source.Data[(c0+i)*size], size, off(c, i), &g.scale[r*subs], &g.corr[r*subs])
				}
				if g.ep != nil {
					k.finish(ws.tile[:nr], r, c0)
				}
			}
			continue
		}
		panel := k.blockPanel(ws, w, q)
		for t := t0; t < t1; t++ {
			r0, r1 := t*g.m/g.tiles, (t+1)*g.m/g.tiles
			ldc, c := g.ldc, p(g.c[r0*g.ldc+c0:])
			if g.ep != nil {
				ldc = nr
				c = p(grow(&ws.tile, (r1-r0)*nr))
			}
			kernel[r1-r0](subs, (*int8)(unsafe.Pointer(&g.q[r0*g.qs])), g.qs, panel, c, 4*ldc, n, &g.scale[r0*subs], &g.corr[r0*subs], 4*subs)
			if g.ep != nil {
				for r := range r1 - r0 {
					k.finish(ws.tile[r*nr:r*nr+n], r0+r, c0)
				}
			}
		}
	}
}
