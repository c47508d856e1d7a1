//go:build wasip1

package wasm

import (
	"math"

	"github.com/temper-ml/temper/backend"
)

// Softmax normalises rows.
func (k *Kernels) Softmax(dst, src []float32, rows, cols int) {
	backend.Need("softmax", "src", len(src), rows*cols)
	backend.Need("softmax", "dst", len(dst), rows*cols)
	per := rowsPerChunk(cols * 6)
	k.begin().f32(dst, src).ints(rows, cols, per)
	k.run(opSoftmax, ceil(rows, per))
}

// LayerNorm normalises rows by mean and variance.
func (k *Kernels) LayerNorm(dst, x, gain, bias []float32, rows, cols int, eps float32, mean, rstd []float32) {
	backend.CheckNorm("layer norm", dst, x, gain, bias, mean, rstd, rows, cols)
	per := rowsPerChunk(cols * 3)
	k.begin().f32(dst, x, gain, bias, mean, rstd).ints(rows, cols, per).floats(eps)
	k.run(opLayerNorm, ceil(rows, per))
}

// RMSNorm normalises rows by their root mean square.
func (k *Kernels) RMSNorm(dst, x, gain []float32, rows, cols int, eps float32, rstd []float32) {
	backend.CheckNorm("rms norm", dst, x, gain, nil, nil, rstd, rows, cols)
	per := rowsPerChunk(cols * 3)
	k.begin().f32(dst, x, gain, nil, nil, rstd).ints(rows, cols, per).floats(eps)
	k.run(opRMSNorm, ceil(rows, per))
}

// LayerNormBackward adds gradients.
func (k *Kernels) LayerNormBackward(dx, dgain, dbias, dy, x, gain, mean, rstd []float32, rows, cols int) {
	backend.Need("layer norm backward", "mean", len(mean), rows)
	k.normBackward("layer norm backward", dx, dgain, dbias, dy, x, gain, mean, rstd, rows, cols)
}

// RMSNormBackward adds gradients.
func (k *Kernels) RMSNormBackward(dx, dgain, dy, x, gain, rstd []float32, rows, cols int) {
	k.normBackward("rms norm backward", dx, dgain, nil, dy, x, gain, nil, rstd, rows, cols)
}

func (k *Kernels) normBackward(op string, dx, dgain, dbias, dy, x, gain, mean, rstd []float32, rows, cols int) {
	backend.CheckNormBackward(op, dx, dgain, dbias, dy, x, gain, mean, rstd, rows, cols)
	// Parameters first: dx may be dy.
	if dgain != nil {
		k.sumRows(dgain, x, dy, mean, rstd, rows, cols)
	}
	if dbias != nil {
		k.sumRows(dbias, dy, nil, nil, nil, rows, cols)
	}
	if dx != nil {
		per := rowsPerChunk(cols * 6)
		k.begin().f32(dx, dy, x, gain, mean, rstd).ints(rows, cols, per)
		k.run(opNormBackward, ceil(rows, per))
	}
}

// SumRows adds the sum over rows to dst.
func (k *Kernels) SumRows(dst, x []float32, rows, cols int) {
	backend.Need("sum rows", "x", len(x), rows*cols)
	backend.Need("sum rows", "dst", len(dst), cols)
	k.sumRows(dst, x, nil, nil, nil, rows, cols)
}

func (k *Kernels) sumRows(dst, x, dy, mean, rstd []float32, rows, cols int) {
	per := (min(64, max(8, (1<<15)/max(rows, 1))) + 3) &^ 3
	k.begin().f32(dst, x, dy, mean, rstd).ints(rows, cols, per)
	k.run(opSumRows, ceil(cols, per))
}

const elements = 16 << 10 // of a chunk

// Act applies an activation.
func (k *Kernels) Act(dst, x []float32, a backend.Activation) {
	backend.Need("act", "dst", len(dst), len(x))
	k.begin().f32(dst, x).ints(len(x), elements/4, int(a))
	k.run(opAct, ceil(len(x), elements/4))
}

// ActBackward adds dy·a'(x) to dx.
func (k *Kernels) ActBackward(dx, dy, x []float32, a backend.Activation) {
	backend.Need("act backward", "dx", len(dx), len(x))
	backend.Need("act backward", "dy", len(dy), len(x))
	k.begin().f32(dx, dy, x).ints(len(x), elements/4, int(a))
	k.run(opActBackward, ceil(len(x), elements/4))
}

