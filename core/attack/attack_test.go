package attack_test

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
)

// bagVictim is a two-class bag of words: listed words vote, unknown ones do not. It has every optional capability.
type bagVictim struct {
	votes map[string]float64
	calls atomic.Int64
	texts atomic.Int64
	most  atomic.Int64
}

func newBag() *bagVictim {
	return &bagVictim{votes: map[string]float64{
		"good": 1, "great": 1.5, "wonderful": 2, "fun": 0.8, "charming": 1.2, "bad": -1, "awful": -2, "boring": -1.3, "dull": -1.1, "mess": -0.9,
		"decent": 0.2, "mediocre": -0.3,
	}}
}

func (v *bagVictim) Labels() []string { return []string{"negative", "positive"} }

func (v *bagVictim) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v.calls.Add(1)
	v.texts.Add(int64(len(texts)))
	v.most.Store(max(v.most.Load(), int64(len(texts))))
	out := make([][]float32, len(texts))
	for i, s := range texts {
		x := attack.NewText(s)
		sum := 0.1
		for k := range x.Spans {
			w := strings.ToLower(x.Word(k))
			sum += v.votes[w]
			h := fnv.New32a()
			h.Write([]byte(w))
			sum += float64(h.Sum32()%1000)/1e5 - 0.005 // unknown words differ a little, so that ranking has something to order
		}
		p := float32(1 / (1 + math.Exp(-2*sum)))
		out[i] = []float32{1 - p, p}
	}
	return out, nil
}

func (v *bagVictim) Embed(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i, s := range texts {
		out[i] = make([]float32, 26)
		for _, r := range strings.ToLower(s) {
			if r >= 'a' && r <= 'z' {
				out[i][r-'a']++
			}
		}
	}
	return out, nil
}

var synonyms = attack.Lexicon{
	"good": {"decent", "fine"}, "great": {"decent", "big"}, "wonderful": {"marvellous", "decent"}, "bad": {"mediocre", "poor"},
	"awful": {"mediocre", "grim"}, "boring": {"slow"}, "dull": {"slow", "blunt"}, "charming": {"sweet"}, "movie": {"film"}, "film": {"movie"},
}

func (v *bagVictim) Nearest(ctx context.Context, word string, n int) ([]string, error) {
	return synonyms.Nearest(ctx, word, n)
}

func (v *bagVictim) Fill(_ context.Context, text string, at attack.Span, n int) ([]attack.Candidate, error) {
	list := []attack.Candidate{{Text: "decent", P: 0.4}, {Text: "slow", P: 0.3}, {Text: "odd", P: 0.2}, {Text: "##s", P: 0.05}}
	return list[:min(n, len(list))], nil
}

func (v *bagVictim) SpanImportance(_ context.Context, text string, _ int, spans []attack.Span) ([]float32, error) {
	out := make([]float32, len(spans))
	for i, s := range spans {
		out[i] = float32(math.Abs(v.votes[strings.ToLower(text[s.Start:s.End])]))
	}
	return out, nil
}

func (v *bagVictim) Gains(_ context.Context, text string, label int, edits []attack.Edit) ([]float32, error) {
	sign := 1.0
	if label == 0 {
		sign = -1
	}
	out := make([]float32, len(edits))
	for i, e := range edits {
		out[i] = float32(sign * (v.votes[strings.ToLower(text[e.At.Start:e.At.End])] - v.votes[strings.ToLower(e.To)]))
	}
	return out, nil
}

func (v *bagVictim) Passes() int { return 3 }

func (v *bagVictim) Flips(_ context.Context, _ string, label int, spans []attack.Span, n int) ([][]attack.Candidate, error) {
	word := "awful"
	if label == 0 {
		word = "wonderful"
	}
	out := make([][]attack.Candidate, len(spans))
	for i := range spans {
		out[i] = []attack.Candidate{{Text: word, P: 1}}
	}
	return out, nil
}

