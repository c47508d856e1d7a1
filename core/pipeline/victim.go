package pipeline

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/token"
)

// victim shows a classifier to attacks, with all that temper can see of its own models.
type victim struct{ *Pipeline }

var (
	_ attack.GradientVictim  = victim{}
	_ attack.EmbeddingVictim = victim{}
	_ attack.FlipVictim      = victim{}
	_ attack.GuideVictim     = victim{}
	_ attack.TokenVictim     = victim{}
	_ attack.Masker          = (*masker)(nil)
)

// Victim returns the classifier as attacks see it.
func (p *Pipeline) Victim() (attack.Victim, error) {
	c := p.Config()
	if c.Head != model.HeadSequence || len(c.Labels) < 2 {
		return nil, fmt.Errorf("%s: %w", p.b.Dir, ErrNotClassifier)
	}
	return victim{p}, nil
}

// Masker returns a masked language model as attacks use it.
func (p *Pipeline) Masker() (attack.Masker, error) {
	if h := p.Config().Head; h != model.HeadMasked {
		return nil, fmt.Errorf("%s has no masked-language-model head (its head is %q)", p.b.Dir, h)
	}
	return &masker{p}, nil
}

// Scores implements attack.Victim: each text that cannot be encoded (it has no tokens) scores evenly, since an attack may empty a text.
func (v victim) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	for i, t := range texts {
		if t == "" {
			texts = slices.Clone(texts)
			texts[i] = " "
		}
	}
	return v.Pipeline.Scores(ctx, texts)
}

// guideSteps is the number of points between no text and the text at which Gains takes gradients: at the text alone a model that is sure of its
// answer has gradients that tell little.
const guideSteps = 4

// Gains implements attack.GuideVictim: the mean gradient of the margin of label on the straight line from unknown words to the text (Sundararajan
// et al. 2017), times the change of word embeddings; a replacement of several pieces counts by their mean. Edits beyond what the model reads gain
// nothing.
func (v victim) Gains(ctx context.Context, text string, label int, edits []attack.Edit) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := make([]float32, len(edits))
	enc, g, e, cols, err := v.slopes(text, label)
	if err != nil || g == nil {
		return out, err
	}
	table := v.b.Model.Embeddings()[0].W.Values()
	mean := make([]float32, cols)
	for i, d := range edits {
		tokens := tokensIn(&enc, d.At)
		if len(tokens) == 0 {
			continue
		}
		to, err := v.b.Tokenizer.Encode(d.To, token.Options{NoLimits: true, NoSpecial: true})
		if err != nil {
			return nil, fmt.Errorf("edit %d: %w", i, err)
		}
		clear(mean)
		for _, id := range to.IDs {
			for j, x := range table[int(id)*cols : (int(id)+1)*cols] {
				mean[j] += x / float32(to.Len())
			}
		}
		var gain float64
		for _, t := range tokens {
			for j, m := range mean {
				gain += float64(g[t*cols+j]) * float64(m-e[t*cols+j])
			}
		}
		out[i] = float32(gain)
	}
	return out, nil
}

// Passes implements attack.GuideVictim.
func (v victim) Passes() int { return guideSteps }

