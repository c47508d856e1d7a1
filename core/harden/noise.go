package harden

import (
	"context"
	"math/rand/v2"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/temper-ml/temper/core/attack"
)

// CharNoise misspells many words of a text at once, each by one or two random edits: the disguises that word-level attacks on
// classifiers use, drawn afresh each time. It implements attack.Perturber.
type CharNoise struct {
	// Rate is the largest share of the words that may change; each candidate draws its own share between Least and Rate.
	Least, Rate float64
	// Twice is the probability of a second edit in the same word.
	Twice float64
	// Kinds are the edits drawn from; nil means all of CharEdits.
	Kinds []string
}

// CharEdits are the kinds of edits: swap two neighbours, substitute, delete or insert a letter, a neighbouring key, a letter of another
// script that looks the same, a digit or sign that stands for a letter, a split word, a repeated letter, a zero-width character.
var CharEdits = []string{"swap", "substitute", "delete", "insert", "key", "lookalike", "leet", "split", "repeat", "invisible"}

// NewCharNoise returns noise that covers the edits of the usual attacks, the four of DeepWordBug (Gao et al., 2018) more often.
func NewCharNoise() *CharNoise {
	return &CharNoise{Least: 0.1, Rate: 0.6, Twice: 0.1, Kinds: []string{
		"swap", "swap", "substitute", "substitute", "delete", "delete", "insert", "insert",
		"swap", "substitute", "delete", "insert", "key", "lookalike", "leet", "split", "repeat"}}
}

// Name implements attack.Perturber.
func (n *CharNoise) Name() string { return "char-noise" }

// Perturb implements attack.Perturber: each candidate changes a share of the words in May.
func (n *CharNoise) Perturb(_ context.Context, reqs []attack.Request, _ attack.Victim) ([][]string, error) {
	kinds := n.Kinds
	if kinds == nil {
		kinds = CharEdits
	}
	out := make([][]string, len(reqs))
	for i, q := range reqs {
		r := rand.New(rand.NewPCG(q.Seed, 0xc4a2))
		for range max(1, q.Max) {
			out[i] = append(out[i], n.text(q, kinds, r))
		}
	}
	return out, nil
}

func (n *CharNoise) text(q attack.Request, kinds []string, r *rand.Rand) string {
	if len(q.May) == 0 {
		return q.Text
	}
	share := n.Least + (n.Rate-n.Least)*r.Float64()
	count := int(share*float64(len(q.May)) + r.Float64())
	count = max(1, min(count, len(q.May)))
	change := make([]bool, len(q.Words))
	for _, j := range r.Perm(len(q.May))[:count] {
		change[q.May[j]] = true
	}
	var b strings.Builder
	at := 0
	for j, w := range q.Words {
		if !change[j] {
			continue
		}
		b.WriteString(q.Text[at:w.Start])
		word := edit(q.Text[w.Start:w.End], kinds[r.IntN(len(kinds))], r)
		if r.Float64() < n.Twice {
			word = edit(word, kinds[r.IntN(len(kinds))], r)
		}
		b.WriteString(word)
		at = w.End
	}
	b.WriteString(q.Text[at:])
	return b.String()
}

const letters = "abcdefghijklmnopqrstuvwxyz"

// edit changes one place of a word. Words that are too short for a kind get an insertion.
func edit(word, kind string, r *rand.Rand) string {
	u := []rune(word)
	n := len(u)
	if n == 0 {
		return word
	}
	letter := func(like rune) rune {
		c := rune(letters[r.IntN(len(letters))])
		if unicode.IsUpper(like) {
			return unicode.ToUpper(c)
		}
		return c
	}
	i := r.IntN(n)
	insert := func(i int, c rune) string { return string(u[:i]) + string(c) + string(u[i:]) }
	switch kind {
	case "swap":
		if n > 1 {
			i = r.IntN(n - 1)
			u[i], u[i+1] = u[i+1], u[i]
			return string(u)
		}
	case "substitute":
		u[i] = letter(u[i])
		return string(u)
	case "delete":
		if n > 1 {
			return string(u[:i]) + string(u[i+1:])
		}
	case "key":
		if near := keys[unicode.ToLower(u[i])]; near != "" {
			u[i] = rune(near[r.IntN(len(near))])
			return string(u)
		}
	case "lookalike", "leet":
		table := lookalikes
		if kind == "leet" {
			table = leetspeak
		}
		for range n {
			if like := table[unicode.ToLower(u[i])]; like != "" {
				k := r.IntN(utf8.RuneCountInString(like))
				u[i] = []rune(like)[k]
				return string(u)
			}
			i = (i + 1) % n
		}
	case "split":
		if n > 1 {
			return insert(1+r.IntN(n-1), ' ')
		}
	case "repeat":
		return insert(i, u[i])
	case "invisible":
		if n > 1 {
			return insert(1+r.IntN(n-1), '\u200b')
		}
	}
	return insert(r.IntN(n+1), letter(u[i]))
}

// keys are the neighbours on an American keyboard.
var keys = map[rune]string{
	'q': "wa", 'w': "qes", 'e': "wrd", 'r': "etf", 't': "ryg", 'y': "tuh", 'u': "yij", 'i': "uok", 'o': "ipl", 'p': "ol",
	'a': "qsz", 's': "awdx", 'd': "sefc", 'f': "drgv", 'g': "fthb", 'h': "gyjn", 'j': "hukm", 'k': "jil", 'l': "kop",
	'z': "asx", 'x': "zsdc", 'c': "xdfv", 'v': "cfgb", 'b': "vghn", 'n': "bhjm", 'm': "njk",
}

// lookalikes are letters of other scripts that stand for a Latin letter.
var lookalikes = map[rune]string{
	'a': "\u0430", 'c': "\u0441", 'e': "\u0435", 'h': "\u04bb", 'i': "\u0456", 'j': "\u0458", 'o': "\u043e", 'p': "\u0440", 's': "\u0455",
	'x': "\u0445", 'y': "\u0443",
}

// leetspeak are digits and signs that stand for a letter.
var leetspeak = map[rune]string{
	'a': "@4", 'b': "8", 'e': "3", 'g': "9", 'i': "1!", 'l': "1|", 'o': "0", 's': "5$", 't': "7+", 'z': "2",
}
