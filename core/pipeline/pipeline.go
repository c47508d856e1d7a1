// Package pipeline goes from text to answers: labels, embeddings, words for a mask. It opens a model folder, tokenizes, packs texts of
// any lengths into batches without padding, runs them and puts the results back in order.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
)

// Options change how a model is opened and run.
type Options struct {
	// Head replaces the head that the folder names (model.HeadNone for embeddings, model.HeadMasked to fill masks).
	Head model.Head
	// Base replaces the base model that a PEFT folder names.
	Base string
	// MaxTokens cuts texts; 0 takes what the model takes.
	MaxTokens int
	// BatchTokens bounds the tokens run at once (default 4096). It does not change results.
	BatchTokens int
	// KeepAdapter runs an adapter beside its base instead of merging it.
	KeepAdapter bool
	// Eager packs the weights while the tokenizer is read, for who is about to answer: the kernels are busy until the pipeline is open.
	Eager bool
	// Normalizer, when set, rewrites each text before it is tokenized (canonicalisation of disguises).
	Normalizer func(string) string
}

// Pipeline is an opened model. Its methods may be called from several goroutines; they run one at a time.
type Pipeline struct {
	b     *peft.Bundle
	k     backend.Kernels
	o     Options
	mu    sync.Mutex
	arena grad.Arena
	words *wordTable // for Nearest, made when first asked
}

// Open opens a Hugging Face folder, or a PEFT folder over its base.
func Open(path string, k backend.Kernels, o Options) (*Pipeline, error) {
	b, err := peft.Open(path, o.opening(k))
	if err != nil {
		return nil, err
	}
	p, err := New(b, k, o)
	if err != nil {
		b.Close()
		return nil, err
	}
	return p, nil
}

// OpenFolder is Open for a folder that is open already, on disk or in memory.
func OpenFolder(f *checkpoint.Folder, k backend.Kernels, o Options) (*Pipeline, error) {
	b, err := peft.OpenFolder(f, o.opening(k))
	if err != nil {
		return nil, err
	}
	return New(b, k, o)
}

func (o *Options) opening(k backend.Kernels) peft.OpenOptions {
	open := peft.OpenOptions{Head: o.Head, Base: o.Base}
	if o.Eager {
		open.While = func(m model.Model) { model.Pack(m, k) }
	}
	return open
}

// New wraps an opened model, such as the result of training.
func New(b *peft.Bundle, k backend.Kernels, o Options) (*Pipeline, error) {
	if b.Tokenizer == nil {
		return nil, fmt.Errorf("%s: expected a tokenizer.json", b.Dir)
	}
	if o.BatchTokens <= 0 {
		o.BatchTokens = 4096
	}
	p := &Pipeline{b: b, k: k, o: o}
	if b.Adapter != nil && !o.KeepAdapter && b.Adapter.Mergeable() {
		if err := b.Adapter.Merge(); err != nil {
			return nil, fmt.Errorf("%s: %w", b.Dir, err)
		}
	}
	for _, q := range b.Model.Params() {
		if q.Trainable() { // what is packed already stays
			q.Freeze()
		}
	}
	return p, nil
}

// Close gives back the model's files.
func (p *Pipeline) Close() error { return p.b.Close() }

// Bundle is the model beneath.
func (p *Pipeline) Bundle() *peft.Bundle { return p.b }

// Config is the model's configuration.
func (p *Pipeline) Config() *model.Config { return p.b.Model.Config() }

// Labels are the classes of a classifier.
func (p *Pipeline) Labels() []string { return p.Config().Labels }

// Save writes a plain Hugging Face folder, an adapter merged (see peft.Bundle.SaveFolder).
func (p *Pipeline) Save(dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.SaveFolder(dir, nil)
}

// Prediction is the answer to one text.
type Prediction struct {
	Text  string  `json:"text"`
	Label string  `json:"label"`
	Score float32 `json:"score"`
	// Scores has one entry per label: probabilities (independent ones for a multi-label model), or the value of a regression.
	Scores []float32 `json:"scores"`
	Class  int       `json:"-"`
}

