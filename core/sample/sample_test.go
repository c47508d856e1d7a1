package sample

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var ninf = float32(math.Inf(-1))

func draws(t *testing.T, p Params, logits []float32, n int) map[int32]int {
	s, err := New(p)
	require.NoError(t, err)
	got := map[int32]int{}
	for range n {
		l := append([]float32(nil), logits...)
		id, err := s.Next(l)
		require.NoError(t, err)
		got[id]++
	}
	return got
}

func TestDistributionFollowsSoftmax(t *testing.T) {
	logits := []float32{1, 2, 0, ninf, float32(math.NaN())}
	const n = 20000
	got := draws(t, Params{Temperature: 0.7, Seed: 3}, logits, n)
	var z float64
	for _, l := range logits[:3] {
		z += math.Exp(float64(l) / 0.7)
	}
	for id, l := range logits[:3] {
		require.InDelta(t, math.Exp(float64(l)/0.7)/z, float64(got[int32(id)])/n, 0.015)
	}
	require.Zero(t, got[3]+got[4])
}

func TestTruncation(t *testing.T) {
	logits := []float32{float32(math.Log(0.5)), float32(math.Log(0.3)), float32(math.Log(0.15)), float32(math.Log(0.05))}
	for _, c := range []struct {
		name string
		p    Params
		keep []int32
	}{
		{"greedy", Params{}, []int32{0}},
		{"top-k", Params{Temperature: 1, TopK: 2}, []int32{0, 1}},
		{"top-p", Params{Temperature: 1, TopP: 0.7}, []int32{0, 1}},
		{"top-p just over", Params{Temperature: 1, TopP: 0.81}, []int32{0, 1, 2}},
		{"min-p", Params{Temperature: 1, MinP: 0.29}, []int32{0, 1, 2}},
		{"typical", Params{Temperature: 1, TypicalP: 0.29}, []int32{1}}, // entropy 1.14 nats, −log 0.3 = 1.20 is nearest
		{"bias", Params{Bias: map[int32]float64{3: 9, 99: 1, -1: 1}}, []int32{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.p.Seed = 1
			got := draws(t, c.p, logits, 2000)
			require.Len(t, got, len(c.keep))
			for _, id := range c.keep {
				require.Positive(t, got[id])
			}
		})
	}
}

func TestPenalties(t *testing.T) {
	s, err := New(Params{RepeatPenalty: 2, FrequencyPenalty: 0.5, PresencePenalty: 0.25})
	require.NoError(t, err)
	s.Accept(0, 0, 1)
	l := []float32{4, -1, 3}
	id, err := s.Next(l)
	require.NoError(t, err)
	require.Equal(t, int32(2), id)
	require.InDeltaSlice(t, []float32{4.0/2 - 1 - 0.25, -2 - 0.5 - 0.25, 3}, l, 1e-6)
}

// Values at the ends of what is allowed must not make probabilities that are no numbers.
func TestExtremes(t *testing.T) {
	for name, p := range map[string]Params{
		"cold":            {Temperature: 1e-310},
		"cold, mirostat":  {Temperature: 5e-324, Mirostat: 2},
		"strong penalty":  {Temperature: 1, RepeatPenalty: 1e-300, FrequencyPenalty: -100, PresencePenalty: -100},
		"strong bias":     {Temperature: 0.01, Bias: map[int32]float64{1: 1e6, 0: math.Inf(-1), 2: -1e308}},
		"cold, penalties": {Temperature: 1e-6, RepeatPenalty: 1e-300},
	} {
		s, err := New(p)
		require.NoError(t, err, name)
		s.Accept(1)
		for range 20 {
			id, err := s.Next([]float32{1, 2, 1.5, float32(math.Inf(-1))})
			require.NoError(t, err, name)
			require.Equal(t, int32(1), id, name)
		}
	}
	for _, b := range []float64{math.Inf(1), math.NaN(), 1e7} {
		require.ErrorContains(t, Params{Bias: map[int32]float64{3: b}}.Validate(), "for token 3: want at most 1e+06")
	}
}

