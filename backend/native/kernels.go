package native

import (
	"github.com/temper-ml/temper/backend"
)

// kernels splits each op over the pool in pieces whose results do not depend on where they are cut, and runs the pieces in assembly.
type kernels struct {
	o     *ops
	pool  *pool
	bf16  bool       // products round their operands to bfloat16
	exact bool       // quantized weights meet float32 activations
	work  []*scratch // by worker
	lanes []backend.Kernels
	held  holder // packed weights

	zeros, ones []float32 // grow to the widest row seen

	job  job // operands of the op in progress, read by the workers
	prod product
	attn attentionJob

	stored *storedJob

	// Bound once, so that a call allocates nothing.
	loops loops
}

// job holds the operands of element-wise and row-wise ops, in the order of the method that sets them.
type job struct {
	a, b, c, d, e, f []float32
	ids              []int32
	losses           []float64
	cols, rows       int
	s                float32
	act              backend.Activation
	flag             bool
	seed             uint64
	stride, n        int
	rope             backend.RopeArgs
	table            [9]float32
}

type loops struct {
	add, mul, axpy, scale, act, actBack, addRow, sumRows, dot, squares, gather, scatter                                                                                                         func(w, lo, hi int)
	dropout, rope, adamW, softmax, layerNorm, rmsNorm, normBackDX, normBackParams, crossEntropy                                                                                                 func(w, lo, hi int)
	packPanels, packWeight, packInt8, quantize, packBlocks, quantizeBlocks, pairRows, pairTransposed, pairByRows, multiply, attention, attentionBack, attendScores, attendWeights, attendValues func(w, lo, hi int)
}

func newKernels(o *ops, threads int, exact, bf16 bool) *kernels {
	k := &kernels{o: o, pool: newPool(threads), exact: exact, bf16: bf16}
	for range threads {
		k.work = append(k.work, &scratch{})
	}
	k.loops = loops{
		add: k.addLoop, mul: k.mulLoop, axpy: k.axpyLoop, scale: k.scaleLoop, act: k.actLoop, actBack: k.actBackLoop,
		addRow: k.addRowLoop, sumRows: k.sumRowsLoop, dot: k.dotLoop, squares: k.squaresLoop, gather: k.gatherLoop, scatter: k.scatterLoop,
		dropout: k.dropoutLoop, rope: k.ropeLoop, adamW: k.adamWLoop, softmax: k.softmaxLoop, layerNorm: k.layerNormLoop, rmsNorm: k.rmsNormLoop,
		normBackDX: k.normBackDXLoop, normBackParams: k.normBackParamsLoop, crossEntropy: k.crossEntropyLoop,
		packPanels: k.packPanelsLoop, packWeight: k.packWeightLoop, packInt8: k.packInt8Loop, quantize: k.quantizeLoop, packBlocks: k.packBlocksLoop, quantizeBlocks: k.quantizeBlocksLoop, pairRows: k.pairRowsLoop, pairTransposed: k.pairTransposedLoop, pairByRows: k.pairByRowsLoop, multiply: k.multiplyLoop, attention: k.attentionLoop, attentionBack: k.attentionBackLoop,
		attendScores: k.attendScoresLoop, attendWeights: k.attendWeightsLoop, attendValues: k.attendValuesLoop,
	}
	return k
}

func (k *kernels) Level() string { return k.o.level }
func (k *kernels) Threads() int  { return k.pool.threads }
func (k *kernels) Close()        { k.pool.close() }

// scratch is what one worker keeps from call to call.
type scratch struct {
	tile, panel, row, s, t, kt, vt, k, v, q, do []float32
	amx                                         amxJob
}

// grow returns n floats of *buf, making it larger when it is too short. The content is arbitrary.
func grow(buf *[]float32, n int) []float32 {
	if cap(*buf) < n {
		*buf = aligned(n + n/4)
	}
	return (*buf)[:n]
}

// constants makes zeros and ones at least n long. Workers only read them.
func (k *kernels) constants(n int) {
	if len(k.zeros) < n {
		k.zeros, k.ones = make([]float32, n), make([]float32, n)
		for i := range k.ones {
			k.ones[i] = 1
		}
	}
}

// grain is the number of items of about `each` operations that make a piece worth handing out.
func grain(each int) int { return max(1, 8192/max(each, 1)) }