// Classify predicts a label for each text.
func (p *Pipeline) Classify(ctx context.Context, texts []string) ([]Prediction, error) {
	scores, err := p.Scores(ctx, texts)
	if err != nil {
		return nil, err
	}
	labels := p.Labels()
	out := make([]Prediction, len(texts))
	for i, s := range scores {
		best := 0
		for j, v := range s {
			if v > s[best] {
				best = j
			}
		}
		out[i] = Prediction{Text: texts[i], Label: labels[best], Score: s[best], Scores: s, Class: best}
	}
	return out, nil
}

// Scores returns what Prediction.Scores holds, row by row.
func (p *Pipeline) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	z, err := p.Logits(ctx, texts, nil)
	if err != nil {
		return nil, err
	}
	problem := p.Config().Problem()
	for _, row := range z {
		switch problem {
		case model.SingleLabel:
			softmax(row)
		case model.MultiLabel:
			for i, v := range row {
				row[i] = float32(1 / (1 + math.Exp(-float64(v))))
			}
		}
	}
	return z, nil
}

// Logits returns the raw outputs of a classifier: a row per text. pairs, when not nil, holds the second texts.
func (p *Pipeline) Logits(ctx context.Context, texts, pairs []string) ([][]float32, error) {
	if h := p.Config().Head; h != model.HeadSequence {
		return nil, fmt.Errorf("%s has no classification head (its head is %q): tune it first", p.b.Dir, h)
	}
	return p.each(ctx, texts, pairs, model.WantLogits, func(c *grad.Ctx, o model.Output) *grad.Value { return o.Logits })
}

// Embed returns one vector of unit length per text, pooled as the folder says (the mean over tokens when it does not say).
func (p *Pipeline) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	return p.each(ctx, texts, nil, model.WantPooled, func(c *grad.Ctx, o model.Output) *grad.Value { return c.Normalize(o.Pooled, 1e-12) })
}

// each runs all texts and hands back one row per text.
func (p *Pipeline) each(ctx context.Context, texts, pairs []string, want model.Want, pick func(*grad.Ctx, model.Output) *grad.Value) ([][]float32, error) {
	if pairs != nil && len(pairs) != len(texts) {
		return nil, fmt.Errorf("expected %d second texts, got %d", len(texts), len(pairs))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ids, types := make([][]int32, len(texts)), make([][]int32, len(texts))
	for i, t := range texts {
		pair := ""
		if pairs != nil {
			pair = pairs[i]
		}
		var err error
		if ids[i], types[i], err = p.encode(t, pair); err != nil {
			return nil, fmt.Errorf("text %d: %w", i, err)
		}
	}
	order := make([]int, len(texts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(ids[b]) - len(ids[a]) })
	out := make([][]float32, len(texts))
	for from := 0; from < len(order); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := &model.Batch{Offsets: []int32{0}, Want: want}
		to := from
		for to < len(order) && (to == from || len(b.IDs)+len(ids[order[to]]) <= p.o.BatchTokens) {
			i := order[to]
			b.IDs = append(b.IDs, ids[i]...)
			if types[i] != nil && b.Types == nil {
				b.Types = make([]int32, b.Offsets[len(b.Offsets)-1])
			}
			if b.Types != nil {
				b.Types = append(b.Types, types[i]...)
				b.Types = append(b.Types, make([]int32, len(b.IDs)-len(b.Types))...)
			}
			b.Offsets = append(b.Offsets, int32(len(b.IDs)))
			to++
		}
		p.arena.Reset()
		c := grad.Infer(p.k, &p.arena)
		o, err := p.b.Model.Forward(c, b)
		if err != nil {
			return nil, err
		}
		v := pick(c, o)
		for j, i := range order[from:to] {
			out[i] = slices.Clone(v.Data[j*v.Cols : (j+1)*v.Cols])
			if err := p.finite(out[i]); err != nil {
				return nil, err
			}
		}
		from = to
	}
	return out, nil
}

