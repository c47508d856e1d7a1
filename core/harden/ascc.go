package harden

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/train"
)

// Hull trains against the worst point of the convex hull of each word's synonyms (ASCC; Dong et al., ICLR 2021): a word u with synonyms
// S(u), itself among them, is replaced by Σ_j w_j·E(s_j) with w = softmax(ŵ). ŵ is moved Steps times along the gradient of the divergence
// between the disturbed and the clean prediction, minus Sparsity times the entropy of w, which draws the point towards a real word. The loss
// is the ordinary one plus Weight times that divergence.
//
// It departs from the paper in where it works, on pieces of words: words that are one piece, with synonyms that are one piece.
type Hull struct {
	Steps    int
	StepSize float64
	Sparsity float64
	Weight   float64
	// Synonyms is the largest number for a word.
	Synonyms int
	Words    attack.Neighbours
	Observe  func(pass string, value float64, delta []float32)

	known map[string][]int32
}

// NewHull returns the method with its default settings.
func NewHull(words attack.Neighbours) *Hull {
	return &Hull{Steps: 3, StepSize: 5, Sparsity: 0.01, Weight: 4, Synonyms: 8, Words: words, known: map[string][]int32{}}
}

// corner is a token with the tokens that may stand for it: itself first.
type corner struct {
	token int
	ids   []int32
	w     []float64 // logits of the weights
}

// Micro implements train.Objective.
func (m *Hull) Micro(ctx context.Context, s *train.Step) (float64, error) {
	if m.Words == nil {
		return 0, errors.New("ascc: no synonyms given")
	}
	if s.Tokens == nil {
		return 0, errors.New("ascc: the step cannot tell where tokens stand in the text")
	}
	p := newPasses(s, s.Examples)
	table := wordTable(s.Model)
	if p.cols == 0 || table == nil {
		return 0, errors.New("ascc: the model has no word-embedding table")
	}
	corners, err := m.corners(ctx, s, p)
	if err != nil {
		return 0, err
	}
	r := rand.New(rand.NewPCG(s.Seed, 0xa5cc))
	for i := range corners {
		for j := range corners[i].w {
			corners[i].w[j] = r.NormFloat64()
		}
	}
	delta := p.zeros()
	share := float64(len(s.Examples)) / s.Weight
	values := table.Values()
	if len(corners) > 0 && m.Steps > 0 {
		clean, err := p.logits()
		if err != nil {
			return 0, err
		}
		cols := len(clean) / len(s.Examples)
		held := p.hold()
		for k := range m.Steps {
			combine(delta, corners, values, p.cols)
			d, g, err := p.divergence(delta, clean, cols, share)
			if err != nil {
				p.release(held)
				return 0, err
			}
			if m.Observe != nil {
				m.Observe(fmt.Sprint(k), d, delta)
			}
			for _, c := range corners {
				c.ascend(g[c.token*p.cols:(c.token+1)*p.cols], values, p.cols, m.StepSize*float64(len(s.Examples)), m.Sparsity/float64(len(s.Examples)))
			}
		}
		p.release(held)
		s.Passes += m.Steps
		combine(delta, corners, values, p.cols)
	}
	twice := append(append([]train.Example(nil), s.Examples...), s.Examples...)
	b := s.Pack(twice)
	both := make([]float32, len(b.IDs)*p.cols)
	copy(both[p.tokens*p.cols:], delta)
	s.Passes++
	b.Perturb = func(c *grad.Ctx, in *grad.Value) *grad.Value {
		return c.Add(in, c.Input(both, in.Rows, in.Cols, false))
	}
	smooth := Smooth{Kind: "ascc", Weight: m.Weight}
	if m.Observe != nil {
		smooth.Observe = m.Observe
	}
	return smooth.pair(s, b, len(s.Examples), false, share)
}

