// Package smooth turns a classifier into one that comes with certificates: it votes over many random versions of a text, and the vote's
// margin bounds how many words an attacker would have to change. The bound is a theorem about the vote; only the vote itself is estimated,
// at a stated confidence.
package smooth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/attack"
)

// Kinds are the ways to make random versions:
//
//	mask      all words but a random few give way to the mask (RanMASK; Zeng et al., 2021)
//	delete    all words but a random few are left out (Huang et al., RS-Del, 2023, with a fixed number of words kept)
//	synonyms  every word is drawn from itself and its synonyms (SAFER; Ye et al., ACL 2020)
func Kinds() []string { return []string{"mask", "delete", "synonyms"} }

// Smoother votes. Attackers of mask and delete may put any words in place of others, as many as the radius says; the number of words stays.
// Those of synonyms may put one of a word's synonyms in its place.
type Smoother struct {
	Kind string
	// Keep is the share of the words that a version keeps (mask, delete), at least one word.
	Keep float64
	// Select is the number of versions that choose the label, Samples the number that estimate its share. Where a text has no more than Samples
	// versions, all of them vote and nothing is estimated.
	Select, Samples int
	// Confidence is the probability, over the drawing of versions, with which a certificate holds.
	Confidence float64
	// Mask stands for a word (mask).
	Mask string
	// Words and Synonyms give up to that many synonyms of a word (synonyms). An attacker who knows more synonyms than these is not covered.
	Words    attack.Neighbours
	Synonyms int
	Seed     uint64
}

// New returns a smoother with its default settings.
func New(kind string) (*Smoother, error) {
	s := &Smoother{Kind: kind, Keep: 0.1, Select: 20, Samples: 300, Confidence: 0.95, Mask: "[MASK]", Synonyms: 8}
	if !slices.Contains(Kinds(), kind) {
		return nil, fmt.Errorf("smoothing %q: expected one of %s", kind, strings.Join(Kinds(), ", "))
	}
	return s, nil
}

func (s *Smoother) validate() error {
	switch {
	case !slices.Contains(Kinds(), s.Kind):
		return fmt.Errorf("smoothing %q: expected one of %s", s.Kind, strings.Join(Kinds(), ", "))
	case s.Kind == "synonyms" && s.Words == nil:
		return errors.New("smoothing by synonyms: no synonyms given")
	case s.Kind != "synonyms" && !(s.Keep > 0 && s.Keep <= 1):
		return fmt.Errorf("smoothing: keep %g: expected more than 0, at most 1", s.Keep)
	case s.Select < 1 || s.Samples < 1:
		return fmt.Errorf("smoothing: %d and %d samples: expected at least 1", s.Select, s.Samples)
	case !(s.Confidence > 0.5 && s.Confidence < 1):
		return fmt.Errorf("smoothing: confidence %g: expected more than 0.5, less than 1", s.Confidence)
	}
	return nil
}

// Certificate is what the vote says of a text.
type Certificate struct {
	// Class won the vote; Abstained is true when it does not have more than half of it at the confidence, and the vote decides nothing.
	Class     int  `json:"class"`
	Abstained bool `json:"abstained,omitempty"`
	// Radius is the number of words that may change, in any way that the kind covers, without the vote of the class falling to half; −1
	// with Abstained.
	Radius int `json:"radius"`
	// Votes of Samples were for the class; Lower bounds the true share from below.
	Votes   int     `json:"votes"`
	Samples int     `json:"samples"`
	Lower   float64 `json:"lower"`
	Words   int     `json:"words"`
	// Exact tells that the versions are all there are, so that nothing was estimated and the certificate holds for certain.
	Exact bool `json:"exact,omitempty"`
}

