package harden

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRamp(t *testing.T) {
	for _, c := range []struct {
		share        float64
		index, total int
		want         float64
	}{
		{0, 0, 10, 1}, {0.5, 0, 0, 1}, {0.5, 0, 10, 0.2}, {0.5, 3, 10, 0.8}, {0.5, 4, 10, 1}, {0.5, 9, 10, 1}, {1, 4, 10, 0.5}, {0.01, 0, 10, 1},
	} {
		assert.InDelta(t, c.want, ramp(c.share, c.index, c.total), 1e-12, "%v", c)
	}
}

func length(v []float32) float64 {
	var s float64
	for _, x := range v {
		s += float64(x) * float64(x)
	}
	return math.Sqrt(s)
}

// Every method that moves embeddings moves them less while a run begins (of ten steps the first, with a fifth of the length), and by lengths that
// are alike: a method whose steps were many times longer than another's would keep a model at chance.
func TestRampedLengths(t *testing.T) {
	b := tiny(t)
	at := map[string]func(index int) float64{}
	for _, kind := range []string{"fgm", "fgsm", "pgd", "pgd-linf", "freelb"} {
		at[kind] = func(index int) float64 {
			m, err := NewEmbedding(kind)
			require.NoError(t, err)
			top := 0.0
			m.Observe = func(pass string, _ float64, d []float32) {
				if pass != "gradient" && d != nil {
					top = max(top, length(d))
				}
			}
			micro(t, b, m, index, two...)
			return top
		}
	}
	at["tavat"] = func(index int) float64 {
		m, top := NewTavat(), 0.0
		m.Observe = func(_ int, _ float64, d []float32) { top = max(top, length(d)) }
		micro(t, b, m, index, two...)
		return top
	}
	at["free"] = func(index int) float64 {
		m, last := NewFree(), []float32(nil)
		m.Observe = func(_ int, _ float64, d []float32) { last = slices.Clone(d) }
		micro(t, b, m, index, two...)   // a batch begins
		micro(t, b, m, index+1, two...) // and is replayed
		return length(last)
	}
	full := map[string]float64{}
	for kind, f := range at {
		first, late := f(0), f(6)
		require.Positive(t, first, kind)
		assert.InDelta(t, 0.2, first/late, 0.02, kind)
		full[kind] = late
	}
	for kind, l := range full {
		assert.InDelta(t, 0, math.Log2(l/full["fgm"]), 1.6, "%s: %.2f times fgm's length", kind, l/full["fgm"])
	}
	t.Log(full)
}
