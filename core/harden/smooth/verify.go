package smooth

import (
	"context"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/attack"
)

// Attacked is what an attack within a certificate's radius came to.
type Attacked struct {
	// Tried is the number of changed texts, Lowest the smallest share of the vote that the class kept, Text the one it had there.
	Tried  int     `json:"tried"`
	Lowest float64 `json:"lowest"`
	Text   string  `json:"text"`
	// Broken tells that another class won the vote.
	Broken bool `json:"broken"`
}

// Attack tries every replacement of every word of a text by every candidate, and when the radius is larger goes on from the worst one, word by
// word. The vote of each changed text is taken over all versions where they are at most n, else over n. candidates gives the words to try for a word.
func (s *Smoother) Attack(ctx context.Context, v attack.Victim, text string, c Certificate, n int, candidates func(word string) ([]string, error)) (Attacked, error) {
	if err := s.validate(); err != nil {
		return Attacked{}, err
	}
	out := Attacked{Lowest: 1, Text: text}
	now := text
	touched := map[int]bool{}
	for range c.Radius {
		words := attack.Words(now)
		var texts []string
		var at []int
		for i, w := range words {
			if touched[i] {
				continue
			}
			list, err := candidates(now[w.Start:w.End])
			if err != nil {
				return out, err
			}
			for _, x := range list {
				t := now[:w.Start] + x + now[w.End:]
				if len(attack.Words(t)) == len(words) && !strings.EqualFold(x, now[w.Start:w.End]) {
					texts, at = append(texts, t), append(at, i)
				}
			}
		}
		if len(texts) == 0 {
			break
		}
		var all []string
		var ends []int
		for _, t := range texts {
			m, err := s.maker(ctx, t)
			if err != nil {
				return out, err
			}
			all = append(all, m.versions(n)...)
			ends = append(ends, len(all))
		}
		votes, err := vote(ctx, v, all)
		if err != nil {
			return out, err
		}
		worst := -1
		low := 2.0
		for i := range texts {
			counts := make([]int, len(v.Labels()))
			mine := votes[:ends[i]]
			if i > 0 {
				mine = mine[ends[i-1]:]
			}
			for _, x := range mine {
				counts[x]++
			}
			share := float64(counts[c.Class]) / float64(len(mine))
			if share < low {
				low, worst = share, i
			}
			out.Broken = out.Broken || slices.Max(counts) > counts[c.Class]
		}
		out.Tried += len(texts)
		now = texts[worst]
		touched[at[worst]] = true
		if low < out.Lowest {
			out.Lowest, out.Text = low, now
		}
	}
	return out, nil
}
