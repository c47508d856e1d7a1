package backendtest

import (
	"testing"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// everyOp runs each op once at sizes that are worth splitting, and returns what it wrote.
func everyOp(t testing.TB, k backend.Kernels) map[string][]float32 {
	o := newOperands(t, 42)
	res := map[string][]float32{}
	for mode := range 4 {
		const m, n, kk = 131, 97, 515
		c := make([]float32, m*n)
		a, b := o.normal(m*kk), o.normal(n*kk)
		g := backend.MatMulArgs{M: m, N: n, K: kk, A: a, B: b, C: c, LDA: kk, LDB: n, LDC: n, TransA: mode&1 != 0, TransB: mode&2 != 0}
		if g.TransA {
			g.LDA = m
		}
		if g.TransB {
			g.LDB = kk
		}
		k.MatMul(g)
		res[name("matmul %d", mode)] = c
	}
	// Tall products, where a split along k tempts: they must not depend on threads either.
	c := make([]float32, 24*40)
	k.MatMul(backend.MatMulArgs{M: 24, N: 40, K: 5000, A: o.normal(24 * 5000), LDA: 24, TransA: true, B: o.normal(5000 * 40), LDB: 40, C: c, LDC: 40})
	res["matmul tall"] = c

	w := k.Pack(f32Weight(o.normal(300*200), 300, 200))
	for _, rows := range []int{1, 2, 7, 16, 100} {
		dst := make([]float32, rows*300)
		k.Linear(dst, o.normal(rows*200), rows, w, backend.Epilogue{Bias: o.normal(300), Act: backend.GELU})
		res[name("linear %d", rows)] = dst
	}
	for _, q := range []backend.Weight{o.int8Weight(300, 256), o.blockWeight(tensor.Q4_K, 300, 256), o.blockWeight(tensor.Q8_0, 300, 256)} {
		w := k.Pack(q)
		for _, rows := range []int{1, 7, 100} {
			dst := make([]float32, rows*300)
			k.Linear(dst, o.normal(rows*256), rows, w, backend.Epilogue{})
			res[name("%s linear %d", q.DType, rows)] = dst
		}
	}
	const rows, cols = 700, 129
	x, dy, gain, bias := o.normal(rows*cols), o.normal(rows*cols), o.normal(cols), o.normal(cols)
	get := func(what string, n int) []float32 {
		v := make([]float32, n)
		res[what] = v
		return v
	}
	k.Softmax(get("softmax", rows*cols), x, rows, cols)
	mean, rstd := get("mean", rows), get("rstd", rows)
	k.LayerNorm(get("layer norm", rows*cols), x, gain, bias, rows, cols, 1e-5, mean, rstd)
	k.LayerNormBackward(get("ln dx", rows*cols), get("ln dgain", cols), get("ln dbias", cols), dy, x, gain, mean, rstd, rows, cols)
	k.RMSNorm(get("rms norm", rows*cols), x, gain, rows, cols, 1e-5, rstd)
	k.RMSNormBackward(get("rms dx", rows*cols), get("rms dgain", cols), dy, x, gain, rstd, rows, cols)
	for _, a := range allActivations {
		k.Act(get(name("act %d", a), rows*cols), x, a)
		k.ActBackward(get(name("act backward %d", a), rows*cols), dy, x, a)
	}
	k.Add(get("add", rows*cols), x, dy)
	k.Mul(get("mul", rows*cols), x, dy)
	k.Axpy(get("axpy", rows*cols), 0.3, x)
	k.AddRow(get("add row", rows*cols), gain, rows, cols)
	k.SumRows(get("sum rows", cols), x, rows, cols)
	get("dot", 1)[0] = k.Dot(x, dy)
	get("sum squares", 1)[0] = float32(k.SumSquares(x))
	ids := o.ids(300, rows)
	k.Gather(get("gather", 300*cols), x, ids, cols, false)
	k.ScatterAdd(get("scatter", rows*cols), x, ids, cols)
	targets := o.ids(rows, cols)
	get("loss", 1)[0] = float32(k.CrossEntropy(x, targets, rows, cols, get("dlogits", rows*cols), 0.1))
	k.AdamW(backend.AdamWArgs{P: get("p", rows*cols), G: dy, M: get("m", rows*cols), V: get("v", rows*cols), LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, WD: 0.1, Step: 3})
	for i, c := range attentionCases {
		a := c.args(newOperands(t, uint64(i)), true)
		k.Attention(a)
		k.AttentionBackward(a)
		for what, v := range map[string][]float32{"out": a.Out, "lse": a.LSE, "dq": a.DQ, "dk": a.DK, "dv": a.DV, "dbias": a.DBias} {
			copy(get("attention "+c.name+" "+what, len(v)), v)
		}
	}
	return res
}

// allocations checks that the hot ops allocate nothing once they have run.
func allocations(t *testing.T, k backend.Kernels) {
	o := newOperands(t, 1)
	const rows, cols = 64, 128
	x, y, gain := o.normal(rows*cols), o.zeros(rows*cols), o.normal(cols)
	mean, rstd := o.zeros(rows), o.zeros(rows)
	w := k.Pack(f32Weight(o.normal(cols*cols), cols, cols))
	w4 := k.Pack(o.blockWeight(tensor.Q4_0, cols, cols))
	w8 := k.Pack(o.int8Weight(cols, cols))
	targets := o.ids(rows, cols)
	c := attentionCases[1]
	a := c.args(o, true)
	for what, call := range map[string]func(){
		"matmul": func() {
			k.MatMul(backend.MatMulArgs{M: rows, N: rows, K: cols, A: x, LDA: cols, B: x, LDB: cols, TransB: true, C: y, LDC: rows})
		},
		"linear":              func() { k.Linear(y, x, rows, w, backend.Epilogue{Bias: gain, Act: backend.GELU}) },
		"int8 linear":         func() { k.Linear(y, x, rows, w8, backend.Epilogue{Bias: gain, Act: backend.GELU}) },
		"block linear":        func() { k.Linear(y, x, rows, w4, backend.Epilogue{}) },
		"linear of one row":   func() { k.Linear(y, x, 1, w, backend.Epilogue{Bias: gain}) },
		"softmax":             func() { k.Softmax(y, x, rows, cols) },
		"layer norm":          func() { k.LayerNorm(y, x, gain, gain, rows, cols, 1e-5, mean, rstd) },
		"layer norm backward": func() { k.LayerNormBackward(y, gain, gain, x, x, gain, mean, rstd, rows, cols) },
		"rms norm":            func() { k.RMSNorm(y, x, gain, rows, cols, 1e-5, rstd) },
		"act":                 func() { k.Act(y, x, backend.GELU) },
		"act backward":        func() { k.ActBackward(y, x, x, backend.GELU) },
		"axpy":                func() { k.Axpy(y, 0.5, x) },
		"sum rows":            func() { k.SumRows(mean, x, 2*rows, rows) },
		"cross entropy":       func() { k.CrossEntropy(x, targets, rows, cols, y, 1) },
		"attention":           func() { k.Attention(a) },
		"attention backward":  func() { k.AttentionBackward(a) },
		"adamw":               func() { k.AdamW(backend.AdamWArgs{P: y, G: x, M: y, V: y, LR: 0, Step: 1}) },
	} {
		call()
		if n := testing.AllocsPerRun(10, call); n != 0 {
			t.Errorf("%s allocates %v times a call", what, n)
		}
	}
}