// corners lists the tokens of a batch that have synonyms.
func (m *Hull) corners(ctx context.Context, s *train.Step, p *passes) ([]corner, error) {
	var out []corner
	if m.known == nil {
		m.known = map[string][]int32{}
	}
	for i, e := range s.Examples {
		if e.Text == "" || e.Types != nil {
			continue
		}
		enc, err := s.Tokens(e.Text)
		if err != nil {
			return nil, err
		}
		start := int(p.batch.Offsets[i])
		words := attack.Words(e.Text)
		at := 0
		for t := 0; t < enc.Len() && start+t < int(p.batch.Offsets[i+1]); t++ {
			if enc.SpecialMask[t] == 1 {
				continue
			}
			for at < len(words) && words[at].End <= enc.Offsets[t].Start {
				at++
			}
			if at == len(words) || words[at].Start != enc.Offsets[t].Start || words[at].End != enc.Offsets[t].End {
				continue // a piece of a word
			}
			ids, err := m.synonyms(ctx, s, strings.ToLower(e.Text[words[at].Start:words[at].End]))
			if err != nil {
				return nil, err
			}
			if len(ids) == 0 {
				continue
			}
			all := append([]int32{enc.IDs[t]}, ids...)
			out = append(out, corner{token: start + t, ids: all, w: make([]float64, len(all))})
		}
	}
	return out, nil
}

// synonyms are the ids of the one-piece synonyms of a word.
func (m *Hull) synonyms(ctx context.Context, s *train.Step, word string) ([]int32, error) {
	if ids, ok := m.known[word]; ok {
		return ids, nil
	}
	near, err := m.Words.Nearest(ctx, word, m.Synonyms)
	if err != nil {
		return nil, fmt.Errorf("ascc: %w", err)
	}
	var ids []int32
	for _, w := range near {
		enc, err := s.Tokens(w)
		if err != nil {
			return nil, err
		}
		var one []int32
		for i, id := range enc.IDs {
			if enc.SpecialMask[i] == 0 {
				one = append(one, id)
			}
		}
		if len(one) == 1 {
			ids = append(ids, one[0])
		}
	}
	m.known[word] = ids
	return ids, nil
}

// weights is the softmax of c.w.
func (c corner) weights() []float64 {
	top, sum := math.Inf(-1), 0.0
	for _, x := range c.w {
		top = max(top, x)
	}
	w := make([]float64, len(c.w))
	for i, x := range c.w {
		w[i] = math.Exp(x - top)
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

// combine writes Σ w_j·E(s_j) − E(u) for every corner.
func combine(delta []float32, corners []corner, table []float32, cols int) {
	for _, c := range corners {
		row := delta[c.token*cols : (c.token+1)*cols]
		clear(row)
		w := c.weights()
		w[0]--
		for j, id := range c.ids {
			e := table[int(id)*cols : (int(id)+1)*cols]
			f := float32(w[j])
			for i, x := range e {
				row[i] += f * x
			}
		}
	}
}

// ascend moves the weights' logits along the gradient of (divergence − sparsity·entropy): with d_j = g·E(s_j) the first part is
// w_j·(d_j − Σ w·d), the second w_j·(log w_j + H).
func (c corner) ascend(g, table []float32, cols int, step, sparsity float64) {
	for j, x := range c.slope(g, table, cols, sparsity) {
		c.w[j] += step * x
	}
}

func (c corner) slope(g, table []float32, cols int, sparsity float64) []float64 {
	w := c.weights()
	d := make([]float64, len(w))
	var mean, entropy float64
	for j, id := range c.ids {
		for i, x := range table[int(id)*cols : (int(id)+1)*cols] {
			d[j] += float64(g[i]) * float64(x)
		}
		mean += w[j] * d[j]
		entropy -= w[j] * math.Log(w[j])
	}
	for j := range d {
		d[j] = w[j] * (d[j] - mean + sparsity*(math.Log(w[j])+entropy))
	}
	return d
}
