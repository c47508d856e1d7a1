package canon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// Synonyms tells which words a tokenizer is to read alike.
type Synonyms struct {
	// Near lists the words that mean nearly the same as a word, the nearest first. Small letters.
	Near map[string][]string
	// Counts say how often a text holds a word, in any unit: the more usual word of two is what both are read as.
	Counts map[string]float64
	// Leave, when not nil, names words that are read as themselves.
	Leave func(word string) bool
	// Apart, when not nil, names pairs that are not read alike though they are near.
	Apart func(a, b string) bool
}

// Readings tells what each word is read as: words of one meaning as one of them, itself included. It is the synonym encoding of Wang et al.
// (UAI 2021) without its chains, which put words together that nobody would: the usual words choose first, a word is read as the nearest of its
// neighbours that stands for itself, or stands for itself and takes those of its neighbours along that are not read as anything yet.
func (s Synonyms) Readings() map[string]string {
	near, linked := map[string][]string{}, map[[2]string]bool{}
	takes := func(w string) bool {
		return w != "" && strings.IndexFunc(w, func(r rune) bool { return !unicode.IsLetter(r) || unicode.IsUpper(r) }) < 0 && (s.Leave == nil || !s.Leave(w))
	}
	link := func(a, b string) {
		if a != b && !linked[[2]string{a, b}] {
			linked[[2]string{a, b}] = true
			near[a] = append(near[a], b)
		}
	}
	words := slices.Sorted(maps.Keys(s.Near))
	for pass := range 2 { // a word's own neighbours go before those that it is a neighbour of
		for _, a := range words {
			for _, b := range s.Near[a] {
				if !takes(a) || !takes(b) || s.Apart != nil && s.Apart(a, b) {
					continue
				}
				if pass == 0 {
					link(a, b)
				} else {
					link(b, a)
				}
			}
		}
	}
	order := slices.SortedFunc(maps.Keys(near), func(a, b string) int {
		if x, y := s.Counts[a], s.Counts[b]; x != y {
			if x > y {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	out := make(map[string]string, len(order))
	members := map[string][]string{}
	join := func(head, w string) bool {
		if s.Apart != nil && slices.ContainsFunc(members[head], func(m string) bool { return s.Apart(m, w) }) {
			return false
		}
		out[w] = head
		members[head] = append(members[head], w)
		return true
	}
	for _, w := range order {
		if _, done := out[w]; done {
			continue
		}
		if slices.ContainsFunc(near[w], func(x string) bool { return out[x] == x && join(x, w) }) {
			continue
		}
		join(w, w)
		for _, x := range near[w] {
			if _, ok := out[x]; !ok {
				join(w, x)
			}
		}
	}
	return out
}

// ReadAlike teaches a WordPiece tokenizer to read words of one meaning as one of them, so that putting a synonym in a word's place changes nothing for
// the model. A word of the vocabulary takes the id of another; a word of several pieces becomes one. Where none of the words that are read alike
// is in the vocabulary they stay as they were. Models are to be trained as they read. It returns the new tokenizer.json and the words that it reads
// alike, sorted: a guard must leave all of them as they are.
func ReadAlike(tokenizer []byte, s Synonyms) ([]byte, []string, error) {
	t, err := parseWordPiece(tokenizer)
	if err != nil {
		return nil, nil, fmt.Errorf("tokenizer.json: synonyms: %w", err)
	}
	readings := s.Readings()
	alike := map[string][]string{}
	for _, w := range slices.Sorted(maps.Keys(readings)) {
		alike[readings[w]] = append(alike[readings[w]], w)
	}
	changed := map[string]int{}
	var added []entry
	var words []string
	for head, group := range alike {
		if _, ok := t.vocab[head]; !ok {
			head = ""
			for _, w := range group {
				if id, ok := t.vocab[w]; ok && (head == "" || s.Counts[w] > s.Counts[head] || s.Counts[w] == s.Counts[head] && id < t.vocab[head]) {
					head = w
				}
			}
			if head == "" {
				continue
			}
		}
		for _, w := range group {
			if id, ok := t.vocab[w]; !ok {
				added = append(added, entry{w, t.vocab[head]})
			} else if id != t.vocab[head] {
				changed[w] = t.vocab[head]
			}
		}
		if len(group) > 1 {
			words = append(words, group...)
		}
	}
	slices.Sort(words)
	out, err := t.rewrite(changed, added)
	return out, words, err
}
