package distill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
)

func values(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// The gradient of the relation loss is that of finite differences, the loss is 0 against itself and positive otherwise.
func TestRelations(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	offsets := []int32{0, 3, 4, 9}
	const rows, cols, width, heads = 9, 8, 12, 4
	x, teacher := values(rng, rows*cols), values(rng, rows*width)
	k := backend.Generic(1)
	value := func(x []float32) float64 {
		var a grad.Arena
		c := grad.Record(k, &a, false, 0)
		return float64(relations(c, c.Input(x, rows, cols, true), teacher, width, offsets, heads).Data[0])
	}
	var a grad.Arena
	c := grad.Record(k, &a, false, 0)
	in := c.Input(x, rows, cols, true)
	y := relations(c, in, teacher, width, offsets, heads)
	assert.Positive(t, y.Data[0])
	c.Backward(y, []float32{3})
	for i := range x {
		const h = 1e-2
		up, down := slices.Clone(x), slices.Clone(x)
		up[i] += h
		down[i] -= h
		assert.InDelta(t, 3*(value(up)-value(down))/(2*h), in.Grad[i], 2e-3, "element %d", i)
	}
	c = grad.Record(k, &a, false, 0)
	assert.InDelta(t, 0, relations(c, c.Input(x, rows, cols, true), x, cols, offsets, heads).Data[0], 1e-6)
}

var corpus = strings.Split(strings.TrimSpace(strings.Repeat("the old cat saw a small fish near the river\nwhere is my parcel, please?\ncall now to win a prize!\nunbelievable weather today\n", 6)), "\n")

// teacher is a small encoder with random weights, and its files.
func teacher(t *testing.T, head model.Head) (model.Model, []byte, []byte, checkpoint.Source) {
	tok, err := token.TrainWordPiece(slices.Values(corpus), token.TrainOptions{VocabSize: 90, Lowercase: true})
	require.NoError(t, err)
	raw, err := tok.Save()
	require.NoError(t, err)
	config := fmt.Appendf(nil, `{"model_type":"bert","architectures":["%s"],"vocab_size":%d,"hidden_size":24,"num_hidden_layers":4,"num_attention_heads":4,"intermediate_size":32,
		"max_position_embeddings":32,"hidden_dropout_prob":0,"attention_probs_dropout_prob":0,"initializer_range":0.3,"pad_token_id":0,"id2label":{"0":"a","1":"b","2":"c"}}`,
		map[model.Head]string{model.HeadNone: "BertModel", model.HeadSequence: "BertForSequenceClassification", model.HeadMasked: "BertForMaskedLM"}[head], tok.MaxID()+1)
	cfg, err := model.ParseConfig(config)
	require.NoError(t, err)
	m, err := model.New(cfg, nil, model.Options{Random: true, Seed: 3})
	require.NoError(t, err)
	src, err := checkpoint.FromTensors(model.Tensors(m))
	require.NoError(t, err)
	return m, config, raw, src
}

func smaller(t *testing.T, raw []byte) []byte {
	tok, err := token.Load(raw)
	require.NoError(t, err)
	return studentLike(int(tok.MaxID())+1, 16, 2)
}

func studentLike(vocab, hidden, layers int) []byte {
	return fmt.Appendf(nil, `{"model_type":"bert","architectures":["BertModel"],"vocab_size":%d,"hidden_size":%d,"num_hidden_layers":%d,"num_attention_heads":4,"intermediate_size":32,
		"max_position_embeddings":32,"hidden_dropout_prob":0,"attention_probs_dropout_prob":0,"initializer_range":0.05}`, vocab, hidden, layers)
}

// A student learns by each of the losses, with another width and depth than its teacher's.
func TestLayersLearn(t *testing.T) {
	for name, w := range map[string]Weights{"hidden": {Hidden: 1}, "attention": {Attention: 1}, "logits": {Logits: 1}, "embedding": {Embedding: 1},
		"all": {Hidden: 1, Attention: 1, Logits: 1, Embedding: 1}} {
		t.Run(name, func(t *testing.T) {
			m, _, raw, _ := teacher(t, model.HeadSequence)
			var first, last float64
			o := LayersOptions{Student: Student{Config: smaller(t, raw), Tokenizer: raw}, Kernels: backend.Generic(1), Teacher: m, Weights: w, Texts: corpus, Epochs: 15, Batch: 8,
				LR: 1e-2, Seed: 1, Out: filepath.Join(t.TempDir(), "out"), Progress: func(p train.Progress) {
					if p.Step == 1 {
						first = p.Loss
					}
					last = p.Loss
				}}
			r, err := Layers(context.Background(), o)
			require.NoError(t, err)
			assert.Less(t, last, 0.7*first)
			assert.Positive(t, r.Cost.FLOPs)
			for _, l := range r.Losses {
				assert.GreaterOrEqual(t, l, 0.0)
			}
			b, err := peft.Open(o.Out, peft.OpenOptions{})
			require.NoError(t, err)
			defer b.Close()
			if w.Logits > 0 {
				assert.Equal(t, []string{"a", "b", "c"}, b.Model.Config().Labels)
			}
		})
	}
}

// The whole teacher as its own student has nothing to learn, under part of the vocabulary too: the teacher reads the same pieces.
func TestSelect(t *testing.T) {
	for _, head := range []model.Head{model.HeadSequence, model.HeadMasked} {
		m, config, raw, src := teacher(t, head)
		full, err := token.Load(raw)
		require.NoError(t, err)
		for _, vocab := range []int{0, 60} {
			s, err := Select(config, raw, src, nil, vocab, corpus)
			require.NoError(t, err)
			tok, err := token.Load(s.Tokenizer)
			require.NoError(t, err)
			if vocab > 0 {
				assert.Less(t, tok.VocabSize(), full.VocabSize())
				assert.GreaterOrEqual(t, 60, tok.VocabSize())
				for id, old := range s.Tokens {
					a, _ := tok.Token(int32(id))
					b, _ := full.Token(old)
					require.Equal(t, b, a)
				}
				ids := tok.AppendIDs(nil, "unbelievable parcel", true)
				sp := tok.Special()
				assert.Equal(t, sp.CLS, ids[0])
				assert.Equal(t, sp.SEP, ids[len(ids)-1])
				assert.NotContains(t, ids, sp.UNK, "characters stay")
			}
			var first float64
			_, err = Layers(context.Background(), LayersOptions{Student: *s, Kernels: backend.Generic(1), Teacher: m, Texts: corpus, Epochs: 1, Batch: 4, Head: head,
				Weights: Weights{Hidden: 1, Attention: 1, Embedding: 1, Logits: map[bool]float64{true: 1}[head == model.HeadSequence || vocab == 0]}, Progress: func(p train.Progress) {
					if p.Step == 1 {
						first = p.Loss
					}
				}})
			require.NoError(t, err)
			assert.InDelta(t, 0, first, 1e-4)
		}
	}
	m, config, raw, src := teacher(t, model.HeadNone)
	s, err := Select(config, raw, src, []int{1, 3}, 0, nil)
	require.NoError(t, err)
	cfg, err := model.ParseConfig(s.Config)
	require.NoError(t, err)
	n, err := model.New(cfg, s.Init, model.Options{})
	require.NoError(t, err)
	find := func(m model.Model, name string) []float32 {
		for _, p := range m.Params() {
			if p.Name == name {
				return p.Values()
			}
		}
		return nil
	}
	assert.Equal(t, find(m, "encoder.layer.3.output.dense.weight"), find(n, "encoder.layer.1.output.dense.weight"))
	_, err = Select(config, raw, src, []int{4}, 0, nil)
	assert.ErrorContains(t, err, "blocks 0 to 3")
}

func TestLayersResume(t *testing.T) {
	m, config, raw, src := teacher(t, model.HeadNone)
	s, err := Select(config, raw, src, []int{0, 2}, 0, nil)
	require.NoError(t, err)
	o := LayersOptions{Student: *s, Kernels: backend.Generic(1), Teacher: m, Texts: corpus, Epochs: 4, Batch: 4, Weights: Weights{Hidden: 1, Attention: 1}, Seed: 5,
		Out: filepath.Join(t.TempDir(), "whole")}
	_, err = Layers(context.Background(), o)
	require.NoError(t, err)
	whole := o.Out
	o.Out, o.Resume = filepath.Join(t.TempDir(), "broken"), true
	ctx, cancel := context.WithCancel(context.Background())
	o.Progress = func(p train.Progress) {
		if p.Step == 9 {
			cancel()
		}
	}
	_, err = Layers(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	o.Progress = nil
	_, err = Layers(context.Background(), o)
	require.NoError(t, err)
	same(t, whole, o.Out)
}

// same compares what two runs wrote: weights, the course of the run and its picture.
func same(t *testing.T, a, b string) {
	t.Helper()
	for _, name := range []string{checkpoint.WeightsFile, LogFile, PlotFile} {
		want, err := os.ReadFile(filepath.Join(a, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(b, name))
		require.NoError(t, err)
		assert.Equal(t, want, got, name)
	}
}

func TestLayersRefuses(t *testing.T) {
	m, _, raw, _ := teacher(t, model.HeadNone)
	base := LayersOptions{Student: Student{Config: smaller(t, raw), Tokenizer: raw}, Kernels: backend.Generic(1), Teacher: m, Weights: Weights{Hidden: 1}, Texts: corpus}
	for want, change := range map[string]func(*LayersOptions){
		"weight 0":        func(o *LayersOptions) { o.Weights = Weights{} },
		"negative":        func(o *LayersOptions) { o.Weights.Hidden = -1 },
		"no texts":        func(o *LayersOptions) { o.Texts = nil },
		"no logits":       func(o *LayersOptions) { o.Weights.Logits = 1 },
		"blocks 0 to 3":   func(o *LayersOptions) { o.Layers = []int{0, 9} },
		"2 blocks, 1 of":  func(o *LayersOptions) { o.Layers = []int{0} },
		"7 relation":      func(o *LayersOptions) { o.Weights.Attention, o.Heads = 1, 7 },
		"distill: token":  func(o *LayersOptions) { o.Tokenizer = []byte("{") },
		"student: config": func(o *LayersOptions) { o.Config = []byte("{}") },
	} {
		o := base
		change(&o)
		_, err := Layers(context.Background(), o)
		assert.ErrorContains(t, err, want)
	}
}
