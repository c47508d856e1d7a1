package smooth

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
)

// judge is a classifier by a function of the text.
type judge func(text string) int

func (judge) Labels() []string { return []string{"no", "yes"} }

func (j judge) Scores(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i, t := range texts {
		out[i] = []float32{1, 0}
		if j(t) == 1 {
			out[i] = []float32{0, 1}
		}
	}
	return out, nil
}

// Values of SciPy's beta.ppf(1-c, k, n-k+1), and of the closed forms at both ends.
func TestLowerBound(t *testing.T) {
	for _, c := range []struct {
		k, n int
		conf float64
		want float64
	}{
		{0, 10, 0.95, 0}, {10, 10, 0.95, math.Pow(0.05, 0.1)}, {95, 100, 0.95, 0.8977466223567255}, {180, 200, 0.999, 0.8183226662526103}, {1, 1000, 0.99, 1 - math.Pow(0.99, 0.001)},
	} {
		assert.InDelta(t, c.want, LowerBound(c.k, c.n, c.conf), 1e-9, "%d of %d", c.k, c.n)
	}
}

// exact is the share of all versions of a text that are of the class.
func exact(t *testing.T, s *Smoother, j judge, text string, class int) float64 {
	m, err := s.maker(context.Background(), text)
	require.NoError(t, err)
	mine := 0
	all := m.every()
	require.Len(t, all, m.count())
	for _, v := range all {
		if j(v) == class {
			mine++
		}
	}
	return float64(mine) / float64(len(all))
}

// The bound holds against an attacker who may write anything: every version that shows one of his words goes to him. No word less reaches
// half where the certificate ends one word before.
func TestRadiusAgainstTheWorst(t *testing.T) {
	text := "a b c d e f g h i j"
	for _, kind := range []string{"mask", "delete"} {
		for _, keep := range []float64{0.1, 0.2, 0.3, 0.5} {
			s, err := New(kind)
			require.NoError(t, err)
			s.Keep = keep
			m, err := s.maker(context.Background(), text)
			require.NoError(t, err)
			// The classifier says yes unless the text holds X, which only the attacker writes: its share is 1 before.
			yes := judge(func(v string) int {
				if strings.Contains(v, "X") {
					return 0
				}
				return 1
			})
			radius := m.radius(1)
			for d := range 8 {
				words := strings.Fields(text)
				for i := range d {
					words[i] = "X"
				}
				share := exact(t, s, yes, strings.Join(words, " "), 1)
				assert.InDelta(t, 1-m.loss(d), share, 1e-12, "the loss is exact")
				assert.Equal(t, d <= radius, share > 0.5, "%s keep %g: %d words changed, radius %d, share %g", kind, keep, d, radius, share)
			}
		}
	}
}

// Exhaustive: whatever single word a linear classifier's text changes to, the exact vote stays on the class where the certificate says so.
func TestExhaustive(t *testing.T) {
	weights := map[string]float64{"good": 2, "fine": 1, "the": 0, "film": 0.1, "bad": -2, "dull": -1, "was": 0, "and": 0, "plot": -0.1}
	j := judge(func(v string) int {
		sum := 0.05
		for _, w := range strings.Fields(v) {
			sum += weights[w]
		}
		if sum > 0 {
			return 1
		}
		return 0
	})
	texts := []string{"the film was good and fine", "good fine good the plot was fine", "the plot was bad and dull", "good film bad plot", "fine", "good fine good fine good fine good fine"}
	certified := 0
	for i, samples := range []int{400, 27, 400, 27} { // all versions, and some of 28
		kind := []string{"mask", "delete"}[i/2]
		s, err := New(kind)
		require.NoError(t, err)
		s.Samples, s.Confidence, s.Keep = samples, 0.999, 0.3
		list, err := s.Certify(context.Background(), j, texts, nil)
		require.NoError(t, err)
		again, err := s.Certify(context.Background(), j, texts[3:], nil)
		require.NoError(t, err)
		assert.Equal(t, list[3:], again, "a certificate depends on the text alone")
		for i, c := range list {
			assert.Equal(t, samples == 400 || i != 5, c.Exact)
			share := exact(t, s, j, texts[i], c.Class)
			assert.GreaterOrEqual(t, share, c.Lower, texts[i])
			if c.Exact {
				assert.Equal(t, share, c.Lower)
			}
			if c.Radius < 1 {
				continue
			}
			certified++
			words := strings.Fields(texts[i])
			for at := range words {
				for w := range weights {
					changed := append([]string(nil), words...)
					changed[at] = w
					assert.Greater(t, exact(t, s, j, strings.Join(changed, " "), c.Class), 0.5, "%q at %d of %q", w, at, texts[i])
				}
			}
			a, err := s.Attack(context.Background(), j, texts[i], c, 200, func(string) ([]string, error) { return []string{"bad", "good"}, nil })
			require.NoError(t, err)
			assert.False(t, a.Broken)
			assert.Positive(t, a.Tried)
		}
	}
	assert.Positive(t, certified)
}

