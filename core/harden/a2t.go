package harden

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/train"
)

// A2T trains on texts whose words were replaced by the worst of their synonyms, found anew for each batch (Yoo & Qi, Findings of EMNLP
// 2021): words ranked by the norm of the loss's gradient at their embeddings, changed greedily, at most Rate of them. The loss is the mean
// over texts and adversarial copies.
//
// It departs from the paper where that keeps a step cheap: the synonyms of a word are ranked by the gradient too (its product with the
// difference of embeddings) and only the first Tries are scored by the model; there is no sentence encoder among the constraints; copies
// are made batch by batch instead of once per epoch.
type A2T struct {
	// Share is the part of the texts that get an adversarial copy.
	Share float64
	Rate  float64
	// Synonyms is the number of neighbours looked at per word, Tries those that the model scores.
	Synonyms, Tries int
	Words           attack.Neighbours
	Inner           train.Objective
	Observe         func(text, copied string, before, after float64)
}

// NewA2T returns the method with the paper's rate, and a third of the texts copied.
func NewA2T(words attack.Neighbours) *A2T {
	return &A2T{Share: 0.35, Rate: 0.15, Synonyms: 12, Tries: 3, Words: words, Inner: train.Plain{}}
}

// Micro implements train.Objective.
func (m *A2T) Micro(ctx context.Context, s *train.Step) (float64, error) {
	if m.Words == nil {
		return 0, errors.New("a2t: no synonyms given")
	}
	if s.Tokens == nil || s.Encode == nil {
		return 0, errors.New("a2t: the step cannot tokenize")
	}
	r := rand.New(rand.NewPCG(s.Seed, 0xa27))
	var from []int
	for i, e := range s.Examples {
		if e.Text != "" && e.Types == nil && e.Targets == nil && r.Float64() < m.Share {
			from = append(from, i)
		}
	}
	if len(from) == 0 {
		return m.Inner.Micro(ctx, s)
	}
	copies, err := m.attack(ctx, s, from)
	if err != nil {
		return 0, fmt.Errorf("a2t: %w", err)
	}
	t := *s
	n := len(s.Examples)
	t.Examples = append(append(make([]train.Example, 0, n+len(from)), s.Examples...), copies...)
	t.Weight = s.Weight * float64(n+len(from)) / float64(n)
	t.Passes++
	loss, err := m.Inner.Micro(ctx, &t)
	s.Passes = t.Passes
	return loss, err
}

// victim is a text under attack.
type victim struct {
	text  string
	order []int // words, the most telling first
	best  train.Example
	loss  float64
	begun float64
}

