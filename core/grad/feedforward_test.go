package grad_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
)

// FeedForward gives the bits of the ops that it joins: values, gradients, dropout; frozen, in pieces, and trained.
func TestFeedForwardJoins(t *testing.T) {
	const rows, in, wide = 600, 8, 12 // more rows than a piece
	r := rand.New(rand.NewPCG(3, 4))
	data := [][]float32{draw(r, wide*in, 0.5), draw(r, wide, 0.5), draw(r, in*wide, 0.5), draw(r, in, 0.5), draw(r, rows*in, 1), draw(r, rows*in, 1)}
	shapes := [][]int{{wide, in}, {wide}, {in, wide}, {in}}
	run := func(train, joined, drop bool) [][]float32 {
		var ps []*grad.Param
		for i, sh := range shapes {
			p := grad.NewParam(tensor.FromF32("p", slices.Clone(data[i]), sh...))
			if train {
				require.NoError(t, p.Train())
			}
			ps = append(ps, p)
		}
		var a grad.Arena
		k := backend.Generic(1)
		defer k.Close()
		c := grad.Record(k, &a, true, 5)
		x := c.Input(data[4], rows, in, true)
		p := float32(0)
		if drop {
			p = 0.25
		}
		z := c.Scale(x, 0.5)
		var y *grad.Value
		if joined {
			y = c.FeedForward(z, ps[0], ps[1], ps[2], ps[3], false, backend.GELU, p)
		} else {
			h := c.Linear(z, ps[0], ps[1], backend.GELU, false)
			y = c.Add(c.Dropout(c.Linear(h, ps[2], ps[3], backend.None, false), p), z)
		}
		out := [][]float32{slices.Clone(y.Data)}
		c.Backward(y, data[5])
		out = append(out, slices.Clone(x.Grad))
		for _, p := range ps {
			out = append(out, p.Grad)
		}
		return out
	}
	for _, train := range []bool{false, true} {
		for _, drop := range []bool{false, true} {
			require.Equal(t, run(train, false, drop), run(train, true, drop), "trained %v, dropout %v", train, drop)
		}
	}
}

// Compact gives memory back where nothing is taped, and leaves what gradients need.
func TestCompact(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	var a grad.Arena
	c := grad.Record(k, &a, true, 1)
	x := c.Input(draw(rand.New(rand.NewPCG(1, 2)), 64, 1), 8, 8, false)
	twice := func() *grad.Value { return c.Scale(c.Scale(x, 3), 0.5) }
	want := slices.Clone(twice().Data)
	m := a.Mark()
	got := c.Compact(twice)
	require.Equal(t, want, got.Data)
	once := c.New(8, 8)
	a.Release(m)
	require.Same(t, &a.Alloc(64)[0], &got.Data[0], "the result has taken the first place")
	require.Same(t, &a.Alloc(64)[0], &once.Data[0], "and nothing else is held")

	y := c.Input(want, 8, 8, true)
	z := c.Compact(func() *grad.Value { return c.Scale(c.Scale(y, 3), 0.5) })
	c.Backward(z, nil)
	require.InDelta(t, 1.5, y.Grad[5], 1e-6)
}