var examples = []attack.Example{
	{Row: 0, Text: "a good and charming movie, with great fun", Label: 1},
	{Row: 1, Text: "an awful mess of a movie", Label: 0},
	{Row: 2, Text: "boring, dull and bad; the plot is a mess", Label: 0},
	{Row: 3, Text: "a wonderful film", Label: 1},
	{Row: 4, Text: "awful but I liked it", Label: 1}, // the victim is wrong
	{Row: 5, Text: "great great great wonderful wonderful fun", Label: 1},
	{Row: 6, Text: "it's not bad at all, James said in London in 1999", Label: 0},
	{Row: 7, Text: "这部电影很好 good fun", Label: 1},
	{Row: 8, Text: "", Label: 1},
	{Row: 9, Text: "?! ...", Label: 1},
}

func run(t testing.TB, recipe string, v attack.Victim, o attack.Options) *attack.Report {
	t.Helper()
	if o.Words == nil {
		o.Words = synonyms
	}
	r, err := attack.NewRecipe(recipe, attack.Capabilities(v, o)...)
	require.NoError(t, err)
	rep, err := attack.Run(t.Context(), v, examples, r, o)
	require.NoError(t, err)
	return rep
}

func outcome(t testing.TB, rep *attack.Report) string {
	t.Helper()
	b, err := json.Marshal(rep.Results)
	require.NoError(t, err)
	return string(b)
}

func TestEveryRecipe(t *testing.T) {
	for _, name := range attack.RecipeNames() {
		t.Run(name, func(t *testing.T) {
			v := newBag()
			rep := run(t, name, v, attack.Options{Seed: 1})
			require.Len(t, rep.Results, len(examples))
			assert.Equal(t, rep.Examples, rep.Won+rep.Held+rep.Skipped)
			assert.InDelta(t, 0.9, rep.CleanAccuracy, 1e-9)
			for i, r := range rep.Results {
				assert.Equal(t, examples[i].Row, r.Row)
				assert.GreaterOrEqual(t, r.Queries, 1)
				if r.Status != attack.Won || name == "input-reduction" {
					continue
				}
				scores, err := newBag().Scores(t.Context(), []string{r.Adversarial})
				require.NoError(t, err)
				assert.Equal(t, r.PredictedAfter, attack.Argmax(scores[0]), "the reported text fools the victim")
				assert.NotEqual(t, r.Label, r.PredictedAfter)
				assert.Positive(t, r.Changed)
			}
			switch name {
			case "checklist", "pruthi": // these change too little
			case "pwws", "a2t": // the tagger lets none of the few synonyms pass, and says so
				assert.Positive(t, rep.Rejected["part-of-speech"])
			default:
				assert.Positive(t, rep.Won, "the victim is easy to fool")
			}
			assert.LessOrEqual(t, rep.VictimTexts, rep.Queries+int(v.texts.Load()))
			assert.EqualValues(t, skippedRow(rep), 4)
		})
	}
}

func skippedRow(rep *attack.Report) int {
	for _, r := range rep.Results {
		if r.Status == attack.Skipped {
			return r.Row
		}
	}
	return -1
}

// The outcome may depend on the seed, and on nothing that is there for speed.
func TestSameOutcomeForAnyConcurrency(t *testing.T) {
	for _, name := range attack.RecipeNames() {
		want := outcome(t, run(t, name, newBag(), attack.Options{Seed: 7, Batch: 1, InFlight: 1, Cache: -1}))
		for _, o := range []attack.Options{{Seed: 7}, {Seed: 7, Batch: 3, InFlight: 2}, {Seed: 7, Batch: 1000, InFlight: 1000, Cache: 5}} {
			assert.Equal(t, want, outcome(t, run(t, name, newBag(), o)), "%s with batch %d, %d in flight", name, o.Batch, o.InFlight)
		}
	}
	other := outcome(t, run(t, "deepwordbug", newBag(), attack.Options{Seed: 8}))
	assert.NotEqual(t, outcome(t, run(t, "deepwordbug", newBag(), attack.Options{Seed: 7})), other)
}

