package train

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// DefaultCacheBytes bounds the states that a run keeps where Options.CacheBytes is 0.
const DefaultCacheBytes = 512 << 20

// prefix keeps, for each training example, the states that enter the first block with anything to train. What is below is frozen and, without
// dropout, gives the same states in each epoch, to the bit: it is run once per example. Examples that no longer fit are computed each time.
type prefix struct {
	m     model.Model
	k     backend.Kernels
	from  int                 // the block that the states enter
	width int                 // of a state
	room  int64               // bytes left
	held  map[*int32]prefixed // by the place of an example's ids; those of the training set alone
	// computed and reused count examples.
	computed, reused int
}

type prefixed struct {
	tokens int
	states []float32
}

// newPrefix returns nil where nothing is to be gained: the embeddings or the first block are trained, dropout changes the states, or room is 0.
func newPrefix(k backend.Kernels, m model.Model, dropout bool, room int64, examples []Example) (*prefix, error) {
	cfg := m.Config()
	if room <= 0 || dropout && (cfg.EmbeddingDropout > 0 || cfg.HiddenDropout > 0 || cfg.AttentionDropout > 0 || cfg.InnerDropout > 0) {
		return nil, nil
	}
	from, err := model.FirstTrained(k, m)
	if err != nil || from == 0 {
		return nil, err
	}
	p := &prefix{m: m, k: k, from: from, width: cfg.Hidden, room: room, held: make(map[*int32]prefixed, len(examples))}
	for _, e := range examples {
		if len(e.IDs) > 0 {
			p.held[&e.IDs[0]] = prefixed{}
		}
	}
	return p, nil
}

// enter makes b, the batch of examples, begin at their states. States live in the arena.
func (p *prefix) enter(arena *grad.Arena, b *model.Batch, examples []Example) error {
	if p == nil {
		return nil
	}
	c := grad.Infer(p.k, arena)
	x := c.New(len(b.IDs), p.width)
	place := func(i int) []float32 { return x.Data[int(b.Offsets[i])*p.width : int(b.Offsets[i+1])*p.width] }
	var missing []int
	for i, e := range examples {
		if h, ok := p.held[&e.IDs[0]]; ok && h.tokens == len(e.IDs) {
			copy(place(i), h.states)
			p.reused++
			continue
		}
		missing = append(missing, i)
	}
	for len(missing) > 0 {
		n, tokens := 0, 0
		var part []Example
		for n < len(missing) && (n == 0 || tokens+len(examples[missing[n]].IDs) <= evalTokens) {
			part = append(part, examples[missing[n]])
			tokens += len(part[n].IDs)
			n++
		}
		mark := arena.Mark()
		below := Pack(part)
		below.Want, below.Until = 0, p.from
		out, err := p.m.Forward(c, below)
		if err != nil {
			return fmt.Errorf("frozen layers: %w", err)
		}
		for j, i := range missing[:n] {
			s := out.Last.Data[int(below.Offsets[j])*p.width : int(below.Offsets[j+1])*p.width]
			copy(place(i), s)
			p.computed++
			key := &examples[i].IDs[0]
			if h, own := p.held[key]; own && h.states == nil && int64(len(s))*4 <= p.room {
				p.room -= int64(len(s)) * 4
				p.held[key] = prefixed{tokens: len(examples[i].IDs), states: append([]float32(nil), s...)}
			}
		}
		arena.Release(mark)
		missing = missing[n:]
	}
	b.Enter, b.From = x, p.from
	return nil
}
