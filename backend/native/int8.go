package native

import (
	"unsafe"

	"github.com/temper-ml/temper/backend"
)

// packedInt8 is a tensor.Q8Row weight in panels of columns (its output channels): for each group along k, the group's values of each column.
// Columns and groups beyond the shape hold zeros.
type packedInt8 struct {
	o       *ops
	out, in int
	groups  int // along k
	panels  []int8
	sums    []int32 // of each column, for the zero points of activations
	scales  []float32
}

func (w *packedInt8) Shape() (out, in int) { return w.out, w.in }
func (w *packedInt8) Bytes() int           { return len(w.panels) + 8*len(w.sums) }

// HoldsSource implements backend.SourceHolder.
func (w *packedInt8) HoldsSource() bool { return false }

func (k *kernels) packInt8(w backend.Weight) *packedInt8 {
	backend.Need("pack", "scales", len(w.Scales), w.Out)
	nr := 2 * k.o.w
	panels, groups := (w.Out+nr-1)/nr, (w.In+k.o.group-1)/k.o.group
	q := &packedInt8{o: k.o, out: w.Out, in: w.In, groups: groups, sums: make([]int32, panels*nr), scales: make([]float32, panels*nr)}
	size := panels * groups * nr * k.o.group
	q.panels = unsafe.Slice((*int8)(unsafe.Pointer(p(k.held.take((size+3)/4)))), size)
	copy(q.scales, w.Scales[:w.Out])
	k.prod.weight, k.prod.int8 = w, q
	k.pool.run(panels, 1, k.loops.packInt8)
	k.prod.weight, k.prod.int8 = backend.Weight{}, nil
	return q
}

func (k *kernels) packInt8Loop(_, lo, hi int) {
	w, q, nr, group := k.prod.weight, k.prod.int8, 2*k.o.w, k.o.group
	if k.o.sumInt8 != nil && group == 4 && w.In%4 == 0 && w.In > 0 {
		// Groups are as wide as a float32: a transposition of those.
		for p0 := lo; p0 < hi; p0++ {
			rows := min(nr, w.Out-p0*nr)
			src := w.Data[p0*nr*w.In : (p0*nr+rows)*w.In]
			for c := range rows {
				q.sums[p0*nr+c] = k.o.sumInt8(&src[c*w.In], w.In)
			}
			k.packTransposed(words(q.panels[p0*nr*w.In:(p0+1)*nr*w.In]), words(src), q.groups, rows, q.groups, nr)
		}
		return
	}
	for c := lo * nr; c < min(hi*nr, w.Out); c++ {
		panel := q.panels[c/nr*q.groups*nr*group:]
		var sum int32
		for i, b := range w.Data[c*w.In : (c+1)*w.In] {
			panel[i/group*nr*group+c%nr*group+i%group] = int8(b)
			sum += int32(int8(b))
		}
		q.sums[c] = sum
	}
}

// words views bytes as values of four bytes, which may lie anywhere: they are moved, never computed with.
func words[T int8 | byte](b []T) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// linearInt8: see backend's Generic for the arithmetic. The integers are exact, so tiles may sum in any order.
func (k *kernels) linearInt8(dst, x []float32, rows int, w *packedInt8, ep backend.Epilogue) {
	backend.CheckLinear(dst, x, rows, w.out, w.in, ep)
	if rows == 0 || w.out == 0 {
		return
	}
	g := &k.prod
	*g = product{m: rows, n: w.out, k: w.in, a: x, c: dst, ldc: w.out, int8: w, keep: g.keep}
	g.qs = w.groups * 4 // a group is four bytes, of bytes or of words
	if pad := roundUp(w.in, k.o.w) * 4 / k.o.group; g.qs < pad {
		g.qs = pad // vectors are stored whole
	}
	if g.qs%1024 == 0 {
		g.qs += 64
	}
	if n := rows * g.qs; cap(g.q) < n {
		g.q = unsafe.Slice((*byte)(unsafe.Pointer(p(aligned(n/4+n/16)))), n/4*4+n/16*4)
	}
	if cap(g.zero) < rows {
		g.zero = make([]int32, rows)
	}
	// Products with blocks use the same storage, each part in sizes of its own.
	g.q, g.zero, g.scale = g.q[:rows*g.qs], g.zero[:rows], grow(&g.scale, rows)
	k.setEpilogue(ep)
	g.amx = k.o.amxInt8 != nil && rows >= amxFew
	k.constants(16 * k.o.w)
	k.pool.run(rows, grain(w.in), k.loops.quantize)
	k.multiply()
}

