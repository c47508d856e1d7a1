package native

import (
	"unsafe"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// storedJob is attention over stored keys and values in progress. A few queries, as in generation, meet them one by one and as they are: a few rows, or a
// few columns of a block of rows, are expanded in cache and used there. Guessed tokens get the bits that each would get alone. Sequences of more
// queries expand what they see before.
type storedJob struct {
	given []backend.Stored
	of    []backend.Stored // of seqs, which are of one query each
	seqs  []backend.Seq
	k, v  []float32
	whole [1]backend.Seq
	// The piece that splitStored is at.
	n, kh, lo, hi, ld, width int
	w                        []float32

	pieces, scores, weights, values func(w, lo, hi int)
}

// storedColumns is how many columns of values are expanded at once: a block of 512 rows of them stays in the second-level cache.
const storedColumns = 64

// storedRows is how many keys are expanded at once.
const storedRows = 16

// fewQueries is how many queries of a sequence are taken one by one.
const fewQueries = 32

// MeetsStored implements backend.StoredAttention.
func (k *kernels) MeetsStored(typ tensor.DType) bool {
	var row [32]float32
	src := make([]byte, typ.RowBytes(len(row)))
	return typ == tensor.F32 || backend.CanStore(typ, len(row)) == nil && widenFast(row[:], typ, src, len(row), 1, len(src)) == 1
}

// StoreRows implements backend.StoredAttention.
func (k *kernels) StoreRows(dst []byte, typ tensor.DType, src []float32) {
	backend.Need("store rows", "dst", len(dst), typ.RowBytes(len(src)))
	switch {
	case len(src) == 0:
	case typ == tensor.F32:
		copy(dst, tensor.Bytes(src))
	case typ == tensor.F16:
		done := narrowHalves(dst, src)
		backend.Quantize(dst[2*done:], typ, src[done:])
	default:
		backend.Quantize(dst, typ, src)
	}
}

// AttentionStored implements backend.StoredAttention.
func (k *kernels) AttentionStored(a backend.AttentionArgs, stored []backend.Stored) {
	backend.CheckStored(&a, stored)
	st := k.stored
	if st == nil {
		st = &storedJob{}
		st.pieces, st.scores, st.weights, st.values = k.storedLoop, k.storedScoresLoop, k.storedWeightsLoop, k.storedValuesLoop
		k.stored = st
	}
	st.given, st.of, st.seqs = stored, st.of[:0], st.seqs[:0]
	for n, s := range a.Seqs {
		if s.QLen > fewQueries || a.HeadDim%k.o.w != 0 {
			k.attendExpanded(a, n)
			continue
		}
		for i := range s.QLen {
			keys := s.KLen
			if a.Causal {
				keys = min(max(s.KLen-s.QLen+i+1, 0), s.KLen)
			} else if a.Window > 0 && s.QLen > 1 { // a two-sided window is seen from the last key
				k.attendExpanded(a, n)
				break
			}
			st.seqs = append(st.seqs, backend.Seq{QStart: s.QStart + i, QLen: 1, KLen: keys})
			st.of = append(st.of, stored[n])
		}
	}
	a.Seqs = st.seqs
	k.attn = attentionJob{AttentionArgs: a, group: a.Heads / a.KVHeads}
	work := 0
	for _, s := range st.seqs {
		lo, hi := a.KeyRange(s, 0)
		work += (hi - lo) * a.HeadDim * a.Heads
	}
	pieces := len(st.seqs) * a.KVHeads
	switch {
	case work < 1<<14 || k.pool.threads == 1:
		k.storedLoop(0, 0, pieces)
	case pieces < 2*k.pool.threads && work >= pieces<<17:
		for i := range pieces {
			k.splitStored(i)
		}
	default:
		k.pool.run(pieces, 1, st.pieces)
	}
	clear(st.of)
	st.given = nil
}

// attendExpanded computes sequence n over what it sees, in float32. What no query sees is left out by whole blocks of keys, so that sums are cut at the
// same places.
func (k *kernels) attendExpanded(a backend.AttentionArgs, n int) {
	st, s, width := k.stored, a.Seqs[n], a.KVHeads*a.HeadDim
	from, _ := a.KeyRange(s, 0)
	from -= from % keyBlock
	s.KStart, s.KLen = 0, s.KLen-from
	a.K = k.expandRows(&st.k, st.given[n].Type, st.given[n].K, width, from, s.KLen)
	a.V = k.expandRows(&st.v, st.given[n].Type, st.given[n].V, width, from, s.KLen)
	st.whole[0] = s
	a.Seqs, a.KStride, a.VStride = st.whole[:], width, width
	k.Attention(a)
}

func (k *kernels) expandRows(buf *[]float32, typ tensor.DType, src []byte, width, from, rows int) []float32 {
	size := typ.RowBytes(width)
	src = src[from*size : (from+rows)*size]
	if typ == tensor.F32 {
		return backend.ExpandStored(nil, typ, src, rows*width)
	}
	dst := grow(buf, rows*width)
	if rows > 0 {
		widen(dst, typ, src, width, rows, size)
	}
	return dst
}

// widen writes rows of n elements, stride bytes apart, one after the other as float32. n is a whole number of blocks.
func widen(dst []float32, typ tensor.DType, src []byte, n, rows, stride int) {
	done := widenFast(dst, typ, src, n, rows, stride)
	for r := done; r < rows; r++ {
		backend.DequantizeRow(dst[r*n:(r+1)*n], typ, src[r*stride:])
	}
}

func (k *kernels) storedLoop(w, lo, hi int) {
	a, ws := &k.attn, k.work[w]
	for i := lo; i < hi; i++ {
		n, kh := i/a.KVHeads, i%a.KVHeads
		ld := k.scoreStride(a.Seqs[n].KLen)
		x := grow(&ws.s, a.group*(ld+1))
		from, to := a.KeyRange(a.Seqs[n], 0)
		k.scoreStored(ws, x, ld, n, kh, from, to)
		for g := range a.group {
			x[a.group*ld+g] = k.weighOne(x, ld, n, kh, g, from, to)
		}
		k.sumStored(ws, x, ld, n, kh, from, to, 0, a.HeadDim)
	}
}

// splitStored computes piece i on all workers: scores by keys, softmax by heads, values by columns. No sum is cut.
func (k *kernels) splitStored(i int) {
	a, st := &k.attn, k.stored
	st.n, st.kh = i/a.KVHeads, i%a.KVHeads
	st.ld = k.scoreStride(a.Seqs[st.n].KLen)
	st.lo, st.hi = a.KeyRange(a.Seqs[st.n], 0)
	st.w = grow(&k.work[0].s, a.group*(st.ld+1))
	st.width = max(storedColumns, roundUp((a.HeadDim+k.pool.threads-1)/k.pool.threads, storedColumns))
	k.pool.run((st.hi-st.lo+scoreChunk-1)/scoreChunk, 1, st.scores)
	k.pool.run(a.group, 1, st.weights)
	k.pool.run((a.HeadDim+st.width-1)/st.width, 1, st.values)
}

func (k *kernels) storedScoresLoop(w, lo, hi int) {
	st := k.stored
	k.scoreStored(k.work[w], st.w, st.ld, st.n, st.kh, st.lo+lo*scoreChunk, min(st.lo+hi*scoreChunk, st.hi))
}

func (k *kernels) storedWeightsLoop(_, lo, hi int) {
	st, group := k.stored, k.attn.group
	for g := lo; g < hi; g++ {
		st.w[group*st.ld+g] = k.weighOne(st.w, st.ld, st.n, st.kh, g, st.lo, st.hi)
	}
}

func (k *kernels) storedValuesLoop(w, lo, hi int) {
	st := k.stored
	k.sumStored(k.work[w], st.w, st.ld, st.n, st.kh, st.lo, st.hi, lo*st.width, min(hi*st.width, k.attn.HeadDim))
}

// scoreStored writes the scaled scores of keys [lo, hi) for the heads of a group.
func (k *kernels) scoreStored(ws *scratch, w []float32, ld, n, kh, lo, hi int) {
	a, s, d := &k.attn, k.attn.Seqs[n], k.attn.HeadDim
	of := &k.stored.of[n]
	size, at := of.Type.RowBytes(a.KVHeads*d), of.Type.RowBytes(kh*d)
	for k0 := lo; k0 < hi; k0 += storedRows {
		count := min(storedRows, hi-k0)
		src := of.K[k0*size+at:]
		keys, stride := (*float32)(unsafe.Pointer(&src[0])), size
		if of.Type != tensor.F32 {
			x := grow(&ws.k, storedRows*d)
			widen(x, of.Type, src, d, count, size)
			keys, stride = p(x), 4*d
		}
		for g := range a.group {
			k.o.dots(p(w[g*ld+k0:]), p(a.Q[s.QStart*a.QStride+(kh*a.group+g)*d:]), keys, stride, d, count, a.Scale)
		}
	}
}

// sumStored adds the weighted values up, in columns [d0, d1) of each head of a group; the sums of the weights stand behind them.
func (k *kernels) sumStored(ws *scratch, w []float32, ld, n, kh, lo, hi, d0, d1 int) {
	a, s, d := &k.attn, k.attn.Seqs[n], k.attn.HeadDim
	of := &k.stored.of[n]
	size := of.Type.RowBytes(a.KVHeads * d)
	sums := w[a.group*ld:]
	out := a.Out[s.QStart*a.OStride+kh*a.group*d:]
	for c0 := d0; c0 < d1; {
		c1 := d1
		if of.Type != tensor.F32 {
			c1 = min(c0+storedColumns, d1)
		}
		at := of.Type.RowBytes(kh*d + c0)
		for k0 := lo; k0 < hi; {
			k1 := min(roundUp(k0+1, keyBlock), hi)
			src := of.V[k0*size+at:]
			v, stride := (*float32)(unsafe.Pointer(&src[0])), size/4
			if of.Type != tensor.F32 {
				x := grow(&ws.v, keyBlock*storedColumns)
				widen(x, of.Type, src, c1-c0, k1-k0, size)
				v, stride = p(x), c1-c0
			}
			acc := 0
			if k0 > lo {
				acc = 1
			}
			for g := 0; g < a.group; g += k.o.rows {
				k.columns(min(k.o.rows, a.group-g), k1-k0, p(w[g*ld+k0:]), ld, 1, v, stride, p(out[g*d+c0:]), d, c1-c0, 1, acc)
			}
			k0 = k1
		}
		c0 = c1
	}
	for g := range a.group {
		k.normalise(out[g*d+d0:g*d+d1], sums[g])
	}
}
