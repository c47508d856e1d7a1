package pipeline

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

// Importance and flips are what central differences of the loss say: the length of its slope over a word's embeddings, and the slope towards
// another word's.
func TestVictimGradients(t *testing.T) {
	k := backend.Generic(1)
	t.Cleanup(k.Close)
	p, err := Open(filepath.Join(fixture.Parity(t), "models", "bert-seqcls"), k, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	v := victim{p}
	ctx := context.Background()
	const text, label = "Farid carried the awful lamp", 1
	words := attack.Words(text)
	enc, g, now, cols, err := v.gradient(text, label)
	require.NoError(t, err)

	delta := make([]float32, len(g))
	var arena grad.Arena
	loss := func() float64 {
		arena.Reset()
		c := grad.Infer(k, &arena)
		out, err := p.b.Model.Forward(c, &model.Batch{IDs: enc.IDs, Offsets: []int32{0, int32(enc.Len())}, Want: model.WantLogits,
			Perturb: func(c *grad.Ctx, x *grad.Value) *grad.Value { return c.Add(x, c.Input(delta, x.Rows, x.Cols, false)) }})
		require.NoError(t, err)
		return k.CrossEntropy(out.Logits.Data, []int32{label}, 1, out.Logits.Cols, nil, 1)
	}
	// along is the slope in the direction d at the tokens of a span.
	along := func(tokens []int, d []float32) float64 {
		at := func(h float32) float64 {
			clear(delta)
			for _, n := range tokens {
				for i, x := range d {
					delta[n*cols+i] = h * x
				}
			}
			return loss()
		}
		diff := func(h float32) float64 { return (at(h) - at(-h)) / (2 * float64(h)) }
		return (4*diff(1.0/256) - diff(1.0/128)) / 3
	}

	importance, err := v.SpanImportance(ctx, text, label, words)
	require.NoError(t, err)
	for w, span := range words {
		var sum float64
		for _, n := range tokensIn(&enc, span) {
			for i := range cols {
				unit := make([]float32, cols)
				unit[i] = 1
				s := along([]int{n}, unit)
				require.InDelta(t, s, g[n*cols+i], 1e-3)
				sum += s * s
			}
		}
		require.InEpsilon(t, math.Sqrt(sum), importance[w], 2e-2, text[span.Start:span.End])
	}

	flips, err := v.Flips(ctx, text, label, words, 4)
	require.NoError(t, err)
	table := p.b.Model.Embeddings()[0].W.Values()
	for w, span := range words {
		tokens := tokensIn(&enc, span)
		mean := make([]float32, cols)
		for _, n := range tokens {
			for i := range mean {
				mean[i] += now[n*cols+i] / float32(len(tokens))
			}
		}
		require.Len(t, flips[w], 4)
		for _, c := range flips[w] {
			e, err := p.b.Tokenizer.Encode(c.Text, token.Options{NoLimits: true, NoSpecial: true})
			require.NoError(t, err)
			require.Equal(t, 1, e.Len(), c.Text)
			towards := make([]float32, cols)
			for i := range towards {
				towards[i] = table[int(e.IDs[0])*cols+i] - mean[i]
			}
			require.InDelta(t, along(tokens, towards), c.P, 2e-3, "%s for %s", c.Text, text[span.Start:span.End])
			require.NotEqual(t, strings.ToLower(text[span.Start:span.End]), c.Text)
		}
	}
}
