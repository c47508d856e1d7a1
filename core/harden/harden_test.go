package harden_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/canon"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
	"github.com/temper-ml/temper/tests/fixture"
)

func request(text string, seed uint64) attack.Request {
	q := attack.Request{Text: text, Words: attack.Words(text), Max: 20, Seed: seed}
	for i := range q.Words {
		q.May = append(q.May, i)
	}
	return q
}

func TestCharNoise(t *testing.T) {
	n := harden.NewCharNoise()
	n.Kinds = harden.CharEdits
	ctx := context.Background()
	text := "A Wonderful, strange film: caf\u00e9 \u65e5\u672c, 100% good"
	a, err := n.Perturb(ctx, []attack.Request{request(text, 1), request("", 2), request("x", 3)}, nil)
	require.NoError(t, err)
	b, err := n.Perturb(ctx, []attack.Request{request(text, 1), request("", 2), request("x", 3)}, nil)
	require.NoError(t, err)
	assert.Equal(t, a, b, "the same seed gives the same candidates")
	c, err := n.Perturb(ctx, []attack.Request{request(text, 2)}, nil)
	require.NoError(t, err)
	assert.NotEqual(t, a[0], c[0])
	require.Len(t, a[0], 20)
	changed := 0
	for _, s := range a[0] {
		assert.True(t, utf8.ValidString(s))
		if s != text {
			changed++
		}
	}
	assert.Greater(t, changed, 15)
	assert.Equal(t, "", a[1][0])

	q := request("keep these words but change last", 5)
	q.May = []int{5}
	d, err := n.Perturb(ctx, []attack.Request{q}, nil)
	require.NoError(t, err)
	for _, s := range d[0] {
		assert.True(t, strings.HasPrefix(s, "keep these words but change "), s)
	}
}

func TestObjectiveNames(t *testing.T) {
	for _, m := range harden.Methods() {
		_, err := harden.Objective(m, harden.Sources{})
		require.NoError(t, err, m)
		if m != "augment" && m != "online" && m != "free" {
			o, err := harden.Objective("augment+"+m, harden.Sources{})
			require.NoError(t, err, m)
			assert.IsType(t, &harden.Augment{}, o)
		}
	}
	for _, bad := range []string{"", "magic", "fgm+pgd", "augment+augment", "augment+online", "augment+free", "augment+", "fgm,pgd"} {
		_, err := harden.Objective(bad, harden.Sources{})
		assert.Error(t, err, bad)
	}
}

