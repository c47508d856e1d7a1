package pipeline_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/tests/fixture"
)

func kernels(t testing.TB) backend.Kernels {
	k := backend.Generic(2)
	t.Cleanup(k.Close)
	return k
}

func TestMiniLMEmbeddings(t *testing.T) {
	dir := filepath.Join(fixture.Parity(t), "tokenizers")
	raw, err := os.ReadFile(filepath.Join(dir, "minilm-embeddings.json"))
	require.NoError(t, err)
	var doc struct {
		Sentences []string `json:"sentences"`
	}
	require.NoError(t, json.Unmarshal(raw, &doc))
	require.NotEmpty(t, doc.Sentences)
	want, err := checkpoint.OpenSafetensors(filepath.Join(dir, "minilm-embeddings.safetensors"))
	require.NoError(t, err)
	defer want.Close()
	e, err := want.Tensor("embeddings")
	require.NoError(t, err)
	v, err := e.F32()
	require.NoError(t, err)

	p, err := pipeline.Open(fixture.MiniLM(t), kernels(t), pipeline.Options{})
	require.NoError(t, err)
	defer p.Close()
	got, err := p.Embed(context.Background(), doc.Sentences)
	require.NoError(t, err)
	for i, row := range got {
		assert.InDeltaSlice(t, v[i*len(row):(i+1)*len(row)], row, 1e-5, doc.Sentences[i])
		alone, err := p.Embed(context.Background(), doc.Sentences[i:i+1])
		require.NoError(t, err)
		assert.Equal(t, row, alone[0], "alone and in a batch")
	}
	_, err = p.Classify(context.Background(), []string{"x"})
	assert.ErrorContains(t, err, "no classification head")
}

// tiny opens the fixtures' BERT classifier.
func tiny(t *testing.T, name string) *pipeline.Pipeline {
	p, err := pipeline.Open(filepath.Join(fixture.Parity(t), "models", name), kernels(t), pipeline.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func TestVictim(t *testing.T) {
	p := tiny(t, "bert-seqcls")
	v, err := p.Victim()
	require.NoError(t, err)
	ctx := context.Background()
	text := "Farid carried the awful lamp, and the theatre was awful."
	scores, err := v.Scores(ctx, []string{text, "", text})
	require.NoError(t, err)
	assert.Equal(t, scores[0], scores[2])
	var sum float32
	for _, s := range scores[0] {
		sum += s
	}
	assert.InDelta(t, 1, sum, 1e-6)

	words := attack.Words(text)
	imp, err := v.(attack.GradientVictim).SpanImportance(ctx, text, 0, words)
	require.NoError(t, err)
	for i, x := range imp {
		assert.Positive(t, x, text[words[i].Start:words[i].End])
	}
	g := v.(attack.GuideVictim)
	last := words[len(words)-1]
	edits := []attack.Edit{{At: words[0], To: text[words[0].Start:words[0].End]}, {At: last, To: "lamp"}, {At: last, To: ""}}
	gains, err := g.Gains(ctx, text, 0, edits)
	require.NoError(t, err)
	require.Len(t, gains, 3)
	assert.NotZero(t, gains[1])
	assert.NotEqual(t, gains[1], gains[2])
	other, err := g.Gains(ctx, text, 1, edits)
	require.NoError(t, err)
	assert.NotEqual(t, gains, other, "gains are for a class")
	_, err = g.Gains(ctx, text, 7, edits)
	assert.ErrorContains(t, err, "label 7")
	assert.Positive(t, g.Passes())
	flips, err := v.(attack.FlipVictim).Flips(ctx, text, 0, words[:2], 5)
	require.NoError(t, err)
	require.Len(t, flips, 2)
	for _, f := range flips {
		require.Len(t, f, 5)
		for i := 1; i < len(f); i++ {
			assert.GreaterOrEqual(t, f[i-1].P, f[i].P)
		}
	}
	near, err := v.(attack.EmbeddingVictim).Nearest(ctx, "lamp", 3)
	require.NoError(t, err)
	assert.Len(t, near, 3)
	assert.NotContains(t, near, "lamp")
	spans, tokens := v.(attack.TokenVictim).Tokens("the lamp")
	require.Equal(t, len(spans), len(tokens))
	assert.Equal(t, attack.Span{Start: 0, End: 3}, spans[0])
}

func TestFill(t *testing.T) {
	p := tiny(t, "bert-mlm")
	ctx := context.Background()
	words, err := p.Fill(ctx, "the [MASK] was quick.", 3)
	require.NoError(t, err)
	require.Len(t, words, 3)
	assert.GreaterOrEqual(t, words[0].Score, words[1].Score)
	_, err = p.Fill(ctx, "no mask here", 3)
	assert.ErrorContains(t, err, "expected one [MASK]")
	m, err := p.Masker()
	require.NoError(t, err)
	text := "the lamp was quick."
	c, err := m.Fill(ctx, text, attack.Span{Start: 4, End: 8}, 4)
	require.NoError(t, err)
	assert.NotEmpty(t, c)
	_, err = m.Fill(ctx, text, attack.Span{Start: 4, End: 80}, 4)
	assert.Error(t, err)
}

func TestSaveReload(t *testing.T) {
	p := tiny(t, "bert-seqcls")
	ctx := context.Background()
	texts := []string{"Hiro hid the excellent model", "it cost 54 coins"}
	want, err := p.Logits(ctx, texts, nil)
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "out")
	require.NoError(t, p.Save(dir))
	q, err := pipeline.Open(dir, kernels(t), pipeline.Options{})
	require.NoError(t, err)
	defer q.Close()
	got, err := q.Logits(ctx, texts, nil)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	assert.Equal(t, p.Labels(), q.Labels())
}

func TestCancel(t *testing.T) {
	p := tiny(t, "bert-seqcls")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := p.Classify(ctx, []string{"x"})
	assert.ErrorIs(t, err, context.Canceled)
}

// Eager opening changes when weights are packed, and nothing else; what cannot be opened says so.
func TestEager(t *testing.T) {
	ctx, texts := context.Background(), []string{"a fine film", "dull"}
	dir := filepath.Join(fixture.Parity(t), "models", "bert-seqcls")
	want, err := tiny(t, "bert-seqcls").Scores(ctx, texts)
	require.NoError(t, err)
	p, err := pipeline.Open(dir, kernels(t), pipeline.Options{Eager: true})
	require.NoError(t, err)
	defer p.Close()
	got, err := p.Scores(ctx, texts)
	require.NoError(t, err)
	assert.Equal(t, want, got)

	broken := t.TempDir()
	require.NoError(t, os.CopyFS(broken, os.DirFS(dir)))
	require.NoError(t, os.WriteFile(filepath.Join(broken, "tokenizer.json"), []byte(`{"model":{"type":"WordPiece","vocab":{"a":}}}`), 0o600))
	_, err = pipeline.Open(broken, kernels(t), pipeline.Options{Eager: true})
	assert.ErrorContains(t, err, "vocab")
	require.NoError(t, os.WriteFile(filepath.Join(broken, "model.safetensors"), []byte("{}"), 0o600))
	_, err = pipeline.Open(broken, kernels(t), pipeline.Options{Eager: true})
	assert.Error(t, err)
}
