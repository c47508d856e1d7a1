package native

import (
	"math"

	"github.com/temper-ml/temper/backend"
)

// Attention runs one sequence and key head at a time: the keys are packed once for all query heads of the group, then query rows go tile by
// tile through scores, softmax and values while all of it is in cache. Masks are ranges of keys (causal, window), never stored. A row's
// result does not depend on the tile that it falls into: scores outside of its range are weighed with exact zeros, and sums over keys are
// cut at multiples of keyBlock from the sequence's first key.

const keyBlock = 512

// attentionJob is the call in progress.
type attentionJob struct {
	backend.AttentionArgs
	group int
	cut   int // query rows in a piece; 0 is all of them
	// The sequence, key head and scores [group, ld] that attendSplit is at.
	n, kh  int
	split  []float32
	ld     int
	width  int // values in a piece
	lo, hi int // keys
	// byHead: pieces are key heads, since sequences share keys or bias gradients; otherwise sequences and key heads.
	byHead bool
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// scoreStride is the row stride of scores over n keys: whole panels, and not a multiple of 4 KB, so that the rows of a tile do not compete.
func (k *kernels) scoreStride(n int) int {
	s := roundUp(n, 2*k.o.w)
	if s%1024 == 0 && s > 0 {
		s += 2 * k.o.w
	}
	return s
}

func (k *kernels) Attention(a backend.AttentionArgs) {
	a.Check(false)
	k.attn = attentionJob{AttentionArgs: a, group: a.Heads / a.KVHeads}
	pieces := len(a.Seqs) * a.KVHeads
	if pieces == 0 {
		return
	}
	work, longest := 0, 0
	for _, s := range a.Seqs {
		work += s.QLen * s.KLen
		longest = max(longest, s.QLen)
	}
	if k.pool.threads > 1 && pieces < 2*k.pool.threads && longest == 1 && a.HeadDim%k.o.w == 0 && k.worthSplitting() {
		for n := range a.Seqs {
			for kh := range a.KVHeads {
				k.attendSplit(n, kh)
			}
		}
		return
	}
	// Few pieces: cut the queries as well, although each cut packs the keys anew.
	k.attn.cut = max(longest, 1)
	if t := k.pool.threads; t > 1 && pieces < 3*t {
		k.attn.cut = max(64, roundUp(longest/(2*t), 2))
	}
	cuts := (max(longest, 1) + k.attn.cut - 1) / k.attn.cut
	if work*a.Heads*a.HeadDim < 1<<14 {
		k.attentionLoop(0, 0, pieces*cuts)
		return
	}
	k.pool.run(pieces*cuts, 1, k.loops.attention)
}

// worthSplitting reports whether each of the sequences, of one query, sees enough keys for the meetings of attendSplit to pay.
func (k *kernels) worthSplitting() bool {
	a := &k.attn
	for _, s := range a.Seqs {
		if lo, hi := a.KeyRange(s, 0); s.QLen != 1 || (hi-lo)*a.HeadDim*a.group < 1<<17 {
			return false
		}
	}
	return true
}

func (k *kernels) attentionLoop(w, lo, hi int) {
	a := &k.attn
	pieces := len(a.Seqs) * a.KVHeads
	for i := lo; i < hi; i++ {
		n, kh := i%pieces/a.KVHeads, i%a.KVHeads
		from := i / pieces * a.cut
		to := min(from+a.cut, a.Seqs[n].QLen)
		switch {
		case from >= to:
		case a.Seqs[n].QLen == 1 && a.HeadDim%k.o.w == 0:
			k.attendOne(k.work[w], n, kh)
		default:
			k.attend(k.work[w], n, kh, from, to)
		}
	}
}

// packKeys writes head kh's keys (or values) of s, transposed into panels: [keys/nr][d][nr].
func (k *kernels) packKeys(buf *[]float32, src []float32, stride int, s backend.Seq, kh int) []float32 {
	d, nr := k.attn.HeadDim, 2*k.o.w
	panels := (s.KLen + nr - 1) / nr
	dst := grow(buf, panels*d*nr)
	for q := range panels {
		at := (s.KStart+q*nr)*stride + kh*d
		k.packTransposed(dst[q*d*nr:(q+1)*d*nr], src[at:], stride, min(nr, s.KLen-q*nr), d, nr)
	}
	return dst
}

// copyRows copies rows of d values into rows of dp >= d values, zero-padded.
func copyRows(buf *[]float32, src []float32, at, stride, rows, d, dp int) []float32 {
	dst := grow(buf, rows*dp)
	for r := range rows {
		copy(dst[r*dp:r*dp+d], src[at+r*stride:at+r*stride+d])
		clear(dst[r*dp+d : (r+1)*dp])
	}
	return dst
}

// tileCount cuts rows into even tiles.
func (k *kernels) tileCount(rows int) int { return (rows + k.o.rows - 1) / k.o.rows }

// columns runs the tile kernel over all columns of a B of n columns that is stored row by row (row stride bs elements, readable up to the next
// multiple of a vector).
func (k *kernels) columns(rows, kn int, a *float32, rs, ks int, b *float32, bs int, c *float32, cs, n int, alpha float32, acc int) {
	o := k.o
	for c0 := 0; c0 < n; c0 += 2 * o.w {
		left := min(2*o.w, n-c0)
		vecs := (left + o.w - 1) / o.w
		o.tile[vecs-1][rows](kn, a, 4*rs, 4*ks, off(b, c0), 4*bs, off(c, c0), 4*cs, left, alpha, acc, b, 0)
	}
}

// scores writes rows [i0, i1) of the scaled scores of head h against panels [q0, q1) of packed keys.
func (k *kernels) scores(dst []float32, ld int, x []float32, at, stride, rows int, kt []float32, q0, q1 int, scale float32) {
	o, d, nr := k.o, k.attn.HeadDim, 2*k.o.w
	for q := q0; q < q1; q++ {
		o.tile[1][rows](d, p(x[at:]), 4*stride, 4, p(kt[q*d*nr:]), 4*nr, p(dst[q*nr:]), 4*ld, nr, scale, 0, p(kt[q*d*nr:]), 0)
	}
}

// shape turns the scaled scores of query i into its final scores in [lo, hi). t, when not nil, receives the capped scores over Softcap.
func (k *kernels) shape(row, t []float32, n, h, i, lo, hi int) {
	a, o := &k.attn, k.o
	s := row[lo:hi]
	if a.Softcap > 0 {
		if t == nil {
			t = s
		} else {
			t = t[lo:hi]
			copy(t, s)
		}
		o.scale(p(t), len(t), 1/a.Softcap)
		o.act[backend.Tanh](p(t), p(t), len(t))
		copy(s, t)
		o.scale(p(s), len(s), a.Softcap)
	}
	if a.Bias != nil {
		seq := a.Seqs[n]
		at := a.BiasAt[n] + (h*seq.QLen+i)*seq.KLen
		o.add(p(s), p(s), p(a.Bias[at+lo:]), len(s))
	}
}

// drop multiplies the weights of a row, which starts at key lo, by what dropout makes of them: 0 or 1/(1-P).
func (k *kernels) drop(w []float32, row, h, lo int) {
	a := &k.attn
	k.dropout(w, w, a.DropoutP, a.DropoutSeed, backend.AttentionIndex(row, a.Heads, h, lo))
}

// softmaxRow turns the final scores row[lo:hi] into weights before normalisation, with zeros elsewhere in [from, to), and returns their sum
// and, where it is wanted, the log-sum-exp.
func (k *kernels) softmaxRow(row []float32, lo, hi, from, to int) (sum, lse float32) {
	top := negInf
	if lo < hi {
		top = k.o.maxOf(p(row[lo:hi]), hi-lo)
	}
	if top == negInf {
		clear(row[from:to])
		return 0, negInf
	}
	sum = k.o.expSum(p(row[lo:hi]), p(row[lo:hi]), hi-lo, top)
	clear(row[from:lo])
	clear(row[hi:to])
	if k.attn.LSE != nil {
		lse = float32(float64(top) + math.Log(float64(sum)))
	}
	return sum, lse
}

// normalise divides an output row by the sum of its weights.
func (k *kernels) normalise(out []float32, sum float32) {
	if sum == 0 {
		clear(out)
		return
	}
	k.o.scale(p(out), len(out), 1/sum)
}

// attend computes query rows [from, to) of sequence n for the heads that share key head kh.
func (k *kernels) attend(ws *scratch, n, kh, from, to int) {
	a, s, d, nr := &k.attn, k.attn.Seqs[n], k.attn.HeadDim, 2*k.o.w
	dp := roundUp(d, k.o.w)
	kt := k.packKeys(&ws.kt, a.K, a.KStride, s, kh)
	tiles := k.tileCount(to - from)
	v, vs := a.V[min(s.KStart*a.VStride+kh*d, len(a.V)):], a.VStride
	if d != dp || tiles*a.group > 2 { // read often enough to lie together
		v, vs = k.copyHead(&ws.v, v, a.VStride, s.KLen, d, dp), dp
	}
	ld := k.scoreStride(s.KLen)
	w := grow(&ws.s, k.o.rows*ld)
	sums := grow(&ws.t, k.o.rows)
	whole := k.o.softRows != nil && s.KLen > 0 && a.seesAll()
	for h := kh * a.group; h < (kh+1)*a.group; h++ {
		for t := range tiles {
			i0, i1 := from+t*(to-from)/tiles, from+(t+1)*(to-from)/tiles
			rows := i1 - i0
			first, _ := a.KeyRange(s, i0)
			_, last := a.KeyRange(s, i1-1)
			q0, q1 := first/nr, (last+nr-1)/nr
			if last <= first {
				q0, q1 = 0, 0
			}
			row := s.QStart + i0
			k.scores(w, ld, a.Q, row*a.QStride+h*d, a.QStride, rows, kt, q0, q1, a.Scale)
			if whole {
				k.o.softRows(p(w), 4*ld, rows, s.KLen, &sums[0])
			}
			for r := 0; r < rows && !whole; r++ {
				lo, hi := a.KeyRange(s, i0+r)
				if lo >= hi {
					lo, hi = q0*nr, q0*nr
				}
				x := w[r*ld : (r+1)*ld]
				k.shape(x, nil, n, h, i0+r, lo, hi)
				var lse float32
				sums[r], lse = k.softmaxRow(x, lo, hi, q0*nr, q1*nr)
				if a.LSE != nil {
					a.LSE[(row+r)*a.Heads+h] = lse
				}
				if a.DropoutP > 0 {
					k.drop(x[lo:hi], row+r, h, lo)
				}
			}
			out := p(a.Out[row*a.OStride+h*d:])
			acc := 0
			for k0 := q0 * nr; acc == 0 || k0 < last; {
				k1 := min(roundUp(k0+1, keyBlock), max(last, k0))
				k.columns(rows, k1-k0, off(p(w), k0), ld, 1, off(p(v), k0*vs), vs, out, a.OStride, d, 1, acc)
				k0, acc = k1, 1
			}
			if whole {
				k.normaliseRows(a.Out[row*a.OStride+h*d:], a.OStride, rows, d, sums[:rows])
				continue
			}
			for r := range rows {
				at := (row+r)*a.OStride + h*d
				k.normalise(a.Out[at:at+d], sums[r])
			}
		}
	}
}

// seesAll reports whether all that attention does to scores is softmax, over all keys.
func (a *attentionJob) seesAll() bool {
	return !a.Causal && a.Window == 0 && a.Bias == nil && a.Softcap <= 0 && a.LSE == nil && a.DropoutP <= 0
}

// normaliseRows divides rows of n values by their sums, which it overwrites.
func (k *kernels) normaliseRows(x []float32, stride, rows, n int, sums []float32) {
	for r, s := range sums {
		if s == 0 {
			clear(x[r*stride : r*stride+n])
			continue
		}
		sums[r] = 1 / s
	}
	k.o.scaleRows(p(x), 4*stride, rows, n, p(sums))
}

// copyHead is copyRows from the start of src, for many short rows.
func (k *kernels) copyHead(buf *[]float32, src []float32, stride, rows, d, dp int) []float32 {
	if d != dp {
		return copyRows(buf, src, 0, stride, rows, d, dp)
	}
	dst := grow(buf, rows*dp)
	for c := 0; c < d && rows > 0; c += k.o.w {
		k.o.copyStrided(p(dst[c:]), 4*dp, p(src[c:]), 4*stride, k.o.w, rows)
	}
	return dst
}

// attendOne is attend for a sequence of one query, as in generation: nothing is packed, keys and values stream through once. The heads of a
// group are the rows of the product with the values.
func (k *kernels) attendOne(ws *scratch, n, kh int) {
	a, s := &k.attn, k.attn.Seqs[n]
	ld := k.scoreStride(s.KLen)
	w, sums := grow(&ws.s, a.group*ld), grow(&ws.t, a.group)
	lo, hi := a.KeyRange(s, 0)
	k.scoreOne(w, ld, n, kh, lo, hi)
	for g := range a.group {
		sums[g] = k.weighOne(w, ld, n, kh, g, lo, hi)
	}
	k.sumOne(w, sums, ld, n, kh, lo, hi, 0, a.HeadDim)
}

// scoreChunk is how many keys stay in cache from one head of a group to the next.
const scoreChunk = 64

// attendSplit is attendOne on all workers, for long caches where there are fewer sequences and key heads than workers: scores by keys, softmax by
// heads, values by columns. No sum is cut, so the bits are attendOne's.
func (k *kernels) attendSplit(n, kh int) {
	a, s := &k.attn, k.attn.Seqs[n]
	a.n, a.kh, a.ld = n, kh, k.scoreStride(s.KLen)
	a.lo, a.hi = a.KeyRange(s, 0)
	a.split = grow(&k.work[0].s, a.group*(a.ld+1))
	a.width = max(4*k.o.w, roundUp((a.HeadDim+k.pool.threads-1)/k.pool.threads, 2*k.o.w))
	k.pool.run((a.hi-a.lo+scoreChunk-1)/scoreChunk, 1, k.loops.attendScores)
	k.pool.run(a.group, 1, k.loops.attendWeights)
	k.pool.run((a.HeadDim+a.width-1)/a.width, 1, k.loops.attendValues)
}

func (k *kernels) attendScoresLoop(_, lo, hi int) {
	a := &k.attn
	k.scoreOne(a.split, a.ld, a.n, a.kh, a.lo+lo*scoreChunk, min(a.lo+hi*scoreChunk, a.hi))
}

func (k *kernels) attendWeightsLoop(_, lo, hi int) {
	a := &k.attn
	for g := lo; g < hi; g++ {
		a.split[a.group*a.ld+g] = k.weighOne(a.split, a.ld, a.n, a.kh, g, a.lo, a.hi)
	}
}

func (k *kernels) attendValuesLoop(_, lo, hi int) {
	a := &k.attn
	k.sumOne(a.split, a.split[a.group*a.ld:], a.ld, a.n, a.kh, a.lo, a.hi, lo*a.width, min(hi*a.width, a.HeadDim))
}

// scoreOne writes the scaled scores of keys [lo, hi) for the heads of a group.
func (k *kernels) scoreOne(w []float32, ld, n, kh, lo, hi int) {
	a, s, d := &k.attn, k.attn.Seqs[n], k.attn.HeadDim
	for k0 := lo; k0 < hi; k0 += scoreChunk {
		count := min(scoreChunk, hi-k0)
		for g := range a.group {
			k.o.dots(p(w[g*ld+k0:]), p(a.Q[s.QStart*a.QStride+(kh*a.group+g)*d:]), p(a.K[(s.KStart+k0)*a.KStride+kh*d:]), 4*a.KStride, d, count, a.Scale)
		}
	}
}

// weighOne turns the scores of head g of a group into weights and returns their sum.
func (k *kernels) weighOne(w []float32, ld, n, kh, g, lo, hi int) float32 {
	a, row, h := &k.attn, k.attn.Seqs[n].QStart, kh*k.attn.group+g
	x := w[g*ld : (g+1)*ld]
	k.shape(x, nil, n, h, 0, lo, hi)
	sum, lse := k.softmaxRow(x, lo, hi, lo, hi)
	if a.LSE != nil {
		a.LSE[row*a.Heads+h] = lse
	}
	if a.DropoutP > 0 {
		k.drop(x[lo:hi], row, h, lo)
	}
	return sum
}

// sumOne adds the weighted values up, in columns [d0, d1) of each head of a group.
func (k *kernels) sumOne(w, sums []float32, ld, n, kh, lo, hi, d0, d1 int) {
	a, s, d := &k.attn, k.attn.Seqs[n], k.attn.HeadDim
	for g0 := 0; g0 < a.group; g0 += k.o.rows {
		rows := min(k.o.rows, a.group-g0)
		out := a.Out[s.QStart*a.OStride+(kh*a.group+g0)*d:]
		acc := 0
		for k0 := lo; acc == 0 || k0 < hi; {
			k1 := min(roundUp(k0+1, keyBlock), max(hi, k0))
			v := p(a.V)
			if k0 < k1 {
				v = p(a.V[(s.KStart+k0)*a.VStride+kh*d+d0:])
			}
			k.columns(rows, k1-k0, p(w[g0*ld+min(k0, ld):]), ld, 1, v, a.VStride, p(out[d0:]), d, d1-d0, 1, acc)
			k0, acc = k1, 1
		}
		for g := range rows {
			k.normalise(out[g*d+d0:g*d+d1], sums[g0+g])
		}
	}
}

// queryBlock is how many tiles of query rows the backward takes at once: their scores and score gradients stay in cache, and the gradients of
// keys and values are summed over them in registers.
const queryBlock = 4

func (k *kernels) AttentionBackward(a backend.AttentionArgs) {
	a.Check(true)
	k.attn = attentionJob{AttentionArgs: a, group: a.Heads / a.KVHeads}
	if len(a.Seqs) == 0 {
		return
	}
	work, key, bias := 0, 0, 0
	for n, s := range a.Seqs {
		work += s.QLen * s.KLen
		if s.KLen > 0 {
			k.attn.byHead = k.attn.byHead || s.KStart < key
			key = s.KStart + s.KLen
		}
		if a.DBias != nil {
			k.attn.byHead = k.attn.byHead || a.BiasAt[n] < bias
			bias = a.BiasAt[n] + a.Heads*s.QLen*s.KLen
		}
	}
	pieces := a.KVHeads
	if !k.attn.byHead {
		pieces *= len(a.Seqs)
	}
	if work*a.Heads*a.HeadDim < 1<<13 {
		k.attentionBackLoop(0, 0, pieces)
		return
	}
	k.pool.run(pieces, 1, k.loops.attentionBack)
}

func (k *kernels) attentionBackLoop(w, lo, hi int) {
	a := &k.attn
	for i := lo; i < hi; i++ {
		if !a.byHead {
			k.attendBack(k.work[w], i/a.KVHeads, i%a.KVHeads)
			continue
		}
		for n := range a.Seqs {
			k.attendBack(k.work[w], n, i)
		}
	}
}

// attendBack adds the gradients of sequence n for the heads that share key head kh. See backend's Generic for the formulas.
func (k *kernels) attendBack(ws *scratch, n, kh int) {
	a, s, d, nr, o := &k.attn, k.attn.Seqs[n], k.attn.HeadDim, 2*k.o.w, k.o
	if s.QLen == 0 || s.KLen == 0 {
		return
	}
	dp := roundUp(d, o.w)
	kt := k.packKeys(&ws.kt, a.K, a.KStride, s, kh)
	vt := k.packKeys(&ws.vt, a.V, a.VStride, s, kh)
	var keys []float32
	if a.DQ != nil {
		keys = copyRows(&ws.k, a.K, s.KStart*a.KStride+kh*d, a.KStride, s.KLen, d, dp)
	}
	ld := k.scoreStride(s.KLen)
	most := min(queryBlock*o.rows, s.QLen)
	// Four blocks of scores: weights, their gradients, weights after dropout, tanh of the cap.
	buf := grow(&ws.s, 4*most*ld)
	w, dw, kept, caps := buf[:most*ld], buf[most*ld:2*most*ld], buf[2*most*ld:3*most*ld], buf[3*most*ld:]
	if a.DropoutP <= 0 {
		kept = w
	}
	if a.Softcap <= 0 {
		caps = nil
	}
	for h := kh * a.group; h < (kh+1)*a.group; h++ {
		for i0 := 0; i0 < s.QLen; i0 += most {
			i1 := min(i0+most, s.QLen)
			rows := i1 - i0
			first, _ := a.KeyRange(s, i0)
			_, last := a.KeyRange(s, i1-1)
			if last <= first {
				continue
			}
			q0, q1 := first/nr, (last+nr-1)/nr
			row := s.QStart + i0
			q := copyRows(&ws.q, a.Q, row*a.QStride+h*d, a.QStride, rows, d, dp)
			do := copyRows(&ws.do, a.DOut, row*a.OStride+h*d, a.OStride, rows, d, dp)
			tiles := k.tileCount(rows)
			for t := range tiles {
				r0, r1 := t*rows/tiles, (t+1)*rows/tiles
				k.scores(w[r0*ld:], ld, q, r0*dp, dp, r1-r0, kt, q0, q1, a.Scale)
				k.scores(dw[r0*ld:], ld, do, r0*dp, dp, r1-r0, vt, q0, q1, 1)
			}
			for r := range rows {
				lo, hi := a.KeyRange(s, i0+r)
				x := w[r*ld : (r+1)*ld]
				lse := a.LSE[(row+r)*a.Heads+h]
				if lo >= hi || math.IsInf(float64(lse), -1) {
					clear(x[q0*nr : q1*nr])
					clear(kept[r*ld+q0*nr : r*ld+q1*nr])
					continue
				}
				var t []float32
				if caps != nil {
					t = caps[r*ld : (r+1)*ld]
				}
				k.shape(x, t, n, h, i0+r, lo, hi)
				o.expSum(p(x[lo:hi]), p(x[lo:hi]), hi-lo, lse)
				clear(x[q0*nr : lo])
				clear(x[hi : q1*nr])
				if a.DropoutP > 0 {
					y := kept[r*ld : (r+1)*ld]
					copy(y[q0*nr:q1*nr], x[q0*nr:q1*nr])
					k.drop(y[lo:hi], row+r, h, lo)
					k.drop(dw[r*ld+lo:r*ld+hi], row+r, h, lo)
				}
			}
			if a.DV != nil {
				k.keyGradient(a.DV, a.VStride, s, kh, kept, ld, do, dp, rows, q0*nr, last, 1)
			}
			for r := range rows {
				lo, hi := a.KeyRange(s, i0+r)
				if lo >= hi {
					continue
				}
				at := (row+r)*a.OStride + h*d
				delta := o.dot(p(a.DOut[at:at+d]), p(a.Out[at:at+d]), d)
				x := w[r*ld+lo : r*ld+hi]
				o.mulSub(p(x), p(dw[r*ld+lo:]), len(x), delta)
				if a.DBias != nil {
					g := a.DBias[a.BiasAt[n]+(h*s.QLen+i0+r)*s.KLen+lo:][:len(x)]
					o.add(p(g), p(g), p(x), len(x))
				}
				if caps != nil {
					t := caps[r*ld+lo : r*ld+hi]
					for j, v := range t {
						x[j] *= 1 - v*v
					}
				}
			}
			if a.DQ != nil {
				for t := range tiles {
					r0, r1 := t*rows/tiles, (t+1)*rows/tiles
					dq := p(a.DQ[(row+r0)*a.QStride+h*d:])
					for k0 := q0 * nr; k0 < last; {
						k1 := min(roundUp(k0+1, keyBlock), last)
						k.columns(r1-r0, k1-k0, p(w[r0*ld+k0:]), ld, 1, p(keys[k0*dp:]), dp, dq, a.QStride, d, a.Scale, 1)
						k0 = k1
					}
				}
			}
			if a.DK != nil {
				k.keyGradient(a.DK, a.KStride, s, kh, w, ld, q, dp, rows, q0*nr, last, a.Scale)
			}
		}
	}
}

// keyGradient adds scale·Wᵀ·X to the rows of keys [from, to) of dst, where W [rows, keys] has row stride ld and X [rows, d] has dp.
func (k *kernels) keyGradient(dst []float32, stride int, s backend.Seq, kh int, w []float32, ld int, x []float32, dp, rows, from, to int, scale float32) {
	d := k.attn.HeadDim
	tiles := k.tileCount(to - from)
	for t := range tiles {
		j0, j1 := from+t*(to-from)/tiles, from+(t+1)*(to-from)/tiles
		c := p(dst[(s.KStart+j0)*stride+kh*d:])
		k.columns(j1-j0, rows, p(w[j0:]), 1, ld, p(x), dp, c, stride, d, scale, 1)
	}
}
