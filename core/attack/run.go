package attack

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Example is a text with its true class. Row identifies it in the data set it came from.
type Example struct {
	Row   int
	Text  string
	Label int
}

// Encoder embeds texts.
type Encoder interface {
	Embed(ctx context.Context, texts []string) ([][]float32, error)
}

// Neighbours finds words that may stand for another.
type Neighbours interface {
	Nearest(ctx context.Context, word string, n int) ([]string, error)
}

// Masker predicts words for a masked span.
type Masker interface {
	Fill(ctx context.Context, text string, at Span, n int) ([]Candidate, error)
}

// Options of a run. The zero value is usable.
type Options struct {
	Seed uint64
	// Budget is the largest number of texts asked per example, the untouched one included; 0 is no limit.
	Budget int
	// Batch is the largest number of texts in one call of the victim (default 256), InFlight the number of examples searched at the same
	// time (default 64). Neither changes the outcome.
	Batch, InFlight int
	// Cache is the number of texts whose scores are remembered (default 1<<18); negative is none. It does not change the outcome.
	Cache int
	// Progress, when set, is told after every finished example and every batch. It runs on the caller's goroutine.
	Progress func(Progress)
	// Journal, when set, receives every finished example and supplies those finished by an interrupted run.
	Journal *Journal
	// Goal overrides the recipe's.
	Goal Goal
	// Encoder, Words and Masker serve constraints and transformations; when nil, the victim serves if it has the capability.
	Encoder Encoder
	Words   Neighbours
	Masker  Masker
	// Complain, when set, is told once per perturber why it failed, when the run goes on without it.
	Complain func(perturber string, err error)
	// Params are passed to plugins.
	Params map[string]string
}

// Progress of a run.
type Progress struct {
	Done, Total        int
	Skipped, Won, Held int
	Queries            int
	QueriesPerSecond   float64
	Elapsed, Left      time.Duration
}

// run is the state that all searches share.
type run struct {
	ctx    context.Context
	victim Victim
	labels []string
	opts   Options

	mu     sync.Mutex // perturbers may ask from several goroutines
	cache  *scoreCache
	blamed map[string]bool
	asked  int // texts asked, from the cache or not
	scored int // texts that the victim really scored
}

// Run attacks every example with the recipe. Wrongly classified examples are skipped. Searches of many examples are in flight at once and
// share the victim's batches; the outcome depends on the victim, the examples, the recipe, the seed and the budget only. When ctx ends, the
// report covers the examples finished so far and the error is ctx's.
func Run(ctx context.Context, victim Victim, examples []Example, recipe Recipe, opts Options) (*Report, error) {
	labels := victim.Labels()
	if len(labels) < 2 {
		return nil, fmt.Errorf("attack: the victim has %d labels, expected at least 2", len(labels))
	}
	for _, e := range examples {
		if e.Label < 0 || e.Label >= len(labels) {
			return nil, fmt.Errorf("attack: row %d has label %d, expected 0 to %d", e.Row, e.Label, len(labels)-1)
		}
	}
	if opts.Goal != nil {
		recipe.Goal = opts.Goal
	}
	if recipe.Goal == nil {
		recipe.Goal = Untargeted{}
	}
	if err := checkGoal(recipe.Goal, len(labels)); err != nil {
		return nil, err
	}
	if recipe.Transformation == nil || recipe.Search == nil {
		return nil, fmt.Errorf("attack: recipe %s has no transformation or no search", recipe.Name)
	}
	if opts.Batch <= 0 {
		opts.Batch = 256
	}
	if opts.InFlight <= 0 {
		opts.InFlight = 64
	}
	if opts.Cache == 0 {
		opts.Cache = 1 << 18
	}
	r := &run{ctx: ctx, victim: victim, labels: labels, opts: opts, cache: newScoreCache(max(0, opts.Cache))}
	if err := r.needs(recipe); err != nil {
		return nil, err
	}
	start := time.Now()
	results := make([]Result, len(examples))
	done := make([]bool, len(examples))
	var todo []int
	if err := opts.Journal.begin(recipe, opts, labels, recipe.Goal); err != nil {
		return nil, err
	}
	for i, e := range examples {
		if old, ok := opts.Journal.find(e); ok {
			results[i], done[i] = old, true
			continue
		}
		todo = append(todo, i)
	}
	if recipe.Prepare != nil && len(todo) > 0 {
		prepared, err := recipe.Prepare(ctx, victim, examples, opts)
		if err != nil {
			return nil, fmt.Errorf("attack: recipe %s: %w", recipe.Name, err)
		}
		recipe = prepared
	}

	type flight struct {
		at   int
		task *Task
		next func() (*op, bool)
		stop func()
		op   *op
	}
	var flights []*flight
	defer func() {
		for _, f := range flights {
			f.stop()
		}
	}()
	progress := func() {
		if opts.Progress == nil {
			return
		}
		p := Progress{Total: len(examples), Queries: r.asked, Elapsed: time.Since(start)}
		for i, ok := range done {
			if ok {
				p.Done++
				switch results[i].Status {
				case Skipped:
					p.Skipped++
				case Won:
					p.Won++
				case Held:
					p.Held++
				}
			}
		}
		if s := p.Elapsed.Seconds(); s > 0 {
			p.QueriesPerSecond = float64(p.Queries) / s
		}
		if fresh := len(todo) - (p.Total - p.Done); fresh > 0 {
			p.Left = time.Duration(float64(p.Elapsed) / float64(fresh) * float64(p.Total-p.Done))
		}
		opts.Progress(p)
	}
	finish := func() (*Report, error) {
		rep := newReport(recipe, opts, labels, results, done)
		rep.Seconds = time.Since(start).Seconds()
		rep.VictimTexts = r.scored
		if rep.Seconds > 0 {
			rep.QueriesPerSecond = float64(r.asked) / rep.Seconds
		}
		return rep, nil
	}
	for len(todo) > 0 || len(flights) > 0 {
		if err := ctx.Err(); err != nil {
			rep, _ := finish()
			return rep, err
		}
		for len(flights) < opts.InFlight && len(todo) > 0 {
			i := todo[0]
			todo = todo[1:]
			f := &flight{at: i, task: r.newTask(examples[i], &recipe)}
			f.next, f.stop = iter.Pull(f.task.search(&results[i]))
			flights = append(flights, f)
		}
		// Let every search go on to its next question, then answer all questions together.
		waiting := flights[:0]
		var ops []*op
		for k, f := range flights {
			o, more := f.next()
			if more {
				f.op = o
				ops = append(ops, o)
				waiting = append(waiting, f)
				continue
			}
			f.stop()
			if err := f.task.err; err != nil {
				flights = append(waiting, flights[k+1:]...)
				rep, _ := finish()
				return rep, fmt.Errorf("attack: row %d: %w", examples[f.at].Row, err)
			}
			done[f.at] = true
			if err := opts.Journal.add(results[f.at]); err != nil {
				flights = append(waiting, flights[k+1:]...)
				return nil, err
			}
			progress()
		}
		clear(flights[len(waiting):])
		flights = waiting
		if err := r.answer(ops); err != nil {
			rep, _ := finish()
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return rep, err
		}
	}
	return finish()
}

