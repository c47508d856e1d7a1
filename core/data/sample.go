package data

import (
	"fmt"
	"iter"
	"math"
	"slices"
)

// random is SplitMix64 (Steele et al., 2014): written out here because seeds must keep their meaning for as long as results are compared.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return mix(uint64(*r))
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below is uniform on [0, n).
func (r *random) below(n int) int {
	// Rejection keeps it exact: the last, incomplete stretch of the range is thrown away.
	limit := math.MaxUint64 - math.MaxUint64%uint64(n)
	for {
		if v := r.next(); v < limit {
			return int(v % uint64(n))
		}
	}
}

func shuffle[T any](r *random, s []T) {
	for i := len(s) - 1; i > 0; i-- {
		j := r.below(i + 1)
		s[i], s[j] = s[j], s[i]
	}
}

// Shots draws n examples of each label, without replacement and, where there are enough, without repeating a text. The same seed draws
// the same rows. A label with fewer examples than n is an error that says how many it has.
func (d *Dataset) Shots(n int, seed uint64) (*Dataset, error) {
	if n < 1 {
		return nil, fmt.Errorf("expected at least 1 example of each label, got %d", n)
	}
	if d.Labels == nil {
		return nil, fmt.Errorf("%s: examples cannot be drawn by label: it has no labels", d.Name)
	}
	byLabel := make([][]int, len(d.LabelNames))
	for i, l := range d.Labels {
		byLabel[l] = append(byLabel[l], i)
	}
	var at []int
	for l, rows := range byLabel {
		if len(rows) == 0 {
			continue // a label that the model knows and this file does not use
		}
		if len(rows) < n {
			return nil, fmt.Errorf("%s: %d examples of each label are wanted, %q has %d", d.Name, n, d.LabelNames[l], len(rows))
		}
		r := random(mix(seed+1) ^ mix(uint64(l)<<32))
		shuffle(&r, rows)
		seen := map[string]bool{}
		var fresh, repeated []int
		for _, i := range rows {
			if seen[d.Texts[i]] {
				repeated = append(repeated, i)
				continue
			}
			seen[d.Texts[i]] = true
			fresh = append(fresh, i)
		}
		at = append(at, append(fresh, repeated...)[:n]...)
	}
	slices.Sort(at)
	return d.pick(at), nil
}

// Split divides the examples by a hash of their text: about the given share goes to the second part. Equal texts stay on one side, and
// the side of a text depends on it and the seed alone, not on the rest of the file.
func (d *Dataset) Split(share float64, seed uint64) (rest, part *Dataset) {
	var a, b []int
	for i, t := range d.Texts {
		h := uint64(14695981039346656037) // FNV-1a
		hash := func(s string) {
			for j := range len(s) {
				h = (h ^ uint64(s[j])) * 1099511628211
			}
		}
		hash(t)
		if d.Pairs != nil {
			hash("\x00" + d.Pairs[i])
		}
		if d.Messages != nil {
			for _, m := range d.Messages[i] {
				hash("\x00" + m.Content)
			}
		}
		if float64(mix(h^mix(seed+1))>>11)/(1<<53) < share {
			b = append(b, i)
		} else {
			a = append(a, i)
		}
	}
	return d.pick(a), d.pick(b)
}

// BatchOptions say how examples become batches.
type BatchOptions struct {
	// MaxExamples and MaxTokens bound a batch; 0 is no bound. An example longer than MaxTokens is a batch of its own.
	MaxExamples, MaxTokens int
	// Shuffle draws a new order for every (Seed, Epoch).
	Shuffle bool
	Seed    uint64
	Epoch   int
	// SortWindow, when above 1, sorts the lengths within windows of that many examples before cutting batches, so that the examples of a
	// batch are alike in length, and shuffles the batches again if Shuffle is set. At least the number of examples sorts all.
	SortWindow int
	// DropLast leaves out a last batch that is not full.
	DropLast bool
}

// Batches yields batch numbers and the examples in them, as positions in lengths (tokens of each example). Every example is in exactly
// one batch (unless DropLast). The slices belong to the caller.
func Batches(lengths []int, o BatchOptions) iter.Seq2[int, []int] {
	return func(yield func(int, []int) bool) {
		for i, b := range PlanBatches(lengths, o) {
			if !yield(i, b) {
				return
			}
		}
	}
}

// PlanBatches returns what Batches yields.
func PlanBatches(lengths []int, o BatchOptions) [][]int {
	order := make([]int, len(lengths))
	for i := range order {
		order[i] = i
	}
	r := random(mix(o.Seed+1) ^ mix(uint64(o.Epoch)+0x5851f42d4c957f2d))
	if o.Shuffle {
		shuffle(&r, order)
	}
	if o.SortWindow > 1 {
		for w := range slices.Chunk(order, o.SortWindow) {
			slices.SortStableFunc(w, func(a, b int) int { return lengths[a] - lengths[b] })
		}
	}
	var out [][]int
	start, tokens := 0, 0
	cut := func(end int) {
		if end > start {
			out = append(out, slices.Clone(order[start:end]))
		}
		start, tokens = end, 0
	}
	full := false
	for i, e := range order {
		if o.MaxTokens > 0 && tokens+lengths[e] > o.MaxTokens {
			cut(i)
		}
		tokens += lengths[e]
		full = o.MaxExamples > 0 && i+1-start >= o.MaxExamples || o.MaxTokens > 0 && tokens >= o.MaxTokens
		if full {
			cut(i + 1)
		}
	}
	if !o.DropLast || full {
		cut(len(order))
	}
	if o.Shuffle && o.SortWindow > 1 {
		shuffle(&r, out)
	}
	return out
}