func TestSynonyms(t *testing.T) {
	s, err := New("synonyms")
	require.NoError(t, err)
	_, err = s.Certify(context.Background(), judge(func(string) int { return 0 }), []string{"a"}, nil)
	require.ErrorContains(t, err, "no synonyms")
	// good and fine stand for each other only: their sets are equal, nothing is lost by a swap. odd has a neighbour with another set.
	s.Words = attack.Lexicon{"good": {"fine"}, "fine": {"good"}, "odd": {"weird"}, "weird": {"strange", "queer", "odd"}}
	m, err := s.maker(context.Background(), "Good odd film")
	require.NoError(t, err)
	assert.Equal(t, []float64{0.5, 0, 0}, m.moved)
	assert.InDelta(t, 0.5, m.loss(1), 1e-12)
	assert.Equal(t, 0, m.radius(0.9))
	m, err = s.maker(context.Background(), "good film")
	require.NoError(t, err)
	assert.Equal(t, 2, m.radius(0.6), "all words may change")
	assert.Equal(t, 2, m.count())
	assert.Equal(t, []string{"good film", "fine film"}, m.every())
	assert.InDelta(t, 2./3, variation([]string{"a", "b"}, []string{"b", "c", "d"}), 1e-12)
}

func TestCount(t *testing.T) {
	for _, c := range []struct{ words, keep, want int }{{19, 2, 171}, {10, 3, 120}, {10, 7, 120}, {5, 5, 1}, {0, 0, 1}, {1, 1, 1}, {400, 200, manyVersions}} {
		m := &maker{s: &Smoother{Kind: "mask"}, words: c.words, keep: c.keep}
		assert.Equal(t, c.want, m.count())
	}
}

func TestNoWordsAndBadSettings(t *testing.T) {
	s, err := New("delete")
	require.NoError(t, err)
	c, err := s.Certify(context.Background(), judge(func(string) int { return 1 }), []string{"", "word", "..."}, nil)
	require.NoError(t, err)
	assert.Equal(t, 0, c[0].Radius)
	assert.Equal(t, 0, c[1].Radius, "a single word is all that there is")
	_, err = New("magic")
	assert.ErrorContains(t, err, "magic")
	for _, change := range []func(*Smoother){
		func(s *Smoother) { s.Keep = 0 }, func(s *Smoother) { s.Keep = math.NaN() }, func(s *Smoother) { s.Samples = 0 },
		func(s *Smoother) { s.Confidence = 1 }, func(s *Smoother) { s.Kind = "x" },
	} {
		s, err := New("mask")
		require.NoError(t, err)
		change(s)
		_, err = s.Certify(context.Background(), judge(func(string) int { return 1 }), []string{"a"}, nil)
		assert.Error(t, err)
	}
}
