package attack

import (
	"context"
	"errors"
	"fmt"
)

// errStopped unwinds a search whose run was cancelled.
var errStopped = errors.New("attack stopped")

// Scored is a text with the victim's answer.
type Scored struct {
	*Text
	Scores []float32
	// Value is the goal's score, Won whether the goal is reached.
	Value float32
	Won   bool
}

// opKind says what a search waits for. Waiting searches of the same kind are answered by one batched call.
type opKind int

const (
	opScore opKind = iota
	opEmbed
	opPerturb
	opFill
	opImportance
	opNearest
	opFlips
	opGains
)

// op is one question of a search and its answer.
type op struct {
	kind   opKind
	task   *Task
	texts  []string
	spans  []Span
	n      int
	by     Perturber
	req    Request
	edits  []Edit
	rows   [][]float32   // opScore, opEmbed; opImportance and opGains in rows[0]
	out    []string      // opPerturb, opNearest
	filled [][]Candidate // opFill, opFlips: one list per span
	err    error
}

// Task is one example under attack: what a Search works with. Its questions to the victim are batched with those of other examples.
type Task struct {
	Original *Text
	Label    int

	example Example
	run     *run
	recipe  *Recipe
	goal    Goal
	budget  int
	seed    uint64
	step    uint64
	queries int
	over    bool
	yield   func(*op) bool
	base    Scored
	used    string // the stage of an escalating search that won
	err     error
	reject  map[string]int
	params  map[string]string
	failed  map[string]bool // optional perturbers that failed on this example
}

// Queries is the number of texts asked of the victim so far for this example; a text answered from the cache counts, as in TextAttack.
func (t *Task) Queries() int { return t.queries }

// Over tells that the query budget is used up.
func (t *Task) Over() bool { return t.over }

// Base is the untouched text.
func (t *Task) Base() Scored { return t.base }

// Rand returns a fresh generator for the next random decision: it depends on the run's seed, the text and the number of decisions before.
func (t *Task) Rand() *Rand {
	t.step++
	return NewRand(mix(t.seed, t.step))
}

func (t *Task) ask(o *op) error {
	o.task = t
	if !t.yield(o) {
		return errStopped
	}
	return o.err
}

// Evaluate scores candidates in order. When the budget does not suffice for all of them, only as many as it allows are scored, and Over
// is true from then on.
func (t *Task) Evaluate(texts []*Text) ([]Scored, error) {
	if t.budget > 0 {
		left := max(0, t.budget-t.queries)
		if len(texts) > left {
			texts = texts[:left]
		}
	}
	t.queries += len(texts)
	t.over = t.budget > 0 && t.queries >= t.budget
	if len(texts) == 0 {
		return nil, nil
	}
	o := &op{kind: opScore, texts: make([]string, len(texts))}
	for i, x := range texts {
		o.texts[i] = x.S
	}
	if err := t.ask(o); err != nil {
		return nil, err
	}
	out := make([]Scored, len(texts))
	for i, x := range texts {
		out[i] = Scored{Text: x, Scores: o.rows[i], Value: t.goal.Score(o.rows[i], t.Label), Won: t.goal.Reached(o.rows[i], t.Label)}
	}
	return out, nil
}

// Embed returns sentence embeddings from the run's encoder.
func (t *Task) Embed(texts []string) ([][]float32, error) {
	o := &op{kind: opEmbed, texts: texts}
	err := t.ask(o)
	return o.rows, err
}

// Fill returns candidates for each span, taken alone, of x.
func (t *Task) Fill(x *Text, spans []Span, n int) ([][]Candidate, error) {
	o := &op{kind: opFill, texts: []string{x.S}, spans: spans, n: n}
	err := t.ask(o)
	return o.filled, err
}

// Importance returns the gradient norm of each word of x. It counts as one query; without the
// budget for it the answer is zero.
func (t *Task) Importance(x *Text) ([]float32, error) {
	o := &op{kind: opImportance, texts: []string{x.S}, spans: x.Spans}
	if !t.spend(1) {
		return make([]float32, len(x.Spans)), nil
	}
	if err := t.ask(o); err != nil {
		return nil, err
	}
	return o.rows[0], nil
}

