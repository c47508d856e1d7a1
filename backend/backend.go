// Package backend defines Kernels, the contract between the engine and the arithmetic that a machine offers, and Generic, its
// reference in plain Go. Generic is the specification: every other backend may only be faster (see backendtest).
//
// Conventions: matrices are row-major float32 unless a type says otherwise; "rows" are tokens. One call is one threaded region.
// Results depend on the operands alone: each output element is reduced in an order fixed by the shape of its reduction, never by the
// number of threads, the tiling or the other rows of the batch, so that a text gets the same bits alone, in any batch, on any
// thread count (at one level of one backend). Kernels panics on operands that are too short: they are programmer's mistakes.
package backend

import "github.com/temper-ml/temper/core/tensor"

// Kernels is the required set. An implementation is safe for use by one goroutine at a time unless it says otherwise; it may
// split each call over its own workers.
type Kernels interface {
	// Level names the instruction set in use: "generic", "avx2", "avx512", "avx512vnni", "neon", "simd128", …
	Level() string
	// Threads is the number of workers that a call is split over.
	Threads() int

	// MatMul computes C = op(A)·op(B), or C += op(A)·op(B) (see MatMulArgs).
	MatMul(g MatMulArgs)
	// Pack prepares a constant weight for Linear. The handle belongs to this backend; it may keep w.Data (a mapped file) or a copy.
	Pack(w Weight) Packed
	// Linear computes dst = act(x·Wᵀ + bias), x [rows, In], dst [rows, Out], for a packed weight.
	Linear(dst, x []float32, rows int, w Packed, ep Epilogue)

	// Softmax normalises each row of src into dst (they may be the same slice).
	Softmax(dst, src []float32, rows, cols int)
	// LayerNorm writes (x-mean)/sqrt(var+eps)·gain+bias per row; bias may be nil. mean and rstd [rows] are written when not nil.
	LayerNorm(dst, x, gain, bias []float32, rows, cols int, eps float32, mean, rstd []float32)
	// LayerNormBackward adds to dx, dgain and dbias (each may be nil) the gradients for dy.
	LayerNormBackward(dx, dgain, dbias, dy, x, gain, mean, rstd []float32, rows, cols int)
	// RMSNorm writes x/sqrt(mean(x²)+eps)·gain per row; rstd [rows] is written when not nil. gain may be nil (all ones).
	RMSNorm(dst, x, gain []float32, rows, cols int, eps float32, rstd []float32)
	// RMSNormBackward adds to dx and dgain (each may be nil).
	RMSNormBackward(dx, dgain, dy, x, gain, rstd []float32, rows, cols int)
	// Act applies an activation element by element; dst may be x.
	Act(dst, x []float32, a Activation)
	// ActBackward adds dy·a'(x) to dx.
	ActBackward(dx, dy, x []float32, a Activation)

	// Add writes a+b; dst may be either.
	Add(dst, a, b []float32)
	// Mul writes a·b element by element; dst may be either.
	Mul(dst, a, b []float32)
	// Axpy adds s·x to dst.
	Axpy(dst []float32, s float32, x []float32)
	// Scale multiplies dst by s.
	Scale(dst []float32, s float32)
	// AddRow adds the vector v [cols] to each row of dst.
	AddRow(dst, v []float32, rows, cols int)
	// SumRows adds the sum over rows of x to dst [cols]. Order: rows ascending within fixed chunks (see Generic).
	SumRows(dst, x []float32, rows, cols int)
	// Dot and SumSquares reduce whole slices (SumSquares accumulates in float64).
	Dot(a, b []float32) float32
	SumSquares(x []float32) float64

	// Gather copies rows ids of table [n, cols] into dst (or adds them when add is true).
	Gather(dst, table []float32, ids []int32, cols int, add bool)
	// ScatterAdd adds the rows of src to rows ids of table, in the order of ids.
	ScatterAdd(table, src []float32, ids []int32, cols int)
	// Rope rotates heads in place by position; see RopeArgs. Inverse rotation is Rope with Inverse set (its gradient).
	Rope(r RopeArgs)

	// Attention computes softmax(scale·Q·Kᵀ + bias, masked)·V for packed sequences without storing the scores.
	Attention(a AttentionArgs)
	// AttentionBackward adds to a.DQ, a.DK, a.DV (and a.DBias when not nil) given a.DOut, the operands, a.Out and a.LSE of the forward.
	AttentionBackward(a AttentionArgs)

	// CrossEntropy returns the sum over rows of −log softmax(logits)[target]; rows with target < 0 count nothing. When dlogits is
	// not nil, scale·(softmax−onehot) is written to it (zero for ignored rows). dlogits may be logits.
	CrossEntropy(logits []float32, targets []int32, rows, cols int, dlogits []float32, scale float32) float64
	// AdamW updates p in place (see AdamWArgs).
	AdamW(a AdamWArgs)

	// Close stops the workers.
	Close()
}

// MatMulArgs describes C [M,N] = op(A) [M,K] · op(B) [K,N]. TransA means that A is stored [K,M], TransB that B is stored [N,K]. LDx are
// the row strides of the stored matrices. Accumulate adds to C. Alpha scales the product (0 means 1).
type MatMulArgs struct {
	M, N, K        int
	A, B, C        []float32
	LDA, LDB, LDC  int
	TransA, TransB bool
	Accumulate     bool
	Alpha          float32
}

