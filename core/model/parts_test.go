package model

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func offsets(lengths ...int) []int32 {
	o := []int32{0}
	for _, n := range lengths {
		o = append(o, o[len(o)-1]+int32(n))
	}
	return o
}

func repeated(n, length int) []int {
	l := make([]int, n)
	for i := range l {
		l[i] = length
	}
	return l
}

func TestParts(t *testing.T) {
	for _, c := range []struct {
		what    string
		lengths []int
		threads int
		parts   int
		side    bool
	}{
		{"one text", []int{2000}, 2, 1, false},
		{"short texts", []int{5, 6, 7}, 1, 1, false},
		{"short texts, two threads", []int{5, 6, 7}, 2, 1, false},
		{"two equal texts", []int{128, 128}, 2, 2, true},
		{"a long and a short text", []int{512, 128}, 2, 2, false},
		{"8x64", repeated(8, 64), 1, 2, false},
		{"8x64, two threads", repeated(8, 64), 2, 4, true},
		{"32x128", repeated(32, 128), 2, 16, true},
	} {
		cuts, side := parts(offsets(c.lengths...), c.threads)
		require.Len(t, cuts, c.parts+1, c.what)
		require.Equal(t, c.side, side, c.what)
	}
	// Whatever the lengths, parts cover the sequences in order.
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		lengths := make([]int, 1+rng.IntN(40))
		for i := range lengths {
			lengths[i] = 1 + rng.IntN(300)
		}
		o := offsets(lengths...)
		cuts, _ := parts(o, 1+rng.IntN(4))
		require.Equal(t, 0, cuts[0])
		require.Equal(t, len(lengths), cuts[len(cuts)-1])
		for i := 1; i < len(cuts); i++ {
			require.Less(t, cuts[i-1], cuts[i])
			n := int(o[cuts[i]] - o[cuts[i-1]])
			require.True(t, n <= 2*partTokens || cuts[i]-cuts[i-1] == 1, "%v: part %d has %d tokens", lengths, i-1, n)
		}
	}
}
