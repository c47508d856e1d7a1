package zeroshot

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Left-out scores are those of fits without the example.
func TestRidgeLeavesOut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var x [][]float32
	var y []int
	for i := range 12 {
		v := make([]float32, 5)
		for k := range v {
			v[k] = float32(r.NormFloat64())
		}
		v[i%3] += 2
		x, y = append(x, v), append(y, i%3)
	}
	for _, penalty := range []float64{0.1, 3} {
		all := fitRidge(x, y, 3, 10, penalty)
		require.NotNil(t, all)
		require.Len(t, all.left, 10)
		for i := range 10 {
			without := fitRidge(append(append([][]float32{}, x[:i]...), x[i+1:]...), append(append([]int{}, y[:i]...), y[i+1:]...), 3, 0, penalty)
			require.InDeltaSlice(t, without.scores(x[i]), all.left[i], 1e-9)
		}
	}
	require.Nil(t, invert([][]float64{{1}, {2, 1}}), "not positive definite")
}