// slopes returns the encoding of a text, the mean gradient of minus the margin of label along the line from unknown words to the text, and the
// text's word embeddings, [tokens, cols].
func (p *Pipeline) slopes(text string, label int) (enc token.Encoding, g, e []float32, cols int, err error) {
	if enc, err = p.truncated(text, label); err != nil || enc.Len() == 0 {
		return
	}
	es := p.b.Model.Embeddings()
	if len(es) == 0 {
		err = fmt.Errorf("%s: the model has no word embeddings", p.b.Dir)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	table := es[0].W.Values()
	cols = es[0].W.T.Cols()
	var from []float32 // zero where the vocabulary has no unknown word
	if s := p.b.Tokenizer.Special(); s.UNK >= 0 && (int(s.UNK)+1)*cols <= len(table) {
		from = table[int(s.UNK)*cols : (int(s.UNK)+1)*cols]
	} else {
		from = make([]float32, cols)
	}
	p.arena.Reset()
	c := grad.Record(p.k, &p.arena, false, 0)
	n := enc.Len()
	b := &model.Batch{Offsets: []int32{0}, Want: model.WantLogits}
	labels := make([]int32, guideSteps)
	for s := range labels {
		b.IDs = append(b.IDs, enc.IDs...)
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
		labels[s] = int32(label)
	}
	var in *grad.Value
	b.Perturb = func(c *grad.Ctx, x *grad.Value) *grad.Value {
		if x.Cols != cols {
			return x
		}
		e = slices.Clone(x.Data[:n*cols])
		d := slices.Clone(x.Data)
		for s := range guideSteps {
			a := (float32(s) + 0.5) / guideSteps
			for t := range n {
				if enc.SpecialMask[t] != 0 {
					continue
				}
				at := (s*n + t) * cols
				for j, u := range from {
					d[at+j] = u + a*(d[at+j]-u)
				}
			}
		}
		in = c.Input(d, x.Rows, x.Cols, true)
		return in
	}
	o, err := p.b.Model.Forward(c, b)
	if err != nil {
		return
	}
	if in == nil {
		err = fmt.Errorf("%s: word embeddings of width %d do not reach the model as they are", p.b.Dir, cols)
		return
	}
	z := slices.Clone(o.Logits.Data)
	c.Backward(c.CrossEntropy(o.Logits, labels), nil)
	g = make([]float32, n*cols)
	for s := range guideSteps {
		// The loss flattens where the model is sure; divided by 1 - p its slope is that of the margin, so that all points count alike.
		row := z[s*o.Logits.Cols : (s+1)*o.Logits.Cols]
		softmax(row)
		scale := 1 / max(1e-6, 1-row[label])
		for i := range g {
			g[i] += scale * in.Grad[s*n*cols+i]
		}
	}
	return
}

// truncated encodes a text as far as the model reads it.
func (p *Pipeline) truncated(text string, label int) (enc token.Encoding, err error) {
	limit := p.b.MaxTokens
	if p.o.MaxTokens > 0 && (limit <= 0 || p.o.MaxTokens < limit) {
		limit = p.o.MaxTokens
	}
	opt := token.Options{NoLimits: true}
	if limit > 0 {
		opt.Truncation = &token.Truncation{MaxLength: limit, Drop: true}
	}
	if enc, err = p.b.Tokenizer.Encode(text, opt); err != nil {
		return
	}
	if n := len(p.Labels()); label < 0 || label >= n {
		err = fmt.Errorf("label %d: expected 0 to %d", label, n-1)
	}
	return
}

// gradient returns the encoding of a text, the gradient of the loss of label with respect to its word embeddings, and those embeddings,
// [tokens, cols].
func (p *Pipeline) gradient(text string, label int) (enc token.Encoding, g, e []float32, cols int, err error) {
	if enc, err = p.truncated(text, label); err != nil {
		return
	}
	if enc.Len() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arena.Reset()
	c := grad.Record(p.k, &p.arena, false, 0)
	var in *grad.Value
	b := &model.Batch{IDs: enc.IDs, Offsets: []int32{0, int32(enc.Len())}, Want: model.WantLogits,
		Perturb: func(c *grad.Ctx, x *grad.Value) *grad.Value {
			in = c.Input(x.Data, x.Rows, x.Cols, true)
			return in
		}}
	o, err := p.b.Model.Forward(c, b)
	if err != nil {
		return
	}
	c.Backward(c.CrossEntropy(o.Logits, []int32{int32(label)}), nil)
	cols = in.Cols
	g, e = make([]float32, len(in.Data)), slices.Clone(in.Data)
	copy(g, in.Grad)
	return
}

// SpanImportance implements attack.GradientVictim.
func (v victim) SpanImportance(ctx context.Context, text string, label int, spans []attack.Span) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := make([]float32, len(spans))
	enc, g, _, cols, err := v.gradient(text, label)
	if err != nil || g == nil {
		return out, err
	}
	for i, s := range spans {
		var sum float64
		for _, t := range tokensIn(&enc, s) {
			for _, x := range g[t*cols : (t+1)*cols] {
				sum += float64(x) * float64(x)
			}
		}
		out[i] = float32(math.Sqrt(sum))
	}
	return out, nil
}

// tokensIn lists the tokens that overlap a span of bytes.
func tokensIn(e *token.Encoding, s attack.Span) []int {
	var out []int
	for i, o := range e.Offsets {
		if e.SpecialMask[i] == 0 && o.Start < s.End && o.End > s.Start {
			out = append(out, i)
		}
	}
	return out
}

// Flips implements attack.FlipVictim: whole words of the vocabulary by gradient·(candidate − current), the gradient being the sum over the
// span's tokens and the current embedding their mean.
func (v victim) Flips(ctx context.Context, text string, label int, spans []attack.Span, n int) ([][]attack.Candidate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := make([][]attack.Candidate, len(spans))
	enc, g, e, cols, err := v.gradient(text, label)
	if err != nil || g == nil {
		return out, err
	}
	w := v.wordTable()
	if w.cols != cols {
		return nil, fmt.Errorf("%s: word embeddings of width %d, gradients of %d", v.b.Dir, w.cols, cols)
	}
	gain := make([]float32, len(w.words))
	for i, s := range spans {
		tokens := tokensIn(&enc, s)
		if len(tokens) == 0 {
			continue
		}
		sum, mean := make([]float32, cols), make([]float32, cols)
		for _, t := range tokens {
			for j := range cols {
				sum[j] += g[t*cols+j]
				mean[j] += e[t*cols+j] / float32(len(tokens))
			}
		}
		v.mu.Lock()
		v.k.MatMul(backend.MatMulArgs{M: 1, N: len(w.words), K: cols, A: sum, LDA: cols, B: w.rows, LDB: cols, TransB: true, C: gain, LDC: len(w.words)})
		now := v.k.Dot(sum, mean)
		v.mu.Unlock()
		is := strings.ToLower(text[s.Start:s.End])
		for _, id := range top(gain, n+1) {
			if w.words[id] != is && len(out[i]) < n {
				out[i] = append(out[i], attack.Candidate{Text: w.words[id], P: gain[id] - now})
			}
		}
	}
	return out, nil
}

