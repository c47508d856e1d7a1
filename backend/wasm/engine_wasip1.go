//go:build wasip1

package wasm

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

//go:wasmimport temper version
func kernelVersion() uint32

//go:wasmimport temper level
func kernelLevel() uint32

//go:wasmimport temper run
func kernelRun(ctl unsafe.Pointer, op uint32, args unsafe.Pointer, chunks uint32)

//go:wasmimport temper stop
func kernelStop(ctl unsafe.Pointer)

const wantVersion = 2

// Operations, as OPS in kernels.h numbers them.
const (
	opLinearF32 = iota
	opMatMul
	opTranspose
	opSoftmax
	opLayerNorm
	opNormBackward
	opRMSNorm
	opSumRows
	opAct
	opActBackward
	opBinary
	opScale
	opAddRow
	opDot
	opGather
	opScatterAdd
	opRope
	opAttention
	opAttentionBackward
	opCrossEntropy
	opAdamW
	opQuantizeRows
	opLinearQ8Row
	opQuantizeBlocks
	opLinearBlocks
	opRowSums
)

// control mirrors ctl in kernels.h.
type control struct {
	gen, open, active, next, stop, workers uint32
	chunks, op, args                       uint32
	scratch, scratchBytes, ready           uint32
}

// arguments is the block that an operation reads: C fields of four bytes, in order.
type arguments struct {
	v [48]uint32
	n int
	// last keeps the compiler from placing operands on the goroutine's stack, which may move.
	last unsafe.Pointer
}

// Kernels is the backend. Its methods are for one goroutine at a time.
type Kernels struct {
	threads int
	dots    int // DOTS of kernels.h
	ctl     *control
	args    *arguments
	scratch []byte
	stacks  []byte
	// whole-operand scratch of the calls that need some
	ta, tb  []float32
	quant   []byte
	partial []float64
	items   []int32
}

var _ backend.Kernels = (*Kernels)(nil)

// stackBytes is what each worker gets.
const stackBytes = 64 << 10

// New returns kernels for the given number of threads, the caller's included. The host must start threads-1 workers from Control before
// they take part; until then every call runs on the caller's thread, with the same results. It fails when the kernels that the host
// bound are of another version.
func New(threads int) (*Kernels, error) {
	if v := kernelVersion(); v != wantVersion {
		return nil, fmt.Errorf("kernels have version %d, the engine needs %d", v, wantVersion)
	}
	k := &Kernels{threads: max(threads, 1), ctl: new(control), args: new(arguments)}
	level := kernelLevel()
	if level&2 == 0 {
		k.threads = 1
	}
	k.dots = int(level >> 2)
	k.stacks = make([]byte, (k.threads-1)*stackBytes+16)
	k.need(64 << 10)
	return k, nil
}

// Control is where workers find their jobs: the address of the control block, and for worker i (from 1) its stack pointer is
// stacks + i·stackBytes.
func (k *Kernels) Control() (ctl, stacks, stack uint32) {
	s := uint32(uintptr(unsafe.Pointer(&k.stacks[0])))
	return uint32(uintptr(unsafe.Pointer(k.ctl))), (s + 15) &^ 15, stackBytes
}

// Workers tells the kernels how many workers the host has started.
func (k *Kernels) Workers(n int) { k.ctl.workers = uint32(min(max(n, 0), k.threads-1)) }

// Level names the instruction set.
func (k *Kernels) Level() string {
	if kernelLevel()&1 != 0 {
		return "simd128-relaxed"
	}
	return "simd128"
}

// Threads is the number of threads that take part: the caller's and the started workers.
func (k *Kernels) Threads() int { return int(k.ctl.workers) + 1 }

// Close stops the workers.
func (k *Kernels) Close() {
	k.ctl.workers = 0
	kernelStop(unsafe.Pointer(k.ctl))
}

// need makes room for scratch of the given size on each thread.
func (k *Kernels) need(bytes int) {
	bytes = (bytes + 63) &^ 63
	if int(k.ctl.scratchBytes) >= bytes {
		return
	}
	k.scratch = nil // the old one may go before the new one comes
	k.scratch = make([]byte, bytes*k.threads+64)
	k.ctl.scratch = (uint32(uintptr(unsafe.Pointer(&k.scratch[0]))) + 63) &^ 63
	k.ctl.scratchBytes = uint32(bytes)
}

func grow[T any](s *[]T, n int) []T {
	if cap(*s) < n {
		*s = make([]T, n)
	}
	return (*s)[:n]
}

func (k *Kernels) begin() *arguments {
	k.args.n = 0
	return k.args
}

func (a *arguments) put(v uint32) *arguments {
	a.v[a.n] = v
	a.n++
	return a
}

