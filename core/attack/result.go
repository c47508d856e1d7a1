package attack

import (
	"slices"
)

// Status of an attacked example.
type Status string

// Skipped examples were wrong, or outside the goal, before any change. Won ones were fooled, Held ones were not.
const (
	Skipped Status = "skipped"
	Won     Status = "won"
	Held    Status = "held"
)

// Result of one example. Labels are indices into the report's labels.
type Result struct {
	Row            int            `json:"row"`
	Status         Status         `json:"status"`
	Text           string         `json:"text"`
	Adversarial    string         `json:"adversarial,omitempty"`
	Label          int            `json:"label"`
	Predicted      int            `json:"predicted"`
	PredictedAfter int            `json:"predicted_after"`
	Correct        bool           `json:"correct"`
	Before         []float32      `json:"before"`
	After          []float32      `json:"after,omitempty"`
	Queries        int            `json:"queries"`
	Words          int            `json:"words"`
	Changed        int            `json:"changed"`
	By             string         `json:"by,omitempty"`
	Rejected       map[string]int `json:"rejected,omitempty"`
}

// Report of a run. Shares are between 0 and 1.
type Report struct {
	Recipe  string   `json:"recipe"`
	Version int      `json:"recipe_version"`
	Paper   string   `json:"paper,omitempty"`
	Goal    string   `json:"goal"`
	Seed    uint64   `json:"seed"`
	Budget  int      `json:"budget,omitempty"`
	Labels  []string `json:"labels"`
	// Examples is the number attacked or skipped; less than asked when the run was cut short.
	Examples int `json:"examples"`
	Skipped  int `json:"skipped"`
	Won      int `json:"won"`
	Held     int `json:"held"`
	// CleanAccuracy is the share predicted right before any change; AccuracyUnderAttack the share predicted right and held.
	CleanAccuracy       float64 `json:"clean_accuracy"`
	AccuracyUnderAttack float64 `json:"accuracy_under_attack"`
	// AttackSuccessRate is won / (won + held).
	AttackSuccessRate float64 `json:"attack_success_rate"`
	// AverageQueries is over won and held examples, the untouched text and texts answered from the cache included.
	AverageQueries float64 `json:"average_queries"`
	MedianQueries  float64 `json:"median_queries"`
	// AverageWordsChanged is the mean number of words changed over won examples, AverageShareChanged the mean share.
	AverageWordsChanged float64 `json:"average_words_changed"`
	AverageShareChanged float64 `json:"average_share_changed"`
	// Queries counts all texts asked, VictimTexts those that the victim scored (the others came from the cache).
	Queries          int            `json:"queries"`
	VictimTexts      int            `json:"victim_texts"`
	QueriesPerSecond float64        `json:"queries_per_second"`
	Seconds          float64        `json:"seconds"`
	Rejected         map[string]int `json:"rejected,omitempty"`
	// Trigger is the phrase that a universal attack found.
	Trigger string   `json:"trigger,omitempty"`
	Results []Result `json:"results,omitempty"`
}

func newReport(recipe Recipe, opts Options, labels []string, results []Result, done []bool) *Report {
	rep := &Report{
		Recipe: recipe.Name, Version: recipe.Version, Paper: recipe.Paper, Goal: recipe.Goal.Name(), Seed: opts.Seed, Budget: opts.Budget,
		Labels: labels, Rejected: map[string]int{}, Trigger: recipe.trigger,
	}
	for i, r := range results {
		if done[i] {
			rep.Results = append(rep.Results, r)
		}
	}
	rep.Summarise()
	return rep
}

// Summarise computes the figures from Results. Seconds, VictimTexts and QueriesPerSecond stay.
func (rep *Report) Summarise() {
	rep.Examples, rep.Skipped, rep.Won, rep.Held, rep.Queries = len(rep.Results), 0, 0, 0, 0
	rep.Rejected = map[string]int{}
	var queries []int
	correct, held, changed, share := 0, 0, 0, 0.0
	for _, r := range rep.Results {
		rep.Queries += r.Queries
		for k, n := range r.Rejected {
			rep.Rejected[k] += n
		}
		if r.Correct {
			correct++
		}
		switch r.Status {
		case Skipped:
			rep.Skipped++
			if r.Correct { // outside the goal: nothing was tried, the prediction stands
				held++
			}
			continue
		case Won:
			rep.Won++
			changed += r.Changed
			share += float64(r.Changed) / float64(max(1, r.Words))
		case Held:
			rep.Held++
			if r.Correct {
				held++
			}
		}
		queries = append(queries, r.Queries)
	}
	ratio := func(a float64, b int) float64 {
		if b == 0 {
			return 0
		}
		return a / float64(b)
	}
	rep.CleanAccuracy = ratio(float64(correct), rep.Examples)
	rep.AccuracyUnderAttack = ratio(float64(held), rep.Examples)
	rep.AttackSuccessRate = ratio(float64(rep.Won), rep.Won+rep.Held)
	rep.AverageWordsChanged = ratio(float64(changed), rep.Won)
	rep.AverageShareChanged = ratio(share, rep.Won)
	sum := 0
	for _, q := range queries {
		sum += q
	}
	rep.AverageQueries = ratio(float64(sum), len(queries))
	slices.Sort(queries)
	rep.MedianQueries = 0
	if n := len(queries); n > 0 {
		rep.MedianQueries = float64(queries[n/2]+queries[(n-1)/2]) / 2
	}
}

// AccuracyAt is the accuracy under attack had every search been given budget queries. A search that a budget cuts within its last step may
// still win in what is left of the step, so a run with that budget may end a little lower.
func (rep *Report) AccuracyAt(budget int) float64 {
	if len(rep.Results) == 0 {
		return 0
	}
	n := 0
	for _, r := range rep.Results {
		if r.Correct && (r.Status != Won || r.Queries > budget) {
			n++
		}
	}
	return float64(n) / float64(len(rep.Results))
}