// Certify votes on every text. v sees the versions, many texts to a call; progress, when not nil, is told the texts done.
func (s *Smoother) Certify(ctx context.Context, v attack.Victim, texts []string, progress func(done int)) ([]Certificate, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	out := make([]Certificate, 0, len(texts))
	for group := range slices.Chunk(texts, max(1, 4096/(s.Select+s.Samples))) {
		var all []string
		makers := make([]*maker, len(group))
		ends := make([]int, len(group))
		for i, text := range group {
			m, err := s.maker(ctx, text)
			if err != nil {
				return nil, err
			}
			makers[i] = m
			if m.count() <= s.Samples {
				all = append(all, m.every()...)
			} else {
				for range s.Select + s.Samples {
					all = append(all, m.draw())
				}
			}
			ends[i] = len(all)
		}
		votes, err := vote(ctx, v, all)
		if err != nil {
			return nil, err
		}
		classes := len(v.Labels())
		from := 0
		for i := range group {
			mine := votes[from:ends[i]]
			from = ends[i]
			c := Certificate{Words: makers[i].words, Exact: makers[i].count() <= s.Samples}
			choose, judge := mine, mine
			if !c.Exact { // versions that chose the label must not estimate its share as well
				choose, judge = mine[:s.Select], mine[s.Select:]
			}
			counts := make([]int, classes)
			for _, x := range choose {
				counts[x]++
			}
			for j, n := range counts {
				if n > counts[c.Class] {
					c.Class = j
				}
			}
			for _, x := range judge {
				if x == c.Class {
					c.Votes++
				}
			}
			c.Samples = len(judge)
			if c.Exact {
				c.Lower = float64(c.Votes) / float64(c.Samples)
			} else {
				c.Lower = LowerBound(c.Votes, c.Samples, s.Confidence)
			}
			c.Radius = makers[i].radius(c.Lower)
			c.Abstained = c.Radius < 0
			out = append(out, c)
		}
		if progress != nil {
			progress(len(out))
		}
	}
	return out, nil
}

// Vote is the share of versions of a text that each class wins: of all of them where they are at most n, else an estimate from n.
func (s *Smoother) Vote(ctx context.Context, v attack.Victim, text string, n int) ([]float64, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	m, err := s.maker(ctx, text)
	if err != nil {
		return nil, err
	}
	all := m.versions(n)
	votes, err := vote(ctx, v, all)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(v.Labels()))
	for _, c := range votes {
		out[c] += 1 / float64(len(votes))
	}
	return out, nil
}

// vote is the class of every text; equal ones are asked once.
func vote(ctx context.Context, v attack.Victim, texts []string) ([]int, error) {
	at := make(map[string]int, len(texts))
	var distinct []string
	for _, t := range texts {
		if _, ok := at[t]; !ok {
			at[t] = len(distinct)
			distinct = append(distinct, t)
		}
	}
	class := make([]int, 0, len(distinct))
	for group := range slices.Chunk(distinct, 1024) {
		scores, err := v.Scores(ctx, group)
		if err != nil {
			return nil, err
		}
		if len(scores) != len(group) {
			return nil, fmt.Errorf("smoothing: %d texts asked, %d answers", len(group), len(scores))
		}
		for _, row := range scores {
			best := 0
			for j, x := range row {
				if x > row[best] {
					best = j
				}
			}
			class = append(class, best)
		}
	}
	out := make([]int, len(texts))
	for i, t := range texts {
		out[i] = class[at[t]]
	}
	return out, nil
}

// maker draws versions of one text. They are functions of the words alone: what stands between words is not seen, so it cannot be attacked.
type maker struct {
	s      *Smoother
	tokens []string
	words  int
	keep   int
	sets   [][]string // synonyms: what each word is drawn from
	moved  []float64  // synonyms: per word, the largest total variation that one substitution makes; largest first
	r      *rand.Rand
}

func (s *Smoother) maker(ctx context.Context, text string) (*maker, error) {
	h := uint64(14695981039346656037) // FNV-1a: versions depend on the seed and the text, not on the texts around it
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	m := &maker{s: s, r: rand.New(rand.NewPCG(s.Seed, h))}
	for _, w := range attack.Words(text) {
		m.tokens = append(m.tokens, text[w.Start:w.End])
	}
	m.words = len(m.tokens)
	if s.Kind != "synonyms" {
		m.keep = min(m.words, max(1, int(math.Round(s.Keep*float64(m.words)))))
		return m, nil
	}
	known := map[string][]string{}
	set := func(w string) ([]string, error) {
		if list, ok := known[w]; ok {
			return list, nil
		}
		near, err := s.Words.Nearest(ctx, w, s.Synonyms)
		if err != nil {
			return nil, err
		}
		list := []string{w}
		for _, x := range near {
			if !slices.Contains(list, x) {
				list = append(list, x)
			}
		}
		known[w] = list
		return list, nil
	}
	for _, w := range m.tokens {
		w = strings.ToLower(w)
		own, err := set(w)
		if err != nil {
			return nil, err
		}
		m.sets = append(m.sets, own)
		worst := 0.0
		for _, x := range own[1:] {
			other, err := set(x)
			if err != nil {
				return nil, err
			}
			worst = max(worst, variation(own, other))
		}
		m.moved = append(m.moved, worst)
	}
	slices.Sort(m.moved)
	slices.Reverse(m.moved)
	return m, nil
}

// variation is the total variation between uniform draws from two sets: 1 − |A ∩ B| / max(|A|, |B|).
func variation(a, b []string) float64 {
	both := 0
	for _, x := range a {
		if slices.Contains(b, x) {
			both++
		}
	}
	return 1 - float64(both)/float64(max(len(a), len(b)))
}