func (k *Kernels) binary(kind int, dst, a, b []float32, s float32) {
	k.begin().f32(dst, a, b).ints(len(dst), elements, kind).floats(s)
	k.run(opBinary, ceil(len(dst), elements))
}

// Add writes a+b.
func (k *Kernels) Add(dst, a, b []float32) {
	backend.Need("add", "a", len(a), len(dst))
	backend.Need("add", "b", len(b), len(dst))
	k.binary(0, dst, a, b, 0)
}

// Mul writes a·b.
func (k *Kernels) Mul(dst, a, b []float32) {
	backend.Need("mul", "a", len(a), len(dst))
	backend.Need("mul", "b", len(b), len(dst))
	k.binary(1, dst, a, b, 0)
}

// Axpy adds s·x to dst.
func (k *Kernels) Axpy(dst []float32, s float32, x []float32) {
	backend.Need("axpy", "x", len(x), len(dst))
	k.binary(2, dst, dst, x, s)
}

// Scale multiplies dst by s.
func (k *Kernels) Scale(dst []float32, s float32) {
	k.begin().f32(dst).ints(len(dst), elements).floats(s)
	k.run(opScale, ceil(len(dst), elements))
}

// AddRow adds v to each row.
func (k *Kernels) AddRow(dst, v []float32, rows, cols int) {
	backend.Need("add row", "dst", len(dst), rows*cols)
	backend.Need("add row", "v", len(v), cols)
	per := rowsPerChunk(cols)
	k.begin().f32(dst, v).ints(rows, cols, per)
	k.run(opAddRow, ceil(rows, per))
}

func (k *Kernels) dot(a, b []float32) float64 {
	chunks := ceil(len(a), elements)
	part := grow(&k.partial, chunks)
	pointer(k.begin().f32(a, b), part).ints(len(a), elements)
	k.run(opDot, chunks)
	var s float64
	for _, v := range part {
		s += v
	}
	return s
}

// Dot is the sum of products, added in float64.
func (k *Kernels) Dot(a, b []float32) float32 {
	backend.Need("dot", "b", len(b), len(a))
	return float32(k.dot(a, b))
}

// SumSquares is the sum of squares.
func (k *Kernels) SumSquares(x []float32) float64 { return k.dot(x, x) }

// Gather copies or adds rows of a table.
func (k *Kernels) Gather(dst, table []float32, ids []int32, cols int, add bool) {
	backend.Need("gather", "dst", len(dst), len(ids)*cols)
	backend.CheckIDs("gather", len(table), ids, cols)
	flag := 0
	if add {
		flag = 1
	}
	per := rowsPerChunk(cols)
	pointer(k.begin().f32(dst, table), ids).ints(len(ids), cols, per, flag)
	k.run(opGather, ceil(len(ids), per))
}

// ScatterAdd adds rows to rows of a table, in the order of ids.
func (k *Kernels) ScatterAdd(table, src []float32, ids []int32, cols int) {
	backend.Need("scatter add", "src", len(src), len(ids)*cols)
	backend.CheckIDs("scatter add", len(table), ids, cols)
	pointer(k.begin().f32(table, src), ids).ints(len(ids), cols, 64)
	k.run(opScatterAdd, ceil(cols, 64))
}

// Rope rotates heads by position.
func (k *Kernels) Rope(r backend.RopeArgs) {
	r.Check()
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	rows, per := len(r.Pos), rowsPerChunk(r.Heads*r.HeadDim*2)
	pointer(k.begin().f32(r.X), r.Pos).f32(r.Cos, r.Sin).
		ints(rows, r.Stride, r.Heads, r.HeadDim, r.RotDim, flag(r.Interleaved), flag(r.Inverse), per)
	k.run(opRope, ceil(rows, per))
}

// CrossEntropy returns the summed loss and writes its gradient.
func (k *Kernels) CrossEntropy(logits []float32, targets []int32, rows, cols int, dlogits []float32, scale float32) float64 {
	backend.CheckCrossEntropy(logits, targets, rows, cols, dlogits)
	losses := grow(&k.partial, rows)
	per := rowsPerChunk(cols * 6)
	a := pointer(k.begin().f32(logits), targets).f32(dlogits)
	pointer(a, losses).ints(rows, cols, per).floats(scale)
	k.run(opCrossEntropy, ceil(rows, per))
	var sum float64
	for _, l := range losses {
		sum += l
	}
	return sum
}

