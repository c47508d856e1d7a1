package attack

import (
	"math"
	"slices"
)

// Ranking says how a greedy search orders the words.
type Ranking string

// Rankings. Unk replaces each word by "[UNK]", Delete removes it, Saliency weighs the drop by the best substitution (Ren et al. 2019),
// Gradient asks the victim for gradient norms, Random shuffles.
const (
	Unk      Ranking = "unk"
	Delete   Ranking = "delete"
	Saliency Ranking = "weighted-saliency"
	Gradient Ranking = "gradient"
	Random   Ranking = "random"
)

// GreedyRanked changes one word after another in order of importance and keeps each change that raises the score (Jin et al. 2019).
type GreedyRanked struct {
	By Ranking
	// Similarity, when set, picks among several winning candidates the one closest to the original in sentence embedding.
	Similarity bool
}

func (g GreedyRanked) Name() string { return "greedy:" + string(g.By) }

func (g GreedyRanked) Run(t *Task) (Scored, error) {
	order, err := g.rank(t)
	if err != nil || t.Over() {
		return t.base, err
	}
	cur := t.base
	for _, i := range order {
		// i counts the original's words; earlier changes may have moved it.
		at := cur.Origin[i]
		if at < 0 || at >= cur.Len() {
			continue
		}
		cands, err := t.Candidates(cur.Text, []int{at})
		if err != nil {
			return cur, err
		}
		if len(cands) == 0 {
			continue
		}
		results, err := t.Evaluate(cands)
		if err != nil {
			return cur, err
		}
		sortScored(results)
		if len(results) > 0 && results[0].Value > cur.Value {
			cur = results[0]
			if cur.Won {
				if g.Similarity {
					return closest(t, results)
				}
				return cur, nil
			}
		}
		if t.Over() {
			break
		}
	}
	return cur, nil
}

// closest picks, of the results that won, the one whose embedding is closest to the original's.
func closest(t *Task, results []Scored) (Scored, error) {
	n := 0
	for n < len(results) && results[n].Won {
		n++
	}
	if n == 1 {
		return results[0], nil
	}
	texts := []string{t.Original.S}
	for _, r := range results[:n] {
		texts = append(texts, r.S)
	}
	rows, err := t.Embed(texts)
	if err != nil {
		return results[0], err
	}
	best, at := math.Inf(-1), 0
	for i := range n {
		if c := Cosine(rows[0], rows[i+1]); c > best {
			best, at = c, i
		}
	}
	return results[at], nil
}

func sortScored(s []Scored) {
	slices.SortStableFunc(s, func(a, b Scored) int {
		switch {
		case a.Value > b.Value:
			return -1
		case a.Value < b.Value:
			return 1
		}
		return 0
	})
}

// rank returns the words that may change, most important first.
func (g GreedyRanked) rank(t *Task) ([]int, error) {
	x := t.Original
	may := t.May(x, nil)
	weight := make([]float64, len(may))
	switch g.By {
	case Random:
		t.Rand().Shuffle(len(may), func(i, j int) { may[i], may[j] = may[j], may[i] })
		return may, nil
	case Gradient:
		if len(may) == 0 {
			return nil, nil
		}
		all, err := t.Importance(x)
		if err != nil {
			return nil, err
		}
		for k, i := range may {
			weight[k] = float64(all[i])
		}
	case Delete, Unk, Saliency, "":
		with := "[UNK]"
		if g.By == Delete {
			with = ""
		}
		without := make([]*Text, len(may))
		for k, i := range may {
			without[k] = x.Replace(i, with)
		}
		results, err := t.Evaluate(without)
		if err != nil {
			return nil, err
		}
		may, weight = may[:len(results)], weight[:len(results)]
		for k, r := range results {
			weight[k] = float64(r.Value)
		}
		if g.By == Saliency {
			if err := g.weigh(t, may, weight); err != nil {
				return nil, err
			}
		}
	}
	order := make([]int, len(may))
	for k := range order {
		order[k] = k
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case weight[a] > weight[b]:
			return -1
		case weight[a] < weight[b]:
			return 1
		}
		return 0
	})
	for k, o := range order {
		order[k] = may[o]
	}
	return order, nil
}

// weigh multiplies the softmax of saliency by the best score that a substitution of the word reaches.
func (g GreedyRanked) weigh(t *Task, may []int, weight []float64) error {
	top, sum := math.Inf(-1), 0.0
	for _, w := range weight {
		top = max(top, w)
	}
	for k, w := range weight {
		weight[k] = math.Exp(w - top)
		sum += weight[k]
	}
	for k, i := range may {
		best := 0.0
		if !t.Over() {
			cands, err := t.Candidates(t.Original, []int{i})
			if err != nil {
				return err
			}
			results, err := t.Evaluate(cands)
			if err != nil {
				return err
			}
			for _, r := range results {
				best = max(best, float64(r.Value))
			}
		}
		weight[k] *= best / sum
	}
	return nil
}

// Beam keeps the Width best texts and changes one more word of each in every round until one wins, none has candidates left, or the budget
// ends. Width 1 is the greedy search over all words.
type Beam struct{ Width int }

func (b Beam) Name() string { return "beam" }

func (b Beam) Run(t *Task) (Scored, error) {
	beam, best := []*Text{t.Original}, t.base
	for !best.Won {
		var next []*Text
		seen := map[string]bool{}
		for _, x := range beam {
			cands, err := t.Candidates(x, nil)
			if err != nil {
				return best, err
			}
			for _, c := range cands {
				if !seen[c.S] {
					seen[c.S] = true
					next = append(next, c)
				}
			}
		}
		results, err := t.Evaluate(next)
		if err != nil {
			return best, err
		}
		if len(results) == 0 {
			break
		}
		sortScored(results)
		if results[0].Value > best.Value || results[0].Won {
			best = results[0]
		}
		if t.Over() {
			break
		}
		beam = beam[:0:0]
		for _, r := range results[:min(max(1, b.Width), len(results))] {
			beam = append(beam, r.Text)
		}
	}
	return best, nil
}

// Reduce removes the least important words, one at a time, while the prediction stays the same (Feng et al. 2018).
type Reduce struct{}

func (Reduce) Name() string { return "input-reduction" }

func (Reduce) Run(t *Task) (Scored, error) {
	order, err := GreedyRanked{By: Delete}.rank(t) // by score of the label without the word: the least needed first
	if err != nil {
		return t.base, err
	}
	cur := t.base
	for _, i := range order {
		if t.Over() {
			break
		}
		at := cur.Origin[i]
		if at < 0 || cur.Len() <= 1 {
			continue
		}
		cands, err := t.Candidates(cur.Text, []int{at})
		if err != nil {
			return cur, err
		}
		results, err := t.Evaluate(cands)
		if err != nil {
			return cur, err
		}
		if len(results) > 0 && Argmax(results[0].Scores) == Argmax(t.base.Scores) {
			cur = results[0]
			cur.Won = true
		}
	}
	return cur, nil
}

// Once evaluates all candidates of one application of the transformation and returns the best.
type Once struct{}

func (Once) Name() string { return "once" }

func (Once) Run(t *Task) (Scored, error) {
	cands, err := t.Candidates(t.Original, nil)
	if err != nil {
		return t.base, err
	}
	results, err := t.Evaluate(cands)
	if err != nil || len(results) == 0 {
		return t.base, err
	}
	sortScored(results)
	for _, r := range results {
		if r.Won {
			return r, nil
		}
	}
	if results[0].Value > t.base.Value {
		return results[0], nil
	}
	return t.base, nil
}