func (a *arguments) ints(v ...int) *arguments {
	for _, x := range v {
		a.put(uint32(int32(x)))
	}
	return a
}

func (a *arguments) floats(v ...float32) *arguments {
	for _, x := range v {
		a.put(math.Float32bits(x))
	}
	return a
}

func pointer[T any](a *arguments, s []T) *arguments {
	p := unsafe.Pointer(unsafe.SliceData(s))
	if cap(s) == 0 {
		p = nil
	}
	a.last = p
	return a.put(uint32(uintptr(p)))
}

func (a *arguments) f32(v ...[]float32) *arguments {
	for _, s := range v {
		pointer(a, s)
	}
	return a
}

func (k *Kernels) run(op uint32, chunks int) {
	if chunks > 0 {
		kernelRun(unsafe.Pointer(k.ctl), op, unsafe.Pointer(&k.args.v), uint32(chunks))
	}
}

func ceil(a, b int) int { return (a + b - 1) / b }

// rowsPerChunk splits rows of the given cost (operations a row) so that a chunk is worth handing to another thread.
func rowsPerChunk(cost int) int { return max(1, (1<<15)/max(cost, 1)) }

const columns = 64 // COLS of gemm.c

// rowBlock chooses the rows of a chunk of a product: enough to reuse the weights, few enough to stay in the cache.
func rowBlock(rows, in int) int {
	b := max(16, min(80, 98304/max(in, 1)))
	if rows <= b {
		return max(rows, 1)
	}
	return ceil(rows, ceil(rows, b))
}

func (k *Kernels) epilogue(ep backend.Epilogue) {
	k.args.f32(ep.Bias, ep.Residual, ep.Pre).ints(int(ep.Act))
}

type weight struct {
	out, in, held int
	dtype         tensor.DType
	f32           []float32
	data          []byte
	scales        []float32
	sums          []int32   // of rows, where the dot instruction needs them
	minima        []float32 // unpacked blocks: with scales, one for each 16 values
	kind          int       // of blocks
}

func (w *weight) Shape() (out, in int) { return w.out, w.in }
func (w *weight) Bytes() int           { return w.held }

// HoldsSource implements backend.SourceHolder.
func (w *weight) HoldsSource() bool { return w.data != nil && w.minima == nil || w.held == 0 }

var blockKinds = map[tensor.DType]int{tensor.Q4_0: 0, tensor.Q4_1: 1, tensor.Q5_0: 2, tensor.Q5_1: 3, tensor.Q8_0: 4, tensor.Q4_K: 5, tensor.Q5_K: 6, tensor.Q6_K: 7}

// Pack keeps f32, int8 and the common GGUF types as they are, whatever their alignment; other types are expanded to f32.
func (k *Kernels) Pack(w backend.Weight) backend.Packed {
	w.Check()
	p := &weight{out: w.Out, in: w.In, dtype: w.DType}
	if kind, ok := blockKinds[w.DType]; ok {
		p.kind, p.data = kind, w.Data
		return p
	}
	if w.RunsInBlocks() {
		p.unpack(w)
		return p
	}
	switch {
	case w.RunsInIntegers():
		backend.Need("pack", "scales", len(w.Scales), w.Out)
		p.data, p.scales = w.Data, w.Scales
		if k.dots != 0 {
			p.sums = make([]int32, w.Out)
			p.held = 4 * w.Out
			per := rowsPerChunk(w.In / 8)
			pointer(pointer(k.begin(), p.sums), p.data).ints(w.Out, w.In, per)
			k.run(opRowSums, ceil(w.Out, per))
		}
		return p
	case w.DType == tensor.F32:
		if v, ok := tensor.View[float32](w.Data[:w.Out*w.In*4]); ok {
			p.f32 = v
			return p
		}
	}
	v, err := w.Values()
	if err != nil {
		panic(fmt.Sprintf("backend: pack: %v", err))
	}
	p.dtype, p.f32, p.held = tensor.F32, v, 4*len(v)
	return p
}

const unpacked = 8 // T_UNPACKED of quant.c

// unpack brings a rarer block type to int8 values with a scale and a minimum for each 16.
func (p *weight) unpack(w backend.Weight) {
	form, _ := backend.FormOf(w.DType)
	n, groups := w.Out*w.In, w.Out*w.In/16
	p.kind, p.data, p.scales, p.minima = unpacked, make([]byte, n), make([]float32, groups), make([]float32, groups)
	p.held = n + 8*groups
	scale, minimum := make([]float32, w.In/form.Len), make([]float32, w.In/form.Len)
	bytes := w.DType.RowBytes(w.In)
	for o := range w.Out {
		row := p.data[o*w.In : (o+1)*w.In]
		backend.UnpackBlocks(row, scale, minimum, w.DType, w.Data[o*bytes:(o+1)*bytes])
		for i, v := range row {
			row[i] = byte(int32(v) - form.Centre)
		}
		for g := range w.In / 16 {
			p.scales[o*w.In/16+g] = scale[g*16/form.Len]
			if form.Min {
				p.minima[o*w.In/16+g] = minimum[g*16/form.Len]
			}
		}
	}
}

