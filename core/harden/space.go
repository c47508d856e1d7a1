package harden

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/pipeline"
)

// WordSpace finds words that mean nearly the same, by what a sentence encoder says of each word alone: no lexicon is needed. It implements
// attack.Neighbours. Encoders put opposites close together ("good", "bad"), so with Telling a neighbour that speaks for another label than
// the word is left out.
type WordSpace struct {
	// Min is the least cosine of a neighbour.
	Min float64

	k     backend.Kernels
	words []string
	rows  []float32 // [words, cols], of unit length
	cols  int
	index map[string]int
	votes labelVotes

	mu    sync.Mutex
	known map[string][]string
}

var _ attack.Neighbours = (*WordSpace)(nil)

// vote is the label that a word speaks for, and how far its count is from what chance gives, in standard deviations.
type vote struct {
	label int
	z     float64
}

// NewWordSpace embeds the whole words of the encoder's vocabulary, and the words of the texts. d may be nil.
func NewWordSpace(ctx context.Context, p *pipeline.Pipeline, k backend.Kernels, d *data.Dataset) (*WordSpace, error) {
	s := &WordSpace{Min: 0.45, k: k, index: map[string]int{}, known: map[string][]string{}}
	tok := p.Bundle().Tokenizer
	if tok == nil {
		return nil, fmt.Errorf("%s has no tokenizer", p.Bundle().Dir)
	}
	add := func(w string) {
		if _, ok := s.index[w]; !ok {
			s.index[w] = len(s.words)
			s.words = append(s.words, w)
		}
	}
	for id := int32(0); id <= tok.MaxID(); id++ {
		if name, ok := tok.Token(id); ok && !tok.IsSpecial(id) && len(name) > 2 && letterWord(name) {
			add(strings.ToLower(name))
		}
	}
	if d != nil {
		counts := map[string]int{}
		for _, t := range d.Texts {
			for _, w := range lowerWords(t) {
				counts[w]++
			}
		}
		for _, t := range d.Texts { // in the order of the texts
			for _, w := range lowerWords(t) {
				if counts[w] > 1 && len(w) > 2 {
					add(w)
				}
			}
		}
		if d.Labels != nil {
			s.votes = votes(d.Texts, d.Labels)
		}
	}
	if len(s.words) == 0 {
		return nil, fmt.Errorf("%s: no whole words in the vocabulary", p.Bundle().Dir)
	}
	vectors, err := p.Embed(ctx, s.words)
	if err != nil {
		return nil, err
	}
	s.cols = len(vectors[0])
	for _, v := range vectors {
		f := math.Sqrt(k.SumSquares(v))
		if f > 0 {
			f = 1 / f
		}
		for _, x := range v {
			s.rows = append(s.rows, float32(f)*x)
		}
	}
	return s, nil
}

func letterWord(w string) bool {
	for _, r := range w {
		if !unicode.IsLetter(r) {
			return false
		}
	}
	return w != ""
}

func lowerWords(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) })
}

// votes counts in how many texts of each label every word occurs.
func votes(texts []string, labels []int) labelVotes {
	classes := 0
	for _, l := range labels {
		classes = max(classes, l+1)
	}
	size := make([]float64, classes)
	counts := map[string][]float64{}
	total := 0.0
	for i, t := range texts {
		if labels[i] < 0 {
			continue
		}
		size[labels[i]]++
		total++
		seen := map[string]bool{}
		for _, w := range lowerWords(t) {
			if seen[w] {
				continue
			}
			seen[w] = true
			if counts[w] == nil {
				counts[w] = make([]float64, classes)
			}
			counts[w][labels[i]]++
		}
	}
	out := make(labelVotes, len(counts))
	for w, c := range counts {
		sum := 0.0
		for _, x := range c {
			sum += x
		}
		best := vote{label: -1}
		for l, x := range c {
			p := size[l] / total
			if z := (x - sum*p) / math.Sqrt(sum*p*(1-p)+1); best.label < 0 || z > best.z {
				best = vote{l, z}
			}
		}
		out[w] = best
	}
	return out
}

// labelVotes are those of words.
type labelVotes map[string]vote

// against tells whether two words speak for different labels.
func (v labelVotes) against(a, b string) bool {
	x, ok := v[a]
	y, also := v[b]
	return ok && also && x.label != y.label && x.z > 1 && y.z > 0.5
}

// spaceNeighbours is the largest number of neighbours of a word.
const spaceNeighbours = 32

// Nearest implements attack.Neighbours: up to n of at most 32. Words that the space does not hold have none.
func (s *WordSpace) Nearest(_ context.Context, word string, n int) ([]string, error) {
	word = strings.ToLower(word)
	s.mu.Lock()
	defer s.mu.Unlock()
	list, ok := s.known[word]
	if !ok {
		list = s.find(word, spaceNeighbours)
		s.known[word] = list
	}
	return slices.Clone(list[:min(n, len(list))]), nil
}

func (s *WordSpace) find(word string, n int) []string {
	at, ok := s.index[word]
	if !ok {
		return nil
	}
	sim := make([]float32, len(s.words))
	s.k.MatMul(backend.MatMulArgs{M: 1, N: len(s.words), K: s.cols, A: s.rows[at*s.cols : (at+1)*s.cols], LDA: s.cols, B: s.rows, LDB: s.cols, TransB: true,
		C: sim, LDC: len(s.words)})
	order := make([]int, 0, 64)
	for i, x := range sim {
		if i != at && float64(x) >= s.Min {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case sim[a] > sim[b]:
			return -1
		case sim[a] < sim[b]:
			return 1
		}
		return a - b
	})
	out := make([]string, 0, n)
	for _, i := range order {
		if len(out) == n {
			break
		}
		if !s.votes.against(word, s.words[i]) {
			out = append(out, s.words[i])
		}
	}
	return out
}

// StandIn is the nearest word that ok accepts and that does not speak for another label; "" when there is none near. Where nothing is
// near, a word that tells of a label stands for the nearest that tells of the same.
func (s *WordSpace) StandIn(word string, ok func(string) bool) string {
	at, known := s.index[word]
	if !known {
		return ""
	}
	sim := make([]float32, len(s.words))
	s.k.MatMul(backend.MatMulArgs{M: 1, N: len(s.words), K: s.cols, A: s.rows[at*s.cols : (at+1)*s.cols], LDA: s.cols, B: s.rows, LDB: s.cols, TransB: true,
		C: sim, LDC: len(s.words)})
	mine := s.votes[word]
	best, same := -1, -1
	for i, x := range sim {
		if i == at || !ok(s.words[i]) {
			continue
		}
		if float64(x) >= s.Min && (best < 0 || x > sim[best]) && !s.votes.against(word, s.words[i]) {
			best = i
		}
		if v := s.votes[s.words[i]]; mine.z > 0.5 && v.z > 2 && v.label == mine.label && (same < 0 || x > sim[same]) {
			same = i
		}
	}
	switch {
	case best >= 0:
		return s.words[best]
	case same >= 0:
		return s.words[same]
	}
	return ""
}
