package grad_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
)

// stack is a small network of blocks that share a value from outside, with dropout inside.
type stack struct{ w, shared []*grad.Param }

func newStack(t testing.TB, blocks, frozen int) *stack {
	s := &stack{}
	r := uint32(1)
	for i := range blocks + 1 {
		v := make([]float32, 16)
		for j := range v {
			r = r*1664525 + 1013904223
			v[j] = float32(int32(r)) / (1 << 32)
		}
		p := grad.NewParam(tensor.FromF32("w", v, 4, 4))
		if i >= frozen {
			require.NoError(t, p.Train())
		}
		if i == blocks {
			s.shared = append(s.shared, p)
		} else {
			s.w = append(s.w, p)
		}
	}
	return s
}

func (s *stack) run(c *grad.Ctx, x *grad.Value) *grad.Value {
	common := c.Scale(c.Param(s.shared[0]), 0.5)
	for _, w := range s.w {
		x = c.Block(x, func(x *grad.Value) *grad.Value {
			h := c.Linear(x, w, nil, backend.GELU, false)
			h = c.Dropout(c.MatMul(h, common, false, true), 0.3)
			return c.Add(x, h)
		}, common)
	}
	return x
}

func (s *stack) gradients(checkpoint bool) (out []float32, grads [][]float32, bytes int) {
	for _, p := range append(s.w, s.shared...) {
		clear(p.Grad)
	}
	var a grad.Arena
	c := grad.Record(backend.Generic(1), &a, true, 42)
	c.Checkpoint = checkpoint
	x := make([]float32, 5*4)
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	y := s.run(c, c.Input(x, 5, 4, false))
	out = append(out, y.Data...)
	c.Backward(y, nil)
	for _, p := range append(s.w, s.shared...) {
		grads = append(grads, append([]float32(nil), p.Grad...))
	}
	return out, grads, a.Bytes()
}

// Recomputed blocks give the same values and gradients to the bit, dropout included; so do blocks below which all is frozen.
func TestBlockRecompute(t *testing.T) {
	for _, frozen := range []int{0, 2} {
		s := newStack(t, 4, frozen)
		out, grads, _ := s.gradients(false)
		again, same, _ := s.gradients(true)
		assert.Equal(t, out, again)
		assert.Equal(t, grads, same)
		nonzero := false
		for _, v := range grads[len(grads)-1] {
			nonzero = nonzero || v != 0
		}
		assert.True(t, nonzero, "the shared value takes a gradient from every block")
	}
}

// A block below which all is frozen is not run again: with checkpointing too nothing of it is taped.
func TestBlockFrozenCheckpoint(t *testing.T) {
	k := backend.Generic(1)
	s := newStack(t, 3, 4) // all frozen
	for _, checkpoint := range []bool{false, true} {
		var a grad.Arena
		c := grad.Record(k, &a, true, 1)
		c.Checkpoint = checkpoint
		x := c.Zeros(5, 4)
		y := s.run(c, x)
		assert.False(t, y.Needs())
		assert.Same(t, x, y, "it takes the place of its input")
	}
}

// The gradients of the stack by central differences: release of inner gradients must not touch what outlives the block.
func TestBlockGradients(t *testing.T) {
	s := newStack(t, 3, 0)
	_, grads, _ := s.gradients(false)
	loss := func() float64 {
		out, _, _ := s.gradients(false)
		var sum float64
		for _, v := range out {
			sum += float64(v)
		}
		return sum
	}
	for i, p := range append(s.w, s.shared...) {
		v := p.Values()
		for j := range v {
			const h = 1.0 / 128
			was := v[j]
			v[j] = was + h
			up := loss()
			v[j] = was - h
			down := loss()
			v[j] = was
			numeric := (up - down) / (2 * h)
			assert.InDelta(t, numeric, grads[i][j], 2e-2*(1+math.Abs(numeric)), "parameter %d element %d", i, j)
		}
	}
}

// In the steady state a pass allocates no data: the arena is reused, and values with it. Deep networks take no more than shallow ones
// when nothing is recorded.
func TestArenaSteadyState(t *testing.T) {
	k := backend.Generic(1)
	var a grad.Arena
	run := func(blocks int) int {
		s := newStack(t, blocks, blocks+1)
		var peak grad.Arena
		x := make([]float32, 3000*4)
		for range 3 {
			peak.Reset()
			c := grad.Infer(k, &peak)
			v := c.New(3000, 4)
			copy(v.Data, x)
			s.run(c, v)
		}
		return peak.Bytes()
	}
	assert.Equal(t, run(2), run(40))

	v := make([]float32, 64*64)
	w := grad.NewParam(tensor.FromF32("w", v, 64, 64))
	n := testing.AllocsPerRun(20, func() {
		a.Reset()
		c := grad.Infer(idle{k}, &a)
		x := c.New(100, 64)
		clear(x.Data)
		for range 50 {
			x = c.Add(x, c.Linear(x, w, nil, backend.GELU, false))
		}
	})
	assert.LessOrEqual(t, n, 2.0, "50 layers: values and data are reused, only the context is new")
}

// idle kernels do nothing, so that what ops allocate themselves shows.
type idle struct{ backend.Kernels }