func (k *kernels) quantizeLoop(w, lo, hi int) {
	g, o := &k.prod, k.o
	for r := lo; r < hi; r++ {
		x := g.a[r*g.k : (r+1)*g.k]
		lowest, highest := o.minMax(p(x), len(x))
		scale, inverse, zero := backend.ActivationRange(lowest, highest)
		g.scale[r], g.zero[r] = scale, zero
		whole := len(x) / o.w * o.w
		k.quantize(g.q[r*g.qs:(r+1)*g.qs], 0, x[:whole], inverse, zero)
		if whole < len(x) {
			t := grow(&k.work[w].row, o.w)
			clear(t)
			copy(t, x[whole:])
			k.quantize(g.q[r*g.qs:(r+1)*g.qs], whole, t, inverse, zero)
		}
	}
}

// quantize writes the values of x (whole vectors) as elements at, at+1, … of a row.
func (k *kernels) quantize(row []byte, at int, x []float32, inverse float32, zero int32) {
	if len(x) == 0 {
		return
	}
	if k.o.quantizeBytes != nil {
		k.o.quantizeBytes(&row[at], p(x), len(x), inverse, zero)
		return
	}
	k.o.quantizeWords((*int16)(unsafe.Pointer(&row[2*at])), p(x), len(x), inverse, zero)
}

func (k *kernels) pieceInt8(ws *scratch, t0, t1, p0, p1 int) {
	g, o, w := &k.prod, k.o, k.prod.int8
	nr := 2 * o.w
	c0, c1 := p0*nr, min(p1*nr, g.n)
	size := w.groups * nr * o.group
	var ep backend.Epilogue
	if g.ep != nil {
		ep = *g.ep
	}
	// The tile adds bias and residual itself; an activation follows in place, unless something has to stand between.
	apart := ep.Pre != nil || ep.Act != backend.None && ep.Residual != nil
	for t := t0; t < t1; t++ {
		r0, r1 := t*g.m/g.tiles, (t+1)*g.m/g.tiles
		rows := r1 - r0
		ldc := g.ldc
		c := p(g.c[r0*ldc+c0:])
		if apart {
			ldc = (p1 - p0) * nr
			c = p(grow(&ws.tile, rows*ldc))
		}
		for q := p0; q < p1; q++ {
			var panel *int8
			if size > 0 {
				panel = &w.panels[q*size]
			}
			bias, residual := p(k.zeros), (*float32)(nil)
			if ep.Bias != nil && !apart {
				bias = p(ep.Bias[q*nr:])
			}
			if ep.Residual != nil && !apart {
				residual = p(ep.Residual[r0*ldc+q*nr:])
			}
			o.int8Tile[rows](w.groups, unsafe.SliceData(g.q[r0*g.qs:]), g.qs, panel, off(c, q*nr-c0), 4*ldc, min(nr, g.n-q*nr), &g.zero[r0], &g.scale[r0], &w.sums[q*nr], &w.scales[q*nr], bias, residual)
		}
		switch {
		case apart:
			for r := range rows {
				k.finish(ws.tile[r*ldc:r*ldc+c1-c0], r0+r, c0)
			}
		case ep.Act != backend.None:
			for r := r0; r < r1; r++ {
				d := p(g.c[r*ldc+c0 : r*ldc+c1])
				o.act[ep.Act](d, d, c1-c0)
			}
		}
	}
}
