package attack

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// WordSwap replaces one word at a time by variants that depend on the word and on chance only. It is a Transformation and a Perturber.
type WordSwap struct {
	Label string
	// Variants returns replacements of word; those equal to word are dropped. Punctuation around the word is not part of it.
	Variants func(word string, r *Rand) []string
}

func (w WordSwap) Name() string { return w.Label }

func (w WordSwap) Apply(t *Task, x *Text, words []int) ([]*Text, error) {
	r := t.Rand()
	return w.apply(x, words, r), nil
}

func (w WordSwap) apply(x *Text, words []int, r *Rand) []*Text {
	var out []*Text
	for _, i := range words {
		word := x.Word(i)
		for _, v := range w.Variants(word, r) {
			if v != word {
				out = append(out, x.Replace(i, v))
			}
		}
	}
	return out
}

// Perturb makes candidates of each request without looking at its victim.
func (w WordSwap) Perturb(ctx context.Context, reqs []Request, _ Victim) ([][]string, error) {
	out := make([][]string, len(reqs))
	for i, q := range reqs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x := requestText(q)
		may := allowedWords(q, x)
		r := NewRand(mix(q.Seed, hashText(q.Text)))
		out[i] = sample(w.apply(x, may, r), q.Max, r)
	}
	return out, nil
}

// requestText is the text of a request with the words that it names.
func requestText(q Request) *Text {
	x := NewText(q.Text)
	if q.Words == nil || x.S != q.Text {
		return x
	}
	for _, s := range q.Words {
		if s.Start < 0 || s.End < s.Start || s.End > len(q.Text) {
			return x
		}
	}
	if len(q.Words) != x.Len() {
		x.Modified, x.Origin = make([]bool, len(q.Words)), make([]int, len(q.Words))
		for i := range x.Origin {
			x.Origin[i] = i
		}
	}
	x.Spans = q.Words
	return x
}

// allowedWords are the words that a request lets change: all when May is nil.
func allowedWords(q Request, x *Text) []int {
	if q.May == nil {
		may := make([]int, x.Len())
		for i := range may {
			may[i] = i
		}
		return may
	}
	may := make([]int, 0, len(q.May))
	for _, i := range q.May {
		if i >= 0 && i < x.Len() {
			may = append(may, i)
		}
	}
	return may
}

// sample keeps at most n texts (all when n is not positive), drawn by chance, in their order.
func sample(texts []*Text, n int, r *Rand) []string {
	out := make([]string, 0, len(texts))
	for _, t := range texts {
		out = append(out, t.S)
	}
	if n <= 0 || len(out) <= n {
		return out
	}
	kept, need := out[:0:0], n
	for i, s := range out {
		if r.IntN(len(out)-i) < need {
			kept = append(kept, s)
			need--
		}
	}
	return kept
}

// Composite offers the candidates of all its parts.
type Composite struct {
	Label string
	Parts []Transformation
}

func (c Composite) Name() string { return c.Label }

func (c Composite) Apply(t *Task, x *Text, words []int) ([]*Text, error) {
	var out []*Text
	for _, p := range c.Parts {
		made, err := p.Apply(t, x, words)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name(), err)
		}
		out = append(out, made...)
	}
	return out, nil
}

// Perturb asks every part that is a Perturber.
func (c Composite) Perturb(ctx context.Context, reqs []Request, v Victim) ([][]string, error) {
	out := make([][]string, len(reqs))
	for k, p := range c.Parts {
		q, ok := p.(Perturber)
		if !ok {
			return nil, fmt.Errorf("%s: %s cannot be used outside an attack", c.Label, p.Name())
		}
		sub := make([]Request, len(reqs))
		for i, r := range reqs {
			sub[i] = r
			sub[i].Seed = mix(r.Seed, uint64(k))
		}
		made, err := q.Perturb(ctx, sub, v)
		if err != nil {
			return nil, err
		}
		for i := range out {
			out[i] = append(out[i], made[i]...)
		}
	}
	for i, q := range reqs {
		if q.Max > 0 && len(out[i]) > q.Max {
			r := NewRand(mix(q.Seed, uint64(len(out[i]))))
			texts := make([]*Text, len(out[i]))
			for k, s := range out[i] {
				texts[k] = &Text{S: s}
			}
			out[i] = sample(texts, q.Max, r)
		}
	}
	return out, nil
}