// finite refuses outputs that say nothing: those of a model whose training diverged or whose file is damaged.
func (p *Pipeline) finite(v []float32) error {
	for _, x := range v {
		if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%s: the model's output is not a finite number (%g): are its weights?", p.b.Dir, x)
		}
	}
	return nil
}

func (p *Pipeline) encode(text, pair string) (ids, types []int32, err error) {
	if p.o.Normalizer != nil {
		text = p.o.Normalizer(text)
		if pair != "" {
			pair = p.o.Normalizer(pair)
		}
	}
	return p.b.Encode(text, pair, p.o.MaxTokens)
}

// Word is a candidate for a masked place.
type Word struct {
	Token string  `json:"token"`
	Score float32 `json:"score"`
	// Text is the whole text with the word in place of the mask.
	Text string `json:"text"`
}

// Fill predicts the n likeliest tokens for the mask token in text, e.g. "The capital of France is [MASK]."
func (p *Pipeline) Fill(ctx context.Context, text string, n int) ([]Word, error) {
	mask := p.b.Tokenizer.Special().MASK
	if mask < 0 {
		return nil, fmt.Errorf("%s: the tokenizer has no mask token", p.b.Dir)
	}
	name, _ := p.b.Tokenizer.Token(mask)
	if k := strings.Count(text, name); k != 1 {
		return nil, fmt.Errorf("expected one %s in the text, got %d", name, k)
	}
	ids, _, err := p.encode(text, "")
	if err != nil {
		return nil, err
	}
	at := slices.Index(ids, mask)
	if at < 0 {
		return nil, fmt.Errorf("%s stands beyond the first %d tokens", name, len(ids))
	}
	probs, err := p.maskedAt(ctx, ids, at)
	if err != nil {
		return nil, err
	}
	out := make([]Word, 0, n)
	for _, id := range top(probs, n) {
		tok := p.b.Tokenizer.Decode([]int32{id}, false)
		out = append(out, Word{Token: tok, Score: probs[id], Text: strings.Replace(text, name, strings.TrimPrefix(tok, "##"), 1)})
	}
	return out, nil
}

// maskedAt returns the probabilities of all tokens at one place.
func (p *Pipeline) maskedAt(ctx context.Context, ids []int32, at int) ([]float32, error) {
	if h := p.Config().Head; h != model.HeadMasked {
		return nil, fmt.Errorf("%s has no masked-language-model head (its head is %q)", p.b.Dir, h)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arena.Reset()
	o, err := p.b.Model.Forward(grad.Infer(p.k, &p.arena),
		&model.Batch{IDs: ids, Offsets: []int32{0, int32(len(ids))}, Rows: []int32{int32(at)}, Want: model.WantLogits})
	if err != nil {
		return nil, err
	}
	z := slices.Clone(o.Logits.Data)
	if err := p.finite(z); err != nil {
		return nil, err
	}
	softmax(z)
	return z, nil
}

// top returns the indices of the n largest values, the largest first; equal values in order.
func top(v []float32, n int) []int32 {
	ids := make([]int32, len(v))
	for i := range ids {
		ids[i] = int32(i)
	}
	slices.SortStableFunc(ids, func(a, b int32) int {
		switch {
		case v[a] > v[b]:
			return -1
		case v[a] < v[b]:
			return 1
		}
		return 0
	})
	return ids[:min(n, len(ids))]
}

func softmax(z []float32) {
	m := math.Inf(-1)
	for _, v := range z {
		m = max(m, float64(v))
	}
	var sum float64
	for _, v := range z {
		sum += math.Exp(float64(v) - m)
	}
	for i, v := range z {
		z[i] = float32(math.Exp(float64(v)-m) / sum)
	}
}

// ErrNotClassifier is returned where a classifier with at least two labels is needed.
var ErrNotClassifier = errors.New("the model is not a classifier with at least two labels")