// Weight is a constant matrix [Out, In] in any storage type; quantized types run without being expanded.
type Weight struct {
	DType   tensor.DType
	Out, In int
	Data    []byte
	Scales  []float32 // tensor.Q8Row
}

// Packed is a weight in a backend's own layout.
type Packed interface {
	Shape() (out, in int)
	// Bytes is the memory held beyond the source data.
	Bytes() int
}

// Activation names an element-wise function.
type Activation uint8

// Activations as transformers names them. GELU is the exact erf form, GELUTanh "gelu_new"/"gelu_pytorch_tanh", QuickGELU x·sigmoid(1.702x).
const (
	None Activation = iota
	GELU
	GELUTanh
	QuickGELU
	ReLU
	SiLU
	Tanh
	Sigmoid
)

// Epilogue is what Linear does to each output row after the product: bias, then activation, then add Residual (row stride Out).
// Pre, when not nil, receives the values before the activation (training needs them).
type Epilogue struct {
	Bias     []float32
	Act      Activation
	Residual []float32
	Pre      []float32
}

// Seq is one sequence of a packed batch: query rows [QStart, QStart+QLen) attend to key rows [KStart, KStart+KLen). The last query
// stands at the last key: query i has position KLen−QLen+i, key j position j.
type Seq struct{ QStart, QLen, KStart, KLen int }

// AttentionArgs describes fused attention over packed sequences. Q and Out have Heads·HeadDim columns, K and V KVHeads·HeadDim (value
// head h/(Heads/KVHeads)); strides are between rows and let Q, K and V be slices of one product.
type AttentionArgs struct {
	Q, K, V, Out                       []float32
	QStride, KStride, VStride, OStride int
	Heads, KVHeads, HeadDim            int
	Seqs                               []Seq
	Scale                              float32
	Causal                             bool
	// Window limits sight: 0 is none; with Causal a query sees the last Window positions counting its own; otherwise |i−j| <= Window.
	Window  int
	Softcap float32 // scores become Softcap·tanh(s/Softcap) when > 0
	// Bias, when not nil, is added to the scaled and capped scores: for sequence s a block [Heads, QLen, KLen] at BiasAt[s].
	Bias   []float32
	BiasAt []int
	// LSE [rows of Q, Heads], when not nil, receives log Σ exp(score); the backward needs it.
	LSE []float32

	// Backward only. Gradient strides equal those of their operands.
	DOut, DQ, DK, DV, DBias []float32
	// Dropout of attention weights: with P > 0 each weight is kept with probability 1−P and scaled by 1/(1−P); the decision for
	// (row, head, key) is a pure function of Seed (see DropoutKeep and AttentionIndex), so the backward repeats it. P is below 1.
	DropoutP    float32
	DropoutSeed uint64
}

// RopeArgs rotates rows of X [rows, Heads·HeadDim] (row stride Stride). Cos and Sin are tables [positions, RotDim/2]; Pos gives each
// row's position. Interleaved pairs (2i, 2i+1) as in the original paper, otherwise (i, i+RotDim/2) as in Hugging Face.
// RotDim <= HeadDim dimensions are rotated.
type RopeArgs struct {
	X                      []float32
	Stride                 int
	Heads, HeadDim, RotDim int
	Pos                    []int32
	Cos, Sin               []float32
	Interleaved, Inverse   bool
}

// AdamWArgs is one step of decoupled AdamW (Loshchilov & Hutter, 2019): p -= LR·WD·p; m, v updated; p -= LR·m̂/(sqrt(v̂)+Eps).
// G is multiplied by GradScale first (clipping; 0 means 1). Step counts from 1.
type AdamWArgs struct {
	P, G, M, V         []float32
	LR, Beta1, Beta2   float32
	Eps, WD, GradScale float32
	Step               int
}

// Dropper is an optional interface of Kernels: dropout over a slice.
type Dropper interface {
	// Dropout writes x/(1-p) where DropoutKeep(seed, i, p) keeps element i and 0 elsewhere; dst may be x. Its gradient is the same call on the
	// gradient. 0 <= p < 1.
	Dropout(dst, x []float32, p float32, seed uint64)
}

// Lanes is an optional interface of Kernels: whole chains of ops side by side, without a meeting of the workers after each.
type Lanes interface {
	// Lanes are kernels of one worker each, as many as there are workers. They share packed weights with these kernels, which are their Home, and
	// give the same bits.
	Lanes() []Kernels
	// Each calls f(lane, i) once for each i in [0, n), the lanes side by side. f uses Lanes()[lane] and none of the others.
	Each(n int, f func(lane, i int))
}

// Lane is an interface of what Lanes returns.
type Lane interface {
	Kernels
	// Home is what the lane belongs to.
	Home() Kernels
}

// SourceHolder is an optional interface of Packed. Where HoldsSource is false, the weight was copied: pages of a mapped file that it was packed
// from may be dropped (they are read again when needed).
type SourceHolder interface{ HoldsSource() bool }

// DropoutKeep is the decision shared by all backends: a counter-based hash of (seed, index), so that masks need no storage and do not
// depend on threads. It reports whether element i is kept at drop probability p.
func DropoutKeep(seed, i uint64, p float32) bool {
	// SplitMix64 finaliser over seed + golden-ratio steps.
	z := seed + (i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return float32(z>>40)*(1.0/(1<<24)) >= p
}
