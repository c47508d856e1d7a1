package attack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lexicon maps lower-case words to words that may stand for them, best first.
type Lexicon map[string][]string

// ReadLexicon reads lines "word<TAB>neighbour neighbour …".
func ReadLexicon(r io.Reader) (Lexicon, error) {
	l := Lexicon{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		word, rest, ok := strings.Cut(s.Text(), "\t")
		if s.Text() == "" {
			continue
		}
		if !ok || !utf8.ValidString(s.Text()) {
			return nil, fmt.Errorf("lexicon line %d: expected word, tab, neighbours in UTF-8, got %.40q", n, s.Text())
		}
		word = strings.ToLower(strings.TrimSpace(word))
		for _, w := range strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
			if strings.IndexFunc(w, unicode.IsLetter) >= 0 { // files may carry similarities beside the words
				l[word] = append(l[word], w)
			}
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("lexicon: %w", err)
	}
	return l, nil
}

// Nearest returns the first n neighbours.
func (l Lexicon) Nearest(_ context.Context, word string, n int) ([]string, error) {
	list := l[strings.ToLower(word)]
	return slices.Clone(list[:min(n, len(list))]), nil
}

// matchCase gives w the capitals of like.
func matchCase(w, like string) string {
	upper := 0
	for _, r := range like {
		if unicode.IsUpper(r) {
			upper++
		}
	}
	first, _ := utf8.DecodeRuneInString(like)
	switch {
	case upper > 1 && upper == utf8.RuneCountInString(like):
		return strings.ToUpper(w)
	case unicode.IsUpper(first):
		r, n := utf8.DecodeRuneInString(w)
		return string(unicode.ToUpper(r)) + w[n:]
	}
	return w
}

// Synonyms replaces a word by up to N near ones, from a lexicon or the victim's embedding space.
type Synonyms struct{ N int }

func (s Synonyms) Name() string { return fmt.Sprintf("synonyms:%d", s.N) }

func (s Synonyms) Apply(t *Task, x *Text, words []int) ([]*Text, error) {
	var out []*Text
	for _, i := range words {
		near, err := t.Nearest(x.Word(i), s.N)
		if err != nil {
			return nil, err
		}
		for _, w := range near[:min(len(near), s.N)] {
			if w != "" && !strings.EqualFold(w, x.Word(i)) {
				out = append(out, x.Replace(i, matchCase(w, x.Word(i))))
			}
		}
	}
	return out, nil
}

// Perturb makes substitutions of each request with the words that the victim finds near.
func (s Synonyms) Perturb(ctx context.Context, reqs []Request, v Victim) ([][]string, error) {
	near, ok := v.(interface {
		Nearest(ctx context.Context, word string, n int) ([]string, error)
	})
	if !ok {
		return nil, fmt.Errorf("%s: the victim has no word embeddings", s.Name())
	}
	return perturbWords(reqs, func(word string) ([]string, error) { return near.Nearest(ctx, word, s.N) })
}

// FromLexicon makes a Perturber and a Transformation of a lexicon.
func FromLexicon(l Lexicon, n int) WordSwap {
	return WordSwap{Label: fmt.Sprintf("lexicon:%d", n), Variants: func(word string, _ *Rand) []string {
		list := l[strings.ToLower(word)]
		out := make([]string, 0, n)
		for _, w := range list[:min(n, len(list))] {
			out = append(out, matchCase(w, word))
		}
		return out
	}}
}

func perturbWords(reqs []Request, variants func(word string) ([]string, error)) ([][]string, error) {
	out := make([][]string, len(reqs))
	for k, q := range reqs {
		x := requestText(q)
		var made []*Text
		for _, i := range allowedWords(q, x) {
			list, err := variants(x.Word(i))
			if err != nil {
				return nil, err
			}
			for _, w := range list {
				if w != "" && !strings.EqualFold(w, x.Word(i)) {
					made = append(made, x.Replace(i, matchCase(w, x.Word(i))))
				}
			}
		}
		out[k] = sample(made, q.Max, NewRand(mix(q.Seed, hashText(q.Text))))
	}
	return out, nil
}

// MaskedReplace replaces a word by what a masked language model puts in its place (Garg and Ramakrishnan 2020, Li et al. 2020).
type MaskedReplace struct {
	N    int
	MinP float32
}

