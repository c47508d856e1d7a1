package attack

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Constraint limits what an attack may do. Each is a WordConstraint, a TextConstraint, or both.
type Constraint interface{ Name() string }

// WordConstraint says before a change whether word i of x may change.
type WordConstraint interface {
	Constraint
	May(x *Text, i int) bool
}

// TextConstraint says after a change which candidates are allowed; x is the text that they were made from.
type TextConstraint interface {
	Constraint
	Allow(t *Task, cands []*Text, x *Text) ([]bool, error)
}

// NoRepeat keeps words that were changed already.
type NoRepeat struct{}

func (NoRepeat) Name() string            { return "repeat-modification" }
func (NoRepeat) May(x *Text, i int) bool { return !x.Modified[i] }

// NoStopWords keeps function words. List replaces the built-in list when not nil.
type NoStopWords struct{ List map[string]bool }

func (NoStopWords) Name() string { return "stop-words" }
func (c NoStopWords) May(x *Text, i int) bool {
	if c.List != nil {
		return !c.List[x.Word(i)]
	}
	return !IsStopWord(x.Word(i))
}

// MinLength keeps words of fewer than N characters.
type MinLength struct{ N int }

func (c MinLength) Name() string            { return fmt.Sprintf("min-word-length:%d", c.N) }
func (c MinLength) May(x *Text, i int) bool { return utf8.RuneCountInString(x.Word(i)) >= c.N }

// MaxRate stops changing words once the share Rate of them, and at least Floor words, are changed.
type MaxRate struct {
	Rate  float64
	Floor int
}

func (c MaxRate) Name() string { return fmt.Sprintf("max-modification-rate:%g", c.Rate) }
func (c MaxRate) May(x *Text, _ int) bool {
	n := 0
	for _, m := range x.Modified {
		if m {
			n++
		}
	}
	return n < max(int(math.Ceil(float64(x.Len())*c.Rate)), c.Floor)
}

// MaxWords limits the number of words that differ from the original, to Words and to the share Share, each when above zero.
type MaxWords struct {
	Words int
	Share float64
}

func (c MaxWords) Name() string {
	if c.Words > 0 {
		return fmt.Sprintf("max-words:%d", c.Words)
	}
	return fmt.Sprintf("max-words:%g", c.Share)
}

func (c MaxWords) Allow(t *Task, cands []*Text, _ *Text) ([]bool, error) {
	return each(cands, func(y *Text) bool {
		n := Changed(t.Original, y)
		if c.Words > 0 && n > c.Words {
			return false
		}
		return c.Share <= 0 || n <= int(math.Ceil(float64(min(y.Len(), t.Original.Len()))*c.Share))
	}), nil
}

// MaxEdits limits the Levenshtein distance to the original, in characters.
type MaxEdits struct{ N int }

func (c MaxEdits) Name() string { return fmt.Sprintf("edit-distance:%d", c.N) }
func (c MaxEdits) Allow(t *Task, cands []*Text, _ *Text) ([]bool, error) {
	return each(cands, func(y *Text) bool { return EditDistance(t.Original.S, y.S, c.N) <= c.N }), nil
}

// MaxGrowth limits how many characters a text may gain over the original.
type MaxGrowth struct{ N int }

func (c MaxGrowth) Name() string { return fmt.Sprintf("growth:%d", c.N) }
func (c MaxGrowth) Allow(t *Task, cands []*Text, _ *Text) ([]bool, error) {
	n := utf8.RuneCountInString(t.Original.S)
	return each(cands, func(y *Text) bool { return utf8.RuneCountInString(y.S) <= n+c.N }), nil
}

// Similar wants the cosine of the sentence embeddings of original and candidate to be at least Min. With Window above zero, only that many
// words around the changed one are compared, and shorter texts pass.
type Similar struct {
	Min    float64
	Window int
}

