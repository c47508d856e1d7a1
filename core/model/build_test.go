package model_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// random builds a model of random weights.
func random(t testing.TB, config string) model.Model {
	t.Helper()
	m, err := model.New(parse(t, config), nil, model.Options{Random: true, Seed: 1})
	require.NoError(t, err)
	return m
}

// source is a model's tensors, changed by edit.
func source(t testing.TB, m model.Model, edit func([]tensor.Tensor) []tensor.Tensor) checkpoint.Source {
	t.Helper()
	ts := model.Tensors(m)
	if edit != nil {
		ts = edit(ts)
	}
	src, err := checkpoint.FromTensors(ts)
	require.NoError(t, err)
	return src
}

func rename(old, new string) func([]tensor.Tensor) []tensor.Tensor {
	return func(ts []tensor.Tensor) []tensor.Tensor {
		for i := range ts {
			ts[i].Name = strings.ReplaceAll(ts[i].Name, old, new)
		}
		return ts
	}
}

func drop(part string) func([]tensor.Tensor) []tensor.Tensor {
	return func(ts []tensor.Tensor) []tensor.Tensor {
		return slices.DeleteFunc(ts, func(t tensor.Tensor) bool { return strings.Contains(t.Name, part) })
	}
}

// logits of a fixed batch.
func logits(t testing.TB, m model.Model) []float32 {
	t.Helper()
	var a grad.Arena
	out, err := m.Forward(grad.Infer(backend.Generic(1), &a), &model.Batch{IDs: []int32{1, 2, 3, 4, 5}, Offsets: []int32{0, 3, 5}, Want: model.WantLogits})
	require.NoError(t, err)
	return slices.Clone(out.Logits.Data)
}

func TestNewTolerantNames(t *testing.T) {
	m := random(t, tinyBERT)
	want := logits(t, m)
	edits := map[string]func([]tensor.Tensor) []tensor.Tensor{
		"as written": nil, "without prefix": rename("bert.", ""),
		"gamma and beta": func(ts []tensor.Tensor) []tensor.Tensor {
			return rename("LayerNorm.weight", "LayerNorm.gamma")(rename("LayerNorm.bias", "LayerNorm.beta")(ts))
		},
		"more than needed": func(ts []tensor.Tensor) []tensor.Tensor {
			return append(ts, tensor.New("bert.embeddings.position_ids", 4))
		},
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			var fresh []string
			got, err := model.New(m.Config(), source(t, m, edit), model.Options{Fresh: &fresh})
			require.NoError(t, err)
			assert.Empty(t, fresh)
			assert.Equal(t, want, logits(t, got))
			assert.Equal(t, "bert.embeddings.word_embeddings.weight", got.Params()[0].Name, "names are canonical")
		})
	}
}

func TestNewErrors(t *testing.T) {
	m := random(t, tinyBERT)
	for _, tc := range []struct {
		name, want string
		edit       func([]tensor.Tensor) []tensor.Tensor
	}{
		{"missing", `expected a tensor "bert.encoder.layer.1.output.dense.weight" of shape [8 12]`, drop("layer.1.output.dense.weight")},
		{"shape", `tensor "bert.embeddings.word_embeddings.weight": expected shape [31 8], found [30 8]`, func(ts []tensor.Tensor) []tensor.Tensor {
			ts[0] = tensor.New(ts[0].Name, 30, 8)
			return ts
		}},
		{"classifier", `tensor "classifier.weight": expected shape [2 8], found [3 8]`, func(ts []tensor.Tensor) []tensor.Tensor {
			return append(drop("classifier.weight")(ts), tensor.New("classifier.weight", 3, 8))
		}},
		{"type", `found i64`, func(ts []tensor.Tensor) []tensor.Tensor {
			ts[0] = tensor.Tensor{Name: ts[0].Name, DType: tensor.I64, Shape: ts[0].Shape, Data: make([]byte, 31*8*8)}
			return ts
		}},
		{"short", `expected 992 bytes, found 8`, func(ts []tensor.Tensor) []tensor.Tensor {
			ts[0].Data = ts[0].Data[:8]
			return ts
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := model.New(m.Config(), source(t, m, tc.edit), model.Options{})
			require.ErrorContains(t, err, tc.want)
		})
	}
	_, err := model.New(m.Config(), nil, model.Options{})
	require.ErrorContains(t, err, "no tensors to load")
	_, err = model.New(m.Config(), source(t, m, nil), model.Options{Head: model.HeadCausal})
	require.ErrorContains(t, err, `bert has no head "causal"`)
	_, err = model.New(m.Config(), source(t, m, drop("encoder")), model.Options{})
	require.ErrorIs(t, err, checkpoint.ErrNoTensor)
	_, err = model.New(parse(t, with(t, tinyLlama, map[string]any{"vocab_size": 1 << 24, "hidden_size": 1 << 20})), nil, model.Options{Random: true})
	require.ErrorContains(t, err, "initialising")
}