// needs checks that the recipe's wishes can be met, before any work is done.
func (r *run) needs(recipe Recipe) error {
	for _, n := range recipe.Needs {
		ok, how := true, ""
		switch n {
		case NeedEncoder:
			ok, how = r.encoder() != nil, "a sentence encoder"
		case NeedWords:
			ok, how = r.words() != nil, "neighbouring words: a lexicon file or a victim with word embeddings"
		case NeedMasker:
			ok, how = r.masker() != nil, "a masked language model"
		case NeedGradient:
			_, ok = r.victim.(GradientVictim)
			how = "a victim that gives gradients"
		case NeedGuide:
			_, ok = r.victim.(GuideVictim)
			how = "a victim that estimates edits by their gradient"
		case NeedFlips:
			_, ok = r.victim.(FlipVictim)
			how = "a victim that ranks substitutions by their gradient"
		}
		if !ok {
			return fmt.Errorf("attack: recipe %s needs %s", recipe.Name, how)
		}
	}
	return nil
}

// complain reports the first failure of each perturber.
func (r *run) complain(name string, err error) {
	if r.blamed[name] || r.opts.Complain == nil {
		return
	}
	if r.blamed == nil {
		r.blamed = map[string]bool{}
	}
	r.blamed[name] = true
	r.opts.Complain(name, err)
}

func (r *run) encoder() Encoder {
	if r.opts.Encoder != nil {
		return r.opts.Encoder
	}
	if e, ok := r.victim.(EmbeddingVictim); ok {
		return e
	}
	return nil
}

func (r *run) words() Neighbours {
	if r.opts.Words != nil {
		return r.opts.Words
	}
	if e, ok := r.victim.(EmbeddingVictim); ok {
		return e
	}
	return nil
}

func (r *run) masker() Masker {
	if r.opts.Masker != nil {
		return r.opts.Masker
	}
	if m, ok := r.victim.(MaskVictim); ok {
		return m
	}
	return nil
}

func (r *run) newTask(e Example, recipe *Recipe) *Task {
	return &Task{
		Original: NewText(e.Text), Label: e.Label, example: e, run: r, recipe: recipe, goal: recipe.Goal, budget: r.opts.Budget,
		seed: mix(r.opts.Seed, hashText(e.Text), uint64(e.Label)), reject: map[string]int{}, params: r.opts.Params,
	}
}

