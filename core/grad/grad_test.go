package grad_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
)

// operands of an op under test: inputs are values, params trainable parameters.
type operands struct {
	in  []*grad.Value
	par []*grad.Param
}

type shape struct{ rows, cols int }

// opCase is an op with the shapes of its operands. run must be deterministic and smooth near the operands drawn.
type opCase struct {
	name string
	in   []shape
	par  []shape
	run  func(c *grad.Ctx, o operands) *grad.Value
	// near, when not 0, bounds the operands' size; the default is 1.
	near float64
	// setup, when set, edits the drawn operands: input i's data.
	setup func(in, par [][]float32)
}

func draw(r *rand.Rand, n int, s float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * s)
	}
	return v
}

// checkGradients compares the tape's gradients of Σ probe·run(operands) with central differences, over every element.
func checkGradients(t *testing.T, oc opCase) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 11))
	k := backend.Generic(1)
	s := oc.near
	if s == 0 {
		s = 1
	}
	var in, par [][]float32
	for _, sh := range oc.in {
		in = append(in, draw(r, sh.rows*sh.cols, s))
	}
	for _, sh := range oc.par {
		par = append(par, draw(r, sh.rows*sh.cols, s))
	}
	if oc.setup != nil {
		oc.setup(in, par)
	}
	params := func(train bool) []*grad.Param {
		var ps []*grad.Param
		for i, sh := range oc.par {
			dims := []int{sh.rows, sh.cols}
			if sh.rows == 1 {
				dims = dims[1:]
			}
			p := grad.NewParam(tensor.FromF32("p", append([]float32(nil), par[i]...), dims...))
			if train {
				require.NoError(t, p.Train())
			}
			ps = append(ps, p)
		}
		return ps
	}
	build := func(c *grad.Ctx, ps []*grad.Param) (operands, *grad.Value) {
		o := operands{par: ps}
		for i, sh := range oc.in {
			// A copy: ops may work in place.
			o.in = append(o.in, c.Input(append([]float32(nil), in[i]...), sh.rows, sh.cols, true))
		}
		return o, oc.run(c, o)
	}

	var arena grad.Arena
	c := grad.Record(k, &arena, false, 1)
	ps := params(true)
	o, y := build(c, ps)
	probe := draw(r, len(y.Data), 1)
	want := append([]float32(nil), y.Data...)
	require.True(t, y.Needs())
	c.Backward(y, probe)
	// Gradients live in the arena: copy before it is reused.
	var gin [][]float32
	for _, v := range o.in {
		gin = append(gin, append([]float32(nil), v.Grad...))
	}

	eval := func() float64 {
		c := grad.Infer(k, &arena)
		_, y := build(c, params(false))
		var sum float64
		for i, v := range y.Data {
			sum += float64(v) * float64(probe[i])
		}
		return sum
	}
	// One forward for both: inference gives what recording gave. Packed and unpacked products may round differently.
	arena.Reset()
	_, y2 := build(grad.Infer(k, &arena), params(false))
	require.InDeltaSlice(t, want, y2.Data, 1e-5)

	check := func(what string, data, got []float32) {
		require.NotNil(t, got, what)
		top := 0.0
		for _, g := range got {
			top = max(top, math.Abs(float64(g)))
		}
		for i := range data {
			// Two steps and Richardson's extrapolation: the error falls with the fourth power.
			const h = 1.0 / 64
			was := data[i]
			diff := func(h float32) float64 {
				data[i] = was + h
				arena.Reset()
				up := eval()
				data[i] = was - h
				arena.Reset()
				down := eval()
				data[i] = was
				return (up - down) / (2 * float64(h))
			}
			numeric := (4*diff(h/2) - diff(h)) / 3
			require.InDelta(t, numeric, got[i], 2e-3*(1+top), "%s: element %d", what, i)
		}
	}
	for i := range in {
		check("input", in[i], gin[i])
	}
	for i := range par {
		check("parameter", par[i], ps[i].Grad)
	}
}

