package canon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
)

// Typos teaches a WordPiece tokenizer to read misspelt words: every single edit of a guarded word (a letter swapped with its neighbour,
// replaced, left out or put in) enters the vocabulary under the word's own id, unless it is a word itself. The model sees the word that was
// meant; its weights do not change, and any reader of tokenizer.json sees the same. It is the idea of robust encodings (Jones et al., 2020)
// within what the format can say. Edits of a word of n letters are some 53·n entries, so the file grows with the number of words: about
// 7 MB a thousand.
//
// Words whose pieces are more than one, or shorter than three letters, are passed over. It returns the new tokenizer.json and the number of
// words guarded.
func Typos(tokenizer []byte, words []string) ([]byte, int, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(tokenizer, &doc); err != nil {
		return nil, 0, fmt.Errorf("tokenizer.json: %w", err)
	}
	var model map[string]json.RawMessage
	if err := json.Unmarshal(doc["model"], &model); err != nil {
		return nil, 0, fmt.Errorf("tokenizer.json: model: %w", err)
	}
	var kind string
	if err := json.Unmarshal(model["type"], &kind); err != nil || kind != "WordPiece" {
		return nil, 0, fmt.Errorf("tokenizer.json: the guard against typos needs a WordPiece vocabulary, found %q", kind)
	}
	var vocab map[string]int
	if err := json.Unmarshal(model["vocab"], &vocab); err != nil {
		return nil, 0, fmt.Errorf("tokenizer.json: vocab: %w", err)
	}
	real := make(map[string]bool, len(words))
	for _, w := range words {
		real[w] = true
	}
	type entry struct {
		token string
		id    int
	}
	var added []entry
	taken := map[string]bool{}
	guarded := 0
	for _, w := range words {
		id, ok := vocab[w]
		if !ok || len(w) < 3 || strings.IndexFunc(w, func(r rune) bool { return r > 'z' || r < 'a' }) >= 0 {
			continue
		}
		guarded++
		for e := range edits(w) {
			if _, known := vocab[e]; known || real[e] || taken[e] {
				continue
			}
			taken[e] = true
			added = append(added, entry{e, id})
		}
	}
	slices.SortFunc(added, func(a, b entry) int { return strings.Compare(a.token, b.token) })
	// The old entries stay as they were; the new ones follow.
	old := bytes.TrimSpace(model["vocab"])
	var b bytes.Buffer
	b.Write(old[:len(old)-1])
	for i, e := range added {
		if i > 0 || len(vocab) > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%d", e.token, e.id)
	}
	b.WriteByte('}')
	model["vocab"] = b.Bytes()
	raw, err := json.Marshal(model)
	if err != nil {
		return nil, 0, err
	}
	doc["model"] = raw
	out, err := json.Marshal(doc)
	return out, guarded, err
}

// edits yields the strings at one edit from a word of small Latin letters.
func edits(w string) func(yield func(string) bool) {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	return func(yield func(string) bool) {
		for i := range len(w) {
			if !yield(w[:i] + w[i+1:]) {
				return
			}
			if i+1 < len(w) && !yield(w[:i]+w[i+1:i+2]+w[i:i+1]+w[i+2:]) {
				return
			}
			for _, c := range letters {
				if !yield(w[:i] + string(c) + w[i+1:]) {
					return
				}
			}
		}
		for i := range len(w) + 1 {
			for _, c := range letters {
				if !yield(w[:i] + string(c) + w[i:]) {
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