// Gradients replace most queries: the words that count come first, each pass is counted, and no more than Keep texts a word are asked.
func TestGuidedAsksLess(t *testing.T) {
	plain, guided := run(t, "deepwordbug", newBag(), attack.Options{Seed: 1}), run(t, "deepwordbug-gradient", newBag(), attack.Options{Seed: 1})
	assert.GreaterOrEqual(t, guided.Won, plain.Won)
	assert.Less(t, guided.AverageQueries, 0.6*plain.AverageQueries)
	for _, r := range guided.Results {
		if r.Status == attack.Skipped || r.Words == 0 {
			continue
		}
		assert.LessOrEqual(t, r.Queries, 1+3+2*r.Words, "the text, three passes, two candidates a word")
		if r.Status == attack.Won {
			assert.GreaterOrEqual(t, r.Queries, 1+3+1)
		}
	}
	tight := run(t, "deepwordbug-gradient", newBag(), attack.Options{Seed: 1, Budget: 4})
	assert.Zero(t, tight.Won, "passes use up the budget")
}

func TestBatchesAcrossExamples(t *testing.T) {
	v := newBag()
	run(t, "deepwordbug", v, attack.Options{Seed: 1})
	assert.GreaterOrEqual(t, v.most.Load(), int64(len(examples)))
	w := newBag()
	run(t, "deepwordbug", w, attack.Options{Seed: 1, InFlight: 1})
	assert.Less(t, v.calls.Load(), w.calls.Load())
}

func TestBudget(t *testing.T) {
	for _, name := range attack.RecipeNames() {
		for _, budget := range []int{1, 2, 5, 17} {
			rep := run(t, name, newBag(), attack.Options{Seed: 1, Budget: budget})
			for _, r := range rep.Results {
				assert.LessOrEqual(t, r.Queries, budget, "%s row %d", name, r.Row)
			}
		}
	}
	free := run(t, "deepwordbug", newBag(), attack.Options{Seed: 1})
	for _, budget := range []int{3, 8, 20} {
		tight := run(t, "deepwordbug", newBag(), attack.Options{Seed: 1, Budget: budget})
		assert.LessOrEqual(t, tight.AccuracyUnderAttack, free.AccuracyAt(budget)+1e-9, "budget %d", budget)
		assert.GreaterOrEqual(t, tight.AccuracyUnderAttack, free.AccuracyUnderAttack-1e-9, "budget %d", budget)
	}
}

// One text is one query, from the cache or not: 1 for the text, one per rankable word, and one per candidate.
func TestQueriesAreCountedAsTextAttackDoes(t *testing.T) {
	r, err := attack.NewRecipe("leetspeak")
	require.NoError(t, err)
	ex := []attack.Example{{Text: "a wonderful film", Label: 1}}
	rep, err := attack.Run(t.Context(), newBag(), ex, r, attack.Options{})
	require.NoError(t, err)
	// Words that may change: wonderful, with o, e, l and all three at once, and film, with two for i, one for l and both at once.
	got := rep.Results[0]
	assert.Equal(t, attack.Held, got.Status, "0.1 + noise keeps the class")
	assert.Equal(t, 1+2+4+4, got.Queries, "%+v", got)
}

func TestGoals(t *testing.T) {
	r, err := attack.NewRecipe("deepwordbug")
	require.NoError(t, err)
	rep, err := attack.Run(t.Context(), newBag(), examples, r, attack.Options{Seed: 1, Goal: attack.Targeted{Target: 1}})
	require.NoError(t, err)
	for _, x := range rep.Results {
		assert.Equal(t, x.Label == 1, x.Status == attack.Skipped, "row %d", x.Row)
		if x.Status == attack.Won {
			assert.Equal(t, 1, x.PredictedAfter)
		}
	}
	rep, err = attack.Run(t.Context(), newBag(), examples, r, attack.Options{Seed: 1, Goal: attack.Threshold{Class: 0, Below: 0.9}})
	require.NoError(t, err)
	for _, x := range rep.Results {
		if x.Status == attack.Won {
			assert.Less(t, x.After[0], float32(0.9))
		}
	}
	for _, bad := range []attack.Goal{attack.Targeted{Target: 2}, attack.Targeted{Target: -1}, attack.Threshold{Class: 0, Below: 0}, attack.Threshold{Class: 9, Below: .5}} {
		_, err = attack.Run(t.Context(), newBag(), examples, r, attack.Options{Goal: bad})
		assert.Error(t, err)
	}
}