func open(t *testing.T) *peft.Bundle {
	b, err := peft.Open(filepath.Join(fixture.Parity(t), "models", "bert-seqcls"), peft.OpenOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

var texts = []string{"Farid carried the awful lamp, and the theatre was awful.", "Hiro hid the excellent model", "It cost 54 coins.", "The market was quick and noisy"}

// synonyms are words of the fixture's texts.
var synonyms = attack.Lexicon{"awful": {"quick", "noisy", "excellent"}, "lamp": {"coins", "market"}, "model": {"lamp"}, "quick": {"noisy", "awful"}, "hid": {"carried"}, "cost": {"was"}}

func step(t *testing.T, b *peft.Bundle, k backend.Kernels, arena *grad.Arena) *train.Step {
	s := &train.Step{Model: b.Model, K: k, Arena: arena, Weight: float64(len(texts)), Seed: 7, Encode: func(text string) ([]int32, error) {
		ids, _, err := b.Encode(text, "", 0)
		return ids, err
	}, Tokens: func(text string) (token.Encoding, error) { return b.Tokens(text, 0) }}
	for i, text := range texts {
		ids, _, err := b.Encode(text, "", 0)
		require.NoError(t, err)
		s.Examples = append(s.Examples, train.Example{Text: text, IDs: ids, Class: int32(i % 3)})
	}
	return s
}

// Every method leaves finite gradients, the same on a second call, and no trace in the weights, over full tuning and over an adapter.
func TestObjectives(t *testing.T) {
	k := backend.Generic(2)
	defer k.Close()
	methods := harden.Methods()
	for _, m := range []string{"fgm", "pgd", "freelb", "tavat", "smart", "r-drop", "ascc", "a2t"} {
		methods = append(methods, "augment+"+m)
	}
	for _, tune := range []string{"full", "lora"} {
		for _, method := range methods {
			if tune == "lora" && strings.Contains(method, "matrix") {
				continue
			}
			t.Run(tune+"/"+method, func(t *testing.T) {
				b := open(t)
				if tune == "full" {
					require.NoError(t, model.TrainAll(b.Model))
				} else {
					cfg, err := peft.Method("lora")
					require.NoError(t, err)
					a, err := peft.Attach(b.Model, cfg, 1)
					require.NoError(t, err)
					b.Model, b.Adapter = a, a
				}
				var before [][]float32
				for _, p := range b.Model.Params() {
					before = append(before, slices.Clone(p.Values()))
				}
				run := func() (float64, [][]float32) {
					for _, p := range b.Model.Params() {
						clear(p.Grad)
					}
					var arena grad.Arena
					s := step(t, b, k, &arena)
					s.Train = true
					o, err := harden.Objective(method, harden.Sources{Words: synonyms})
					require.NoError(t, err)
					loss, err := o.Micro(context.Background(), s)
					require.NoError(t, err)
					var g [][]float32
					for _, p := range b.Model.Params() {
						g = append(g, slices.Clone(p.Grad))
					}
					return loss, g
				}
				loss, g := run()
				assert.Positive(t, loss)
				assert.False(t, math.IsInf(loss, 0))
				moved := false
				for i, p := range b.Model.Params() {
					assert.Equal(t, before[i], p.Values(), p.Name)
					for _, x := range g[i] {
						moved = moved || x != 0
						require.False(t, math.IsNaN(float64(x)), p.Name)
					}
				}
				assert.True(t, moved)
				again, h := run()
				assert.Equal(t, loss, again)
				assert.Equal(t, g, h)
			})
		}
	}
}

// The losses that augmentation adds have the gradients of finite differences.
func TestAugmentGradient(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	b := open(t)
	require.NoError(t, model.TrainAll(b.Model))
	a := harden.NewAugment()
	a.Share = 1
	loss := func(grads bool) float64 {
		for _, p := range b.Model.Params() {
			clear(p.Grad)
		}
		var arena grad.Arena
		s := step(t, b, k, &arena)
		l, err := a.Micro(context.Background(), s)
		require.NoError(t, err)
		return l
	}
	// With the divergences off, the total is the plain loss over texts and copies: no constants hide in it.
	a.Consistency, a.Likeness = 0, 0
	loss(true)
	p := b.Model.Params()[len(b.Model.Params())-1] // the classifier's bias
	g := slices.Clone(p.Grad)
	for i := range g {
		was := p.Values()[i]
		const h = 1e-2
		p.Values()[i] = was + h
		up := loss(false)
		p.Values()[i] = was - h
		down := loss(false)
		p.Values()[i] = was
		assert.InDelta(t, (up-down)/(2*h), g[i], 1e-4)
	}
	plain := loss(true)
	a.Consistency = 1
	withKL := loss(true)
	a.Likeness = 1
	withBoth := loss(true)
	assert.Greater(t, withKL, plain)
	assert.Greater(t, withBoth, withKL)
}

// A single-edit perturber is applied to several words; Worst keeps the candidate with the larger loss.
func TestAugmentSources(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	b := open(t)
	require.NoError(t, model.TrainAll(b.Model))
	p, err := attack.NewPerturber("deepwordbug")
	require.NoError(t, err)
	run := func(worst int) float64 {
		a := harden.NewAugment(p)
		a.Share = 1
		a.Worst, a.Consistency, a.Likeness, a.Rounds = worst, 0, 0, 0.8
		var total float64
		for seed := range uint64(8) {
			var arena grad.Arena
			s := step(t, b, k, &arena)
			s.Seed = seed
			l, err := a.Micro(context.Background(), s)
			require.NoError(t, err)
			total += l
		}
		return total
	}
	assert.Greater(t, run(6), run(1))
}

func TestRun(t *testing.T) {
	k := backend.Generic(2)
	defer k.Close()
	d := &data.Dataset{Name: "test", LabelNames: []string{"cold", "warm"}}
	var examples []attack.Example
	for i := range 24 {
		word := []string{"awful", "bright"}[i%2]
		text := strings.Repeat("the lamp was "+word+" ", 1+i%3)
		d.Texts, d.Labels, d.Rows = append(d.Texts, text), append(d.Labels, i%2), append(d.Rows, i)
		if i < 6 {
			examples = append(examples, attack.Example{Row: i, Text: text, Label: i % 2})
		}
	}
	out := filepath.Join(t.TempDir(), "hard")
	var phases []string
	r, err := harden.Run(context.Background(), harden.Options{
		Tune:   train.Options{Base: filepath.Join(fixture.Parity(t), "models", "bert-seqcls"), Out: out, Kernels: k, Train: d, Dev: d, Method: "full", LR: 4e-3, Epochs: 15, Batch: 8},
		Method: "augment+fgm", Canon: canon.Options{Invisible: true}, Examples: examples, Recipes: []string{"deepwordbug", "leetspeak"},
		Augment: func(a *harden.Augment) { // the fixture is tiny: 32 dimensions, pieces of a letter or two
			a.Inner.(*harden.Embedding).Epsilon, a.Likeness = 0.1, 0.1
			a.Sources[0].(*harden.CharNoise).Rate = 0.2
		},
		Phase: func(p string) { phases = append(phases, p) },
	})
	require.NoError(t, err)
	defer r.Bundle.Close()
	assert.Equal(t, []string{"before", "attack before", "harden", "attack after"}, phases)
	require.NotNil(t, r.Before)
	require.NotNil(t, r.After)
	assert.Len(t, r.After.UnderAttack, 2)
	assert.Greater(t, r.After.Accuracy, 0.7)
	assert.FileExists(t, filepath.Join(out, "model.safetensors"))

	// The guarded tokenizer goes with the model wherever it is written.
	raw, err := os.ReadFile(filepath.Join(fixture.Parity(t), "models", "bert-seqcls", "tokenizer.json"))
	require.NoError(t, err)
	guarded, _, err := canon.Typos(raw, canon.Guard{Words: []string{"awful", "lamp", "the"}})
	require.NoError(t, err)
	require.NoError(t, r.Bundle.SetTokenizer(guarded))
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, r.Bundle.SaveFolder(copied, nil))
	got, err := os.ReadFile(filepath.Join(copied, "tokenizer.json"))
	require.NoError(t, err)
	assert.Equal(t, string(guarded), string(got))
	for _, dir := range []string{copied, out} {
		config, err := os.ReadFile(filepath.Join(dir, "tokenizer_config.json"))
		require.NoError(t, err)
		assert.Contains(t, string(config), `"PreTrainedTokenizerFast"`, "transformers reads the normalizer only then")
	}
	_, err = harden.Run(context.Background(), harden.Options{Tune: train.Options{Method: "head", Train: d}})
	assert.ErrorContains(t, err, "head")
}

// A model that was hardened with a lexicon says the same of a text whose words are replaced by near ones; its folder carries that with it.
func TestRunWithSynonyms(t *testing.T) {
	k := backend.Generic(2)
	defer k.Close()
	d := &data.Dataset{Name: "test", LabelNames: []string{"cold", "warm"}}
	for i := range 16 {
		d.Texts = append(d.Texts, "the lamp was "+[]string{"awful", "bright"}[i%2])
		d.Labels, d.Rows = append(d.Labels, i%2), append(d.Rows, i)
	}
	base := filepath.Join(fixture.Parity(t), "models", "bert-seqcls")
	raw, err := os.ReadFile(filepath.Join(base, "tokenizer.json"))
	require.NoError(t, err)
	var tok struct {
		Model struct{ Vocab map[string]int }
	}
	require.NoError(t, json.Unmarshal(raw, &tok))
	var whole []string // of the fixture's vocabulary, which holds few words
	for w := range tok.Model.Vocab {
		if len(w) > 3 && !strings.ContainsAny(w, "#[") && strings.IndexFunc(w, func(r rune) bool { return r < 'a' || r > 'z' }) < 0 && !attack.IsStopWord(w) {
			whole = append(whole, w)
		}
	}
	require.NotEmpty(t, whole)
	slices.Sort(whole)
	word := whole[0]
	out := filepath.Join(t.TempDir(), "hard")
	r, err := harden.Run(context.Background(), harden.Options{
		Tune:   train.Options{Base: base, Out: out, Kernels: k, Train: d, Method: "full", Epochs: 1, Batch: 8},
		Method: "augment", Before: "none", Guard: 10, Slips: 100, Synonyms: attack.Lexicon{word: {"Zyzzy", "quux", "the"}, "awful": {"bright"}},
	})
	require.NoError(t, err)
	require.NoError(t, r.Bundle.Close())
	p, err := pipeline.Open(out, k, pipeline.Options{})
	require.NoError(t, err)
	defer p.Close()
	scores := func(text string) []float32 {
		a, err := p.Classify(context.Background(), []string{text})
		require.NoError(t, err)
		return a[0].Scores
	}
	want := scores("a " + word + " lamp")
	assert.Equal(t, want, scores("a zyzzy lamp"))
	assert.Equal(t, want, scores("a Quux lamp"))
	assert.NotEqual(t, want, scores("a the lamp"), "words of grammar are left alone")
	assert.NotEqual(t, scores("awful"), scores("bright"), "they speak for different labels")

	// Hardened again with nothing asked for, it has nothing of the old guard.
	require.NoError(t, p.Close())
	bare := harden.Options{Tune: train.Options{Base: out, Kernels: k, Train: d}}
	plain, err := bare.Tokenizer(context.Background())
	require.NoError(t, err)
	assert.NotContains(t, string(plain), "temper_typos")
	bare.Tune.Base = base
	plain, err = bare.Tokenizer(context.Background())
	require.NoError(t, err)
	assert.Nil(t, plain, "the base's own")
}
