package canon

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
)

// Guard is what Typos protects. Words of several pieces without a stand-in, and those of fewer than three letters, are passed over.
type Guard struct {
	// Words are guarded, the most important first.
	Words []string
	// Counts say how often a text holds a word, in any unit: an edit that two guarded words share is read as the one that it more likely
	// comes from, by their counts and by the number of other edits that each has. Where nothing is known, the first of Words wins.
	Counts map[string]float64
	// StandIns name, for words of several pieces, one of one piece that means nearly the same: misspellings are read as that.
	StandIns map[string]string
	// Slips is the number of misspelt words per well-spelt one that is expected. An entry of the vocabulary that is not among Words is read
	// as the word that it is an edit of when the counts say that this is likelier: 0.25 reads "gret" as "great" and leaves "heart". At 0
	// all entries stay what they are.
	Slips float64
	// Real are other words that no misspelling is: they are read as they were.
	Real []string
	// Pieces, when not nil, are the continuations ("##ing") that stay in the vocabulary. A word that cannot be put together from what is left
	// is one unknown word to the model, in place of pieces that may say anything.
	Pieces map[string]bool
}

// reading is what an edit is read as.
type reading struct {
	id    int
	score float64
}

// Typos teaches a WordPiece tokenizer to read misspelt words: every single edit of a guarded word (a letter swapped with its neighbour,
// replaced, left out or put in) enters the vocabulary under the word's own id, unless it is a word itself. The model sees the word that was
// meant; its weights do not change, and any reader of tokenizer.json sees the same. It is the idea of robust encodings (Jones et al., 2020)
// within what the format can say. Edits of a word of n letters are some 53·n entries, so the file grows with the number of words: about
// 7 MB a thousand.
//
// It returns the new tokenizer.json and the number of words guarded.
func Typos(tokenizer []byte, g Guard) ([]byte, int, error) {
	t, err := parseWordPiece(tokenizer)
	if err != nil {
		return nil, 0, fmt.Errorf("tokenizer.json: guard against typos: %w", err)
	}
	vocab := t.vocab
	real := make(map[string]bool, len(g.Words))
	for _, w := range slices.Concat(g.Words, g.Real) {
		real[w] = true
	}
	found := map[string]reading{}
	guarded := 0
	for _, w := range g.Words {
		if len(w) < 3 || strings.IndexFunc(w, func(r rune) bool { return r > 'z' || r < 'a' }) >= 0 {
			continue
		}
		id, ok := vocab[w]
		if !ok {
			if id, ok = vocab[g.StandIns[w]]; !ok {
				continue
			}
		}
		guarded++
		for e, share := range edits(w) {
			if e == "" || real[e] {
				continue
			}
			score := g.Counts[w] * share
			if r, ok := found[e]; !ok || score > r.score {
				found[e] = reading{id, score}
			}
		}
	}
	var added []entry
	changed := map[string]int{}
	for e, r := range found {
		if _, known := vocab[e]; !known {
			added = append(added, entry{e, r.id})
		} else if len(e) > 2 && g.Slips*r.score > g.Counts[e] {
			changed[e] = r.id
		}
	}
	if g.Pieces != nil && t.prefix != "" {
		for e := range vocab {
			if strings.HasPrefix(e, t.prefix) && !g.Pieces[e] {
				changed[e] = -1
			}
		}
	}
	out, err := t.rewrite(changed, added)
	return out, guarded, err
}

// edits yields the strings at one edit from a word of small Latin letters, some more than once, with the share of each among all: the four kinds
// of edit alike, and alike within a kind.
func edits(w string) func(yield func(string, float64) bool) {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	n := float64(len(w))
	return func(yield func(string, float64) bool) {
		for i := range len(w) {
			if !yield(w[:i]+w[i+1:], 1/(4*n)) {
				return
			}
			if i+1 < len(w) && !yield(w[:i]+w[i+1:i+2]+w[i:i+1]+w[i+2:], 1/(4*(n-1))) {
				return
			}
			for _, c := range letters {
				if !yield(w[:i]+string(c)+w[i+1:], 1/(4*26*n)) {
					return
				}
			}
		}
		for i := range len(w) + 1 {
			for _, c := range letters {
				if !yield(w[:i]+string(c)+w[i:], 1/(4*26*(n+1))) {
					return
				}
			}
		}
	}
}

// Telling returns up to n words of labelled texts, those that tell most of the label first: by the spread of their counts over the labels,
// in standard deviations. Small letters only.
func Telling(texts []string, labels []int, n int) []string {
	classes := 0
	for _, l := range labels {
		classes = max(classes, l+1)
	}
	counts := map[string][]float64{}
	size := make([]float64, classes)
	for i, t := range texts {
		if labels[i] < 0 {
			continue
		}
		size[labels[i]]++
		seen := map[string]bool{}
		for _, w := range strings.FieldsFunc(strings.ToLower(t), func(r rune) bool { return !unicode.IsLetter(r) }) {
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
	total := 0.0
	for _, s := range size {
		total += s
	}
	type scored struct {
		w string
		s float64
	}
	var all []scored
	for w, c := range counts {
		sum, worst := 0.0, 0.0
		for _, x := range c {
			sum += x
		}
		for l, x := range c {
			want := sum * size[l] / total
			worst = max(worst, math.Abs(x-want)/math.Sqrt(want+1))
		}
		all = append(all, scored{w, worst})
	}
	slices.SortFunc(all, func(a, b scored) int {
		if a.s != b.s {
			if a.s > b.s {
				return -1
			}
			return 1
		}
		return strings.Compare(a.w, b.w)
	})
	out := make([]string, 0, min(n, len(all)))
	for _, x := range all[:min(n, len(all))] {
		out = append(out, x.w)
	}
	return out
}