// plain hides the optional capabilities of a victim.
type plain struct{ v *bagVictim }

func (p plain) Labels() []string { return p.v.Labels() }
func (p plain) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	return p.v.Scores(ctx, texts)
}

func TestMissingCapabilityIsSaidBeforehand(t *testing.T) {
	for _, name := range []string{"textfooler", "bae", "a2t", "hotflip"} {
		r, err := attack.NewRecipe(name)
		require.NoError(t, err)
		v := newBag()
		_, err = attack.Run(t.Context(), plain{v}, examples, r, attack.Options{})
		require.ErrorContains(t, err, "needs")
		assert.Zero(t, v.calls.Load())
	}
	_, err := attack.NewRecipe("nonsense")
	require.ErrorContains(t, err, "deepwordbug")
}

func TestRejectionsAreCounted(t *testing.T) {
	rep := run(t, "synonyms", newBag(), attack.Options{Seed: 1})
	assert.Positive(t, rep.Rejected["stop-words"])
	assert.Positive(t, rep.Rejected["max-words:0.4"])
}

// vandal is a perturber that does not keep to the words it may change.
type vandal struct{}

func (vandal) Name() string { return "vandal" }
func (vandal) Perturb(_ context.Context, reqs []attack.Request, _ attack.Victim) ([][]string, error) {
	out := make([][]string, len(reqs))
	for i := range out {
		out[i] = []string{"awful", "wonderful", "bad \xff", reqs[i].Text + " awful"}
	}
	return out, nil
}

// asker scores its candidates itself and returns the best.
type asker struct{ inner attack.Perturber }

func (asker) Name() string { return "asker" }
func (a asker) Perturb(ctx context.Context, reqs []attack.Request, v attack.Victim) ([][]string, error) {
	out, err := a.inner.Perturb(ctx, reqs, v)
	if err != nil {
		return nil, err
	}
	for i, q := range reqs {
		rows, err := v.Scores(attack.ForRequest(ctx, i), out[i])
		if errors.Is(err, attack.ErrBudget) {
			out[i] = nil
			continue
		} else if err != nil {
			return nil, err
		}
		best := 0
		for k := range rows {
			if rows[k][q.Label] < rows[best][q.Label] {
				best = k
			}
		}
		if len(out[i]) > 0 {
			out[i] = out[i][best : best+1]
		}
	}
	return out, nil
}

func TestPerturbersInAnAttack(t *testing.T) {
	rep, err := attack.Run(t.Context(), newBag(), examples, attack.PluginRecipe(vandal{}), attack.Options{})
	require.NoError(t, err)
	assert.Positive(t, rep.Rejected["outside-allowed-words"])
	for _, r := range rep.Results {
		if r.Adversarial != "" && strings.Contains(examples[r.Row].Text, " ") {
			assert.NotEqual(t, "awful", r.Adversarial)
		}
	}
	for _, name := range attack.PerturberNames() {
		p, err := attack.NewPerturber(name)
		require.NoError(t, err)
		a, err := attack.Run(t.Context(), newBag(), examples, attack.PluginRecipe(p), attack.Options{Seed: 3})
		require.NoError(t, err, name)
		b, err := attack.Run(t.Context(), newBag(), examples, attack.PluginRecipe(p), attack.Options{Seed: 3, InFlight: 1})
		require.NoError(t, err, name)
		assert.Equal(t, outcome(t, a), outcome(t, b), name)
		assert.Zero(t, a.Rejected["outside-allowed-words"], name)
	}
	p, err := attack.NewPerturber("deepwordbug")
	require.NoError(t, err)
	for _, budget := range []int{0, 12} {
		rep, err = attack.Run(t.Context(), newBag(), examples, attack.PluginRecipe(asker{p}), attack.Options{Seed: 1, Budget: budget})
		require.NoError(t, err)
		assert.Positive(t, rep.Won)
		for _, r := range rep.Results {
			assert.True(t, budget == 0 || r.Queries <= budget)
		}
	}
}

