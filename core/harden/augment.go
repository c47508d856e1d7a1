package harden

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/train"
)

// Augment trains on each batch together with perturbed copies of its texts, made anew every time, so that no disguise is seen twice. The
// copies carry the same labels, and the model is asked to say of a copy what it says of the original (a divergence, weighted by
// Consistency). What is done with the enlarged batch is up to Inner: ordinary training, or steps in embedding space on top.
type Augment struct {
	// Sources are drawn from with equal probability, one per copy.
	Sources []attack.Perturber
	// Share is the part of the texts that get copies; Copies is their number each.
	Share  float64
	Copies int
	// Consistency weighs the symmetric divergence between the predictions on a text and on its copy.
	Consistency float64
	// Likeness weighs one minus the cosine between the sentence vectors (pooled states, and the pooler's output) of a copy and of its
	// text. A label is one bit, a vector hundreds of numbers: this is what teaches the encoder to read through a disguise.
	Likeness float64
	// Words weighs the same per word, on the last hidden states: the states of a misspelt word's pieces are drawn to those of the word.
	Words float64
	// Worst, when above 1, makes that many candidates per copy and keeps the one with the largest loss.
	Worst int
	// Rounds is the largest share of a text's words that a source which changes one word per candidate is applied to.
	Rounds float64
	Inner  train.Objective
	Victim attack.Victim
	Labels []string
}

// NewAugment returns the method with settings that defend against word-level misspelling.
func NewAugment(sources ...attack.Perturber) *Augment {
	if len(sources) == 0 {
		sources = []attack.Perturber{NewCharNoise()}
	}
	return &Augment{Sources: sources, Share: 0.2, Copies: 1, Rounds: 0.4, Inner: train.Plain{}}
}

// Micro implements train.Objective.
func (a *Augment) Micro(ctx context.Context, s *train.Step) (float64, error) {
	r := rand.New(rand.NewPCG(s.Seed, 0xa06))
	var from []int // the example that each copy is of
	for i, e := range s.Examples {
		if e.Text == "" || e.Types != nil || e.Targets != nil {
			continue // pairs and token-level targets have no copies
		}
		if a.Share >= 1 || r.Float64() < a.Share {
			for range max(1, a.Copies) {
				from = append(from, i)
			}
		}
	}
	if len(from) == 0 {
		return a.Inner.Micro(ctx, s)
	}
	texts := make([]string, len(from))
	for i, j := range from {
		texts[i] = s.Examples[j].Text
	}
	copies, err := a.perturb(ctx, s, texts, from, r)
	if err != nil {
		return 0, err
	}
	t := *s
	n := len(s.Examples)
	t.Examples = append(append(make([]train.Example, 0, n+len(from)), s.Examples...), copies...)
	t.Weight = s.Weight * float64(n+len(from)) / float64(n) // the mean is over texts and copies alike
	var pairs []wordPair
	if a.Words > 0 && s.Tokens != nil {
		if pairs, err = alignWords(s, t.Examples, n, from); err != nil {
			return 0, err
		}
	}
	if a.Likeness > 0 {
		t.Want |= model.WantPooled
	}
	t.Extra = func(c *grad.Ctx, out model.Output, dz []float32) float64 {
		z := out.Logits
		if z.Rows != n+len(from) {
			return 0
		}
		// Pair each copy with its original, which is a constant here: the copy is to move, not the text.
		share := float64(n) / s.Weight / float64(len(from))
		var sum float64
		if w := a.Consistency * share; w > 0 {
			for i, j := range from {
				x, y := z.Data[j*z.Cols:(j+1)*z.Cols], z.Data[(n+i)*z.Cols:(n+i+1)*z.Cols]
				sum += w * symmetricKL(y, x, z.Cols, dz[(n+i)*z.Cols:(n+i+1)*z.Cols], nil, w)
			}
		}
		if w := a.Likeness * share; w > 0 {
			for _, v := range []*grad.Value{out.Pooled, out.Pooler} {
				if v == nil || v.Rows != n+len(from) {
					continue
				}
				g := c.GradOf(v)
				for i, j := range from {
					var d []float32
					if g != nil {
						d = g[(n+i)*v.Cols : (n+i+1)*v.Cols]
					}
					sum += w * unlike(v.Data[(n+i)*v.Cols:(n+i+1)*v.Cols], v.Data[j*v.Cols:(j+1)*v.Cols], d, w)
				}
			}
		}
		if len(pairs) > 0 {
			sum += a.Words * share * float64(len(from)) * likeWords(c.GradOf(out.Last), out.Last, pairs, a.Words*share*float64(len(from)))
		}
		return sum
	}
	t.Passes += len(from) / max(1, n)
	loss, err := a.Inner.Micro(ctx, &t)
	s.Passes = t.Passes
	return loss, err
}

