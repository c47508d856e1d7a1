package generate_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/sample"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

// windowed is a random model of two layers that see 24 positions and one that sees all, for long texts.
func windowed(t testing.TB) (model.Model, *token.Tokenizer) {
	dir := filepath.Join(fixture.Parity(t), "models", "gemma3-causal")
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	var keys map[string]any
	require.NoError(t, json.Unmarshal(raw, &keys))
	keys["max_position_embeddings"], keys["head_dim"], keys["sliding_window"] = 16384, 32, 24
	raw, err = json.Marshal(keys)
	require.NoError(t, err)
	cfg, err := model.ParseConfig(raw)
	require.NoError(t, err)
	m, err := model.New(cfg, nil, model.Options{Head: model.HeadCausal, Random: true, Seed: 5})
	require.NoError(t, err)
	b, err := peft.Open(dir, peft.OpenOptions{Head: model.HeadCausal})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return m, b.Tokenizer
}

func kernelsOf(t testing.TB, threads int) backend.Kernels {
	k, err := native.New(native.Options{Threads: threads})
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

// A layer that forgets what it will not see again computes what one that holds everything does, also where the text goes on from its middle.
func TestWindowForgetsNothingThatCounts(t *testing.T) {
	m, tok := windowed(t)
	for name, k := range map[string]backend.Kernels{"generic": backend.Generic(1), "native": kernelsOf(t, 2)} {
		g, err := generate.New(m, tok, k, nil, generate.Options{Parallel: 1, Cache: "f32", Chunk: 200})
		require.NoError(t, err)
		prompt := make([]int32, 450)
		for i := range prompt {
			prompt[i] = int32(i*i%300 + 3)
		}
		r := req(prompt, 900)
		r.IgnoreEnd, r.Sample = true, sample.Params{Temperature: 1, Seed: 2}
		got := run(t, g, r)
		text := append(prompt[:len(prompt):len(prompt)], got.ids...)

		// The whole text at once gives each token the probability that it had.
		cache := model.NewCache(m.Config(), 1, len(text))
		var a grad.Arena
		want := make([]float64, 0, len(text))
		for at := 0; at < len(text); {
			n := min(97, len(text)-at)
			a.Reset()
			out, err := m.Forward(grad.Infer(k, &a), &model.Batch{IDs: text[at : at+n], Offsets: []int32{0, int32(n)}, Cache: cache, Want: model.WantLogits})
			require.NoError(t, err)
			for i := range n {
				if next := at + i + 1; next < len(text) && next >= len(prompt) {
					own, _ := sample.LogProbs(out.Logits.Data[i*out.Logits.Cols:(i+1)*out.Logits.Cols], text[next], 0)
					want = append(want, own.LP)
				}
			}
			at += n
		}
		var have []float64
		_, err = g.Generate(t.Context(), r, func(p generate.Piece) error {
			for _, k := range p.Tokens {
				have = append(have, k.Own.LP)
			}
			return nil
		})
		require.NoError(t, err)
		require.Len(t, have, len(want))
		for i, v := range want {
			if name == "generic" {
				require.Equal(t, v, have[i], i)
			} else { // which reads many queries at once in another order than one
				require.InDelta(t, v, have[i], 1e-5, i)
			}
		}
		if name == "native" {
			g.Close()
			continue
		}

		// On from a place that the windows have forgotten, and from one that they have not.
		for _, n := range []int{600, len(text) - 5} {
			r := req(text[:n], 40)
			r.IgnoreEnd = true
			cached := run(t, g, r)
			fresh, err := generate.New(m, tok, k, nil, generate.Options{Parallel: 1, Cache: "f32"})
			require.NoError(t, err)
			require.Equal(t, run(t, fresh, r).ids, cached.ids, n)
			fresh.Close()
		}
		g.Close()
	}
}

// Over ten thousand tokens, layers with a window hold no more than at first, and the heap grows by the tokens of the others alone.
func TestLongTextsTakeFlatMemory(t *testing.T) {
	m, tok := windowed(t)
	k := kernelsOf(t, 1)
	for _, typ := range []string{"f32", "f16", "q8_0"} {
		g, err := generate.New(m, tok, k, nil, generate.Options{Parallel: 1, Cache: typ})
		require.NoError(t, err)
		heap := func() int {
			var s runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&s)
			return int(s.HeapAlloc)
		}
		r := req([]int32{5, 9, 14}, 1500)
		r.IgnoreEnd, r.LogProbs = true, -1
		run(t, g, r)
		first, cached := heap(), g.CacheBytes()
		r.MaxTokens = 10_000
		got := run(t, g, r)
		require.Equal(t, 10_000, got.res.Tokens)
		row := map[string]int{"f32": 4 * 64, "f16": 2 * 64, "q8_0": 2 * 34}[typ]
		// One layer holds everything, its room at most doubled; two hold a window, what lies between forgettings, and as much again.
		require.LessOrEqual(t, g.CacheBytes(), 2*row*(2*10_003+2*2*(24+64+512+1)), typ)
		require.LessOrEqual(t, heap()-first, g.CacheBytes()-cached+1<<20, typ)
		g.Close()
	}
}