// draw makes one version.
func (m *maker) draw() string {
	if m.words == 0 {
		return ""
	}
	if m.s.Kind == "synonyms" {
		out := make([]string, m.words)
		for i, set := range m.sets {
			out[i] = set[m.r.IntN(len(set))]
		}
		return strings.Join(out, " ")
	}
	return m.version(m.r.Perm(m.words)[:m.keep])
}

// versions are all where they are at most n, else n draws.
func (m *maker) versions(n int) []string {
	if m.count() <= n {
		return m.every()
	}
	out := make([]string, n)
	for i := range out {
		out[i] = m.draw()
	}
	return out
}

// manyVersions stands for more versions than anybody counts.
const manyVersions = math.MaxInt32

// count is the number of versions that there are, C(words, keep) or the product of the sets' sizes, up to manyVersions.
func (m *maker) count() int {
	n := 1
	if m.s.Kind == "synonyms" {
		for _, set := range m.sets {
			if n *= len(set); n >= manyVersions {
				return manyVersions
			}
		}
		return n
	}
	k := min(m.keep, m.words-m.keep)
	for i := range k {
		if n = n * (m.words - i) / (i + 1); n >= manyVersions {
			return manyVersions
		}
	}
	return n
}

// every is the list of all versions.
func (m *maker) every() []string {
	var out []string
	if m.words == 0 {
		return []string{""}
	}
	if m.s.Kind == "synonyms" {
		chosen := make([]string, m.words)
		var fill func(i int)
		fill = func(i int) {
			if i == m.words {
				out = append(out, strings.Join(chosen, " "))
				return
			}
			for _, w := range m.sets[i] {
				chosen[i] = w
				fill(i + 1)
			}
		}
		fill(0)
		return out
	}
	at := make([]int, m.keep)
	var fill func(i, from int)
	fill = func(i, from int) {
		if i == m.keep {
			out = append(out, m.version(at))
			return
		}
		for j := from; j <= m.words-(m.keep-i); j++ {
			at[i] = j
			fill(i+1, j+1)
		}
	}
	fill(0, 0)
	return out
}

// version keeps the words at some places.
func (m *maker) version(at []int) string {
	kept := make([]bool, m.words)
	for _, i := range at {
		kept[i] = true
	}
	var out []string
	for i, w := range m.tokens {
		switch {
		case kept[i]:
			out = append(out, w)
		case m.s.Kind == "mask":
			out = append(out, m.s.Mask)
		}
	}
	return strings.Join(out, " ")
}

// radius is the largest number of changed words at which a share of at least lower stays above half; −1 when it is not above half now.
func (m *maker) radius(lower float64) int {
	if lower <= 0.5 {
		return -1
	}
	d := 0
	for d < m.words && lower-m.loss(d+1) > 0.5 {
		d++
	}
	return d
}

// loss bounds how much of the vote d changed words can turn. Mask and delete: versions that keep none of them are as before, so it is the
// probability of the others, 1 − C(h−d, k)/C(h, k) for k of h words kept (Zeng et al., 2021, Theorem 2 with β = 1). Synonyms: the total
// variation of a product of independent draws, of which the d most exposed changed.
func (m *maker) loss(d int) float64 {
	same := 1.0
	if m.s.Kind == "synonyms" {
		for _, x := range m.moved[:min(d, len(m.moved))] {
			same *= 1 - x
		}
		return 1 - same
	}
	for j := range d {
		same *= max(0, float64(m.words-m.keep-j)) / float64(m.words-j)
	}
	return 1 - same
}

// LowerBound is the exact (Clopper & Pearson, 1934) one-sided bound: with the given confidence, the probability of an event that
// happened k times of n is at least this.
func LowerBound(k, n int, confidence float64) float64 {
	if k <= 0 || n <= 0 {
		return 0
	}
	alpha := 1 - confidence
	low, high := 0.0, 1.0
	for range 80 {
		if p := (low + high) / 2; atLeast(k, n, p) < alpha {
			low = p
		} else {
			high = p
		}
	}
	return low
}

// atLeast is the probability of k or more of n at probability p.
func atLeast(k, n int, p float64) float64 {
	if p <= 0 {
		return 0
	}
	if p >= 1 {
		return 1
	}
	lp, lq := math.Log(p), math.Log1p(-p)
	ln, _ := math.Lgamma(float64(n + 1))
	sum := 0.0
	for i := k; i <= n; i++ {
		a, _ := math.Lgamma(float64(i + 1))
		b, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(ln - a - b + float64(i)*lp + float64(n-i)*lq)
	}
	return min(1, sum)
}
