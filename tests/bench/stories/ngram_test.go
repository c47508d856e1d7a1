package main

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
)

// After any context the probabilities of all tokens add up to one, and text that was seen is likelier than noise.
func TestKneserNey(t *testing.T) {
	const vocab = 12
	rng := rand.New(rand.NewPCG(1, 2))
	ids := make([]int32, 4000)
	for i := range ids {
		ids[i] = rng.Int32N(vocab)
		if i > 1 && rng.Float64() < 0.8 {
			ids[i] = (ids[i-1]*5 + ids[i-2]*3 + 1) % vocab
		}
	}
	m := newKneserNey(ids[:3000], vocab)
	for _, context := range [][]int32{{}, {3}, {1, 2}, {5, 5, 5, 5}, ids[10:14], ids[100:103], {11, 0, 11, 0, 11, 0}} {
		sum := 0.0
		for w := range int32(vocab) {
			sum += m.probability(append(append([]int32{}, context...), w), len(context))
		}
		assert.InDelta(t, 1, sum, 1e-9, "%v", context)
	}
	noise := make([]int32, 1000)
	for i := range noise {
		noise[i] = rng.Int32N(vocab)
	}
	assert.Less(t, m.bits(ids, 3000), m.bits(noise, 0)/1.5)
}