// AdamW is one step of the optimiser.
func (k *Kernels) AdamW(a backend.AdamWArgs) {
	a.Check()
	if a.GradScale == 0 {
		a.GradScale = 1
	}
	c1 := float32(1 / (1 - math.Pow(float64(a.Beta1), float64(a.Step))))
	c2 := float32(1 / (1 - math.Pow(float64(a.Beta2), float64(a.Step))))
	k.begin().f32(a.P, a.G, a.M, a.V).ints(len(a.P), elements).floats(a.Beta1, a.Beta2, c1, c2, a.LR, a.LR*a.WD, a.Eps, a.GradScale)
	k.run(opAdamW, ceil(len(a.P), elements))
}

const itemFields = 7

// attentionArgs writes the C struct; block and whole concern the backward pass.
func (k *Kernels) attentionArgs(a *backend.AttentionArgs, count, block, whole int) {
	causal := 0
	if a.Causal {
		causal = 1
	}
	b := k.begin().f32(a.Q, a.K, a.V, a.Out, a.Bias, a.LSE)
	pointer(b, k.items).f32(a.DOut, a.DQ, a.DK, a.DV, a.DBias).
		ints(a.QStride, a.KStride, a.VStride, a.OStride, a.Heads, a.KVHeads, a.HeadDim, causal, a.Window).
		floats(a.Scale, a.Softcap, a.DropoutP).
		put(uint32(a.DropoutSeed)).put(uint32(a.DropoutSeed>>32)).
		ints(count, block, whole)
}

func biasAt(a *backend.AttentionArgs, i int) int {
	if a.Bias == nil && a.DBias == nil {
		return 0
	}
	return a.BiasAt[i]
}

func up8(n int) int { return (n + 7) &^ 7 }

// Attention computes softmax(scores)·V.
func (k *Kernels) Attention(a backend.AttentionArgs) {
	a.Check(false)
	k.items = k.items[:0]
	scratch := 0
	for i, s := range a.Seqs {
		block := 64
		if s.KLen > 1024 {
			block = 16
		}
		for from := 0; from < s.QLen; from += block {
			n := min(block, s.QLen-from)
			k.items = append(k.items, int32(s.QStart+from), int32(n), int32(from), int32(s.QLen), int32(s.KStart), int32(s.KLen), int32(biasAt(&a, i)))
			scratch = max(scratch, (n+a.HeadDim)*up8(s.KLen)*4)
		}
	}
	if len(k.items) == 0 {
		return
	}
	k.need(scratch)
	count := len(k.items) / itemFields
	a.DOut, a.DQ, a.DK, a.DV, a.DBias = nil, nil, nil, nil, nil
	k.attentionArgs(&a, count, 0, 0)
	k.run(opAttention, count*a.Heads)
}

// AttentionBackward adds to the gradients.
func (k *Kernels) AttentionBackward(a backend.AttentionArgs) {
	a.Check(true)
	k.items = k.items[:0]
	const block = 32
	scratch, whole, end := 0, 0, 0
	if a.DBias != nil {
		whole = 1
	}
	for i, s := range a.Seqs {
		if s.QLen == 0 || s.KLen == 0 {
			continue
		}
		if s.KStart < end { // shared keys: one thread must add to them
			whole = 1
		}
		end = max(end, s.KStart+s.KLen)
		k.items = append(k.items, int32(s.QStart), int32(s.QLen), 0, int32(s.QLen), int32(s.KStart), int32(s.KLen), int32(biasAt(&a, i)))
		scratch = max(scratch, (3*block+2*a.HeadDim)*up8(s.KLen)*4)
	}
	if len(k.items) == 0 {
		return
	}
	k.need(scratch)
	count := len(k.items) / itemFields
	k.attentionArgs(&a, count, block, whole)
	if whole == 1 {
		k.run(opAttentionBackward, a.KVHeads)
	} else {
		k.run(opAttentionBackward, count*a.KVHeads)
	}
}
