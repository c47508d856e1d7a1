package author

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/plugins/host"
)

// Finding is one thing that Check looked at.
type Finding struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Warning marks what the contract allows and a user may not want.
	Warning bool   `json:"warning,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// CheckReport is what Check found.
type CheckReport struct {
	Plugin   string    `json:"plugin"`
	Name     string    `json:"name"`
	Bytes    int64     `json:"bytes,omitempty"`
	Imports  []string  `json:"imports,omitempty"`
	Findings []Finding `json:"findings"`
	// Candidates is the number made over all texts of the suite.
	Candidates int `json:"candidates"`
}

// OK tells that nothing but warnings was found.
func (r *CheckReport) OK() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return !f.OK && !f.Warning })
}

// suite are texts of many kinds: scripts, empty, huge, odd characters.
func suite() []string {
	return []string{
		"Win free money now, click here!", "it's a well-made film with some good moments", "", " ", "\n\t\r", "a", "?!...", "这部电影很好看", "деньги даром",
		"Ελληνικά λόγια", "مرحبا بالعالم", "שלום עולם", "हिन्दी में लिखा", "日本語のテキスト", "한국어 문장", "e\u0301te\u0301 nai\u0308ve", "\u200bzero\u200dwidth\u2060",
		"👩‍👩‍👧‍👦 family 🇩🇪", "\U00010348 gothic", "\u202eright to left\u202c", "\x00 nul \x7f", "\ufffd replacement", "ﬁ ligature Ⅷ ½", "x" + strings.Repeat("y", 5000),
		strings.Repeat("many words ", 400), "<b>html</b> & {json: \"x\"} \\ % $", "CAPS LOCK DAY", "mixed кириллица and latin", "1234567890 3.14 1e9",
	}
}

func suiteRequests(seed uint64, maximum int) []attack.Request {
	var reqs []attack.Request
	for i, s := range suite() {
		reqs = append(reqs, attack.Request{
			Text: s, Words: attack.Words(s), Max: maximum, Seed: seed + uint64(i)*7919, Label: i % 3, Labels: []string{"ham", "spam", "étrange"},
			Params: map[string]string{"unknown-parameter": "värde"},
		})
	}
	return reqs
}

// Check throws the conformance suite at a plugin: every kind of text, no words to change, one candidate, no model, a model without
// budget; repeated, alone and in batches, in fresh instances. An error means that the suite itself could not run.
func Check(ctx context.Context, file string, opts host.Options) (*CheckReport, error) {
	rep := &CheckReport{Plugin: file}
	add := func(name string, err error, warning bool) {
		f := Finding{Name: name, OK: err == nil, Warning: warning && err != nil}
		if err != nil {
			f.Detail = err.Error()
		}
		rep.Findings = append(rep.Findings, f)
	}
	p, err := host.Open(ctx, file, opts)
	if err != nil {
		var broken *host.Error
		if !errors.As(err, &broken) {
			return nil, err
		}
		add("loads", err, false)
		return rep, nil
	}
	defer p.Close()
	add("loads", nil, false)
	rep.Name = p.Name()
	for _, i := range p.Imports() {
		rep.Imports = append(rep.Imports, i.Module+"."+i.Name)
	}

	reqs := suiteRequests(1, 8)
	victim := &toyVictim{}
	base, err := p.Perturb(ctx, reqs, victim)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	add("answers texts of every kind", err, false)
	if err != nil {
		return rep, nil
	}
	for _, l := range base {
		rep.Candidates += len(l)
	}
	if rep.Candidates == 0 {
		add("makes candidates", errors.New("not one for the whole suite"), true)
	} else {
		add("makes candidates", nil, false)
	}
	add("changes only words that may change", staysWithin(reqs, base), false)

	same := func(name string, reqs []attack.Request, want [][]string, p *host.Plugin) {
		got, err := p.Perturb(ctx, reqs, &toyVictim{})
		if err == nil && !reflect.DeepEqual(normal(got), normal(want)) {
			err = fmt.Errorf("the same requests got other candidates: %s", difference(want, got))
		}
		add(name, err, false)
	}
	same("the same answer twice", reqs, base, p)
	if fresh, err := host.Open(ctx, file, opts); err != nil {
		add("the same answer in a fresh instance", err, false)
	} else {
		same("the same answer in a fresh instance", reqs, base, fresh)
		fresh.Close()
	}
	back, backWant := slices.Clone(reqs), slices.Clone(base)
	slices.Reverse(back)
	slices.Reverse(backWant)
	same("the same answer in another order", back, backWant, p)
	alone := make([][]string, len(reqs))
	for i := range reqs {
		one, e := p.Perturb(ctx, reqs[i:i+1], &toyVictim{})
		if err = e; err != nil {
			break
		}
		alone[i] = one[0]
	}
	if err == nil && !reflect.DeepEqual(normal(alone), normal(base)) {
		err = fmt.Errorf("texts one by one got other candidates: %s", difference(base, alone))
	}
	add("the same answer one by one", err, false)

	none := slices.Clone(reqs)
	for i := range none {
		none[i].May = []int{}
	}
	got, err := p.Perturb(ctx, none, &toyVictim{})
	if err == nil {
		err = staysWithin(none, got)
	}
	add("no word may change", err, false)
	few := suiteRequests(2, 1)
	for i := range few {
		if n := len(few[i].Words); n > 0 {
			few[i].May = []int{n / 2}
		}
	}
	got, err = p.Perturb(ctx, few, &toyVictim{})
	if err == nil {
		err = staysWithin(few, got)
	}
	add("one word, one candidate", err, false)
	_, err = p.Perturb(ctx, reqs, nil)
	add("goes on without a model", err, false)
	_, err = p.Perturb(ctx, reqs, &toyVictim{broke: true})
	add("goes on without budget", err, false)
	if other, err := p.Perturb(ctx, suiteRequests(99, 8), &toyVictim{}); err != nil {
		add("another seed", err, false)
	} else if reflect.DeepEqual(normal(other), normal(base)) {
		add("another seed", errors.New("another seed gives the same candidates: is there nothing to choose?"), true)
	} else {
		add("another seed", nil, false)
	}
	ex := []attack.Example{{Row: 0, Text: suite()[0], Label: 1}, {Row: 1, Text: suite()[1], Label: 0}, {Row: 2, Text: suite()[7], Label: 0}}
	attacked, err := attack.Run(ctx, &toyVictim{}, ex, attack.PluginRecipe(p), attack.Options{Seed: 1, Budget: 200, Params: map[string]string{}})
	if err == nil && attacked.Rejected["outside-allowed-words"] > 0 {
		err = fmt.Errorf("%d candidates touched words that may not change", attacked.Rejected["outside-allowed-words"])
	}
	add("serves an attack", err, false)
	return rep, nil
}

func staysWithin(reqs []attack.Request, lists [][]string) error {
	for i, q := range reqs {
		for _, s := range lists[i] {
			if !utf8.ValidString(s) {
				return fmt.Errorf("text %d (%.30q): candidate %.40q is not UTF-8", i, q.Text, s)
			}
			if !attack.Within(q.Text, q.Words, q.May, s) {
				return fmt.Errorf("text %d (%.30q): candidate %.40q changes more than the words that may change", i, q.Text, s)
			}
		}
	}
	return nil
}

func normal(lists [][]string) [][]string {
	out := make([][]string, len(lists))
	for i, l := range lists {
		out[i] = append([]string{}, l...)
	}
	return out
}

func difference(want, got [][]string) string {
	for i := range want {
		if !slices.Equal(want[i], got[i]) {
			return fmt.Sprintf("text %d: %.60q, then %.60q", i, want[i], got[i])
		}
	}
	return "in number"
}

// toyVictim scores by counting letters: enough to be asked.
type toyVictim struct{ broke bool }

func (*toyVictim) Labels() []string { return []string{"ham", "spam", "étrange"} }

func (v *toyVictim) Scores(_ context.Context, texts []string) ([][]float32, error) {
	if v.broke {
		return nil, attack.ErrBudget
	}
	out := make([][]float32, len(texts))
	for i, s := range texts {
		sum, n := 0.0, 1.0
		for _, r := range s {
			if unicode.IsLetter(r) {
				sum += float64(r % 13)
			}
			n++
		}
		p := float32(0.2 + 0.4*math.Mod(sum/n, 1))
		out[i] = []float32{p, 0.8 - p, 0.2}
	}
	return out, nil
}

func (v *toyVictim) SpanImportance(_ context.Context, text string, _ int, spans []attack.Span) ([]float32, error) {
	if v.broke {
		return nil, attack.ErrBudget
	}
	out := make([]float32, len(spans))
	for i, s := range spans {
		out[i] = float32(s.End - s.Start)
	}
	return out, nil
}

func (v *toyVictim) Embed(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i, s := range texts {
		out[i] = []float32{float32(len(s)), 1}
	}
	return out, nil
}

func (v *toyVictim) Nearest(_ context.Context, word string, n int) ([]string, error) {
	return []string{word + "s", "the" + word}[:min(n, 2)], nil
}

func (v *toyVictim) Fill(_ context.Context, _ string, _ attack.Span, n int) ([]attack.Candidate, error) {
	return []attack.Candidate{{Text: "word", P: 0.6}, {Text: "other", P: 0.2}}[:min(n, 2)], nil
}

func (v *toyVictim) Tokens(text string) ([]attack.Span, []string) {
	spans := attack.Words(text)
	tokens := make([]string, len(spans))
	for i, s := range spans {
		tokens[i] = text[s.Start:s.End]
	}
	return spans, tokens
}

// BenchReport are the speeds that Bench measured.
type BenchReport struct {
	Plugin              string  `json:"plugin"`
	OpenMilliseconds    float64 `json:"open_milliseconds"`
	TextsPerSecond      float64 `json:"texts_per_second"`
	CandidatesPerSecond float64 `json:"candidates_per_second"`
	// MicrosecondsPerCall is the time of a call with one short text, MicrosecondsPerText with a full batch.
	MicrosecondsPerCall float64 `json:"microseconds_per_call"`
	MicrosecondsPerText float64 `json:"microseconds_per_text"`
}

// Bench measures a plugin for about the given time, on one instance.
func Bench(ctx context.Context, file string, opts host.Options, length time.Duration) (*BenchReport, error) {
	opts.Parallel = 1
	start := time.Now()
	p, err := host.Open(ctx, file, opts)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	rep := &BenchReport{Plugin: file, OpenMilliseconds: float64(time.Since(start).Microseconds()) / 1000}
	var batch []attack.Request
	for i := range 64 {
		s := suite()[i%2]
		batch = append(batch, attack.Request{Text: s, Words: attack.Words(s), Max: 16, Seed: uint64(i), Labels: []string{"ham", "spam", "étrange"}})
	}
	measure := func(reqs []attack.Request) (perCall time.Duration, candidates float64, err error) {
		best := time.Duration(math.MaxInt64)
		for end := time.Now().Add(length / 2); ; {
			t := time.Now()
			out, err := p.Perturb(ctx, reqs, &toyVictim{})
			if err != nil {
				return 0, 0, err
			}
			candidates = 0
			for _, l := range out {
				candidates += float64(len(l))
			}
			best = min(best, time.Since(t))
			if !time.Now().Before(end) {
				return best, candidates, nil
			}
		}
	}
	one, _, err := measure(batch[:1])
	if err != nil {
		return nil, err
	}
	all, made, err := measure(batch)
	if err != nil {
		return nil, err
	}
	rep.MicrosecondsPerCall = float64(one.Nanoseconds()) / 1000
	rep.MicrosecondsPerText = float64(all.Nanoseconds()) / 1000 / float64(len(batch))
	rep.TextsPerSecond = float64(len(batch)) / all.Seconds()
	rep.CandidatesPerSecond = made / all.Seconds()
	return rep, nil
}