func TestPerturberRequests(t *testing.T) {
	p, err := attack.NewPerturber("swap")
	require.NoError(t, err)
	req := attack.Request{Text: "three little words", May: []int{1}, Seed: 5, Max: 4}
	a, err := p.Perturb(t.Context(), []attack.Request{req, req}, nil)
	require.NoError(t, err)
	assert.Equal(t, a[0], a[1], "the same request and seed give the same candidates")
	for _, s := range a[0] {
		assert.True(t, strings.HasPrefix(s, "three ") && strings.HasSuffix(s, " words"), s)
	}
	req.May = []int{9, -1}
	a, err = p.Perturb(t.Context(), []attack.Request{req}, nil)
	require.NoError(t, err)
	assert.Empty(t, a[0])
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, err := attack.NewRecipe("deepwordbug")
	require.NoError(t, err)
	rep, err := attack.Run(ctx, newBag(), examples, r, attack.Options{InFlight: 1, Progress: func(p attack.Progress) {
		if p.Done == 3 {
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 3, rep.Examples)
}

func TestJournalGoesOnWhereItStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "attack.journal")
	r, err := attack.NewRecipe("deepwordbug")
	require.NoError(t, err)
	whole, err := attack.Run(t.Context(), newBag(), examples, r, attack.Options{Seed: 2})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	j, err := attack.OpenJournal(path, "bag")
	require.NoError(t, err)
	_, err = attack.Run(ctx, newBag(), examples, r, attack.Options{Seed: 2, InFlight: 2, Journal: j, Progress: func(p attack.Progress) {
		if p.Done == 4 {
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, j.Close())
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"row":5,"stat`) // the line that a crash cut
	require.NoError(t, err)
	require.NoError(t, f.Close())

	j, err = attack.OpenJournal(path, "bag")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, j.Finished(), 4)
	v := newBag()
	again, err := attack.Run(t.Context(), v, examples, r, attack.Options{Seed: 2, Journal: j})
	require.NoError(t, err)
	require.NoError(t, j.Close())
	assert.Equal(t, outcome(t, whole), outcome(t, again))
	assert.Less(t, int(v.texts.Load()), whole.VictimTexts)

	_, err = attack.OpenJournal(path, "another")
	require.ErrorContains(t, err, "another")
	j, err = attack.OpenJournal(path, "bag")
	require.NoError(t, err)
	_, err = attack.Run(t.Context(), v, examples, r, attack.Options{Seed: 3, Journal: j})
	require.ErrorContains(t, err, "seed 2")
	require.NoError(t, j.Close())
}

// badVictim answers wrongly in one way.
type badVictim struct {
	plain
	how string
}

func (b badVictim) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	rows, err := b.plain.Scores(ctx, texts)
	switch b.how {
	case "few":
		return rows[:len(rows)-1], err
	case "narrow":
		rows[0] = rows[0][:1]
	case "nan":
		rows[0][0] = float32(math.NaN())
	case "error":
		return nil, errors.New("no memory")
	}
	return rows, err
}

func TestBadVictims(t *testing.T) {
	r, err := attack.NewRecipe("deepwordbug")
	require.NoError(t, err)
	for how, want := range map[string]string{"few": "rows of scores", "narrow": "1 scores for 2 labels", "nan": "not a number", "error": "no memory"} {
		_, err := attack.Run(t.Context(), badVictim{plain{newBag()}, how}, examples, r, attack.Options{})
		require.ErrorContains(t, err, want)
	}
	_, err = attack.Run(t.Context(), newBag(), []attack.Example{{Label: 2}}, r, attack.Options{})
	require.Error(t, err)
}
