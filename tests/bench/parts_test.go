package main

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/tests/fixture"
)

// A batch runs in parts on lanes; a text's vector has the same bits alone, in any batch, on one thread and on several.
func TestPartsGiveTheSameBits(t *testing.T) {
	dir := fixture.MiniLM(t)
	rng := rand.New(rand.NewPCG(3, 4))
	var ids [][]int32
	for i := range 24 {
		ids = append(ids, randomIDs(1, 3+rng.IntN(60), 30522, uint64(i))[0])
	}
	for _, kind := range []string{"f32", "int8"} {
		var want []float32
		for threads := 1; threads <= 3; threads++ {
			e, err := open(dir, threads, model.HeadNone, kind)
			require.NoError(t, err)
			if want == nil {
				for _, s := range ids {
					v, err := e.forward([][]int32{s})
					require.NoError(t, err)
					want = append(want, v...)
				}
			}
			for range 2 { // packed by the lanes, then shared
				got, err := e.forward(ids)
				require.NoError(t, err)
				require.Equal(t, want, slices.Clone(got), "%s on %d threads", kind, threads)
			}
			e.k.Close()
		}
	}
}