// A head that the checkpoint lacks is drawn from the seed; one of another size only when labels are given.
func TestNewHead(t *testing.T) {
	m := random(t, tinyBERT)
	load := func(seed uint64, edit func([]tensor.Tensor) []tensor.Tensor, o model.Options) (model.Model, []string) {
		var fresh []string
		o.Seed, o.Fresh = seed, &fresh
		got, err := model.New(m.Config(), source(t, m, edit), o)
		require.NoError(t, err)
		return got, fresh
	}
	a, fresh := load(5, nil, model.Options{Labels: []string{"x", "y", "z"}})
	assert.Equal(t, []string{"classifier.weight", "classifier.bias"}, fresh)
	assert.Len(t, logits(t, a), 2*3)
	assert.Equal(t, []string{"x", "y", "z"}, a.Config().Labels)
	assert.Equal(t, []string{"no", "yes"}, m.Config().Labels, "the caller's config is left alone")
	b, _ := load(5, nil, model.Options{Labels: []string{"x", "y", "z"}})
	assert.Equal(t, logits(t, a), logits(t, b))
	c, _ := load(6, nil, model.Options{Labels: []string{"x", "y", "z"}})
	assert.NotEqual(t, logits(t, a), logits(t, c))

	_, fresh = load(5, nil, model.Options{Labels: []string{"bad", "good"}})
	assert.Empty(t, fresh, "other names, same size")
	_, fresh = load(5, drop("pooler"), model.Options{})
	assert.Equal(t, []string{"bert.pooler.dense.weight", "bert.pooler.dense.bias"}, fresh)

	mlm, fresh := load(5, nil, model.Options{Head: model.HeadMasked})
	assert.Len(t, fresh, 5)
	assert.Len(t, logits(t, mlm), 5*31)
	bare, fresh := load(5, nil, model.Options{Head: model.HeadNone})
	assert.Empty(t, fresh)
	assert.Equal(t, "embeddings.word_embeddings.weight", bare.Params()[0].Name)
}

// Every family builds at random with every head that it has, runs, and loads from its own tensors with the same result.
func TestEveryFamilyEveryHead(t *testing.T) {
	for _, family := range model.Families() {
		for _, class := range []string{"Model", "ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "ForCausalLM"} {
			config := with(t, tinyLlama, map[string]any{"model_type": family, "architectures": []string{"X" + class}, "hidden_size": 16,
				"head_dim": 4, "n_embd": 16, "n_layer": 2, "n_head": 4, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 12, "embedding_size": 16,
				"pad_token_id": 0, "relative_attention": true, "pos_att_type": "p2c|c2p", "num_key_value_heads": 4, "num_labels": 3, "rotary_pct": 0.5})
			cfg, err := model.ParseConfig([]byte(config))
			if err != nil {
				require.ErrorContains(t, err, "has no head", "%s %s", family, class)
				continue
			}
			t.Run(family+class, func(t *testing.T) {
				m, err := model.New(cfg, nil, model.Options{Random: true, Seed: 3})
				require.NoError(t, err)
				if cfg.Head == model.HeadNone {
					return
				}
				again, err := model.New(cfg, source(t, m, nil), model.Options{})
				require.NoError(t, err)
				assert.Equal(t, logits(t, m), logits(t, again))
				names := map[string]bool{}
				for _, p := range m.Params() {
					require.False(t, names[p.Name], "%s twice", p.Name)
					names[p.Name] = true
				}
				for _, l := range m.Linears() {
					assert.Equal(t, l.In*l.Out, l.W.T.Len(), l.Name)
				}
			})
		}
	}
}

