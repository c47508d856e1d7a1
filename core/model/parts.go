package model

import (
	"github.com/temper-ml/temper/core/grad"
)

// Sequences do not see each other, and each gets the same bits in any batch. So a batch may run in parts: what a part's layers compute stays in
// a worker's cache, and the workers need not meet after each op.

// partTokens is how many tokens a part has, more or less: few enough for the wide layers' rows to stay in a second-level cache of 1 MB, and
// enough to read each weight for.
const partTokens = 256

// parts cuts the sequences of offsets into runs of about partTokens tokens: part i is sequences [cuts[i], cuts[i+1]). side says whether the
// parts keep that many threads evenly busy.
func parts(offsets []int32, threads int) (cuts []int, side bool) {
	total := int(offsets[len(offsets)-1])
	limit := partTokens
	if threads > 1 {
		limit = min(limit, max(total/(2*threads), partTokens/4))
	}
	cuts = []int{0}
	most, from := 0, 0
	for s := 1; s < len(offsets); s++ {
		// The part ends where it comes closest to the limit.
		if n := int(offsets[s]) - from; s == len(offsets)-1 || n >= limit || int(offsets[s+1])-from-limit > limit-n {
			cuts = append(cuts, s)
			most, from = max(most, n), int(offsets[s])
		}
	}
	// Whoever takes the longest part last is waited for.
	n := len(cuts) - 1
	side = threads > 1 && n >= threads && (n%threads == 0 && most*n <= total+total/8 || most*threads <= total/2)
	return cuts, side
}

// apart runs the batch in parts, or returns nil where it has to run as a whole: gradients, caches and the like tie it together.
func (n *net) apart(c *grad.Ctx, p *pass) (*grad.Value, error) {
	b := p.b
	if n.together || b.Sequences() < 2 || b.Prefix != nil || b.Embeds != nil || b.Enter != nil || b.Perturb != nil || b.Want&WantHidden != 0 {
		return nil, nil
	}
	cuts, side := parts(b.Offsets, c.K.Threads())
	if len(cuts) < 3 {
		return nil, nil
	}
	for _, l := range n.linears { // adapters may keep things from call to call
		side = side && l.Adapter == nil
	}
	for _, e := range n.embeddings {
		side = side && e.Adapter == nil
	}
	passes := make([]*pass, len(cuts)-1)
	for i := range passes {
		var err error
		if passes[i], err = n.start(b.slice(cuts[i], cuts[i+1])); err != nil {
			return nil, err
		}
	}
	x := c.New(len(b.IDs), n.cfg.Hidden)
	ok := c.Apart(len(passes), side, func(c *grad.Ctx, i int) {
		var none Output
		copy(x.Data[int(b.Offsets[cuts[i]])*x.Cols:], n.states(c, passes[i], &none).Data)
	})
	if !ok {
		return nil, nil
	}
	return x, nil
}

// slice is the batch of sequences [from, to), without what only a whole batch may have.
func (b *Batch) slice(from, to int) *Batch {
	lo, hi := b.Offsets[from], b.Offsets[to]
	s := &Batch{IDs: b.IDs[lo:hi], Until: b.Until, Offsets: make([]int32, to-from+1)}
	for i := range s.Offsets {
		s.Offsets[i] = b.Offsets[from+i] - lo
	}
	if b.Types != nil {
		s.Types = b.Types[lo:hi]
	}
	if b.Positions != nil {
		s.Positions = b.Positions[lo:hi]
	}
	return s
}
