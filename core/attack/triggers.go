package attack

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// triggerLength is the number of words of a universal trigger, triggerSample the number of texts it is tried on while it is searched,
// triggerWords the number of words of the vocabulary that are tried at each place.
const (
	triggerLength = 3
	triggerSample = 32
	triggerWords  = 150
)

// prepareTriggers searches one phrase that, put before any text of the most frequent class, pushes the prediction away from it, by
// coordinate ascent over the words of the examples.
func prepareTriggers(ctx context.Context, v Victim, examples []Example, opts Options) (Recipe, error) {
	r, err := NewRecipe("universal-triggers")
	if err != nil {
		return r, err
	}
	r.Goal = opts.Goal
	if r.Goal == nil {
		r.Goal = Untargeted{}
	}
	rand := NewRand(mix(opts.Seed, 0x7472696767657273))
	counts := map[string]int{}
	for _, e := range examples {
		x := NewText(e.Text)
		for i := range x.Spans {
			if w := strings.ToLower(x.Word(i)); len(w) > 2 && !IsStopWord(w) {
				counts[w]++
			}
		}
	}
	vocabulary := make([]string, 0, len(counts))
	for w := range counts {
		vocabulary = append(vocabulary, w)
	}
	slices.SortFunc(vocabulary, func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	if len(vocabulary) == 0 {
		return r, errors.New("the examples hold no words to make a trigger of")
	}
	pick := slices.Clone(examples)
	rand.Shuffle(len(pick), func(i, j int) { pick[i], pick[j] = pick[j], pick[i] })
	pick = pick[:min(len(pick), triggerSample)]
	value := func(words [][]string) ([]float64, error) {
		out := make([]float64, len(words))
		for from := 0; from < len(words); from += 8 {
			part := words[from:min(len(words), from+8)]
			var texts []string
			for _, w := range part {
				for _, e := range pick {
					texts = append(texts, strings.Join(w, " ")+" "+e.Text)
				}
			}
			rows, err := v.Scores(ctx, texts)
			if err != nil {
				return nil, err
			}
			for k := range part {
				for j, e := range pick {
					out[from+k] += float64(r.Goal.Score(rows[k*len(pick)+j], e.Label))
				}
			}
		}
		return out, nil
	}
	trigger := make([]string, triggerLength)
	for i := range trigger {
		trigger[i] = vocabulary[rand.IntN(len(vocabulary))]
	}
	best, err := value([][]string{trigger})
	if err != nil {
		return r, err
	}
	top := best[0]
	for round := 0; round < 2; round++ {
		for at := range trigger {
			var tries [][]string
			for k := range min(triggerWords, len(vocabulary)) {
				// The first round takes frequent words, the second draws from all.
				w := vocabulary[k]
				if round > 0 {
					w = vocabulary[rand.IntN(len(vocabulary))]
				}
				try := slices.Clone(trigger)
				try[at] = w
				tries = append(tries, try)
			}
			values, err := value(tries)
			if err != nil {
				return r, err
			}
			for k, x := range values {
				if x > top {
					top, trigger = x, tries[k]
				}
			}
		}
	}
	r.Transformation = Prepend{trigger}
	r.trigger = strings.Join(trigger, " ")
	r.Prepare = nil
	return r, nil
}