// Linear computes dst = act(x·Wᵀ + bias) + residual.
func (k *Kernels) Linear(dst, x []float32, rows int, p backend.Packed, ep backend.Epilogue) {
	w, ok := p.(*weight)
	if !ok {
		panic(fmt.Sprintf("backend: linear: weight of type %T was packed by another backend", p))
	}
	backend.CheckLinear(dst, x, rows, w.out, w.in, ep)
	if rows == 0 || w.out == 0 {
		return
	}
	block := rowBlock(rows, w.in)
	chunks := ceil(rows, block) * ceil(w.out, columns)
	k.need(block * columns * 4)
	switch w.dtype {
	case tensor.F32:
		k.begin().f32(dst, x, w.f32).ints(rows, w.in, w.out, block)
		k.epilogue(ep)
		k.run(opLinearF32, chunks)
	case tensor.Q8Row:
		// Scales and offsets of the rows, then their values: bytes or 16 bits.
		ld := (w.in + 15) &^ 15
		buf := grow(&k.quant, rows*(ld*2+8)+16)
		scales, _ := tensor.View[float32](buf[:rows*4])
		offsets, _ := tensor.View[int32](buf[rows*4 : rows*8])
		q := buf[rows*8:]
		per := rowsPerChunk(w.in * 2)
		a := pointer(k.begin().f32(x), q).f32(scales)
		pointer(a, offsets).ints(rows, w.in, ld, per, k.dots)
		k.run(opQuantizeRows, ceil(rows, per))
		a = pointer(k.begin().f32(dst), q).f32(scales)
		pointer(pointer(pointer(a, offsets), w.data).f32(w.scales), w.sums).ints(rows, w.in, ld, w.out, block, k.dots)
		k.epilogue(ep)
		k.run(opLinearQ8Row, chunks)
	default:
		nb := w.in / 32
		buf := grow(&k.quant, rows*(w.in*2+nb*12)+16)
		scales, _ := tensor.View[float32](buf[:rows*nb*4])
		sums, _ := tensor.View[float32](buf[rows*nb*4 : rows*nb*12])
		q, _ := tensor.View[uint16](buf[rows*nb*12 : rows*nb*12+rows*w.in*2])
		per := rowsPerChunk(w.in * 2)
		pointer(k.begin().f32(x), q).f32(scales, sums).ints(rows, w.in, per)
		k.run(opQuantizeBlocks, ceil(rows, per))
		a := pointer(k.begin().f32(dst), q).f32(scales, sums)
		stride := w.dtype.RowBytes(w.in)
		if w.kind == unpacked {
			stride = w.in
		}
		pointer(a, w.data).f32(w.scales, w.minima).ints(rows, w.in, w.out, block, w.kind, stride)
		k.epilogue(ep)
		k.run(opLinearBlocks, chunks)
	}
}

// transposed writes the transpose of src [rows, cols] to dst.
func (k *Kernels) transposed(dst, src []float32, rows, cols, ld int) {
	per := (max(4, (1<<15)/max(rows, 1)) + 3) &^ 3
	k.begin().f32(dst, src).ints(rows, cols, ld, per)
	k.run(opTranspose, ceil(cols, per))
}

// MatMul brings every transpose to c = a·bᵀ, which costs little beside the product.
func (k *Kernels) MatMul(g backend.MatMulArgs) {
	g.Check()
	if g.M == 0 || g.N == 0 {
		return
	}
	if g.Alpha == 0 {
		g.Alpha = 1
	}
	if g.TransA && g.K > 0 {
		t := grow(&k.ta, g.M*g.K)
		k.transposed(t, g.A, g.K, g.M, g.LDA)
		g.A, g.LDA = t, g.K
	}
	if !g.TransB && g.K > 0 {
		t := grow(&k.tb, g.N*g.K)
		k.transposed(t, g.B, g.K, g.N, g.LDB)
		g.B, g.LDB = t, g.K
	}
	block := rowBlock(g.M, g.K)
	k.need(block * columns * 4)
	acc := 0
	if g.Accumulate {
		acc = 1
	}
	k.begin().f32(g.C, g.A, g.B).ints(g.M, g.N, g.K, g.LDA, g.LDB, g.LDC, block, acc).floats(g.Alpha)
	k.run(opMatMul, ceil(g.M, block)*ceil(g.N, columns))
}