func TestGradients(t *testing.T) {
	seqs := []backend.Seq{{QStart: 0, QLen: 3, KStart: 0, KLen: 3}, {QStart: 3, QLen: 2, KStart: 3, KLen: 2}}
	cases := []opCase{
		{name: "linear", in: []shape{{3, 5}}, par: []shape{{4, 5}, {1, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Linear(o.in[0], o.par[0], o.par[1], backend.None, false)
		}},
		{name: "linear without bias", in: []shape{{3, 5}}, par: []shape{{4, 5}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Linear(o.in[0], o.par[0], nil, backend.Tanh, false)
		}},
		{name: "linear gelu", in: []shape{{3, 5}}, par: []shape{{4, 5}, {1, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Linear(o.in[0], o.par[0], o.par[1], backend.GELU, false)
		}},
		{name: "linear transposed", in: []shape{{3, 5}}, par: []shape{{5, 4}, {1, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Linear(o.in[0], o.par[0], o.par[1], backend.GELUTanh, true)
		}},
		{name: "linear add", in: []shape{{3, 5}, {3, 4}}, par: []shape{{4, 5}, {1, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Mul(c.LinearAdd(o.in[0], o.par[0], o.par[1], false, 0, o.in[1]), o.in[1])
		}},
		{name: "feed-forward", in: []shape{{3, 4}}, par: []shape{{5, 4}, {1, 5}, {4, 5}, {1, 4}}, near: 0.7, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Mul(c.FeedForward(o.in[0], o.par[0], o.par[1], o.par[2], o.par[3], false, backend.GELU, 0), o.in[0])
		}},
		{name: "feed-forward transposed", in: []shape{{3, 4}}, par: []shape{{4, 5}, {1, 5}, {5, 4}}, near: 0.7, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.FeedForward(o.in[0], o.par[0], o.par[1], o.par[2], nil, true, backend.None, 0)
		}},
		{name: "output loss", in: []shape{{4, 8}}, near: 0.5, run: func(c *grad.Ctx, o operands) *grad.Value {
			w := grad.NewParam(tensor.FromF32("w", draw(rand.New(rand.NewPCG(2, 2)), 11*8, 0.5), 11, 8))
			y, _ := c.OutputLoss(o.in[0], w, nil, grad.OutputLossSpec{Targets: []int32{3, -1, 10, 0}, Scale: 1.5, Softcap: 4, Weight: 0.5, Piece: 3})
			return y
		}},
		{name: "add to itself", in: []shape{{2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			y := c.Add(o.in[0], o.in[0])
			return c.Mul(c.Add(y, c.Sub(y, o.in[0])), y)
		}},
		{name: "linear twice", in: []shape{{3, 4}}, par: []shape{{4, 4}}, near: 0.5, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Linear(c.Linear(o.in[0], o.par[0], nil, backend.None, false), o.par[0], nil, backend.None, true)
		}},
		{name: "embedding", par: []shape{{6, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Embedding(o.par[0], []int32{5, 0, 5, 2})
		}},
		{name: "layernorm", in: []shape{{3, 6}}, par: []shape{{1, 6}, {1, 6}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.LayerNorm(o.in[0], o.par[0], o.par[1], 1e-5)
		}},
		{name: "layernorm without bias", in: []shape{{3, 6}}, par: []shape{{1, 6}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.LayerNorm(o.in[0], o.par[0], nil, 1e-5)
		}},
		{name: "rmsnorm", in: []shape{{3, 6}}, par: []shape{{1, 6}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.RMSNorm(o.in[0], o.par[0], 1e-5, false)
		}},
		{name: "rmsnorm per head, one plus", in: []shape{{3, 6}}, par: []shape{{1, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.RMSNorm(o.in[0], o.par[0], 1e-5, true)
		}},
		{name: "glu", in: []shape{{3, 4}, {3, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.GLU(o.in[0], o.in[1], backend.SiLU)
		}},
		{name: "attention", in: []shape{{5, 8}, {5, 4}, {5, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Attention(o.in[0], o.in[1], o.in[2], grad.AttentionSpec{Heads: 4, KVHeads: 2, HeadDim: 2, Seqs: seqs, Scale: 0.7, Causal: true})
		}},
		{name: "attention in one product, windowed, capped", in: []shape{{5, 12}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Attention(o.in[0], o.in[0], o.in[0], grad.AttentionSpec{Heads: 2, HeadDim: 2, Seqs: seqs, Scale: 0.7, Window: 1, Softcap: 2, KAt: 4, VAt: 8})
		}},
		{name: "attention with bias", in: []shape{{5, 4}, {5, 4}, {5, 4}, {26, 1}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Attention(o.in[0], o.in[1], o.in[2], grad.AttentionSpec{Heads: 2, HeadDim: 2, Seqs: seqs, Scale: 0.7, Bias: o.in[3], BiasAt: []int{0, 18}})
		}},
		{name: "rope", in: []shape{{3, 12}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			cos, sin := make([]float32, 8), make([]float32, 8)
			for i := range cos {
				cos[i], sin[i] = float32(math.Cos(float64(i))), float32(math.Sin(float64(i)))
			}
			x := c.Scale(o.in[0], 2)
			return c.Rope(x, grad.RopeSpec{At: 1, Heads: 2, HeadDim: 5, RotDim: 4, Pos: []int32{0, 3, 1}, Cos: cos, Sin: sin})
		}},
		{name: "add", in: []shape{{2, 3}, {2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Add(o.in[0], c.Add(o.in[1], o.in[0])) }},
		{name: "sub", in: []shape{{2, 3}, {2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Sub(o.in[0], o.in[1]) }},
		{name: "add row", in: []shape{{2, 3}, {1, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.AddRow(o.in[0], o.in[1]) }},
		{name: "mul", in: []shape{{2, 3}, {2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Mul(o.in[0], c.Mul(o.in[1], o.in[0])) }},
		{name: "mul row", in: []shape{{2, 3}, {1, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.MulRow(o.in[0], o.in[1]) }},
		{name: "scale", in: []shape{{2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Scale(o.in[0], -1.5) }},
		{name: "softmax", in: []shape{{2, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Softmax(o.in[0]) }},
		{name: "log softmax", in: []shape{{2, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.LogSoftmax(o.in[0]) }},
		{name: "cross entropy", in: []shape{{4, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.CrossEntropy(o.in[0], []int32{2, -100, 0, 1})
		}},
		{name: "cross entropy twice", in: []shape{{2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Add(c.CrossEntropy(o.in[0], []int32{2, 1}), c.CrossEntropy(o.in[0], []int32{-100, 0}))
		}},
		{name: "mse", in: []shape{{2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.MSE(o.in[0], []float32{1, 2, 3, -1, 0, 1}) }},
		{name: "bce", in: []shape{{2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.BCEWithLogits(o.in[0], []float32{1, 0, 0.5, 1, 0, 1})
		}},
		{name: "kl", in: []shape{{2, 3}, {2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.KL(o.in[0], o.in[1]) }},
		{name: "mean pool", in: []shape{{5, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.MeanPool(o.in[0], []int32{0, 3, 3, 5}) }},
		{name: "max pool", in: []shape{{5, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.MaxPool(o.in[0], []int32{0, 3, 3, 5}) }},
		{name: "relative bias", par: []shape{{5, 2}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			v, at := c.RelativeBias(o.par[0], seqs, func(d int) int { return d + 2 })
			if at[1] != 2*9 {
				panic("the second block follows the first")
			}
			return v
		}},
		{name: "disentangled bias", in: []shape{{5, 6}, {5, 6}, {4, 6}, {4, 6}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			v, _ := c.DisentangledBias(o.in[0], o.in[1], o.in[2], o.in[3], seqs, 2, 0.5, func(d int) int { return min(max(d+2, 0), 3) })
			return v
		}},
		{name: "disentangled bias, one term", in: []shape{{5, 6}, {4, 6}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			v, _ := c.DisentangledBias(o.in[0], c.Scale(o.in[0], 2), nil, o.in[1], seqs, 2, 0.5, func(d int) int { return min(max(d+2, 0), 3) })
			return v
		}},
		{name: "rows", in: []shape{{5, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Rows(o.in[0], []int32{4, 0, 4}) }},
		{name: "slice rows", in: []shape{{5, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.SliceRows(o.in[0], 1, 3) }},
		{name: "columns", in: []shape{{3, 8}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Columns(o.in[0], 2, 1, 2) }},
		{name: "concat columns", in: []shape{{3, 2}, {3, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.ConcatColumns(o.in[0], o.in[1], o.in[0]) }},
		{name: "concat rows", in: []shape{{1, 3}, {2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.ConcatRows(o.in[0], o.in[1], o.in[0]) }},
		{name: "prefix", in: []shape{{2, 3}, {4, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Prefix(o.in[0], o.in[1], []int32{0, 3, 4})
		}},
		{name: "normalize", in: []shape{{3, 4}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Normalize(o.in[0], 1e-12) }},
		{name: "sum", in: []shape{{3, 2}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Sum(o.in[0]) }},
		{name: "dot", in: []shape{{2, 2}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Dot(o.in[0], []float32{1, -2, 3, 0.5}) }},
		{name: "reshape", in: []shape{{2, 6}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.Mul(c.Reshape(o.in[0], 3, 4), c.Reshape(o.in[0], 3, 4))
		}},
		{name: "param as value", in: []shape{{2, 3}}, par: []shape{{4, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.MatMul(o.in[0], c.Param(o.par[0]), false, true)
		}},
	}
	for _, a := range []backend.Activation{backend.None, backend.GELU, backend.GELUTanh, backend.QuickGELU, backend.SiLU, backend.Tanh, backend.Sigmoid} {
		cases = append(cases, opCase{name: "act", in: []shape{{2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Act(o.in[0], a) }})
	}
	cases = append(cases, opCase{name: "relu", in: []shape{{2, 3}}, run: func(c *grad.Ctx, o operands) *grad.Value { return c.Act(o.in[0], backend.ReLU) },
		setup: func(in, _ [][]float32) { // away from the kink
			for i := range in[0] {
				in[0][i] = float32(i) - 2.5
			}
		}})
	for i := range 4 {
		ta, tb := i&1 > 0, i&2 > 0
		a, b := shape{2, 3}, shape{3, 4}
		if ta {
			a = shape{3, 2}
		}
		if tb {
			b = shape{4, 3}
		}
		cases = append(cases, opCase{name: "matmul", in: []shape{a, b}, run: func(c *grad.Ctx, o operands) *grad.Value {
			return c.MatMul(o.in[0], o.in[1], ta, tb)
		}})
	}
	for _, oc := range cases {
		t.Run(oc.name, func(t *testing.T) { checkGradients(t, oc) })
	}
}