// Gains estimates from gradients what each edit of x does to the score of the class under attack (see GuideVictim). Each pass through the
// model counts as one query.
func (t *Task) Gains(x *Text, edits []Edit) ([]float32, error) {
	passes := 1
	if g, ok := t.run.victim.(GuideVictim); ok {
		passes = g.Passes()
	}
	if len(edits) == 0 || !t.spend(passes) {
		return make([]float32, len(edits)), nil
	}
	o := &op{kind: opGains, texts: []string{x.S}, edits: edits}
	if err := t.ask(o); err != nil {
		return nil, err
	}
	return o.rows[0], nil
}

// spend counts queries that are no texts to score. It tells whether the budget has them.
func (t *Task) spend(n int) bool {
	if t.budget > 0 && t.queries+n > t.budget {
		t.over = true
		return false
	}
	t.queries += n
	t.over = t.budget > 0 && t.queries >= t.budget
	return true
}

// Nearest returns up to n words near word in embedding space or in the lexicon.
func (t *Task) Nearest(word string, n int) ([]string, error) {
	o := &op{kind: opNearest, texts: []string{word}, n: n}
	err := t.ask(o)
	return o.out, err
}

// Flips returns per span the words whose substitution raises the loss most to first order. It counts as one query.
func (t *Task) Flips(x *Text, spans []Span, n int) ([][]Candidate, error) {
	if !t.spend(1) {
		return make([][]Candidate, len(spans)), nil
	}
	o := &op{kind: opFlips, texts: []string{x.S}, spans: spans, n: n}
	err := t.ask(o)
	return o.filled, err
}

// May lists the words of x that the constraints let an attack touch, from among those given (all when nil), ascending.
func (t *Task) May(x *Text, from []int) []int {
	if from == nil {
		from = make([]int, x.Len())
		for i := range from {
			from[i] = i
		}
	}
	for _, c := range t.recipe.Constraints {
		p, ok := c.(WordConstraint)
		if !ok {
			continue
		}
		kept := make([]int, 0, len(from))
		for _, i := range from {
			if p.May(x, i) {
				kept = append(kept, i)
			}
		}
		t.rejected(p.Name(), len(from)-len(kept))
		from = kept
	}
	return from
}

// Candidates applies the recipe's transformation to the given words of x (all when nil) and keeps what the constraints allow, without x
// itself and without duplicates, ordered by text.
func (t *Task) Candidates(x *Text, words []int) ([]*Text, error) {
	may := t.May(x, words)
	if len(may) == 0 {
		return nil, nil
	}
	made, err := t.recipe.Transformation.Apply(t, x, may)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{x.S: true}
	cands := make([]*Text, 0, len(made))
	for _, c := range made {
		if !seen[c.S] {
			seen[c.S] = true
			cands = append(cands, c)
		}
	}
	cands, err = t.Filter(cands, x)
	if err != nil {
		return nil, err
	}
	sortTexts(cands)
	return cands, nil
}

// Filter keeps the candidates, made from x, that satisfy every constraint on whole texts.
func (t *Task) Filter(cands []*Text, x *Text) ([]*Text, error) {
	for _, c := range t.recipe.Constraints {
		p, ok := c.(TextConstraint)
		if !ok {
			continue
		}
		if len(cands) == 0 {
			return nil, nil
		}
		ok2, err := p.Allow(t, cands, x)
		if err != nil {
			return nil, fmt.Errorf("constraint %s: %w", p.Name(), err)
		}
		kept := cands[:0:0]
		for i, y := range ok2 {
			if y {
				kept = append(kept, cands[i])
			}
		}
		t.rejected(p.Name(), len(cands)-len(kept))
		cands = kept
	}
	return cands, nil
}

func (t *Task) rejected(by string, n int) {
	if n > 0 {
		t.reject[by] += n
	}
}

// Search looks for a text that reaches the goal. It returns the best text found, reached or not.
type Search interface {
	Name() string
	Run(t *Task) (Scored, error)
}

// Transformation makes candidates from a text by changing the given words, one at a time unless its doc says otherwise.
type Transformation interface {
	Name() string
	Apply(t *Task, x *Text, words []int) ([]*Text, error)
}

type taskKey struct{}

// ForRequest marks ctx as working on request i of the batch given to Perturb, so that what a perturber asks of its victim counts towards the
// right example's budget. A perturber that never does so has its questions counted for the batch's first request.
func ForRequest(ctx context.Context, i int) context.Context {
	return context.WithValue(ctx, taskKey{}, i)
}

// ErrBudget is what a perturber's question to the victim gets once the example's query budget is used up.
var ErrBudget = errors.New("query budget is used up")
