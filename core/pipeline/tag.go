package pipeline

import (
	"context"
	"fmt"
	"strings"

	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// Tag is what a token classifier says of one token.
type Tag struct {
	Token string  `json:"token"`
	Label string  `json:"label"`
	Score float32 `json:"score"`
	// Start and End are the token's bytes in the text.
	Start int `json:"start"`
	End   int `json:"end"`
}

// Span is a run of tokens of one kind: neighbours with the same label, or labels that begin (B-) and go on (I-) with one name.
type Span struct {
	Label string `json:"label"`
	Text  string `json:"text"`
	// Score is the mean of the tokens' scores.
	Score float32 `json:"score"`
	Start int     `json:"start"`
	End   int     `json:"end"`
}

// Tag labels every token of every text, the template's own left out.
func (p *Pipeline) Tag(ctx context.Context, texts []string) ([][]Tag, error) {
	if h := p.Config().Head; h != model.HeadToken {
		return nil, fmt.Errorf("%s has no token classification head (its head is %q)", p.b.Dir, h)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	labels := p.Labels()
	out := make([][]Tag, len(texts))
	for i, text := range texts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		enc, err := p.b.Tokens(text, p.o.MaxTokens)
		if err != nil {
			return nil, fmt.Errorf("text %d: %w", i, err)
		}
		if enc.Len() == 0 {
			continue
		}
		p.arena.Reset()
		o, err := p.b.Model.Forward(grad.Infer(p.k, &p.arena), &model.Batch{IDs: enc.IDs, Offsets: []int32{0, int32(enc.Len())}, Want: model.WantLogits})
		if err != nil {
			return nil, err
		}
		for j := range enc.IDs {
			if enc.SpecialMask[j] != 0 {
				continue
			}
			row := o.Logits.Data[j*o.Logits.Cols : (j+1)*o.Logits.Cols]
			if err := p.finite(row); err != nil {
				return nil, err
			}
			softmax(row)
			best := 0
			for c, v := range row {
				if v > row[best] {
					best = c
				}
			}
			out[i] = append(out[i], Tag{enc.Tokens[j], labels[best], row[best], enc.Offsets[j].Start, enc.Offsets[j].End})
		}
	}
	return out, nil
}

// Spans joins the tags of a text; tokens labelled O, outside of everything, are left out.
func Spans(text string, tags []Tag) []Span {
	var out []Span
	open, n := false, 0
	for _, t := range tags {
		kind, begins := t.Label, false
		switch {
		case strings.HasPrefix(kind, "B-"):
			kind, begins = kind[2:], true
		case strings.HasPrefix(kind, "I-"):
			kind = kind[2:]
		case kind == "O":
			open = false
			continue
		}
		if last := len(out) - 1; open && !begins && out[last].Label == kind {
			out[last].End = t.End
			out[last].Score += (t.Score - out[last].Score) / float32(n+1)
			n++
			continue
		}
		out = append(out, Span{Label: kind, Score: t.Score, Start: t.Start, End: t.End})
		open, n = true, 1
	}
	for i, s := range out {
		out[i].Text = text[s.Start:s.End]
	}
	return out
}
