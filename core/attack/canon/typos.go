package canon

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/temper-ml/temper/core/token"
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
	vocab, guarded := t.vocab, map[string]bool{}
	typos := token.Typos{Real: slices.Clone(g.Real)}
	for _, w := range g.Words {
		if len(w) < 3 || len(w) > 32 || strings.IndexFunc(w, func(r rune) bool { return r > 'z' || r < 'a' }) >= 0 || guarded[w] {
			typos.Real = append(typos.Real, w)
			continue
		}
		id, ok := vocab[w]
		if !ok {
			if id, ok = vocab[g.StandIns[w]]; !ok {
				typos.Real = append(typos.Real, w)
				continue
			}
		}
		guarded[w] = true
		if _, ok := vocab[w]; !ok {
			typos.Real = append(typos.Real, g.StandIns[w]) // keeps its meaning
		}
		typos.Words, typos.IDs, typos.Counts = append(typos.Words, w), append(typos.IDs, int32(id)), append(typos.Counts, g.Counts[w])
	}
	table := typos.Table()
	changed := map[string]int{}
	for e, r := range table {
		if _, known := vocab[e]; known && len(e) > 2 && g.Slips*r.Score > g.Counts[e] {
			changed[e] = int(r.ID)
		}
	}
	if g.Pieces != nil && t.prefix != "" {
		for e := range vocab {
			if strings.HasPrefix(e, t.prefix) && !g.Pieces[e] {
				changed[e] = -1
			}
		}
	}
	out, err := t.rewrite(changed, nil)
	if err != nil {
		return nil, 0, err
	}
	if len(typos.Words) == 0 {
		return out, 0, nil
	}
	if out, err = token.WithTypos(out, &typos, table); err == nil {
		_, err = token.Load(out) // what cannot be opened is not to be written
	}
	return out, len(typos.Words), err
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
