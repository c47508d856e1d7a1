package grad_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
)

// table makes a matrix [out, in] stored as d.
func table(t *testing.T, d tensor.DType, out, in int) *grad.Param {
	v := draw(rand.New(rand.NewPCG(5, 6)), out*in, 0.5)
	w := tensor.FromF32("w", v, out, in)
	if d != tensor.F32 {
		w = tensor.Tensor{Name: "w", DType: d, Shape: []int{out, in}, Data: make([]byte, out*d.RowBytes(in))}
		require.Equal(t, len(w.Data), backend.Quantize(w.Data, d, v))
	}
	return grad.NewParam(w)
}

// The fused loss equals the loss of whole logits, and so does its gradient: more rows and columns than a piece and a block, with bounds and
// scales, with rows that do not count.
func TestOutputLoss(t *testing.T) {
	const in = 32
	k := backend.Generic(1)
	defer k.Close()
	for _, c := range []struct {
		rows, out int
		dtype     tensor.DType
		scale     float32
		softcap   float32
	}{
		{1, 7, tensor.F32, 0, 0},
		{5, 300, tensor.F32, 0.5, 0},
		{40, 9000, tensor.Q8_0, 0, 0}, // two blocks
		{6, 40, tensor.Q8_0, 2, 3},
	} {
		t.Run(fmt.Sprintf("%dx%d %v %g %g", c.rows, c.out, c.dtype, c.scale, c.softcap), func(t *testing.T) {
			w := table(t, c.dtype, c.out, in)
			targets := make([]int32, c.rows)
			for i := range targets {
				targets[i] = int32((i*7919 + 3) % c.out)
			}
			if c.rows > 2 {
				targets[1] = -1
			}
			x := draw(rand.New(rand.NewPCG(1, 2)), c.rows*in, 1)
			bias := grad.NewParam(tensor.FromF32("b", draw(rand.New(rand.NewPCG(3, 2)), c.out, 1), c.out))
			run := func(fused bool) (float32, []float32, int) {
				var a grad.Arena
				g := grad.Record(k, &a, true, 1)
				v := g.Input(slices.Clone(x), c.rows, in, true)
				var y *grad.Value
				if fused {
					y, _ = g.OutputLoss(v, w, bias, grad.OutputLossSpec{Targets: targets, Scale: c.scale, Softcap: c.softcap, Weight: 0.25, Piece: 7})
				} else {
					z := g.Linear(v, w, bias, backend.None, false)
					if c.scale != 0 {
						z = g.Scale(z, c.scale)
					}
					if c.softcap != 0 {
						z = g.Scale(g.Act(g.Scale(z, 1/c.softcap), backend.Tanh), c.softcap)
					}
					n := 0
					for _, t := range targets {
						if t >= 0 {
							n++
						}
					}
					y = g.Scale(g.CrossEntropy(z, targets), 0.25*float32(n))
				}
				loss := y.Data[0]
				g.Backward(g.Scale(y, 2), nil)
				return loss, slices.Clone(v.Grad), a.Bytes()
			}
			want, dx, whole := run(false)
			got, fused, pieces := run(true)
			require.InEpsilon(t, want, got, 1e-5)
			require.InDeltaSlice(t, dx, fused, 2e-5)
			if c.rows == 40 { // 40 rows of logits and their gradient are 2.9 MB, 7 rows of one a quarter of one
				require.Less(t, pieces, whole*2/5)
			}
		})
	}
}

// The loss without a tape is the same, and keeps nothing.
func TestOutputLossInfer(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	w := table(t, tensor.F32, 50, 8)
	x := draw(rand.New(rand.NewPCG(1, 2)), 24, 1)
	spec := grad.OutputLossSpec{Targets: []int32{4, -1, 49}, Softcap: 2, Weight: 1}
	var a grad.Arena
	c := grad.Record(k, &a, true, 1)
	_, want := c.OutputLoss(c.Input(x, 3, 8, true), w, nil, spec)
	a.Reset()
	c = grad.Infer(k, &a)
	_, got := c.OutputLoss(c.Input(x, 3, 8, true), w, nil, spec)
	require.Equal(t, want, got)
	require.Panics(t, func() { c.OutputLoss(c.Input(x, 3, 8, false), w, nil, grad.OutputLossSpec{Targets: []int32{0}}) })
	require.Panics(t, func() {
		c.OutputLoss(c.Input(x, 3, 8, false), w, nil, grad.OutputLossSpec{Targets: []int32{0, 1, 50}})
	})
}