// attack makes the copies: rounds over all texts at once, one word each, every candidate of a round in one forward.
func (m *A2T) attack(ctx context.Context, s *train.Step, from []int) ([]train.Example, error) {
	examples := make([]train.Example, len(from))
	for i, j := range from {
		examples[i] = s.Examples[j]
	}
	p := newPasses(s, examples)
	if p.cols == 0 {
		return nil, errors.New("the model has no word-embedding table")
	}
	held := p.hold()
	_, g, err := p.run("gradient", nil, false)
	p.release(held)
	if err != nil {
		return nil, err
	}
	losses, err := exampleLosses(s, examples)
	if err != nil {
		return nil, err
	}
	victims := make([]*victim, len(examples))
	slopes := make([]map[int][]float32, len(examples)) // per word: the sum of the gradients at its tokens
	rounds := 0
	for i, e := range examples {
		v := &victim{text: e.Text, best: e, loss: losses[i], begun: losses[i]}
		victims[i] = v
		enc, err := s.Tokens(e.Text)
		if err != nil {
			return nil, err
		}
		words := attack.Words(e.Text)
		slopes[i] = map[int][]float32{}
		norm := make([]float64, len(words))
		start, end := int(p.batch.Offsets[i]), int(p.batch.Offsets[i+1])
		at := 0
		for t := 0; t < enc.Len() && start+t < end; t++ {
			if enc.SpecialMask[t] == 1 {
				continue
			}
			for at < len(words) && words[at].End <= enc.Offsets[t].Start {
				at++
			}
			if at == len(words) {
				break
			}
			if enc.Offsets[t].End <= words[at].Start {
				continue
			}
			row := g[(start+t)*p.cols : (start+t+1)*p.cols]
			if slopes[i][at] == nil {
				slopes[i][at] = make([]float32, p.cols)
			}
			add(slopes[i][at], row)
			norm[at] += s.K.SumSquares(row)
		}
		for w := range words {
			if slopes[i][w] != nil {
				v.order = append(v.order, w)
			}
		}
		slices.SortStableFunc(v.order, func(a, b int) int {
			switch {
			case norm[a] > norm[b]:
				return -1
			case norm[a] < norm[b]:
				return 1
			}
			return 0
		})
		v.order = v.order[:min(len(v.order), int(math.Ceil(m.Rate*float64(len(words)))))]
		rounds = max(rounds, len(v.order))
	}
	table := wordTable(s.Model)
	for round := range rounds {
		var candidates []train.Example
		var owner []int
		for i, v := range victims {
			if round >= len(v.order) {
				continue
			}
			w := v.order[round]
			span := attack.Words(v.best.Text)
			if w >= len(span) { // a synonym of several words moved the places: it keeps what it has
				continue
			}
			word := v.best.Text[span[w].Start:span[w].End]
			near, err := m.Words.Nearest(ctx, word, m.Synonyms)
			if err != nil {
				return nil, err
			}
			tries, err := m.rank(s, table.Values(), p.cols, near, slopes[i][w])
			if err != nil {
				return nil, err
			}
			for _, c := range tries {
				text := v.best.Text[:span[w].Start] + likeCase(c, word) + v.best.Text[span[w].End:]
				ids, err := s.Encode(text)
				if err != nil {
					return nil, err
				}
				e := v.best
				e.Text, e.IDs = text, ids
				candidates, owner = append(candidates, e), append(owner, i)
			}
		}
		if len(candidates) == 0 {
			continue
		}
		losses, err := exampleLosses(s, candidates)
		if err != nil {
			return nil, err
		}
		for k, l := range losses {
			if v := victims[owner[k]]; l > v.loss {
				v.best, v.loss = candidates[k], l
			}
		}
	}
	out := make([]train.Example, len(victims))
	for i, v := range victims {
		out[i] = v.best
		if m.Observe != nil {
			m.Observe(v.text, v.best.Text, v.begun, v.loss)
		}
	}
	return out, nil
}

// rank returns the Tries words with the largest product of the gradient and their embedding (the mean over their pieces).
func (m *A2T) rank(s *train.Step, table []float32, cols int, words []string, g []float32) ([]string, error) {
	type scored struct {
		w string
		x float64
	}
	list := make([]scored, 0, len(words))
	for _, w := range words {
		enc, err := s.Tokens(w)
		if err != nil {
			return nil, err
		}
		var sum float64
		n := 0
		for i, id := range enc.IDs {
			if enc.SpecialMask[i] == 0 && (int(id)+1)*cols <= len(table) {
				sum += float64(s.K.Dot(g, table[int(id)*cols:(int(id)+1)*cols]))
				n++
			}
		}
		if n > 0 {
			list = append(list, scored{w, sum / float64(n)})
		}
	}
	slices.SortStableFunc(list, func(a, b scored) int {
		switch {
		case a.x > b.x:
			return -1
		case a.x < b.x:
			return 1
		}
		return 0
	})
	out := make([]string, 0, m.Tries)
	for _, x := range list[:min(m.Tries, len(list))] {
		out = append(out, x.w)
	}
	return out, nil
}

// likeCase gives a word the first capital of another.
func likeCase(w, like string) string {
	first, _ := utf8.DecodeRuneInString(like)
	if w == "" || !unicode.IsUpper(first) {
		return w
	}
	r, n := utf8.DecodeRuneInString(w)
	return string(unicode.ToUpper(r)) + w[n:]
}
