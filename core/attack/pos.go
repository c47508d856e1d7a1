package attack

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// Part is a coarse part of speech.
type Part byte

// Parts of speech. Closed are function words, numbers and names of the closed classes.
const (
	Closed Part = iota
	Noun
	Verb
	Adjective
	Adverb
	parts
)

func (p Part) String() string {
	return [...]string{"closed", "noun", "verb", "adjective", "adverb", "?"}[min(p, parts)]
}

// posSentences are sentences of our own, one a line: open-class words carry /n, /v, /a or /r. A line that begins with =n, =v, =a or =r lists words of
// one part.
//
//go:embed pos_sentences.txt
var posSentences string

// tagger is an averaged perceptron (Collins 2002) over a word, its ending, its neighbours and the parts of the two words before, decoded from left
// to right. It learns from posSentences when it is first used, within a few milliseconds, so that there are no weights to keep.
type tagger struct{ weights map[string]*[parts]float32 }

var newTagger = sync.OnceValue(func() *tagger { return trainTagger(posSentences, 8) })

type taggedWord struct {
	word string
	part Part
}

func parseTagged(text string) [][]taggedWord {
	var out [][]taggedWord
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var s []taggedWord
		if list, ok := strings.CutPrefix(line, "="); ok {
			f := strings.Fields(list)
			for _, w := range f[1:] { // alone, a word teaches what it and its ending are
				out = append(out, []taggedWord{{w, Part(1 + strings.Index("nvar", f[0]))}})
			}
			continue
		}
		for _, f := range strings.Fields(line) {
			w, tag, _ := strings.Cut(f, "/")
			p := Closed
			if closedPart(w) != Closed && tag != "" {
				p = Part(1 + strings.Index("nvar", tag))
			}
			s = append(s, taggedWord{w, p})
		}
		out = append(out, s)
	}
	return out
}

func trainTagger(text string, rounds int) *tagger {
	sentences := parseTagged(text)
	t := &tagger{weights: map[string]*[parts]float32{}}
	sums, last := map[string]*[parts]float32{}, map[string]*[parts]int{}
	step := 0
	update := func(f string, p Part, by float32) {
		w := t.weights[f]
		if w == nil {
			w = new([parts]float32)
			t.weights[f], sums[f], last[f] = w, new([parts]float32), new([parts]int)
		}
		sums[f][p] += float32(step-last[f][p]) * w[p]
		last[f][p] = step
		w[p] += by
	}
	var feats []string
	r := NewRand(1)
	order := make([]int, len(sentences))
	for i := range order {
		order[i] = i
	}
	for range rounds {
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, k := range order {
			s := sentences[k]
			words := make([]string, len(s))
			for i, w := range s {
				words[i] = w.word
			}
			before, prev := Closed, Closed
			for i, w := range s {
				step++
				got := closedPart(words[i])
				if got != Closed {
					feats = features(feats[:0], words, i, before, prev)
					if len(s) == 1 {
						feats = feats[:lexical]
					}
					got = t.best(feats, w.part, 2*float32(len(feats))/lexical)
					if got != w.part && w.part != Closed {
						for j, f := range feats {
							by := float32(1)
							if j < lexical {
								by = 2
							}
							update(f, w.part, by)
							update(f, got, -by)
						}
					}
				}
				before, prev = prev, w.part
			}
		}
	}
	for f, w := range t.weights {
		for p := range w {
			w[p] = (sums[f][p] + float32(step-last[f][p])*w[p]) / float32(step)
		}
	}
	return t
}

// closedPart is Closed for function words and numbers, and Noun, a place-holder, for words whose part is to be found.
func closedPart(word string) Part {
	if closedWords[strings.ToLower(word)] || strings.ContainsAny(word, "0123456789") {
		return Closed
	}
	return Noun
}

// lexical is the number of features, the first ones, that look at the word alone.
const lexical = 5

// features of word i, given the parts of the two words before.
func features(f []string, words []string, i int, before, prev Part) []string {
	at := func(j int) string {
		if j < 0 || j >= len(words) {
			return "|"
		}
		return strings.ToLower(words[j])
	}
	w := at(i)
	end := func(n int) string {
		for k := len(w); k > 0; {
			_, size := utf8.DecodeLastRuneInString(w[:k])
			if k, n = k-size, n-1; n == 0 {
				return w[k:]
			}
		}
		return w
	}
	p1, p2 := string('0'+rune(prev)), string('0'+rune(before))
	return append(f, "w"+w, "1"+end(1), "2"+end(2), "3"+end(3), "4"+end(4), "b", "p"+p1, "q"+p2+p1, "l"+at(i-1), "n"+at(i+1), "s"+p1+end(2), "m"+at(i-1)+"|"+at(i+1),
		"c"+string('0'+rune(closedPart(at(i+1))))+p1)
}

// best is the open class that scores highest, the first among equals, when right has margin less than it has: what learning asks for, so that
// a word's own features get their weight although its neighbours would do.
func (t *tagger) best(feats []string, right Part, margin float32) Part {
	var score [parts]float32
	for _, f := range feats {
		if w := t.weights[f]; w != nil {
			for p := range score {
				score[p] += w[p]
			}
		}
	}
	score[right] -= margin
	best := Noun
	for p := Verb; p < parts; p++ {
		if score[p] > score[best] {
			best = p
		}
	}
	return best
}

// at tags word i, given the parts of the words before it.
func (t *tagger) at(words []string, i int, done []Part) Part {
	if closedPart(words[i]) == Closed {
		return Closed
	}
	before, prev := Closed, Closed
	if i > 0 {
		prev = done[i-1]
	}
	if i > 1 {
		before = done[i-2]
	}
	return t.best(features(nil, words, i, before, prev), Closed, 0)
}

func (t *tagger) tag(words []string) []Part {
	out := make([]Part, len(words))
	for i := range words {
		out[i] = t.at(words, i, out)
	}
	return out
}

// PartsOfSpeech tags the words of an English text. On sentences that it did not learn from it is right for about nine words in ten of the open
// classes (see the test); words of other languages are mostly called nouns.
func PartsOfSpeech(words []string) []Part { return newTagger().tag(words) }

func (t *Text) words() []string {
	out := make([]string, t.Len())
	for i := range out {
		out[i] = t.Word(i)
	}
	return out
}

// SamePart wants what replaces a word to be of its part of speech, by a small tagger; with NounVerb, nouns and verbs may replace each other. It
// passes candidates whose number of words changed.
type SamePart struct{ NounVerb bool }

func (c SamePart) Name() string {
	if c.NounVerb {
		return "part-of-speech:noun=verb"
	}
	return "part-of-speech"
}

func (c SamePart) Allow(_ *Task, cands []*Text, x *Text) ([]bool, error) {
	g := newTagger()
	words := x.words()
	tags := g.tag(words)
	ok := make([]bool, len(cands))
	for k, y := range cands {
		i := y.Last
		if y.Len() != x.Len() || i < 0 {
			ok[k] = true
			continue
		}
		if i >= len(words) {
			return nil, fmt.Errorf("word %d of %d", i, len(words))
		}
		was := words[i]
		words[i] = y.Word(i)
		p := g.at(words, i, tags)
		words[i] = was
		swap := c.NounVerb && (p == Noun || p == Verb) && (tags[i] == Noun || tags[i] == Verb)
		ok[k] = p == tags[i] || swap
	}
	return ok, nil
}
