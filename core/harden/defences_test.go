package harden

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
	"github.com/temper-ml/temper/tests/fixture"
)

var lexicon = attack.Lexicon{"awful": {"quick", "noisy", "excellent"}, "lamp": {"coins", "market"}, "theatre": {"market", "lamp"}, "model": {"lamp"}, "hid": {"carried"}}

// tiny is a small classifier ready for full tuning.
func tiny(t *testing.T) *peft.Bundle {
	b, err := peft.Open(filepath.Join(fixture.Parity(t), "models", "bert-seqcls"), peft.OpenOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	require.NoError(t, model.TrainAll(b.Model))
	return b
}

// micro runs one objective over the texts and returns its loss and gradients.
func micro(t *testing.T, b *peft.Bundle, o train.Objective, index int, texts ...string) (float64, [][]float32) {
	k := backend.Generic(1)
	defer k.Close()
	for _, p := range b.Model.Params() {
		clear(p.Grad)
	}
	s := &train.Step{Model: b.Model, K: k, Arena: &grad.Arena{}, Weight: float64(len(texts)), Seed: 3, Index: index, Total: 10,
		Encode: func(text string) ([]int32, error) {
			ids, _, err := b.Encode(text, "", 0)
			return ids, err
		},
		Tokens: func(text string) (token.Encoding, error) { return b.Tokens(text, 0) },
	}
	for i, text := range texts {
		ids, err := s.Encode(text)
		require.NoError(t, err)
		s.Examples = append(s.Examples, train.Example{Text: text, IDs: ids, Class: int32(i % 3)})
	}
	loss, err := o.Micro(context.Background(), s)
	require.NoError(t, err)
	var g [][]float32
	for _, p := range b.Model.Params() {
		g = append(g, slices.Clone(p.Grad))
	}
	return loss, g
}

var two = []string{"the awful lamp hid the model", "it was quick and noisy"}

// The first replay is an ordinary step; later ones repeat its batch, whatever they are given, with a change within the bound; a restored
// run goes on alike.
func TestFree(t *testing.T) {
	b := tiny(t)
	plain, g := micro(t, b, train.Plain{}, 0, two...)
	m := NewFree()
	var deltas [][]float32
	m.Observe = func(_ int, _ float64, d []float32) { deltas = append(deltas, slices.Clone(d)) }
	first, h := micro(t, b, m, 0, two...)
	assert.InDelta(t, plain, first, 1e-6)
	for i := range g {
		assert.InDeltaSlice(t, g[i], h[i], 1e-5)
	}
	state := m.State()
	second, _ := micro(t, b, m, 1, "another text altogether")
	assert.Greater(t, second, first, "a step along the gradient's sign makes the loss larger")
	n := NewFree()
	require.NoError(t, n.Restore(state))
	again, _ := micro(t, b, n, 1, "another text altogether")
	assert.Equal(t, second, again)
	third, _ := micro(t, b, m, 2, "another text altogether")
	assert.Greater(t, third, first)
	require.Len(t, deltas, 3)
	assert.Zero(t, slices.Max(deltas[0]))
	top := slices.Max(deltas[1])
	assert.Positive(t, top)
	assert.LessOrEqual(t, slices.Max(deltas[2]), top+1e-7)
	fresh, _ := micro(t, b, m, 3, "another text altogether")
	want, _ := micro(t, b, train.Plain{}, 3, "another text altogether")
	assert.InDelta(t, want, fresh, 1e-6, "after three replays the next batch begins")
	assert.Error(t, NewFree().Restore([]byte("no state")))
}

// With one step and no start the method is ordinary training; a token's change is met again by the next batch.
func TestTavat(t *testing.T) {
	b := tiny(t)
	plain, g := micro(t, b, train.Plain{}, 0, two...)
	m := &Tavat{Steps: 1, StepSize: 0.1, Radius: 0.2}
	loss, h := micro(t, b, m, 0, two...)
	assert.InDelta(t, plain, loss, 1e-6)
	for i := range g {
		assert.InDeltaSlice(t, g[i], h[i], 1e-5)
	}
	m = NewTavat()
	m.Steps = 3
	var losses []float64
	m.Observe = func(_ int, l float64, _ []float32) { losses = append(losses, l) }
	micro(t, b, m, 0, two...)
	require.Len(t, losses, 3)
	assert.Greater(t, losses[2], losses[0])
	n := NewTavat()
	require.NoError(t, n.Restore(m.State()))
	assert.Equal(t, m.vocab, n.vocab)
	ids, _, err := b.Encode(two[0], "", 0)
	require.NoError(t, err)
	for _, id := range ids {
		assert.Contains(t, n.vocab, id)
	}
	assert.Error(t, NewTavat().Restore([]byte("no state")))
}

// The slope of the hull's weights is that of finite differences of g·Σ w·E − sparsity·entropy.
func TestHullSlope(t *testing.T) {
	g := []float32{0.3, -1, 0.5}
	table := []float32{1, 0, 2, 0, 1, -1, 0.5, 0.5, 0.5}
	c := corner{ids: []int32{0, 1, 2}, w: []float64{0.2, -0.4, 1}}
	const sparsity = 0.3
	value := func() float64 {
		var v float64
		for j, w := range c.weights() {
			v += sparsity * w * math.Log(w)
			for i := range g {
				v += w * float64(g[i]) * float64(table[int(c.ids[j])*3+i])
			}
		}
		return v
	}
	got := c.slope(g, table, 3, sparsity)
	for j := range c.w {
		was := c.w[j]
		c.w[j] = was + 1e-5
		up := value()
		c.w[j] = was - 1e-5
		down := value()
		c.w[j] = was
		assert.InDelta(t, (up-down)/2e-5, got[j], 1e-8)
	}
	delta := make([]float32, 3)
	c.w = []float64{1000, 0, 0}
	combine(delta, []corner{c}, table, 3)
	assert.Equal(t, []float32{0, 0, 0}, delta, "all weight on the word itself changes nothing")
}

// The search raises the divergence, stays within the hull, and without synonyms the loss is the plain one.
func TestHull(t *testing.T) {
	b := tiny(t)
	words := attack.Lexicon{}
	var whole []string // words of one piece
	for id := int32(0); id <= b.Tokenizer.MaxID(); id++ {
		if name, ok := b.Tokenizer.Token(id); ok && !b.Tokenizer.IsSpecial(id) && len(name) > 1 && letterWord(name) {
			whole = append(whole, name)
		}
	}
	require.Greater(t, len(whole), 8)
	words[whole[0]], words[whole[1]] = whole[2:5], whole[5:8]
	two := []string{whole[0] + " " + whole[1], whole[1] + " " + whole[6] + " " + whole[0]}
	m := NewHull(words)
	m.Steps, m.StepSize = 6, 50
	var seen []float64
	m.Observe = func(pass string, v float64, _ []float32) {
		if len(pass) == 1 {
			seen = append(seen, v)
		}
	}
	micro(t, b, m, 0, two...)
	require.Len(t, seen, 6)
	assert.Greater(t, slices.Max(seen[1:]), seen[0])
	plain, _ := micro(t, b, train.Plain{}, 0, two...)
	loss, _ := micro(t, b, NewHull(attack.Lexicon{}), 0, two...)
	assert.InDelta(t, plain, loss, 1e-5)
}

func TestA2T(t *testing.T) {
	b := tiny(t)
	lexicon := attack.Lexicon{}
	for _, w := range strings.Fields(strings.Join(two, " ")) {
		lexicon[w] = []string{"lamp", "market", "quick", "excellent"}
	}
	m := NewA2T(lexicon)
	m.Share, m.Rate = 1, 0.3
	changed := 0
	m.Observe = func(text, copied string, before, after float64) {
		x, y := strings.Fields(text), strings.Fields(copied)
		require.Equal(t, len(x), len(y))
		n := 0
		for i := range x {
			if x[i] != y[i] {
				n++
				assert.Contains(t, lexicon[strings.ToLower(x[i])], strings.ToLower(y[i]))
			}
		}
		changed += n
		assert.LessOrEqual(t, n, int(math.Ceil(0.3*float64(len(x)))))
		assert.GreaterOrEqual(t, after, before)
		if n > 0 {
			assert.Greater(t, after, before)
		}
	}
	micro(t, b, m, 0, two...)
	assert.Positive(t, changed)
}

func TestWordNoise(t *testing.T) {
	n := &WordNoise{Least: 0.5, Rate: 0.5, Mask: "[MASK]"}
	text := "one two three four, five six"
	q := attack.Request{Text: text, Words: attack.Words(text), May: []int{0, 1, 2, 3, 4, 5}, Max: 8, Seed: 4}
	out, err := n.Perturb(context.Background(), []attack.Request{q, {Text: "alone", Words: attack.Words("alone"), May: []int{0}}, {}}, nil)
	require.NoError(t, err)
	require.Len(t, out[0], 8)
	for _, s := range out[0] {
		k := strings.Count(s, "[MASK]")
		assert.True(t, k == 3 || k == 4, s)
	}
	assert.Equal(t, []string{"alone"}, out[1])
	assert.Equal(t, []string{""}, out[2])
}

func TestSynonymNoise(t *testing.T) {
	n := &SynonymNoise{Least: 1, Rate: 1, Words: lexicon, N: 2}
	text := "The awful Lamp was nice"
	q := attack.Request{Text: text, Words: attack.Words(text), May: []int{0, 1, 2, 3, 4}, Max: 10, Seed: 4}
	out, err := n.Perturb(context.Background(), []attack.Request{q}, nil)
	require.NoError(t, err)
	for _, s := range out[0] {
		w := strings.Fields(s)
		require.Len(t, w, 5, s)
		assert.Contains(t, []string{"quick", "noisy"}, w[1])
		assert.Contains(t, []string{"Coins", "Market"}, w[2])
		assert.Equal(t, []string{"The", "was", "nice"}, []string{w[0], w[3], w[4]})
	}
}

func TestHeldOut(t *testing.T) {
	sources := []attack.Perturber{NewCharNoise(), &WordNoise{}, attack.FromLexicon(lexicon, 3)}
	got, err := without(sources, []string{"deepwordbug", "synonyms"})
	require.NoError(t, err)
	require.Len(t, got, 2)
	for _, k := range got[0].(*CharNoise).Kinds {
		assert.NotContains(t, []string{"swap", "substitute", "delete", "insert"}, k)
	}
	assert.Contains(t, NewCharNoise().Kinds, "swap", "the source itself stays")
	_, err = without(sources, []string{"nonsense"})
	assert.ErrorContains(t, err, "nonsense")
	_, err = without([]attack.Perturber{NewCharNoise()}, []string{"mixed"})
	assert.ErrorContains(t, err, "nothing is left")
}

// Neighbours come in the order of the encoder's cosines, words that speak for another label are left out.
func TestWordSpace(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	p, err := pipeline.Open(filepath.Join(fixture.Parity(t), "models", "bert-seqcls"), k, pipeline.Options{})
	require.NoError(t, err)
	defer p.Close()
	d := &data.Dataset{}
	for i := range 40 {
		d.Texts = append(d.Texts, []string{"the lamp was awful", "the lamp was excellent"}[i%2])
		d.Labels = append(d.Labels, i%2)
	}
	s, err := NewWordSpace(context.Background(), p, k, d)
	require.NoError(t, err)
	s.Min = -1
	all, err := s.Nearest(context.Background(), "lamp", 1000)
	require.NoError(t, err)
	require.Len(t, all, spaceNeighbours)
	few, err := s.Nearest(context.Background(), "LAMP", 3)
	require.NoError(t, err)
	assert.Equal(t, all[:3], few)
	assert.NotContains(t, all, "lamp")
	assert.True(t, s.votes.against("awful", "excellent"))
	assert.False(t, s.votes.against("awful", "lamp"))
	none, err := s.Nearest(context.Background(), "zzzzzz", 3)
	require.NoError(t, err)
	assert.Empty(t, none)
}