func (idle) Linear(_, _ []float32, _ int, _ backend.Packed, _ backend.Epilogue) {}
func (idle) Add(_, _, _ []float32)                                              {}

func TestDropout(t *testing.T) {
	var a grad.Arena
	k := backend.Generic(1)
	x := make([]float32, 10000)
	for i := range x {
		x[i] = 1
	}
	c := grad.Record(k, &a, true, 7)
	v := c.Input(x, 100, 100, true)
	y := c.Dropout(v, 0.25)
	z := c.Dropout(v, 0.25)
	var sum float64
	for _, v := range y.Data {
		sum += float64(v)
	}
	assert.InDelta(t, 10000, sum, 300, "the mean is kept")
	assert.NotEqual(t, y.Data, z.Data, "each site draws its own mask")
	want := append([]float32(nil), y.Data...)
	c.Backward(y, nil)
	assert.Equal(t, want, v.Grad, "the gradient passes where values did")

	a.Reset()
	c = grad.Record(k, &a, true, 7)
	assert.Equal(t, want, c.Dropout(c.Input(x, 100, 100, true), 0.25).Data, "a seed repeats")
	in := c.Input(x, 100, 100, true)
	assert.Same(t, in, c.Dropout(in, 0))
	all := c.Dropout(in, 1)
	assert.Equal(t, make([]float32, 10000), all.Data)
	c = grad.Record(k, &a, false, 7)
	assert.Same(t, in, c.Dropout(in, 0.5), "off when not training")
}

// The loop over slices is the decision that all backends share.
func TestDropoutIsDropoutKeep(t *testing.T) {
	var a grad.Arena
	x := make([]float32, 2000)
	for i := range x {
		x[i] = 1
	}
	for _, p := range []float32{1e-8, 0.1, 0.25, 0.5, 0.9, 0.99999} {
		seed := grad.Record(nil, &a, true, 99).DropSeed()
		// With kernels that have dropout, and with kernels that have none.
		for _, k := range []backend.Kernels{backend.Generic(1), struct{ backend.Kernels }{backend.Generic(1)}} {
			y := grad.Record(k, &a, true, 99).Dropout(grad.Infer(nil, &a).Input(x, 1, len(x), false), p)
			for i, v := range y.Data {
				require.Equal(t, backend.DropoutKeep(seed, uint64(i), p), v != 0, "p %g element %d", p, i)
			}
		}
	}
}

func TestNoGrad(t *testing.T) {
	var a grad.Arena
	c := grad.Record(backend.Generic(1), &a, false, 0)
	x := c.Input([]float32{1, 2}, 1, 2, true)
	var y *grad.Value
	c.NoGrad(func() { y = c.Scale(x, 2) })
	assert.False(t, y.Needs())
	assert.True(t, c.Scale(x, 2).Needs())
	assert.False(t, c.Detach(x).Needs())
	assert.False(t, c.Copy(x).Needs())
}

// A frozen weight costs no gradient, and the gradient below it flows all the same.
func TestFrozenLinear(t *testing.T) {
	var a grad.Arena
	k := backend.Generic(1)
	w := grad.NewParam(tensor.FromF32("w", []float32{1, 2, 3, 4}, 2, 2))
	c := grad.Record(k, &a, false, 0)
	x := c.Input([]float32{1, 1}, 1, 2, true)
	y := c.Linear(x, w, nil, backend.None, false)
	assert.Equal(t, []float32{3, 7}, y.Data)
	c.Backward(y, nil)
	assert.Equal(t, []float32{4, 6}, x.Grad)
	assert.Nil(t, w.Grad)

	still := c.Linear(c.Input([]float32{1, 1}, 1, 2, false), w, nil, backend.None, false)
	assert.False(t, still.Needs())

	half := grad.NewParam(tensor.Tensor{Name: "h", DType: tensor.BF16, Shape: []int{2, 2},
		Data: tensor.Bytes([]uint16{tensor.F32ToBF16(1), tensor.F32ToBF16(2), tensor.F32ToBF16(3), tensor.F32ToBF16(4)})})
	x = c.Input([]float32{1, 1}, 1, 2, true)
	y = c.Linear(x, half, nil, backend.None, false)
	c.Backward(y, nil)
	assert.Equal(t, []float32{4, 6}, x.Grad)
	assert.Equal(t, []float32{3, 4, 1, 2}, c.Embedding(half, []int32{1, 0}).Data)
	y = c.Linear(x, half, nil, backend.None, true)
	assert.Equal(t, []float32{4, 6}, y.Data)

	bytes := grad.NewParam(tensor.Tensor{Name: "q", DType: tensor.Q8Row, Shape: []int{2, 2}, Data: tensor.Bytes([]int8{1, 2, 6, -8}), Scales: []float32{1, 0.5}})
	assert.Equal(t, []float32{3, -4, 1, 2}, c.Embedding(bytes, []int32{1, 0}).Data)
	x = c.Input([]float32{1, 1}, 1, 2, true)
	c.Backward(c.Linear(x, bytes, nil, backend.None, false), nil)
	assert.Equal(t, []float32{4, -2}, x.Grad)
}
