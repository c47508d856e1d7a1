package harden

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/attack"
)

// wholeText marks perturbers that change many words of a text at once; others are applied to one word after another.
type wholeText interface{ wholeText() }

func (*CharNoise) wholeText()    {}
func (*WordNoise) wholeText()    {}
func (*SynonymNoise) wholeText() {}

// WordNoise takes words out of a text or puts a mask in their place, so that no prediction hangs on a few words (word dropout; Zeng et al.,
// 2021, train so for certified robustness). It implements attack.Perturber and knows nothing of any attack.
type WordNoise struct {
	// Rate is the largest share of the words that change; each candidate draws its own share between Least and Rate.
	Least, Rate float64
	// Mask stands for a word; empty leaves it out.
	Mask string
}

// Name implements attack.Perturber.
func (n *WordNoise) Name() string { return "word-noise" }

// Perturb implements attack.Perturber. Requests with one word keep it.
func (n *WordNoise) Perturb(_ context.Context, reqs []attack.Request, _ attack.Victim) ([][]string, error) {
	out := make([][]string, len(reqs))
	for i, q := range reqs {
		r := rand.New(rand.NewPCG(q.Seed, 0x30bd))
		for range max(1, q.Max) {
			share := n.Least + (n.Rate-n.Least)*r.Float64()
			count := min(int(share*float64(len(q.May))+r.Float64()), len(q.May), len(q.Words)-1)
			if count <= 0 {
				out[i] = append(out[i], q.Text)
				continue
			}
			gone := make([]int, count)
			for k, j := range r.Perm(len(q.May))[:count] {
				gone[k] = q.May[j]
			}
			out[i] = append(out[i], replaceWords(q.Text, q.Words, gone, n.Mask))
		}
	}
	return out, nil
}

// SynonymNoise replaces words by near ones, many of a text at once. It implements attack.Perturber.
type SynonymNoise struct {
	// Rate is the largest share of the words that change; each candidate draws its own share between Least and Rate.
	Least, Rate float64
	// Words finds the near words, of which the first N are drawn from.
	Words attack.Neighbours
	N     int
}

// Name implements attack.Perturber.
func (n *SynonymNoise) Name() string { return "synonyms-noise" }

// Perturb implements attack.Perturber. Words without near ones stay.
func (n *SynonymNoise) Perturb(ctx context.Context, reqs []attack.Request, _ attack.Victim) ([][]string, error) {
	out := make([][]string, len(reqs))
	for i, q := range reqs {
		r := rand.New(rand.NewPCG(q.Seed, 0x5717))
		for range max(1, q.Max) {
			share := n.Least + (n.Rate-n.Least)*r.Float64()
			left := int(share*float64(len(q.May)) + r.Float64())
			with := map[int]string{}
			for _, j := range r.Perm(len(q.May)) {
				if left == 0 {
					break
				}
				w := q.Words[q.May[j]]
				word := q.Text[w.Start:w.End]
				near, err := n.Words.Nearest(ctx, word, n.N)
				if err != nil {
					return nil, err
				}
				if len(near) > 0 {
					with[q.May[j]] = likeCase(near[r.IntN(len(near))], word)
					left--
				}
			}
			var b strings.Builder
			from := 0
			for j, w := range q.Words {
				if x, ok := with[j]; ok {
					b.WriteString(q.Text[from:w.Start])
					b.WriteString(x)
					from = w.End
				}
			}
			b.WriteString(q.Text[from:])
			out[i] = append(out[i], b.String())
		}
	}
	return out, nil
}

// replaceWords puts one string in place of some words, in any order.
func replaceWords(text string, words []attack.Span, at []int, with string) string {
	at = slices.Clone(at)
	slices.Sort(at)
	var b strings.Builder
	from := 0
	for _, i := range at {
		b.WriteString(text[from:words[i].Start])
		b.WriteString(with)
		from = words[i].End
	}
	b.WriteString(text[from:])
	return b.String()
}

// recipeEdits are the character edits that a recipe makes, by the names of CharEdits.
var recipeEdits = map[string][]string{
	"deepwordbug":      {"swap", "substitute", "delete", "insert"},
	"textbugger":       {"split", "delete", "swap", "lookalike"},
	"textbugger-chars": {"split", "delete", "swap", "lookalike"},
	"pruthi":           {"swap", "delete", "insert", "key"},
	"bad-characters":   {"invisible", "lookalike"},
	"viper":            {"lookalike"},
	"leetspeak":        {"leet"},
	"spacing":          {"split"},
	"keyboard":         {"key"},
	"evasions":         {"leet", "split", "lookalike", "invisible"},
	"mixed":            CharEdits,
}

// wordRecipes are recipes that replace words by near ones.
var wordRecipes = []string{"synonyms", "textbugger", "textfooler", "pwws", "bae", "bert-attack", "clare", "a2t", "hotflip", "genetic", "pso", "mixed"}

// without leaves out of the sources what the recipes do: kinds of character noise, perturbers of the same name, and for recipes that
// replace words every source of synonyms.
func without(sources []attack.Perturber, recipes []string) ([]attack.Perturber, error) {
	if len(recipes) == 0 {
		return sources, nil
	}
	gone := map[string]bool{}
	words := false
	for _, r := range recipes {
		if !slices.Contains(attack.RecipeNames(), r) {
			return nil, fmt.Errorf("held out: no recipe %q", r)
		}
		for _, k := range recipeEdits[r] {
			gone[k] = true
		}
		words = words || slices.Contains(wordRecipes, r)
	}
	var out []attack.Perturber
	for _, s := range sources {
		if c, ok := s.(*CharNoise); ok {
			own := *c
			if own.Kinds == nil {
				own.Kinds = CharEdits
			}
			own.Kinds = slices.DeleteFunc(slices.Clone(own.Kinds), func(k string) bool { return gone[k] })
			if len(own.Kinds) > 0 {
				out = append(out, &own)
			}
			continue
		}
		name := s.Name()
		if words && (strings.HasPrefix(name, "synonyms") || strings.HasPrefix(name, "lexicon")) || slices.Contains(recipes, name) {
			continue
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("held out %s: nothing is left to train on", strings.Join(recipes, ", "))
	}
	return out, nil
}
