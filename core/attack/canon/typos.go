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

// Guard is what Typos protects. Words of several pieces without a stand-in, and those of fewer than three letters, are passed over.
type Guard struct {
	// Words are guarded, the most important first: an edit that two of them share is read as the first.
	Words []string
	// StandIns name, for words of several pieces, one of one piece that means nearly the same: misspellings are read as that.
	StandIns map[string]string
	// Rare is the number of the first Words whose misspellings win against entries of the vocabulary too, when those are not among
	// Words: "bat" is read as "bad" where no text of the task held a bat.
	Rare int
}

// Typos teaches a WordPiece tokenizer to read misspelt words: every single edit of a guarded word (a letter swapped with its neighbour,
// replaced, left out or put in) enters the vocabulary under the word's own id, unless it is a word itself. The model sees the word that was
// meant; its weights do not change, and any reader of tokenizer.json sees the same. It is the idea of robust encodings (Jones et al., 2020)
// within what the format can say. Edits of a word of n letters are some 53·n entries, so the file grows with the number of words: about
// 7 MB a thousand.
//
// It returns the new tokenizer.json and the number of words guarded.
func Typos(tokenizer []byte, g Guard) ([]byte, int, error) {
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
	real := make(map[string]bool, len(g.Words))
	for _, w := range g.Words {
		real[w] = true
	}
	type entry struct {
		token string
		id    int
	}
	var added []entry
	taken := map[string]bool{}
	guarded := 0
	replaced := map[string]int{}
	for i, w := range g.Words {
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
		for e := range edits(w) {
			if e == "" || real[e] || taken[e] {
				continue
			}
			taken[e] = true
			if _, known := vocab[e]; !known {
				added = append(added, entry{e, id})
			} else if i < g.Rare && len(e) > 2 {
				replaced[e] = id
			}
		}
	}
	slices.SortFunc(added, func(a, b entry) int { return strings.Compare(a.token, b.token) })
	// The old entries stay where they were; the new ones follow.
	old := bytes.TrimSpace(model["vocab"])
	if len(replaced) > 0 {
		var err error
		if old, err = renumber(old, replaced); err != nil {
			return nil, 0, fmt.Errorf("tokenizer.json: vocab: %w", err)
		}
	}
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

// renumber gives entries of a vocabulary other ids and keeps their order.
func renumber(vocab []byte, ids map[string]int) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(vocab))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for n := 0; dec.More(); n++ {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var id int
		if err := dec.Decode(&id); err != nil {
			return nil, err
		}
		name, _ := key.(string)
		if to, ok := ids[name]; ok {
			id = to
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%d", quoted, id)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
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