func TestForwardErrors(t *testing.T) {
	bert, llama := random(t, tinyBERT), random(t, tinyLlama)
	long := make([]int32, 17)
	for _, tc := range []struct {
		m    model.Model
		b    model.Batch
		want string
	}{
		{bert, model.Batch{}, "offsets must run from 0 to 0 tokens"},
		{bert, model.Batch{IDs: []int32{1}, Offsets: []int32{0, 2}}, "offsets must run from 0 to 1"},
		{bert, model.Batch{IDs: []int32{1, 2}, Offsets: []int32{0, 2, 2}}, "sequence 1 has no tokens"},
		{bert, model.Batch{IDs: []int32{1, 2}, Offsets: []int32{0, 3, 2}}, "sequence 0 has no tokens"},
		{bert, model.Batch{IDs: []int32{31}, Offsets: []int32{0, 1}}, "id 31 is outside the vocabulary of 31"},
		{bert, model.Batch{IDs: []int32{-1}, Offsets: []int32{0, 1}}, "id -1 is outside"},
		{bert, model.Batch{IDs: []int32{1}, Types: []int32{2}, Offsets: []int32{0, 1}}, "type 2 is outside the 2"},
		{bert, model.Batch{IDs: []int32{1}, Types: []int32{}, Offsets: []int32{0, 1}}, "expected 1 types"},
		{bert, model.Batch{IDs: long, Offsets: []int32{0, 17}}, "sequence 0 has 17 tokens: the model takes at most 16"},
		{bert, model.Batch{IDs: []int32{1}, Positions: []int32{-1}, Offsets: []int32{0, 1}}, "at most 16"},
		{bert, model.Batch{IDs: []int32{1}, Rows: []int32{1}, Offsets: []int32{0, 1}}, "row 0: token 1 of 1"},
		{bert, model.Batch{IDs: []int32{1}, Offsets: []int32{0, 1}, Cache: model.NewCache(bert.Config(), 1, 4)}, "cannot use a cache"},
		{llama, model.Batch{IDs: []int32{1}, Offsets: []int32{0, 1}, Prefix: make([]model.KeyValue, 1)}, "expected prefixes for 2 layers, got 1"},
	} {
		var a grad.Arena
		_, err := tc.m.Forward(grad.Infer(backend.Generic(1), &a), &tc.b)
		require.ErrorContains(t, err, tc.want)
	}
}

// Decoding token by token, in pieces or at once gives the same logits, for several sequences and with a prefix.
func TestCache(t *testing.T) {
	m := random(t, tinyLlama)
	k := backend.Generic(1)
	ids := [][]int32{{1, 2, 3, 4, 5, 6}, {9, 8, 7, 6, 5, 4}}
	var a grad.Arena
	for _, prefix := range []bool{false, true} {
		t.Run(fmt.Sprintf("prefix %v", prefix), func(t *testing.T) {
			batch := func(from, to int, cache model.Cache) model.Output {
				b := model.Batch{Offsets: []int32{0, int32(to - from), int32(2 * (to - from))}, Cache: cache, Want: model.WantLogits}
				b.IDs = append(slices.Clone(ids[0][from:to]), ids[1][from:to]...)
				c := grad.Infer(k, &a)
				if prefix {
					for i := range 2 {
						kv := make([]float32, 2*3*4)
						for j := range kv {
							kv[j] = float32((i+j)%5) / 3
						}
						v := c.Input(kv, 3, 4, false)
						b.Prefix = append(b.Prefix, model.KeyValue{K: v, V: v})
					}
				}
				out, err := m.Forward(c, &b)
				require.NoError(t, err)
				return out
			}
			whole := slices.Clone(batch(0, 6, nil).Logits.Data)
			for _, cuts := range [][]int{{0, 6}, {0, 1, 2, 3, 4, 5, 6}, {0, 4, 5, 6}, {0, 2, 6}} {
				a.Reset()
				cache := model.NewCache(m.Config(), 2, 1)
				for i := range cuts[1:] {
					from, to := cuts[i], cuts[i+1]
					out := batch(from, to, cache)
					for s := range 2 {
						n := (to - from) * 31
						want := whole[(s*6+from)*31 : (s*6+to)*31]
						assert.InDeltaSlice(t, want, out.Logits.Data[s*n:(s+1)*n], 1e-6)
					}
				}
				want := 6
				if prefix {
					want += 3
				}
				assert.Equal(t, want, cache.Len(1))
			}
		})
	}
}

func TestFreezeLayers(t *testing.T) {
	m := random(t, tinyBERT)
	require.NoError(t, model.TrainAll(m))
	require.NoError(t, model.FreezeLayers(m, 1))
	for _, p := range m.Params() {
		frozen := strings.Contains(p.Name, "embeddings") || strings.Contains(p.Name, "layer.0.")
		assert.Equal(t, !frozen, p.Trainable(), p.Name)
		assert.Equal(t, strings.Contains(p.Name, "pooler") || strings.Contains(p.Name, "classifier"), model.IsHead(m, p), p.Name)
	}
	s := model.Describe(m)
	assert.Equal(t, "bert", s.Family)
	assert.Greater(t, s.Params, s.Trainable)
	model.FreezeAll(m)
	assert.Zero(t, model.Describe(m).Trainable)
}