func TestDRYBreaksLoops(t *testing.T) {
	s, err := New(Params{DRYMultiplier: 1, DRYBase: 2, DRYAllowedLength: 2})
	require.NoError(t, err)
	s.Accept(5, 6, 7, 1, 5, 6, 7)
	l := make([]float32, 10)
	_, err = s.Next(l)
	require.NoError(t, err)
	require.InDelta(t, -2, l[1], 1e-6, "5 6 7 was followed by 1: three matching tokens cost 1·2^(3−2)")
	for i, v := range l {
		if i != 1 {
			require.Zero(t, v)
		}
	}
	s, err = New(Params{DRYMultiplier: 1, DRYBreakers: []int32{6}})
	require.NoError(t, err)
	s.Accept(5, 6, 7, 1, 5, 6, 7)
	l = make([]float32, 10)
	_, err = s.Next(l)
	require.NoError(t, err)
	require.Zero(t, l[1], "the breaker leaves a match of one token, which is allowed")
}

func TestMirostatHoldsSurprise(t *testing.T) {
	logits := make([]float32, 500)
	for i := range logits {
		logits[i] = float32(-1.1 * math.Log(float64(i+1)))
	}
	for _, version := range []int{1, 2} {
		s, err := New(Params{Temperature: 1, Mirostat: version, MirostatTau: 3, MirostatEta: 0.1, Seed: 9})
		require.NoError(t, err)
		var bits float64
		const n = 3000
		for range n {
			l := append([]float32(nil), logits...)
			id, err := s.Next(l)
			require.NoError(t, err)
			for _, c := range s.cand {
				if c.id == id {
					bits -= math.Log2(c.p)
				}
			}
		}
		require.InDelta(t, 3, bits/n, 0.4, "mirostat %d", version)
	}
}

func TestSeedRepeats(t *testing.T) {
	logits := []float32{0, 0.1, 0.2, 0.3, 0.2, 0.1}
	run := func(seed uint64) (ids []int32) {
		s, err := New(Params{Temperature: 1, Seed: seed})
		require.NoError(t, err)
		for range 50 {
			id, err := s.Next(append([]float32(nil), logits...))
			require.NoError(t, err)
			ids = append(ids, id)
		}
		return ids
	}
	require.Equal(t, run(4), run(4))
	require.NotEqual(t, run(4), run(5))
}

// All candidates in order, as the sampler would have them without being lazy.
func ordered(p Params, logits []float32) (cand []token) {
	top, sum := math.Inf(-1), 0.0
	for i, v := range logits {
		if v > ninf {
			cand = append(cand, token{id: int32(i), logit: float64(v) / p.Temperature})
			top = max(top, float64(v)/p.Temperature)
		}
	}
	if p.Mirostat == 0 && len(cand) > 256 {
		cand = slices.DeleteFunc(cand, func(t token) bool { return t.logit < top-20.7 })
	}
	slices.SortStableFunc(cand, func(a, b token) int { return cmp.Compare(b.logit, a.logit) })
	if p.TopK > 0 {
		cand = cand[:min(p.TopK, len(cand))]
	}
	for _, t := range cand {
		sum += math.Exp(t.logit - top)
	}
	for i, t := range cand {
		cand[i].p = math.Exp(t.logit-top) / sum
	}
	return cand
}

func TestOrderIsThatOfAFullSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n, p := range map[int]Params{
		1: {Temperature: 1}, 40: {Temperature: 0.01}, 256: {Temperature: 1}, 257: {Temperature: 1}, 5000: {Temperature: 0.7}, 5001: {Temperature: 90},
		3000: {Temperature: 1, TopK: 40}, 3001: {Temperature: 1, TopK: 1}, 3002: {Temperature: 2, TopK: 2999}, 2000: {Temperature: 0.02, Mirostat: 2},
	} {
		logits := make([]float32, n)
		for i := range logits {
			logits[i] = float32(6*r.NormFloat64() - 10)
			if r.IntN(4) == 0 {
				logits[i] = float32(math.Round(float64(logits[i]))) // equals
			}
			if r.IntN(9) == 0 {
				logits[i] = []float32{ninf, float32(math.NaN())}[r.IntN(2)]
			}
		}
		logits[n/2] = 3
		s, err := New(p)
		require.NoError(t, err)
		s.candidates(logits)
		want := ordered(p, logits)
		for i, w := range want {
			require.True(t, s.has(i), "%d of %d", i, n)
			require.Equal(t, w.id, s.cand[i].id, "%d of %d", i, n)
			require.InDelta(t, w.p, s.cand[i].p, 1e-12)
		}
		require.False(t, s.has(len(want)))
	}
}

func TestInfiniteLogits(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, p := range []Params{{}, {Temperature: 1}, {Temperature: 1, TopP: 0.5}, {Temperature: 1, TopK: 2}, {Temperature: 1, Mirostat: 1}, {Temperature: 1, TypicalP: 0.5}} {
		s, err := New(p)
		require.NoError(t, err)
		_, err = s.Next([]float32{0, inf, 1, inf, ninf})
		require.NoError(t, err)
	}
}

func TestArgMax(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		logits []float32
		want   int32
	}{
		{nil, -1}, {[]float32{ninf, nan}, -1}, {[]float32{nan, -3, nan}, 1}, {make([]float32, 20), 0},
		{[]float32{0, 1, 2, 3, 4, 3, 2, 5, 5}, 7}, {[]float32{0, 1, 2, 3, 4, 3, 2, nan, 6, 7, 7}, 9}, {[]float32{9, 9, nan, 3, 4, 3, 2, nan, 6, 7, 9}, 0},
	} {
		require.Equal(t, c.want, ArgMax(c.logits), "%v", c.logits)
	}
}

// BenchmarkNext draws from a vocabulary of 262144, the size of Gemma's.
// go test -run xxx -bench Next ./core/sample
func BenchmarkNext(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, 1<<18)
	for i := range logits {
		logits[i] = float32(3*r.NormFloat64() - 10)
	}
	for i := range 20 {
		logits[1000*i] = float32(4 - i/4)
	}
	for _, c := range []struct {
		name string
		p    Params
	}{
		{"greedy", Params{}}, {"temperature 1", Params{Temperature: 1}}, {"temperature 0.7, top-p 0.9", Params{Temperature: 0.7, TopP: 0.9}},
		{"top-k 40", Params{Temperature: 1, TopK: 40}}, {"mirostat 2", Params{Temperature: 1, Mirostat: 2}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, err := New(c.p)
			require.NoError(b, err)
			for b.Loop() {
				_, err := s.Next(logits)
				require.NoError(b, err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, p := range []Params{
		{Temperature: -1}, {Temperature: math.NaN()}, {TopP: 1.5}, {MinP: -0.1}, {TopK: -2}, {Mirostat: 3}, {Mirostat: 1},
		{Mirostat: 2, Temperature: 1, TopK: 4}, {RepeatPenalty: math.Inf(1)},
	} {
		_, err := New(p)
		require.Error(t, err, "%+v", p)
	}
	for _, temp := range []float64{0, 1} {
		s, err := New(Params{Temperature: temp})
		require.NoError(t, err)
		_, err = s.Next([]float32{ninf, ninf})
		require.Error(t, err)
	}
}

func TestLogProbs(t *testing.T) {
	own, top := LogProbs([]float32{0, 2, 1}, 0, 2)
	z := math.Log(1 + math.Exp(2) + math.Exp(1))
	require.InDelta(t, -z, own.LP, 1e-9)
	require.Equal(t, []int32{1, 2}, []int32{top[0].ID, top[1].ID})
	require.InDelta(t, 2-z, top[0].LP, 1e-9)
}