// By makes a transformation of a Perturber, a plugin for instance. Candidates that change anything but the words they may change, and the
// space between such words, are rejected and counted under "outside-allowed-words".
type By struct {
	Perturber Perturber
	// Max is the largest number of candidates asked for per request (default 32).
	Max int
	// Optional goes on without the perturber for the rest of an example when it fails, and counts that under "NAME failed"; otherwise a failure
	// ends the run.
	Optional bool
}

func (b By) Name() string { return b.Perturber.Name() }

func (b By) Apply(t *Task, x *Text, words []int) ([]*Text, error) {
	n := b.Max
	if n <= 0 {
		n = 32
	}
	t.step++
	if t.failed[b.Name()] {
		return nil, nil
	}
	o := &op{kind: opPerturb, by: b.Perturber, req: Request{
		Text: x.S, Words: x.Spans, May: words, Max: n, Label: t.Label, Labels: t.run.labels, Seed: mix(t.seed, t.step), Params: t.params,
	}}
	if err := t.ask(o); err != nil {
		if !b.Optional || errors.Is(err, errStopped) || t.run.ctx.Err() != nil {
			return nil, err
		}
		if t.failed == nil {
			t.failed = map[string]bool{}
		}
		t.failed[b.Name()] = true
		t.rejected(b.Name()+" failed", 1)
		t.run.complain(b.Name(), err)
		return nil, nil
	}
	out := make([]*Text, 0, len(o.out))
	for _, s := range o.out {
		if !utf8.ValidString(s) || !within(x, words, s) {
			t.rejected("outside-allowed-words", 1)
			continue
		}
		out = append(out, x.align(s))
	}
	if n < len(out) {
		out = out[:n]
	}
	return out, nil
}

// within tells whether s can be had from x by rewriting only the given words and the white space between two of them that are neighbours.
func within(x *Text, words []int, s string) bool {
	may := make([]bool, x.Len())
	for _, i := range words {
		may[i] = true
	}
	var fixed []string // pieces that must stay, in order; anything may stand between two of them
	from := 0
	for i := 0; i < x.Len(); i++ {
		if !may[i] {
			continue
		}
		fixed = append(fixed, x.S[from:x.Spans[i].Start])
		for i+1 < x.Len() && may[i+1] && strings.TrimSpace(x.S[x.Spans[i].End:x.Spans[i+1].Start]) == "" {
			i++
		}
		from = x.Spans[i].End
	}
	fixed = append(fixed, x.S[from:])
	if len(fixed) == 1 {
		return s == fixed[0]
	}
	first, last := fixed[0], fixed[len(fixed)-1]
	if !strings.HasPrefix(s, first) {
		// A deleted first or last word may take the space beside it along.
		first = strings.TrimRight(first, " ")
	}
	if !strings.HasSuffix(s, last) {
		last = strings.TrimLeft(last, " ")
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, f := range fixed[1 : len(fixed)-1] {
		k := strings.Index(s, f)
		if k < 0 {
			return false
		}
		s = s[k+len(f):]
	}
	return true
}

// Within tells whether candidate can be had from text by rewriting only the words of may (all when nil) and the white space between two
// such words that are neighbours: what a Perturber keeps to.
func Within(text string, words []Span, may []int, candidate string) bool {
	q := Request{Text: text, Words: words, May: may}
	x := requestText(q)
	return within(x, allowedWords(q, x), candidate)
}
