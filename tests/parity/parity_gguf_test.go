package parity

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/tests/fixture"
)

var _ = register("gguf", kind{fixture: runGGUF, top: runGemma})

// ggufExpected is expected.json of a folder.
type ggufExpected struct {
	Architecture string `json:"architecture"`
	Config       map[string]any
	Files        map[string]struct {
		Sequences []struct {
			Greedy  []int32   `json:"greedy_float32"`
			Margins []float64 `json:"top2_margins"`
		} `json:"sequences"`
	} `json:"files"`
	Prompts [][]int32 `json:"prompts"`
}

// runGGUF runs a tiny decoder from each of its files: logits of the last ten positions and greedy tokens, against a float32 forward over the
// same dequantized weights. (Expanded tensors and tokenization have tests of their own: TestGGUFDequantized here, TestGGUF in core/token.)
func runGGUF(t *testing.T, dir string) {
	onlyFiles(t, dir, "model-*.gguf", "expected.json", "expected.safetensors", "tokenize.jsonl", "tokenizer.json", "tokenizer_config.json")
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	require.NoError(t, err)
	var want ggufExpected
	require.NoError(t, json.Unmarshal(data, &want))
	files, err := filepath.Glob(filepath.Join(dir, "model-*.gguf"))
	require.NoError(t, err)
	require.Len(t, files, len(want.Files))
	e := open(t, dir, "expected.safetensors")
	// Tied tables give larger logits.
	tol := 1e-3
	if want.Architecture == "gemma3" || strings.HasPrefix(want.Architecture, "qwen") {
		tol = 2e-3
	}
	for _, file := range files {
		kind := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "model-"), ".gguf")
		t.Run(kind, func(t *testing.T) {
			m := loadGGUF(t, file)
			checkGGUFConfig(t, want, m.Config())
			seqs := want.Files[kind].Sequences
			require.Len(t, seqs, len(want.Prompts))
			forward := func(t *testing.T, k backend.Kernels, i int) (got, ref []float32) {
				prompt := want.Prompts[i]
				require.Equal(t, e.ints(fmt.Sprintf("input_ids.%d", i)), prompt)
				ref = e.floats(fmt.Sprintf("%s.logits.%d", kind, i))
				var arena grad.Arena
				out, err := m.Forward(grad.Infer(k, &arena), &model.Batch{IDs: prompt, Offsets: []int32{0, int32(len(prompt))}, Want: model.WantLogits})
				require.NoError(t, err)
				return out.Logits.Data[len(out.Logits.Data)-len(ref):], ref
			}
			eachExactLevel(t, func(t *testing.T, k backend.Kernels) {
				for i, prompt := range want.Prompts {
					got, ref := forward(t, k, i)
					near(t, "logits", fmt.Sprintf("logits of prompt %d", i), ref, got, tol)
					checkGreedyIDs(t, k, m, prompt, seqs[i].Greedy, seqs[i].Margins, 0.01)
				}
			})
			// As it runs by default: activations of 8 bits.
			t.Run("8-bit", func(t *testing.T) {
				eachLevel(t, func(t *testing.T, k backend.Kernels) {
					for i := range want.Prompts {
						got, ref := forward(t, k, i)
						near(t, "logits", fmt.Sprintf("logits of prompt %d", i), ref, got, 0.2*deviation(ref))
					}
				})
			})
		})
	}
}

// deviation is the standard deviation of v.
func deviation(v []float32) float64 {
	var sum, squares float64
	for _, x := range v {
		sum += float64(x)
		squares += float64(x) * float64(x)
	}
	n := float64(len(v))
	return math.Sqrt(squares/n - sum*sum/n/n)
}

