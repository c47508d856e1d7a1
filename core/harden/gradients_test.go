package harden

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/train"
)

// slope checks got, the gradient of f at v, by central differences with Richardson's extrapolation.
func slope(t *testing.T, what string, v, got []float32, h float32, tolerance float64, f func() float64) {
	t.Helper()
	moved := false
	for i := range v {
		was := v[i]
		diff := func(h float32) float64 {
			v[i] = was + h
			up := f()
			v[i] = was - h
			down := f()
			v[i] = was
			return (up - down) / (2 * float64(h))
		}
		require.InDelta(t, (4*diff(h/2)-diff(h))/3, got[i], tolerance, "%s: element %d", what, i)
		moved = moved || got[i] > 10*float32(tolerance) || got[i] < -10*float32(tolerance)
	}
	require.True(t, moved, "%s: the gradient is nothing but noise", what)
}

func normal(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func TestDivergenceGradients(t *testing.T) {
	const rows, cols, w = 3, 4, 0.7
	a, b := normal(1, rows*cols), normal(2, rows*cols)
	da, db := make([]float32, len(a)), make([]float32, len(b))
	symmetricKL(a, b, cols, da, db, w)
	f := func() float64 { return w * symmetricKL(a, b, cols, nil, nil, 0) }
	slope(t, "first", a, da, 1.0/64, 1e-5, f)
	slope(t, "second", b, db, 1.0/64, 1e-5, f)
}

func TestLikenessGradients(t *testing.T) {
	const w = 0.7
	a, b := normal(1, 6), normal(2, 6)
	da := make([]float32, len(a))
	unlike(a, b, da, w)
	slope(t, "cosine", a, da, 1.0/64, 1e-5, func() float64 { return w * unlike(a, b, nil, 0) })

	states := &grad.Value{Rows: 7, Cols: 4, Data: normal(3, 28)}
	pairs := []wordPair{{4, 6, 0, 1}, {6, 7, 2, 4}} // rows of the copy, then of the original
	g := make([]float32, len(states.Data))
	likeWords(g, states, pairs, w)
	f := func() float64 { return w * likeWords(nil, states, pairs, 0) }
	slope(t, "words", states.Data[4*4:], g[4*4:], 1.0/64, 1e-5, f)
	for _, v := range g[:4*4] {
		require.Zero(t, v, "the original is a constant")
	}
}

// swap makes a copy in which one word stands for another.
type swap struct{ from, to string }

func (swap) Name() string { return "swap" }
func (w swap) Perturb(_ context.Context, reqs []attack.Request, _ attack.Victim) ([][]string, error) {
	var out [][]string
	for _, q := range reqs {
		out = append(out, []string{strings.ReplaceAll(q.Text, w.from, w.to)})
	}
	return out, nil
}
func (swap) wholeText() {}

// The whole step's gradient with respect to the embedding of a word that copies alone hold, by central differences: originals are constants
// in the divergences, so that only what reaches copies is the loss's slope.
func TestAugmentGradients(t *testing.T) {
	b := tiny(t)
	texts := []string{"the awful lamp hid the model", "it was quick and awful"}
	const stands = "noisy"
	for _, text := range texts {
		require.NotContains(t, text, stands)
	}
	ids, _, err := b.Encode(stands, "", 0)
	require.NoError(t, err)
	table := wordTable(b.Model)
	cols := table.T.Cols()
	for name, set := range map[string]func(*Augment){
		"consistency": func(a *Augment) { a.Consistency = 2 },
		"likeness":    func(a *Augment) { a.Likeness = 2 },
		"words":       func(a *Augment) { a.Words = 2 },
		"all":         func(a *Augment) { a.Consistency, a.Likeness, a.Words = 1, 1, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			a := &Augment{Sources: []attack.Perturber{swap{"awful", stands}}, Share: 1, Copies: 1, Rounds: 1, Inner: train.Plain{}}
			set(a)
			var g []float32
			run := func() float64 {
				loss, _ := micro(t, b, a, 0, texts...)
				return loss
			}
			run()
			g = slices.Clone(table.Grad)
			id := int(ids[1]) // the first piece after [CLS]
			row := table.Values()[id*cols : (id+1)*cols]
			slope(t, name, row, g[id*cols:(id+1)*cols], 1.0/128, 5e-4, func() float64 {
				return run()
			})
		})
	}
}

// The gradient that rankings and attacks in embedding space use, with respect to the word embeddings of a batch, by central differences.
func TestWordGradients(t *testing.T) {
	b := tiny(t)
	k := backend.Generic(1)
	defer k.Close()
	s := &train.Step{Model: b.Model, K: k, Arena: &grad.Arena{}, Weight: 2, Seed: 3}
	for i, text := range two {
		ids, _, err := b.Encode(text, "", 0)
		require.NoError(t, err)
		s.Examples = append(s.Examples, train.Example{Text: text, IDs: ids, Class: int32(i)})
	}
	p := newPasses(s, s.Examples)
	delta := p.zeros()
	copy(delta, normal(4, len(delta)))
	for i := range delta {
		delta[i] *= 0.01
	}
	_, g, err := p.run("gradient", delta, false)
	require.NoError(t, err)
	f := func() float64 {
		loss, _, err := p.run("gradient", delta, false)
		require.NoError(t, err)
		return loss
	}
	for _, token := range []int{1, 3, p.tokens - 2} {
		at := token * p.cols
		slope(t, "token", delta[at:at+p.cols], g[at:at+p.cols], 1.0/128, 5e-4, f)
	}

	// The divergence's own gradient, which smart and vat ascend.
	clean, err := p.logits()
	require.NoError(t, err)
	for i := range clean {
		clean[i] += float32(i%3) - 1
	}
	held := p.hold()
	defer p.release(held)
	_, g, err = p.divergence(delta, clean, len(clean)/2, 1)
	require.NoError(t, err)
	at := 2 * p.cols
	slope(t, "divergence", delta[at:at+p.cols], g[at:at+p.cols], 1.0/128, 5e-4, func() float64 {
		d, _, err := p.divergence(delta, clean, len(clean)/2, 1)
		require.NoError(t, err)
		return d
	})
}
