package generate_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/sample"
	"github.com/temper-ml/temper/tests/fixture"
)

func open(t *testing.T, name string, o generate.Options, eos ...int32) (*generate.Generator, *peft.Bundle) {
	b, err := peft.Open(filepath.Join(fixture.Parity(t), "models", name), peft.OpenOptions{Head: model.HeadCausal})
	require.NoError(t, err)
	k := backend.Generic(1)
	g, err := generate.New(b.Model, b.Tokenizer, k, eos, o)
	require.NoError(t, err)
	t.Cleanup(func() { g.Close(); k.Close(); _ = b.Close() })
	return g, b
}

type outcome struct {
	text string
	ids  []int32
	res  generate.Result
}

func run(t *testing.T, g *generate.Generator, r generate.Request) outcome {
	var o outcome
	res, err := g.Generate(context.Background(), r, func(p generate.Piece) error {
		o.text += p.Text
		for _, k := range p.Tokens {
			o.ids = append(o.ids, k.ID)
		}
		return nil
	})
	require.NoError(t, err)
	o.res = res
	return o
}

func req(prompt []int32, n int) generate.Request {
	return generate.Request{Prompt: prompt, MaxTokens: n, LogProbs: 0}
}

// Alone, in a batch, in chunks, with guesses, after another text with the same beginning: always the same tokens.
func TestSameTokensHoweverComputed(t *testing.T) {
	for _, name := range []string{"llama-causal", "gemma3-causal", "gpt2-causal", "mistral-causal"} {
		t.Run(name, func(t *testing.T) {
			prompts := [][]int32{{5, 9, 14, 9, 14, 9, 14}, {7, 8}, {5, 9, 14, 9, 14, 20, 21, 22, 23}, {3}}
			plain, _ := open(t, name, generate.Options{Parallel: 1})
			for _, temp := range []float64{0, 0.8} {
				var want []outcome
				for i, p := range prompts {
					r := req(p, 20)
					r.Sample = sample.Params{Temperature: temp, Seed: uint64(i)}
					want = append(want, run(t, plain, r))
					require.Len(t, want[i].ids, 20)
				}
				for _, o := range []generate.Options{{Parallel: 4}, {Parallel: 2, Chunk: 3}, {Parallel: 3, Draft: 4}} {
					g, _ := open(t, name, o)
					for round := range 2 { // the second time finds its beginning in the cache
						got := make([]outcome, len(prompts))
						var wg sync.WaitGroup
						for i, p := range prompts {
							wg.Go(func() {
								r := req(p, 20)
								r.Sample = sample.Params{Temperature: temp, Seed: uint64(i)}
								got[i] = run(t, g, r)
							})
						}
						wg.Wait()
						for i := range prompts {
							require.Equal(t, want[i].ids, got[i].ids, "prompt %d, temperature %g, %+v, round %d", i, temp, o, round)
							require.Equal(t, want[i].text, got[i].text)
						}
					}
				}
			}
		})
	}
}

func TestPrefixIsReused(t *testing.T) {
	g, _ := open(t, "llama-causal", generate.Options{Parallel: 1})
	p := []int32{5, 9, 14, 9, 14, 20, 21, 22, 23}
	require.Zero(t, run(t, g, req(p, 4)).res.Cached)
	require.Equal(t, 8, run(t, g, req(p, 4)).res.Cached)
	require.Equal(t, 5, run(t, g, req([]int32{5, 9, 14, 9, 14, 8}, 4)).res.Cached)
}

func TestDraftsAreAccepted(t *testing.T) {
	g, _ := open(t, "llama-causal", generate.Options{Parallel: 1, Draft: 6})
	r := run(t, g, req([]int32{5, 9}, 100)).res // a tiny random model falls into a loop, which look-up predicts
	require.Positive(t, r.Accepted)
	require.GreaterOrEqual(t, r.Drafted, r.Accepted)
}

func TestStops(t *testing.T) {
	plain, _ := open(t, "llama-causal", generate.Options{})
	all := run(t, plain, req([]int32{5, 9, 14}, 30))
	r := []rune(all.text)
	require.Greater(t, len(r), 6)
	stop := string(r[3:6])
	o := req([]int32{5, 9, 14}, 30)
	o.Stop = []string{"never said", stop}
	got := run(t, plain, o)
	require.Equal(t, all.text[:strings.Index(all.text, stop)], got.text)
	require.Equal(t, generate.FinishStop, got.res.Finish)
	require.Equal(t, generate.FinishLength, all.res.Finish)

	ended, _ := open(t, "llama-causal", generate.Options{}, all.ids[4])
	got = run(t, ended, req([]int32{5, 9, 14}, 30))
	require.Equal(t, generate.FinishStop, got.res.Finish)
	require.LessOrEqual(t, len(got.ids), 4)
	o = req([]int32{5, 9, 14}, 30)
	o.IgnoreEnd = true
	require.Equal(t, all.ids, run(t, ended, o).ids)
}

func TestErrors(t *testing.T) {
	g, b := open(t, "llama-causal", generate.Options{Context: 16, Parallel: 1, Waiting: 1})
	ctx := context.Background()
	none := func(generate.Piece) error { return nil }
	for want, r := range map[string]generate.Request{
		"empty":        {},
		"leaves no":    {Prompt: make([]int32, 16)},
		"vocabulary":   {Prompt: []int32{int32(b.Model.Config().Vocab)}},
		"temperature":  {Prompt: []int32{1}, Sample: sample.Params{Temperature: -1}},
		"max tokens -": {Prompt: []int32{1}, MaxTokens: -1},
	} {
		_, err := g.Generate(ctx, r, none)
		require.ErrorContains(t, err, want)
	}
	_, err := g.Generate(ctx, req([]int32{1}, 0), func(generate.Piece) error { return errors.New("reader left") })
	require.EqualError(t, err, "reader left")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = g.Generate(gone, req([]int32{1}, 0), none)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, generate.FinishLength, run(t, g, req([]int32{1, 2}, 0)).res.Finish, "the context ends it")
	g.Close()
	_, err = g.Generate(ctx, req([]int32{1}, 1), none)
	require.ErrorIs(t, err, generate.ErrClosed)
}