// search runs the recipe on one example as a coroutine that yields its questions and leaves its result in out.
func (t *Task) search(out *Result) iter.Seq[*op] {
	return func(yield func(*op) bool) {
		t.yield = yield
		first, err := t.Evaluate([]*Text{t.Original})
		if err != nil {
			t.err = err
			return
		}
		t.base = first[0]
		t.base.Won = false
		*out = Result{
			Row: t.example.Row, Label: t.Label, Text: t.example.Text, Words: t.Original.Len(),
			Before: first[0].Scores, Predicted: Argmax(first[0].Scores),
		}
		if t.goal.Skip(first[0].Scores, t.Label) {
			out.Status, out.Queries = Skipped, t.queries
			out.Correct = out.Predicted == t.Label
			return
		}
		out.Correct = out.Predicted == t.Label
		best, err := t.recipe.Search.Run(t)
		if err != nil {
			t.err = err
			return
		}
		out.Status = Held
		if best.Won {
			out.Status = Won
		}
		out.Adversarial, out.After, out.PredictedAfter = best.S, best.Scores, Argmax(best.Scores)
		out.Changed = Changed(t.Original, best.Text)
		out.Queries, out.Rejected = t.queries, t.reject
		if t.used != "" {
			out.By = t.used
		}
	}
}

// answer serves the questions of all waiting searches, batched by kind.
func (r *run) answer(ops []*op) error {
	var scores, embeds []*op
	type group struct {
		by  Perturber
		ops []*op
	}
	var groups []group
	for _, o := range ops {
		switch o.kind {
		case opScore:
			scores = append(scores, o)
		case opEmbed:
			embeds = append(embeds, o)
		case opPerturb:
			k := slices.IndexFunc(groups, func(g group) bool { return samePerturber(g.by, o.by) })
			if k < 0 {
				k, groups = len(groups), append(groups, group{by: o.by})
			}
			groups[k].ops = append(groups[k].ops, o)
		default:
			r.single(o)
		}
	}
	if err := r.answerScores(scores); err != nil {
		return err
	}
	r.answerEmbeds(embeds)
	for _, g := range groups {
		r.answerPerturbs(g.by, g.ops)
	}
	return r.ctx.Err()
}