// perturb makes one copy of each text.
func (a *Augment) perturb(ctx context.Context, s *train.Step, texts []string, from []int, r *rand.Rand) ([]train.Example, error) {
	best := make([]train.Example, len(texts))
	var top []float64
	for k := range max(1, a.Worst) {
		made := make([]string, len(texts))
		groups := make([][]int, len(a.Sources))
		for i := range texts {
			g := r.IntN(len(a.Sources))
			groups[g] = append(groups[g], i)
		}
		for g, members := range groups {
			if len(members) == 0 {
				continue
			}
			out, err := a.apply(ctx, a.Sources[g], s, texts, from, members, r)
			if err != nil {
				return nil, fmt.Errorf("augmentation by %s: %w", a.Sources[g].Name(), err)
			}
			for i, m := range members {
				made[m] = out[i]
			}
		}
		candidates := make([]train.Example, len(texts))
		for i, text := range made {
			e := s.Examples[from[i]]
			ids, err := s.Encode(text)
			if err != nil {
				return nil, err
			}
			e.Text, e.IDs = text, ids
			candidates[i] = e
		}
		if a.Worst <= 1 {
			return candidates, nil
		}
		losses, err := exampleLosses(s, candidates)
		if err != nil {
			return nil, err
		}
		if k == 0 {
			copy(best, candidates)
			top = losses
			continue
		}
		for i, l := range losses {
			if l > top[i] {
				best[i], top[i] = candidates[i], l
			}
		}
	}
	return best, nil
}

// apply perturbs the members by one source. A source that changes many words at once is asked once; one that changes a single word per
// candidate is applied again and again, to other words, until a share of the words drawn for the text has changed.
func (a *Augment) apply(ctx context.Context, p attack.Perturber, s *train.Step, texts []string, from, members []int, r *rand.Rand) ([]string, error) {
	out := make([]string, len(members))
	left := make([]int, len(members))
	_, whole := p.(wholeText)
	rounds := 1
	for i, m := range members {
		out[i] = texts[m]
		left[i] = 1
		if !whole {
			left[i] = max(1, int(r.Float64()*a.Rounds*float64(len(attack.Words(out[i])))+r.Float64()))
			rounds = max(rounds, left[i])
		}
	}
	done := make([]map[int]bool, len(members))
	for round := range rounds {
		var reqs []attack.Request
		var at, word []int
		for i, m := range members {
			if left[i] <= round {
				continue
			}
			q := attack.Request{Text: out[i], Words: attack.Words(out[i]), Max: 1, Label: int(s.Examples[from[m]].Class), Labels: a.Labels, Seed: r.Uint64()}
			w := -1
			for j := range q.Words {
				if !done[i][j] {
					q.May = append(q.May, j)
				}
			}
			if !whole && len(q.May) > 0 {
				w = q.May[r.IntN(len(q.May))]
				q.May = []int{w}
			}
			if len(q.May) == 0 {
				continue
			}
			reqs, at, word = append(reqs, q), append(at, i), append(word, w)
		}
		if len(reqs) == 0 {
			break
		}
		got, err := p.Perturb(ctx, reqs, a.Victim)
		if err != nil {
			return nil, err
		}
		if len(got) != len(reqs) {
			return nil, fmt.Errorf("expected candidates for %d texts, got %d", len(reqs), len(got))
		}
		for i, c := range got {
			if done[at[i]] == nil {
				done[at[i]] = map[int]bool{}
			}
			done[at[i]][word[i]] = true
			if len(c) == 0 {
				continue
			}
			out[at[i]] = c[r.IntN(len(c))]
		}
	}
	return out, nil
}