// Guesses are checked together, with the bits that one token at a time has.
func TestGuessesGetTheSameBits(t *testing.T) {
	m, tok := windowed(t)
	k := kernelsOf(t, 2)
	write := func(draft int) (out outcome, lps []float64) {
		g, err := generate.New(m, tok, k, nil, generate.Options{Parallel: 1, Draft: draft})
		require.NoError(t, err)
		defer g.Close()
		r := req([]int32{5, 9, 14, 9, 14, 9, 14}, 700)
		r.IgnoreEnd = true
		out.res, err = g.Generate(t.Context(), r, func(p generate.Piece) error {
			for _, k := range p.Tokens {
				out.ids, lps = append(out.ids, k.ID), append(lps, k.Own.LP)
			}
			return nil
		})
		require.NoError(t, err)
		return out, lps
	}
	plain, want := write(0)
	guessed, have := write(6)
	require.Positive(t, guessed.res.Accepted)
	require.Equal(t, plain.ids, guessed.ids)
	require.Equal(t, want, have)
}

func TestCacheTypes(t *testing.T) {
	m, tok := windowed(t)
	k := kernelsOf(t, 1)
	_, err := generate.New(m, tok, k, nil, generate.Options{Cache: "q4_0"})
	require.ErrorContains(t, err, "expected f32, f16 or q8_0")
	_, err = generate.New(m, tok, k, nil, generate.Options{Cache: "half"})
	require.ErrorContains(t, err, "cache type")
	g, b := open(t, "gemma3-causal", generate.Options{})
	g.Close()
	_, err = generate.New(b.Model, b.Tokenizer, k, nil, generate.Options{Cache: "q8_0"})
	require.ErrorContains(t, err, "heads of 12")
}

// The next token's probability depends little on the type that keys and values are stored in: about as much as on the rounding of activations.
func TestCacheTypesAgree(t *testing.T) {
	d, err := generate.Open(fixture.Gemma(t), generate.OpenOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	k := kernelsOf(t, 2)
	prompt := d.Encode("The history of the steam engine begins long before James Watt. In the first century, Hero of Alexandria described", false)
	probs := map[string][]float64{}
	for _, typ := range []string{"f32", "f16", "q8_0"} {
		g, err := d.Start(k, generate.Options{Parallel: 1, Cache: typ})
		require.NoError(t, err)
		r := req(prompt, 1)
		r.LogProbs = 5
		_, err = g.Generate(t.Context(), r, func(p generate.Piece) error {
			for _, one := range p.Tokens[0].Top {
				probs[typ] = append(probs[typ], one.LP)
			}
			return nil
		})
		require.NoError(t, err)
		g.Close()
	}
	require.InDeltaSlice(t, probs["f32"], probs["f16"], 0.2)
	require.InDeltaSlice(t, probs["f32"], probs["q8_0"], 0.4)
}

// The prompt's own log-probabilities are those that a scorer gives, in chunks too, and asking for them changes nothing that follows.
func TestPromptLogProbs(t *testing.T) {
	for _, chunk := range []int{0, 3} {
		g, b := open(t, "llama-causal", generate.Options{Parallel: 2, Chunk: chunk})
		prompt := []int32{5, 9, 14, 20, 21, 9, 14}
		plain := run(t, g, req(prompt, 6))
		k := backend.Generic(1)
		s, err := generate.NewScorer(b.Model, k)
		require.NoError(t, err)
		want, err := s.Sequence(t.Context(), prompt, 1)
		require.NoError(t, err)
		k.Close()
		r := req(prompt, 6)
		r.PromptLogProbs, r.LogProbs = true, 2
		var ids []int32
		var have []float64
		var text outcome
		_, err = g.Generate(t.Context(), r, func(p generate.Piece) error {
			text.text += p.Text
			for _, one := range p.Tokens {
				require.Len(t, one.Top, 2)
				if p.Prompt {
					ids, have = append(ids, one.ID), append(have, one.Own.LP)
				} else {
					text.ids = append(text.ids, one.ID)
				}
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, prompt[1:], ids)
		require.InDeltaSlice(t, want, have, 1e-5)
		require.Equal(t, plain.ids, text.ids)
		require.Equal(t, plain.text, text.text)
	}
}