func (m MaskedReplace) Name() string { return fmt.Sprintf("masked-replace:%d", m.N) }

func (m MaskedReplace) Apply(t *Task, x *Text, words []int) ([]*Text, error) {
	return masked(t, x, words, m.N, m.MinP, func(i int) Span { return x.Spans[i] }, func(i int, w string) *Text {
		if strings.EqualFold(w, x.Word(i)) {
			return nil
		}
		return x.Replace(i, matchCase(w, x.Word(i)))
	})
}

// MaskedInsert puts a predicted word after a word (Li et al. 2021).
type MaskedInsert struct {
	N    int
	MinP float32
}

func (m MaskedInsert) Name() string { return fmt.Sprintf("masked-insert:%d", m.N) }

func (m MaskedInsert) Apply(t *Task, x *Text, words []int) ([]*Text, error) {
	return masked(t, x, words, m.N, m.MinP, func(i int) Span { return Span{x.Spans[i].End, x.Spans[i].End} },
		func(i int, w string) *Text { return x.Replace(i, x.Word(i)+" "+w) })
}

// MaskedMerge replaces a word and its successor by one predicted word (Li et al. 2021).
type MaskedMerge struct {
	N    int
	MinP float32
}

func (m MaskedMerge) Name() string { return fmt.Sprintf("masked-merge:%d", m.N) }

func (m MaskedMerge) Apply(t *Task, x *Text, words []int) ([]*Text, error) {
	var pairs []int
	for _, i := range words {
		if i+1 < x.Len() && strings.TrimSpace(x.S[x.Spans[i].End:x.Spans[i+1].Start]) == "" && slices.Contains(words, i+1) {
			pairs = append(pairs, i)
		}
	}
	return masked(t, x, pairs, m.N, m.MinP, func(i int) Span { return Span{x.Spans[i].Start, x.Spans[i+1].End} },
		func(i int, w string) *Text { return x.Replace(i+1, "").Replace(i, w) })
}

func masked(t *Task, x *Text, words []int, n int, minP float32, at func(int) Span, put func(int, string) *Text) ([]*Text, error) {
	if len(words) == 0 {
		return nil, nil
	}
	spans := make([]Span, len(words))
	for k, i := range words {
		spans[k] = at(i)
	}
	lists, err := t.Fill(x, spans, n)
	if err != nil {
		return nil, err
	}
	var out []*Text
	for k, i := range words {
		for _, c := range lists[k][:min(n, len(lists[k]))] {
			if c.P < minP || len(Words(c.Text)) != 1 {
				continue
			}
			if y := put(i, c.Text); y != nil {
				out = append(out, y)
			}
		}
	}
	return out, nil
}

// Flip replaces a word by the N words that raise the loss most to first order (Ebrahimi et al. 2018).
type Flip struct{ N int }

func (f Flip) Name() string { return fmt.Sprintf("flip:%d", f.N) }

func (f Flip) Apply(t *Task, x *Text, words []int) ([]*Text, error) {
	if len(words) == 0 {
		return nil, nil
	}
	spans := make([]Span, len(words))
	for k, i := range words {
		spans[k] = x.Spans[i]
	}
	lists, err := t.Flips(x, spans, f.N)
	if err != nil {
		return nil, err
	}
	var out []*Text
	for k, i := range words {
		for _, c := range lists[k][:min(f.N, len(lists[k]))] {
			if len(Words(c.Text)) == 1 && !strings.EqualFold(c.Text, x.Word(i)) {
				out = append(out, x.Replace(i, matchCase(c.Text, x.Word(i))))
			}
		}
	}
	return out, nil
}

// RemoveWord deletes a word.
type RemoveWord struct{}

func (RemoveWord) Name() string { return "remove-word" }
func (RemoveWord) Apply(_ *Task, x *Text, words []int) ([]*Text, error) {
	var out []*Text
	for _, i := range words {
		out = append(out, x.Replace(i, ""))
	}
	return out, nil
}

// Prepend puts fixed words before the text: a universal trigger.
type Prepend struct{ Words []string }

func (p Prepend) Name() string { return "prepend" }
func (p Prepend) Apply(_ *Task, x *Text, _ []int) ([]*Text, error) {
	if len(p.Words) == 0 {
		return nil, nil
	}
	return []*Text{x.align(strings.Join(p.Words, " ") + " " + x.S)}, nil
}
