package pretrain

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
)

// sentences are simple enough to be learnt in a few steps.
func sentences(n int, seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 1))
	pick := func(s ...string) string { return s[rng.IntN(len(s))] }
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "the %s %s saw a %s near the %s.\n\n", pick("old", "small", "happy"), pick("cat", "dog", "bird"), pick("fish", "tree", "ball"), pick("river", "house"))
	}
	return b.String()
}

func file(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// options of a run of a few seconds.
func options(t *testing.T, family, kind string) Options {
	text := Texts{Files: []string{file(t, "text.txt", sentences(300, 1))}, Split: ByBlankLine}
	tok, err := TrainTokenizer(context.Background(), kind, text, 300, false, family == "bert")
	require.NoError(t, err)
	raw, err := tok.Save()
	require.NoError(t, err)
	cfg, err := Shape{Family: family, Hidden: 16, Layers: 2, Heads: 2, FFN: 32, Context: 32}.Config(tok)
	require.NoError(t, err)
	return Options{Config: cfg, Tokenizer: raw, Kernels: backend.Generic(1), Text: text, Held: Texts{Files: []string{file(t, "held.txt", sentences(40, 2))}, Split: ByBlankLine},
		Length: 24, Batch: 4, Steps: 24, LR: 1e-2, Dropout: 0.1, Seed: 3, EvalSteps: 8, SaveSteps: 5, SaveEvery: -1, Store: tensor.F32}
}

func TestLearns(t *testing.T) {
	for _, c := range []struct{ family, kind string }{{"llama", "bpe"}, {"bert", "wordpiece"}, {"bert", "bpe"}, {"bert", "unigram"}, {"llama", "unigram"}} {
		t.Run(c.family+" "+c.kind, func(t *testing.T) {
			o := options(t, c.family, c.kind)
			o.Steps, o.Dropout, o.Accumulate, o.Held.Files = 60, 0, 2, nil
			o.Out = filepath.Join(t.TempDir(), "out")
			r, err := Run(context.Background(), o)
			require.NoError(t, err)
			first, last := r.Log.Curve[0].Loss, r.Log.Curve[len(r.Log.Curve)-1].Loss
			assert.InDelta(t, math.Log(float64(vocab(t, o.Config))), first, 0.7, "an untrained network knows nothing")
			assert.Less(t, last, map[string]float64{"llama": 0.6, "bert": 0.85}[c.family]*first)
			assert.Positive(t, r.Cost.FLOPs)
			assert.Equal(t, r.Tokens, r.Cost.Tokens)
			// What was written is a model folder with the same head.
			b, err := peft.Open(o.Out, peft.OpenOptions{})
			require.NoError(t, err)
			defer b.Close()
			assert.Empty(t, b.Fresh)
			_, err = os.Stat(filepath.Join(o.Out, train.CheckpointDir))
			assert.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

func vocab(t *testing.T, config []byte) int {
	c, err := model.ParseConfig(config)
	require.NoError(t, err)
	return c.Vocab
}

// A run that is stopped again and again ends with the same bits as one that was left alone, its log included.
func TestResume(t *testing.T) {
	for _, family := range []string{"llama", "bert"} {
		t.Run(family, func(t *testing.T) {
			o := options(t, family, "bpe")
			o.Out = filepath.Join(t.TempDir(), "whole")
			whole, err := Run(context.Background(), o)
			require.NoError(t, err)
			want, err := os.ReadFile(filepath.Join(o.Out, checkpoint.WeightsFile))
			require.NoError(t, err)

			p := o
			p.Out = filepath.Join(t.TempDir(), "broken")
			p.Resume = true
			var broken *Result
			stops := 0
			for broken == nil {
				ctx, cancel := context.WithCancel(context.Background())
				steps := 0
				p.Progress = func(train.Progress) {
					if steps++; steps == 7 {
						cancel()
					}
				}
				r, err := Run(ctx, p)
				cancel()
				if err == nil {
					broken = r
					break
				}
				require.ErrorIs(t, err, context.Canceled)
				stops++
				require.Less(t, stops, 20)
			}
			assert.Positive(t, stops)
			got, err := os.ReadFile(filepath.Join(p.Out, checkpoint.WeightsFile))
			require.NoError(t, err)
			assert.Equal(t, want, got, "weights after %d stops", stops)
			assert.Equal(t, whole.Log, broken.Log)
			assert.Equal(t, whole.Held, broken.Held)
			assert.Equal(t, whole.Tokens, broken.Tokens)

			o.LR *= 2
			o.Out, o.Resume = p.Out, true
			ctx, cancel := context.WithCancel(context.Background())
			o.Progress = func(train.Progress) { cancel() }
			_, err = Run(ctx, o)
			require.ErrorIs(t, err, context.Canceled)
			o.Seed++
			_, err = Run(context.Background(), o)
			assert.ErrorContains(t, err, "other settings", "a checkpoint is not resumed into another run")
		})
	}
}

// The same text in more micro-batches gives the same steps, up to rounding.
func TestAccumulate(t *testing.T) {
	o := options(t, "llama", "bpe")
	o.Dropout, o.Steps = 0, 6
	o.Held.Files = nil
	a, err := Run(context.Background(), o)
	require.NoError(t, err)
	o.Batch, o.Accumulate = 2, 2
	b, err := Run(context.Background(), o)
	require.NoError(t, err)
	for i := range a.Log.Curve {
		assert.InDelta(t, a.Log.Curve[i].Loss, b.Log.Curve[i].Loss, 1e-4)
	}
}

func TestPermute(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 16, 17, 1000, 4097} {
		seen := make([]bool, n)
		moved := 0
		for i := range n {
			j := permute(i, n, 42)
			require.False(t, seen[j], "n %d: %d is hit twice", n, j)
			seen[j] = true
			if i != j {
				moved++
			}
		}
		if n >= 1000 {
			assert.Greater(t, moved, int(n*9/10))
		}
	}
}

// Each epoch shows nearly all of the text, each token as a target once, in another order and cut elsewhere.
func TestRows(t *testing.T) {
	o := options(t, "llama", "bpe")
	r, err := prepare(context.Background(), ready(o))
	require.NoError(t, err)
	defer r.close()
	all := make([]int32, r.text.Tokens)
	require.NoError(t, r.text.Read(all, 0))
	n := r.rows.Rows()
	first := ""
	for epoch := range int64(3) {
		order := ""
		for i := range n {
			e, err := r.rows.Row(epoch*n + i)
			require.NoError(t, err)
			require.Equal(t, e.IDs[1:], e.Targets[:len(e.IDs)-1])
			order += fmt.Sprint(e.IDs[:2])
		}
		assert.NotEqual(t, first, order)
		first = order
		assert.GreaterOrEqual(t, n*int64(o.Length), r.text.Tokens-2*int64(o.Length))
	}
	_, err = prepare(context.Background(), ready(func() Options { p := o; p.Text.Files = []string{file(t, "short.txt", "two words")}; return p }()))
	assert.ErrorContains(t, err, "a row")
}

func ready(o Options) *Options { o.Defaults(); return &o }

func TestMasking(t *testing.T) {
	text := Texts{Files: []string{file(t, "text.txt", sentences(200, 1)+"unbelievable uncatlike doglike treeless\n")}, Split: ByLine}
	for _, kind := range Tokenizers {
		tok, err := TrainTokenizer(context.Background(), kind, text, 290, true, true)
		require.NoError(t, err)
		size := int(tok.MaxID()) + 1
		for name, m := range map[string]Masking{"word": {Share: 0.15}, "span": {Share: 0.15, Span: true}, "piece": {Share: 0.15, Pieces: true}} {
			t.Run(kind+" "+name, func(t *testing.T) {
				k, err := newMasker(tok, size, m)
				require.NoError(t, err)
				plain := append([]int32{k.cls}, tok.AppendPlainIDs(nil, strings.Repeat("the happy dog saw unbelievable treeless river. ", 6))...)
				plain = append(plain, k.sep)
				hidden, masked, kept, runs := 0, 0, 0, 0
				const rounds = 400
				for round := range uint64(rounds) {
					rng := rand.New(rand.NewPCG(round, 9))
					e := k.apply(append([]int32(nil), plain...), rng)
					for i, target := range e.Targets {
						if target < 0 {
							require.Equal(t, plain[i], e.IDs[i], "what is not asked for is not touched")
							continue
						}
						require.Equal(t, plain[i], target)
						require.NotContains(t, []int32{k.cls, k.sep, k.mask}, target)
						hidden++
						switch e.IDs[i] {
						case k.mask:
							masked++
						case target:
							kept++
						}
						if e.Targets[i-1] < 0 {
							runs++
						}
						if name == "word" && i+1 < len(plain) && k.inside[plain[i+1]] {
							require.GreaterOrEqual(t, e.Targets[i+1], int32(0), "a word is hidden whole: %v", e.Targets)
						}
					}
				}
				share := float64(hidden) / float64(rounds*(len(plain)-2))
				assert.InDelta(t, 0.15, share, 0.03)
				assert.InDelta(t, 0.8, float64(masked)/float64(hidden), 0.06)
				assert.InDelta(t, 0.1, float64(kept)/float64(hidden), 0.05)
				if name == "span" {
					assert.Greater(t, float64(hidden)/float64(runs), 2.0, "spans are longer than words")
				}
			})
		}
	}
}

func TestTexts(t *testing.T) {
	const text = "one\ntwo\n\n\nthree é\n<|endoftext|>\nfour\r\n\nfive"
	collect := func(x Texts) []string {
		var out []string
		doc := ""
		for p, err := range x.All() {
			require.NoError(t, err)
			if doc += p.Text; p.Last {
				out = append(out, doc)
				doc = ""
			}
		}
		assert.Empty(t, doc, "the last document ends")
		return out
	}
	name := file(t, "a.txt", text)
	assert.Equal(t, []string{"one\ntwo", "three é", "four", "five"}, collect(Texts{Files: []string{name}, Split: ByBlankLine}))
	assert.Equal(t, []string{"one", "two", "three é", "four", "five"}, collect(Texts{Files: []string{name}, Split: ByLine}))
	assert.Equal(t, []string{"one\ntwo\n\n\nthree é", "four\n\nfive", "row"}, collect(Texts{Files: []string{name}, Split: ByFile, Rows: []string{" row ", ""}}))

	long := strings.Repeat("añ€😀", chunkBytes/3)
	for _, s := range []string{long, "x" + long, "xy" + long, strings.Repeat(long[:chunkBytes/10]+"\n", 30)} {
		got := collect(Texts{Files: []string{file(t, "long.txt", s)}, Split: ByFile})
		require.Len(t, got, 1)
		assert.Equal(t, len(strings.ToValidUTF8(strings.TrimRight(s, "\n"), "")), len(got[0]), "no character is lost where a long text is cut")
	}
	for _, err := range (Texts{Files: []string{file(t, "b.txt", "bin\x00ary")}, Split: ByLine}).All() {
		assert.ErrorContains(t, err, "binary")
	}
}

// Training text that repeats held-out text is left out.
func TestHeldOutIsNotLearnt(t *testing.T) {
	o := options(t, "llama", "bpe")
	held := "A quick brown fox jumps over the lazy dog while seven wizards brew a potion of rye and barley."
	o.Held = Texts{Rows: []string{held}}
	o.Text.Rows = []string{strings.ToLower(strings.ReplaceAll(held, ",", "")), "A quick brown fox sleeps."}
	r, err := prepare(context.Background(), ready(o))
	require.NoError(t, err)
	defer r.close()
	assert.EqualValues(t, 1, r.text.Dropped)
}

// The loss on held-out text does not depend on how it is cut into batches, and what Run reports Evaluate finds in the files.
func TestEvaluate(t *testing.T) {
	o := options(t, "llama", "bpe")
	o.Out = filepath.Join(t.TempDir(), "out")
	r, err := Run(context.Background(), o)
	require.NoError(t, err)
	f, err := checkpoint.OpenFolder(o.Out)
	require.NoError(t, err)
	defer f.Close()
	p := Options{Kernels: o.Kernels, Held: o.Held, Dropout: -1, Length: o.Length, Batch: 3}
	p.Config, err = f.Config()
	require.NoError(t, err)
	p.Tokenizer, err = f.File(checkpoint.TokenizerFile)
	require.NoError(t, err)
	p.Init, err = f.Source()
	require.NoError(t, err)
	e, counts, err := Evaluate(context.Background(), p)
	require.NoError(t, err)
	assert.InDelta(t, r.Held.Loss, e.Loss, 1e-5)
	assert.EqualValues(t, counts.Tokens, e.Predicted, "every token is predicted once")
	assert.InDelta(t, math.Exp(e.Loss), e.Perplexity, 1e-9)
	assert.InDelta(t, e.Loss*float64(e.Predicted)/math.Ln2/float64(counts.Bytes), e.BitsPerByte, 1e-9)
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"vocabulary": {func(o *Options) {
			o.Config = []byte(strings.Replace(string(o.Config), `"vocab_size": `, `"vocab_size": 2, "x": `, 1))
		}, "vocabulary"},
		"length":   {func(o *Options) { o.Length = 33 }, "8 to 32"},
		"text":     {func(o *Options) { o.Text.Files = []string{"missing.txt"} }, "missing.txt"},
		"schedule": {func(o *Options) { o.Schedule = "up" }, "schedule"},
		"mask":     {func(o *Options) { o.Config = bertConfig(t, o.Tokenizer) }, "mask token"},
		"dropout":  {func(o *Options) { o.Dropout = 1 }, "dropout"},
		"head": {func(o *Options) {
			o.Config = []byte(strings.Replace(string(o.Config), "ForCausalLM", "ForSequenceClassification", 1))
		}, "head"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, "llama", "bpe")
			c.change(&o)
			_, err := Run(context.Background(), o)
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func bertConfig(t *testing.T, raw []byte) []byte {
	tok, err := token.Load(raw)
	require.NoError(t, err)
	c, err := Shape{Family: "bert", Hidden: 16, Layers: 1, Heads: 2, FFN: 32, Context: 32}.Config(tok)
	require.NoError(t, err)
	return c
}

func TestCurve(t *testing.T) {
	svg, err := Log{Curve: []train.Point{{Step: 1, Tokens: 10, Loss: 3}, {Step: 2, Tokens: 20, Loss: 2}}, Evals: []Eval{{Step: 2, Loss: 2.5, BitsPerByte: 1.25}}}.SVG("run")
	require.NoError(t, err)
	assert.Contains(t, string(svg), "1.250 bits a byte")
}

// A run that is written in the middle of its schedule is the beginning of the whole one.
func TestStopAfter(t *testing.T) {
	o := options(t, "llama", "bpe")
	o.Held.Files = nil
	whole, err := Run(context.Background(), o)
	require.NoError(t, err)
	o.StopAfter = 10
	part, err := Run(context.Background(), o)
	require.NoError(t, err)
	assert.Equal(t, 10, part.Steps)
	assert.Equal(t, whole.Log.Curve[:10], part.Log.Curve)
}