func (c Similar) Name() string { return fmt.Sprintf("sentence-similarity:%g", c.Min) }
func (c Similar) Allow(t *Task, cands []*Text, _ *Text) ([]bool, error) {
	ok := make([]bool, len(cands))
	var texts []string
	var at []int
	for i, y := range cands {
		a, b := t.Original.S, y.S
		if c.Window > 0 {
			if t.Original.Len() < c.Window || y.Len() < c.Window {
				ok[i] = true
				continue
			}
			a, b = window(t.Original, y.Last, c.Window), window(y, y.Last, c.Window)
		}
		texts = append(texts, a, b)
		at = append(at, i)
	}
	if len(texts) == 0 {
		return ok, nil
	}
	rows, err := t.Embed(texts)
	if err != nil {
		return nil, err
	}
	for k, i := range at {
		ok[i] = Cosine(rows[2*k], rows[2*k+1]) >= c.Min
	}
	return ok, nil
}

func window(x *Text, center, size int) string {
	from := min(max(0, center-size/2), x.Len()-size)
	return x.S[x.Spans[from].Start:x.Spans[from+size-1].End]
}

// SimilarWords wants the cosine of the embeddings of a changed word and what replaced it to be at least Min; words are embedded as texts.
type SimilarWords struct{ Min float64 }

func (c SimilarWords) Name() string { return fmt.Sprintf("word-similarity:%g", c.Min) }
func (c SimilarWords) Allow(t *Task, cands []*Text, x *Text) ([]bool, error) {
	ok := make([]bool, len(cands))
	var texts []string
	var at []int
	for i, y := range cands {
		if y.Len() != x.Len() || y.Last < 0 {
			ok[i] = true
			continue
		}
		texts = append(texts, strings.ToLower(x.Word(y.Last)), strings.ToLower(y.Word(y.Last)))
		at = append(at, i)
	}
	if len(texts) == 0 {
		return ok, nil
	}
	rows, err := t.Embed(texts)
	if err != nil {
		return nil, err
	}
	for k, i := range at {
		ok[i] = Cosine(rows[2*k], rows[2*k+1]) >= c.Min
	}
	return ok, nil
}

// LooksAlike wants candidates that read as the original does: after confusable letters, invisible characters and accents are undone, at
// most the share Max of the characters may differ.
type LooksAlike struct{ Max float64 }

func (c LooksAlike) Name() string { return fmt.Sprintf("looks-alike:%g", c.Max) }
func (c LooksAlike) Allow(t *Task, cands []*Text, _ *Text) ([]bool, error) {
	ref := Skeleton(t.Original.S)
	limit := int(c.Max * float64(utf8.RuneCountInString(ref)))
	return each(cands, func(y *Text) bool { return EditDistance(ref, Skeleton(y.S), limit) <= limit }), nil
}

// Plausible wants the masked language model to give what replaced a word at least the share Min of the probability of the word it replaced.
// It passes candidates whose number of words changed.
type Plausible struct{ Min float64 }

func (c Plausible) Name() string { return fmt.Sprintf("plausible:%g", c.Min) }
func (c Plausible) Allow(t *Task, cands []*Text, x *Text) ([]bool, error) {
	ok := make([]bool, len(cands))
	lists := map[int][]Candidate{}
	for i, y := range cands {
		if y.Len() != x.Len() || y.Last < 0 {
			ok[i] = true
			continue
		}
		list, done := lists[y.Last]
		if !done {
			got, err := t.Fill(x, []Span{x.Spans[y.Last]}, 200)
			if err != nil {
				return nil, err
			}
			list = got[0]
			lists[y.Last] = list
		}
		p := func(w string) float32 {
			k := slices.IndexFunc(list, func(f Candidate) bool { return strings.EqualFold(f.Text, w) })
			if k >= 0 {
				return list[k].P
			}
			return 0
		}
		was, now := p(x.Word(y.Last)), p(y.Word(y.Last))
		if was == 0 && len(list) > 0 {
			was = list[len(list)-1].P
		}
		ok[i] = float64(now) >= c.Min*float64(was) && now > 0
	}
	return ok, nil
}

func each(cands []*Text, ok func(*Text) bool) []bool {
	out := make([]bool, len(cands))
	for i, y := range cands {
		out[i] = ok(y)
	}
	return out
}

// Cosine is the cosine of two vectors, 0 when either has no length.
func Cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range min(len(a), len(b)) {
		ab += float64(a[i]) * float64(b[i])
		aa += float64(a[i]) * float64(a[i])
		bb += float64(b[i]) * float64(b[i])
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}

func sortTexts(texts []*Text) {
	slices.SortStableFunc(texts, func(a, b *Text) int { return strings.Compare(a.S, b.S) })
}
