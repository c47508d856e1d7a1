// Package backendtest is the conformance battery for backend.Kernels: every op against a float64 oracle, gradients against finite
// differences, operands that end at guard pages (Linux), and the promise that results depend on a row alone: not on the rest of the
// batch, not on the number of threads.
package backendtest

import (
	"fmt"
	"testing"

	"github.com/temper-ml/temper/backend"
)

// Run checks every op of k.
func Run(t *testing.T, k backend.Kernels) {
	t.Run("MixedWeights", func(t *testing.T) { mixedWeights(t, k) }) // first: nothing is kept yet
	t.Run("MatMul", func(t *testing.T) { matMul(t, k) })
	t.Run("Linear", func(t *testing.T) { linear(t, k) })
	t.Run("LinearRowAlone", func(t *testing.T) { linearRowAlone(t, k) })
	t.Run("LinearInt8", func(t *testing.T) { linearInt8(t, k) })
	t.Run("LinearBlocks", func(t *testing.T) { linearBlocks(t, k) })
	t.Run("WeightTypes", func(t *testing.T) { weightTypes(t, k) })
	t.Run("Act", func(t *testing.T) { activations(t, k) })
	t.Run("ActBackward", func(t *testing.T) { activationGradients(t, k) })
	t.Run("Elementwise", func(t *testing.T) { elementwiseOps(t, k) })
	t.Run("Reductions", func(t *testing.T) { reductions(t, k) })
	t.Run("GatherScatter", func(t *testing.T) { gatherScatter(t, k) })
	t.Run("Rope", func(t *testing.T) { rope(t, k) })
	t.Run("AdamW", func(t *testing.T) { adamW(t, k) })
	t.Run("Dropout", func(t *testing.T) { dropout(t, k) })
	t.Run("Softmax", func(t *testing.T) { softmax(t, k) })
	t.Run("Norms", func(t *testing.T) { norms(t, k) })
	t.Run("NormGradients", func(t *testing.T) { normGradients(t, k) })
	t.Run("CrossEntropy", func(t *testing.T) { crossEntropy(t, k) })
	t.Run("Attention", func(t *testing.T) { attention(t, k) })
	t.Run("AttentionGradients", func(t *testing.T) { attentionGradients(t, k) })
	t.Run("AttentionAlone", func(t *testing.T) { attentionAlone(t, k) })
	t.Run("StoredRows", func(t *testing.T) { storedRows(t, k) })
	t.Run("ShortOperands", func(t *testing.T) { shortOperands(t, k) })
	if k.Level() != "generic" {
		t.Run("MatMulLayouts", func(t *testing.T) { matMulLayouts(t, k) })
		t.Run("Allocations", func(t *testing.T) { allocations(t, k) })
	}
}

// RunThreads checks that the kernels made for 1, 2 and 3 threads give the same bits. make may return nil for a count it does not offer.
func RunThreads(t *testing.T, make func(threads int) backend.Kernels) {
	var want map[string][]float32
	for threads := 1; threads <= 3; threads++ {
		k := make(threads)
		if k == nil {
			continue
		}
		got := everyOp(t, k)
		k.Close()
		if want == nil {
			want = got
			continue
		}
		for op, v := range got {
			same(t, v, want[op], "%s on %d threads", op, threads)
		}
	}
	if want == nil {
		t.Fatal("no kernels to compare")
	}
}

// mustPanic fails when f returns.
func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func shortOperands(t *testing.T, k backend.Kernels) {
	f := func(n int) []float32 { return make([]float32, n) }
	w := k.Pack(f32Weight(f(12), 3, 4))
	for what, call := range map[string]func(){
		"matmul a": func() {
			k.MatMul(backend.MatMulArgs{M: 2, N: 2, K: 3, A: f(5), LDA: 3, B: f(6), LDB: 2, C: f(4), LDC: 2})
		},
		"matmul b": func() {
			k.MatMul(backend.MatMulArgs{M: 2, N: 2, K: 3, A: f(6), LDA: 3, B: f(5), LDB: 2, C: f(4), LDC: 2})
		},
		"matmul c": func() {
			k.MatMul(backend.MatMulArgs{M: 2, N: 2, K: 3, A: f(6), LDA: 3, B: f(6), LDB: 2, C: f(3), LDC: 2})
		},
		"linear x":     func() { k.Linear(f(6), f(7), 2, w, backend.Epilogue{}) },
		"linear dst":   func() { k.Linear(f(5), f(8), 2, w, backend.Epilogue{}) },
		"linear bias":  func() { k.Linear(f(6), f(8), 2, w, backend.Epilogue{Bias: f(2)}) },
		"softmax":      func() { k.Softmax(f(5), f(6), 2, 3) },
		"layer norm":   func() { k.LayerNorm(f(6), f(6), f(2), nil, 2, 3, 1e-5, nil, nil) },
		"rms norm":     func() { k.RMSNorm(f(6), f(5), f(3), 2, 3, 1e-5, nil) },
		"act":          func() { k.Act(f(5), f(6), backend.GELU) },
		"act backward": func() { k.ActBackward(f(6), f(5), f(6), backend.GELU) },
		"add":          func() { k.Add(f(6), f(5), f(6)) },
		"axpy":         func() { k.Axpy(f(6), 1, f(5)) },
		"add row":      func() { k.AddRow(f(6), f(2), 2, 3) },
		"sum rows":     func() { k.SumRows(f(2), f(6), 2, 3) },
		"dot":          func() { k.Dot(f(6), f(5)) },
		"gather":       func() { k.Gather(f(6), f(6), []int32{0, 2}, 3, false) },
		"scatter add":  func() { k.ScatterAdd(f(6), f(6), []int32{0, -1}, 3) },
		"adamw":        func() { k.AdamW(backend.AdamWArgs{P: f(4), G: f(4), M: f(4), V: f(3), Step: 1}) },
		"loss target":  func() { k.CrossEntropy(f(6), []int32{0, 3}, 2, 3, nil, 1) },
		"attention": func() {
			k.Attention(backend.AttentionArgs{Q: f(8), K: f(8), V: f(8), Out: f(7), QStride: 4, KStride: 4, VStride: 4, OStride: 4,
				Heads: 1, KVHeads: 1, HeadDim: 4, Seqs: []backend.Seq{{QLen: 2, KLen: 2}}, Scale: 1})
		},
	} {
		mustPanic(t, what, call)
	}
}

func name(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// RunLanes checks that lanes give the bits of their home, alone and side by side, with weights that any of them packed.
func RunLanes(t *testing.T, l backend.Lanes) {
	home := l.(backend.Kernels)
	want := everyOp(t, home)
	lanes := l.Lanes()
	got := make([]map[string][]float32, len(lanes))
	l.Each(len(lanes), func(lane, i int) { got[i] = everyOp(t, lanes[lane]) })
	for i, ops := range got {
		for op, v := range want {
			same(t, ops[op], v, "%s on lane %d", op, i)
		}
	}
	o := newOperands(t, 5)
	const rows, out, in = 19, 70, 64
	x, a, b := o.normal(rows*in), o.zeros(rows*out), o.zeros(rows*out)
	for _, w := range []backend.Weight{f32Weight(o.normal(out*in), out, in), o.int8Weight(out, in)} {
		if h, ok := lanes[0].(backend.Lane); !ok || h.Home() != home {
			t.Fatal("a lane does not know its home")
		}
		packed := lanes[0].Pack(w)
		home.Linear(a, x, rows, packed, backend.Epilogue{})
		lanes[len(lanes)-1].Linear(b, x, rows, packed, backend.Epilogue{})
		same(t, b, a, "a weight that another lane packed")
	}
}
