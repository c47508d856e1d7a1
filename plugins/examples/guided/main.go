// Guided asks the model which word matters most, by gradients where it has them and by leaving words out where it does not, misspells that
// word in several ways, lets the model score them, and offers them best first. Parameter "tries": misspellings scored per text (default 8).
package main

import (
	"slices"
	"strconv"
	"strings"

	temper "github.com/temper-ml/temper/plugins/sdk/go"
)

func init() { temper.Register("guided", perturb) }

func main() {}

func perturb(t *temper.Text) []string {
	if len(t.May) == 0 {
		return nil
	}
	tries, err := strconv.Atoi(t.Param("tries", "8"))
	if err != nil || tries < 1 {
		tries = 8
	}
	order := rank(t)
	var made []string
	for _, i := range order {
		for _, w := range misspell(t.Word(i), t.Rand()) {
			if len(made) < min(tries, t.Max) {
				made = append(made, t.Replace(i, w))
			}
		}
	}
	scores, err := t.Score(made...)
	if err != nil { // no model or no budget: chance decides
		return made
	}
	index := make([]int, len(made))
	for k := range index {
		index[k] = k
	}
	slices.SortStableFunc(index, func(a, b int) int {
		switch x, y := scores[a][t.Label], scores[b][t.Label]; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	out := make([]string, len(made))
	for k, i := range index {
		out[k] = made[i]
	}
	return out
}

// rank orders the words that may change by how much they matter.
func rank(t *temper.Text) []int {
	weight := map[int]float32{}
	if all, err := t.Importance(); err == nil {
		for _, i := range t.May {
			weight[i] = all[i]
		}
	} else {
		without := make([]string, len(t.May))
		for k, i := range t.May {
			without[k] = t.Replace(i, "")
		}
		if len(without) <= 64 {
			if rows, err := t.Score(without...); err == nil {
				for k, i := range t.May {
					weight[i] = 1 - rows[k][t.Label]
				}
			}
		}
	}
	order := slices.Clone(t.May)
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case weight[a] > weight[b]:
			return -1
		case weight[a] < weight[b]:
			return 1
		}
		return 0
	})
	return order
}

func misspell(word string, r *temper.Rand) []string {
	w := []rune(word)
	if len(w) < 3 {
		return nil
	}
	i := 1 + r.IntN(len(w)-2)
	swapped := slices.Clone(w)
	swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
	out := []string{string(swapped), string(w[:i]) + string(w[i+1:]), string(w[:i]) + " " + string(w[i:]), string(w[:i]) + string(w[i]) + string(w[i:])}
	if near, err := temper.Nearest(strings.ToLower(word), 2); err == nil {
		out = append(out, near...)
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == word || s == "" })
}
