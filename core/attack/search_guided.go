package attack

import (
	"math"
	"slices"
)

// Guided is the greedy search with gradients in place of the ranking's queries, and of most queries for candidates: the victim estimates what every
// candidate for every word of the original does to first order, words are tried in the order of their best candidate, and only the Keep most
// promising candidates of each are scored. It needs a GuideVictim and a transformation that changes one word at a time.
type Guided struct{ Keep int }

func (Guided) Name() string { return "guided" }

// guidedWord is a word of the original with what may replace it, the most promising first.
type guidedWord struct {
	at   int
	best float32
	with []string
}

func (g Guided) Run(t *Task) (Scored, error) {
	words, err := g.plan(t)
	cur := t.base
	if err != nil {
		return cur, err
	}
	for _, w := range words {
		if t.Over() {
			break
		}
		at := cur.Origin[w.at]
		if at < 0 || at >= cur.Len() || len(t.May(cur.Text, []int{at})) == 0 {
			continue
		}
		cands := make([]*Text, 0, len(w.with))
		for _, to := range w.with {
			if to != cur.Word(at) {
				cands = append(cands, cur.Replace(at, to))
			}
		}
		if cands, err = t.Filter(cands, cur.Text); err != nil {
			return cur, err
		}
		sortTexts(cands)
		results, err := t.Evaluate(cands)
		if err != nil {
			return cur, err
		}
		sortScored(results)
		if len(results) > 0 && results[0].Value > cur.Value {
			if cur = results[0]; cur.Won {
				return cur, nil
			}
		}
	}
	return cur, nil
}

// plan makes the candidates of all words and orders them by gain.
func (g Guided) plan(t *Task) ([]guidedWord, error) {
	x := t.Original
	var words []guidedWord
	var edits []Edit
	for _, i := range t.May(x, nil) {
		cands, err := t.Candidates(x, []int{i})
		if err != nil {
			return nil, err
		}
		at, w := x.Spans[i], guidedWord{at: i}
		for _, c := range cands {
			// A candidate is the original but for word i; what stands there now may be several words or none.
			if to, ok := replaced(x.S, c.S, at); ok {
				w.with = append(w.with, to)
				edits = append(edits, Edit{at, to})
			}
		}
		if len(w.with) > 0 {
			words = append(words, w)
		}
	}
	gains, err := t.Gains(x, edits)
	if err != nil {
		return nil, err
	}
	keep := max(1, g.Keep)
	for k := range words {
		w := &words[k]
		own := gains[:len(w.with)]
		gains = gains[len(w.with):]
		order := make([]int, len(own))
		for j := range order {
			order[j] = j
		}
		slices.SortStableFunc(order, func(a, b int) int { return falling(own[a], own[b]) })
		best := make([]string, 0, keep)
		for _, j := range order[:min(keep, len(order))] {
			best = append(best, w.with[j])
		}
		w.with, w.best = best, own[order[0]]
	}
	slices.SortStableFunc(words, func(a, b guidedWord) int { return falling(a.best, b.best) })
	return words, nil
}

// falling orders large values first and those that are not numbers last.
func falling(a, b float32) int {
	key := func(v float32) float64 {
		if math.IsNaN(float64(v)) {
			return math.Inf(-1)
		}
		return float64(v)
	}
	switch x, y := key(a), key(b); {
	case x > y:
		return -1
	case x < y:
		return 1
	}
	return 0
}

// replaced returns what stands in y where x has the span at, when nothing else differs.
func replaced(x, y string, at Span) (string, bool) {
	tail := len(x) - at.End
	if len(y) < at.Start+tail || y[:at.Start] != x[:at.Start] || y[len(y)-tail:] != x[at.End:] {
		return "", false
	}
	return y[at.Start : len(y)-tail], true
}