// samePerturber tells whether two searches wait for the same perturber; one whose type cannot be compared is served alone.
func samePerturber(a, b Perturber) bool {
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

func (r *run) answerScores(ops []*op) error {
	var texts []string
	for _, o := range ops {
		texts = append(texts, o.texts...)
	}
	if len(texts) == 0 {
		return nil
	}
	rows, err := r.scores(r.ctx, texts)
	if err != nil {
		return err
	}
	for _, o := range ops {
		o.rows, rows = rows[:len(o.texts):len(o.texts)], rows[len(o.texts):]
	}
	return nil
}

// scores answers from the cache or the victim, each distinct text once.
func (r *run) scores(ctx context.Context, texts []string) ([][]float32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked += len(texts)
	rows := make([][]float32, len(texts))
	first := map[string]int{}
	var fresh []string
	for i, s := range texts {
		if row, ok := r.cache.get(s); ok {
			rows[i] = row
		} else if _, ok := first[s]; !ok {
			first[s] = len(fresh)
			fresh = append(fresh, s)
		}
	}
	got := make([][]float32, 0, len(fresh))
	for from := 0; from < len(fresh); from += r.opts.Batch {
		part := fresh[from:min(len(fresh), from+r.opts.Batch)]
		out, err := r.victim.Scores(ctx, part)
		if err != nil {
			return nil, fmt.Errorf("attack: victim: %w", err)
		}
		if len(out) != len(part) {
			return nil, fmt.Errorf("attack: victim returned %d rows of scores for %d texts", len(out), len(part))
		}
		for _, row := range out {
			if len(row) != len(r.labels) {
				return nil, fmt.Errorf("attack: victim returned %d scores for %d labels", len(row), len(r.labels))
			}
			for _, p := range row {
				if math.IsNaN(float64(p)) {
					return nil, errors.New("attack: victim returned a score that is not a number")
				}
			}
		}
		got = append(got, out...)
	}
	r.scored += len(fresh)
	for i, s := range texts {
		if rows[i] == nil {
			rows[i] = got[first[s]]
		}
	}
	for k, s := range fresh {
		r.cache.put(s, got[k])
	}
	return rows, nil
}

func (r *run) answerEmbeds(ops []*op) {
	if len(ops) == 0 {
		return
	}
	e := r.encoder()
	index := map[string]int{}
	var texts []string
	for _, o := range ops {
		for _, s := range o.texts {
			if _, ok := index[s]; !ok {
				index[s] = len(texts)
				texts = append(texts, s)
			}
		}
	}
	var rows [][]float32
	var err error
	if e == nil {
		err = errors.New("no sentence encoder was given")
	}
	for from := 0; err == nil && from < len(texts); from += r.opts.Batch {
		part := texts[from:min(len(texts), from+r.opts.Batch)]
		var out [][]float32
		out, err = e.Embed(r.ctx, part)
		if err == nil && len(out) != len(part) {
			err = fmt.Errorf("encoder returned %d embeddings for %d texts", len(out), len(part))
		}
		rows = append(rows, out...)
	}
	for _, o := range ops {
		if o.err = err; err != nil {
			continue
		}
		o.rows = make([][]float32, len(o.texts))
		for i, s := range o.texts {
			o.rows[i] = rows[index[s]]
		}
	}
}

func (r *run) answerPerturbs(p Perturber, ops []*op) {
	reqs := make([]Request, len(ops))
	tasks := make([]*Task, len(ops))
	spent := make([]int, len(ops))
	for i, o := range ops {
		reqs[i], tasks[i], spent[i] = o.req, o.task, o.task.queries
	}
	out, err := p.Perturb(r.ctx, reqs, newCounted(r, tasks))
	if err == nil && len(out) != len(reqs) {
		err = fmt.Errorf("%s returned candidates for %d requests, expected %d", p.Name(), len(out), len(reqs))
	}
	if err != nil && len(ops) > 1 && r.ctx.Err() == nil {
		// One request may be at fault: asked alone, the others are answered, and no example's outcome depends on its neighbours in the batch.
		for i, o := range ops {
			o.task.queries = spent[i]
			o.task.over = o.task.budget > 0 && o.task.queries >= o.task.budget
			r.answerPerturbs(p, ops[i:i+1])
		}
		return
	}
	for i, o := range ops {
		if o.err = err; err == nil {
			o.out = out[i]
		}
	}
}

// single serves the rarer questions one by one.
func (r *run) single(o *op) {
	switch o.kind {
	case opNearest:
		w := r.words()
		if w == nil {
			o.err = errors.New("no lexicon and no word embeddings were given")
			return
		}
		o.out, o.err = w.Nearest(r.ctx, o.texts[0], o.n)
	case opFill:
		m := r.masker()
		if m == nil {
			o.err = errors.New("no masked language model was given")
			return
		}
		for _, s := range o.spans {
			c, err := m.Fill(r.ctx, o.texts[0], s, o.n)
			if err != nil {
				o.err = err
				return
			}
			o.filled = append(o.filled, c)
		}
	case opFlips:
		f, ok := r.victim.(FlipVictim)
		if !ok {
			o.err = errors.New("the victim does not rank substitutions")
			return
		}
		o.filled, o.err = f.Flips(r.ctx, o.texts[0], o.task.Label, o.spans, o.n)
		if o.err == nil && len(o.filled) != len(o.spans) {
			o.err = fmt.Errorf("the victim returned substitutions for %d spans, expected %d", len(o.filled), len(o.spans))
		}
	case opGains:
		g, ok := r.victim.(GuideVictim)
		if !ok {
			o.err = errors.New("the victim gives no gradients of edits")
			return
		}
		row, err := g.Gains(r.ctx, o.texts[0], o.task.Label, o.edits)
		if err == nil && len(row) != len(o.edits) {
			err = fmt.Errorf("the victim returned %d gains for %d edits", len(row), len(o.edits))
		}
		o.rows, o.err = [][]float32{row}, err
	case opImportance:
		g, ok := r.victim.(GradientVictim)
		if !ok {
			o.err = errors.New("the victim gives no gradients")
			return
		}
		row, err := g.SpanImportance(r.ctx, o.texts[0], o.task.Label, o.spans)
		if err == nil && len(row) != len(o.spans) {
			err = fmt.Errorf("the victim returned %d importances for %d spans", len(row), len(o.spans))
		}
		o.rows, o.err = [][]float32{row}, err
	}
}

// scoreCache remembers scores, dropping the oldest half when it is full.
type scoreCache struct {
	limit    int
	new, old map[string][]float32
}

func newScoreCache(limit int) *scoreCache {
	return &scoreCache{limit: limit, new: map[string][]float32{}}
}

func (c *scoreCache) get(s string) ([]float32, bool) {
	if row, ok := c.new[s]; ok {
		return row, true
	}
	row, ok := c.old[s]
	if ok {
		c.put(s, row)
	}
	return row, ok
}

func (c *scoreCache) put(s string, row []float32) {
	if c.limit == 0 {
		return
	}
	if len(c.new) >= (c.limit+1)/2 {
		c.old, c.new = c.new, map[string][]float32{}
	}
	c.new[s] = row
}