// Tokens implements attack.TokenVictim.
func (v victim) Tokens(text string) ([]attack.Span, []string) {
	e, err := v.b.Tokenizer.Encode(text, token.Options{NoLimits: true, NoSpecial: true})
	if err != nil {
		return nil, nil
	}
	spans := make([]attack.Span, e.Len())
	for i, o := range e.Offsets {
		spans[i] = attack.Span{Start: o.Start, End: o.End}
	}
	return spans, e.Tokens
}

// wordTable holds the vocabulary's whole words and their embeddings.
type wordTable struct {
	words   []string
	rows    []float32 // [words, cols]
	inverse []float32 // 1 / length of each row
	cols    int
}

// wordTable makes the table at first use.
func (p *Pipeline) wordTable() *wordTable {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.words != nil {
		return p.words
	}
	w := &wordTable{}
	es := p.b.Model.Embeddings()
	if len(es) == 0 {
		p.words = w
		return w
	}
	all := es[0].W.Values()
	w.cols = es[0].W.T.Cols()
	for id := int32(0); id <= p.b.Tokenizer.MaxID() && (int(id)+1)*w.cols <= len(all); id++ {
		name, ok := p.b.Tokenizer.Token(id)
		if !ok || p.b.Tokenizer.IsSpecial(id) {
			continue
		}
		word, whole := wholeWord(name)
		if !whole {
			continue
		}
		row := all[int(id)*w.cols : (int(id)+1)*w.cols]
		norm := math.Sqrt(p.k.SumSquares(row))
		if norm == 0 {
			continue
		}
		w.words = append(w.words, word)
		w.rows = append(w.rows, row...)
		w.inverse = append(w.inverse, float32(1/norm))
	}
	p.words = w
	return w
}

// wholeWord returns the word that a vocabulary entry stands for: letters only, the beginning of a word where the vocabulary marks that.
func wholeWord(name string) (string, bool) {
	for _, mark := range []string{"\u0120", "\u2581"} { // byte-level BPE's and SentencePiece's word beginning
		name = strings.TrimPrefix(name, mark)
	}
	if len(name) < 2 {
		return "", false
	}
	for _, r := range name {
		if !unicode.IsLetter(r) {
			return "", false
		}
	}
	return name, true
}

// Nearest implements attack.EmbeddingVictim: whole words of the vocabulary by cosine of word embeddings; a word of several pieces is the
// mean of theirs.
func (v victim) Nearest(ctx context.Context, word string, n int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := v.wordTable()
	enc, err := v.b.Tokenizer.Encode(word, token.Options{NoLimits: true, NoSpecial: true})
	if err != nil || enc.Len() == 0 || len(w.words) == 0 {
		return nil, err
	}
	all := v.b.Model.Embeddings()[0].W.Values()
	q := make([]float32, w.cols)
	for _, id := range enc.IDs {
		for j := range q {
			q[j] += all[int(id)*w.cols+j]
		}
	}
	sim := make([]float32, len(w.words))
	v.mu.Lock()
	v.k.MatMul(backend.MatMulArgs{M: 1, N: len(w.words), K: w.cols, A: q, LDA: w.cols, B: w.rows, LDB: w.cols, TransB: true, C: sim, LDC: len(w.words)})
	v.k.Mul(sim, sim, w.inverse)
	v.mu.Unlock()
	out := make([]string, 0, n)
	for _, i := range top(sim, n+4) {
		if len(out) < n && !strings.EqualFold(w.words[i], word) {
			out = append(out, w.words[i])
		}
	}
	return out, nil
}

// masker is a masked language model.
type masker struct{ p *Pipeline }

// Fill implements attack.Masker: whole words for a span of text.
func (m *masker) Fill(ctx context.Context, text string, at attack.Span, n int) ([]attack.Candidate, error) {
	p := m.p
	if at.Start < 0 || at.End < at.Start || at.End > len(text) {
		return nil, fmt.Errorf("span %d to %d of a text of %d bytes", at.Start, at.End, len(text))
	}
	mask := p.b.Tokenizer.Special().MASK
	name, ok := p.b.Tokenizer.Token(mask)
	if !ok {
		return nil, fmt.Errorf("%s: the tokenizer has no mask token", p.b.Dir)
	}
	ids, _, err := p.b.Encode(text[:at.Start]+name+text[at.End:], "", p.o.MaxTokens)
	if err != nil {
		return nil, err
	}
	place := slices.Index(ids, mask)
	if place < 0 {
		return nil, nil // beyond what the model reads
	}
	probs, err := p.maskedAt(ctx, ids, place)
	if err != nil {
		return nil, err
	}
	var out []attack.Candidate
	for _, id := range top(probs, 4*n+32) {
		tok, ok := p.b.Tokenizer.Token(id)
		if !ok || p.b.Tokenizer.IsSpecial(id) {
			continue
		}
		if word, whole := wholeWord(tok); whole && len(out) < n {
			out = append(out, attack.Candidate{Text: word, P: probs[id]})
		}
	}
	return out, nil
}