func loadGGUF(t *testing.T, path string) model.Model {
	t.Helper()
	g, err := checkpoint.OpenGGUF(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	cfg, src, err := model.FromGGUF(g)
	require.NoError(t, err)
	var fresh []string
	m, err := model.New(cfg, src, model.Options{Fresh: &fresh})
	require.NoError(t, err)
	require.Empty(t, fresh)
	return m
}

// checkGGUFConfig compares what the metadata said with the config that the file was made from.
func checkGGUFConfig(t *testing.T, want ggufExpected, got *model.Config) {
	t.Helper()
	want.Config["model_type"] = got.ModelType
	data, err := json.Marshal(want.Config)
	require.NoError(t, err)
	c, err := model.ParseConfig(data)
	require.NoError(t, err)
	for _, pair := range [][2]any{
		{c.Vocab, got.Vocab}, {c.Hidden, got.Hidden}, {c.Layers, got.Layers}, {c.Heads, got.Heads}, {c.KVHeads, got.KVHeads}, {c.HeadDim, got.HeadDim},
		{c.Intermediate, got.Intermediate}, {c.NormEps, got.NormEps}, {c.TieWords, got.TieWords}, {c.Window, got.Window}, {c.Full, got.Full},
		{c.AttentionScale, got.AttentionScale}, {c.EmbedScale, got.EmbedScale},
		{c.Rope.Theta, got.Rope.Theta}, {c.Rope.Kind, got.Rope.Kind},
	} {
		assert.Equal(t, pair[0], pair[1])
	}
}

// checkGreedyIDs decodes with a cache and compares tokens up to the first step that the reference decided by less than margin.
func checkGreedyIDs(t *testing.T, k backend.Kernels, m model.Model, prompt, want []int32, margins []float64, margin float64) {
	t.Helper()
	cache := model.NewCache(m.Config(), 1, len(prompt)+len(want))
	ids := prompt
	var arena grad.Arena
	for i, w := range want {
		if margins[i] < margin {
			return
		}
		arena.Reset()
		out, err := m.Forward(grad.Infer(k, &arena), &model.Batch{IDs: ids, Offsets: []int32{0, int32(len(ids))}, Cache: cache, Want: model.WantLastLogits})
		require.NoError(t, err)
		best := int32(0)
		for j, v := range out.Logits.Data {
			if v > out.Logits.Data[best] {
				best = int32(j)
			}
		}
		require.Equal(t, w, best, "token %d (margin %g)", i, margins[i])
		ids = []int32{best}
	}
}

// runGemma decodes with the real gemma-3-270m.
func runGemma(t *testing.T, dir string, files []string) {
	for _, f := range files { // the second is for core/token's TestGGUFGemma
		require.Contains(t, []string{"gemma-greedy.json", "gemma-tokenize.jsonl"}, f, "a file that no runner looks at")
	}
	if !slices.Contains(files, "gemma-greedy.json") {
		return
	}
	data, err := os.ReadFile(filepath.Join(dir, "gemma-greedy.json"))
	require.NoError(t, err)
	var want struct {
		Prompts []struct {
			IDs     []int32   `json:"prompt_ids"`
			Greedy  []int32   `json:"greedy_ids"`
			Margins []float64 `json:"top2_margins"`
			Float32 struct {
				Greedy  []int32   `json:"greedy_ids"`
				Margins []float64 `json:"top2_margins"`
			} `json:"float32_dequantized"`
		} `json:"prompts"`
	}
	require.NoError(t, json.Unmarshal(data, &want))
	require.NotEmpty(t, want.Prompts)
	if testing.Short() {
		t.Skip("the real model takes a while")
	}
	m := loadGGUF(t, fixture.Gemma(t))
	// Float32 activations against a float32 forward, then 8-bit activations against llama.cpp, which has them too.
	exact, err := native.New(native.Options{Threads: 2, F32Activations: true})
	require.NoError(t, err)
	t.Cleanup(exact.Close)
	k := best(t)
	d, err := generate.Open(fixture.Gemma(t), generate.OpenOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	for i, p := range want.Prompts {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			checkGreedyIDs(t, exact, m, p.IDs, p.Float32.Greedy, p.Float32.Margins, 0.02)
			checkGreedyIDs(t, k, m, p.IDs, p.Greedy, p.Margins, 0.6)
			checkGenerated(t, d, k, p.IDs, p.Greedy, p.Margins, 0.6)
		})
	}
}

// checkGenerated is checkGreedyIDs for the generator, which keeps keys and values in half precision, with guesses and without.
func checkGenerated(t *testing.T, d *generate.Decoder, k backend.Kernels, prompt, want []int32, margins []float64, margin float64) {
	t.Helper()
	near := slices.IndexFunc(margins, func(v float64) bool { return v < margin })
	if near < 0 {
		near = len(want)
	}
	for _, draft := range []int{0, 5} {
		g, err := d.Start(k, generate.Options{Parallel: 1, Cache: "f16", Draft: draft})
		require.NoError(t, err)
		var got []int32
		_, err = g.Generate(t.Context(), generate.Request{Prompt: prompt, MaxTokens: len(want), IgnoreEnd: true}, func(p generate.Piece) error {
			for _, one := range p.Tokens {
				got = append(got, one.ID)
			}
			return nil
		})
		g.Close()
		require.NoError(t, err)
		require.Equal(t, want[:near], got[:near], "guesses %d", draft)
	}
}