// exampleLosses is the cross-entropy of each example under the model as it is, without a tape.
func exampleLosses(s *train.Step, examples []train.Example) ([]float64, error) {
	mark := s.Arena.Mark()
	defer s.Arena.Release(mark)
	z, cols, err := s.Infer(examples)
	if err != nil {
		return nil, err
	}
	s.Passes++
	out := make([]float64, len(examples))
	l := make([]float64, cols)
	for i, e := range examples {
		logSoftmax(l, z[i*cols:(i+1)*cols])
		out[i] = -l[e.Class]
	}
	return out, nil
}

// unlike returns 1 − cos(a, b) and adds w times its gradient with respect to a to da, when that is not nil.
func unlike(a, b, da []float32, w float64) float64 {
	var aa, bb, ab float64
	for i, x := range a {
		aa += float64(x) * float64(x)
		bb += float64(b[i]) * float64(b[i])
		ab += float64(x) * float64(b[i])
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	na, nb := math.Sqrt(aa), math.Sqrt(bb)
	cos := ab / (na * nb)
	if da != nil {
		for i, x := range a {
			da[i] -= float32(w * (float64(b[i])/(na*nb) - cos*float64(x)/aa))
		}
	}
	return 1 - cos
}

// wordPair is a word of a copy and its original: rows [from, to) of the batch's tokens.
type wordPair struct{ copyFrom, copyTo, from, to int }

// alignWords pairs the words of copies with those of their texts, which stand before them in the batch. A copy that has another number
// of words is left out.
func alignWords(s *train.Step, examples []train.Example, n int, from []int) ([]wordPair, error) {
	start := make([]int, len(examples)+1)
	for i, e := range examples {
		start[i+1] = start[i] + len(e.IDs)
	}
	known := map[int][][2]int{}
	place := func(i int) ([][2]int, error) {
		if p, ok := known[i]; ok {
			return p, nil
		}
		e, err := s.Tokens(examples[i].Text)
		if err != nil {
			return nil, err
		}
		words := attack.Words(examples[i].Text)
		rows := make([][2]int, len(words))
		at := 0
		for w, span := range words {
			for at < e.Len() && (e.SpecialMask[at] == 1 || e.Offsets[at].End <= span.Start) {
				at++
			}
			lo := at
			for at < e.Len() && e.SpecialMask[at] == 0 && e.Offsets[at].Start < span.End {
				at++
			}
			rows[w] = [2]int{start[i] + lo, start[i] + at}
		}
		known[i] = rows
		return rows, nil
	}
	var out []wordPair
	for i, j := range from {
		a, err := place(n + i)
		if err != nil {
			return nil, err
		}
		b, err := place(j)
		if err != nil {
			return nil, err
		}
		if len(a) != len(b) {
			continue
		}
		for w := range a {
			if a[w][1] > a[w][0] && b[w][1] > b[w][0] {
				out = append(out, wordPair{a[w][0], a[w][1], b[w][0], b[w][1]})
			}
		}
	}
	return out, nil
}

// likeWords returns the mean of 1 − cos between the mean states of paired words and adds w times its gradient, for the copies' rows only.
func likeWords(g []float32, states *grad.Value, pairs []wordPair, w float64) float64 {
	cols := states.Cols
	a, b, d := make([]float32, cols), make([]float32, cols), make([]float32, cols)
	mean := func(dst []float32, from, to int) {
		clear(dst)
		f := 1 / float32(to-from)
		for r := from; r < to; r++ {
			for i, v := range states.Data[r*cols : (r+1)*cols] {
				dst[i] += f * v
			}
		}
	}
	var sum float64
	for _, p := range pairs {
		mean(a, p.copyFrom, p.copyTo)
		mean(b, p.from, p.to)
		if g == nil {
			sum += unlike(a, b, nil, 0)
			continue
		}
		clear(d)
		sum += unlike(a, b, d, w/float64(len(pairs)))
		f := 1 / float32(p.copyTo-p.copyFrom)
		for r := p.copyFrom; r < p.copyTo; r++ {
			for i, v := range d {
				g[r*cols+i] += f * v
			}
		}
	}
	return sum / float64(len(pairs))
}
