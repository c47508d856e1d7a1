package generate

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/sample"
)

// drafter guesses with a small model (speculative decoding: Leviathan, Kalman & Matias, 2023; Chen et al., 2023). Its guesses are its likeliest
// tokens, and the large model draws its own token at each place: a guess counts only where that is the same. So the output is what the large
// model alone would have written with the same seed, not only in distribution.
type drafter struct {
	m     model.Model
	k     backend.Kernels
	arena grad.Arena
	slots []draftSlot
}

// draftSlot is what the small model has read of the text in a slot.
type draftSlot struct {
	cache *model.FloatCache
	held  []int32
}

func newDrafter(m model.Model, k backend.Kernels, n int) *drafter {
	d := &drafter{m: m, k: k, slots: make([]draftSlot, n)}
	for i := range d.slots {
		d.slots[i].cache = model.NewCache(m.Config(), 1, 256)
	}
	return d
}

// guess appends at most n tokens that may follow text.
func (d *drafter) guess(dst []int32, slot int, text []int32, n int) ([]int32, error) {
	if most := d.m.Config().MaxPositions; most > 0 {
		n = min(n, most-len(text))
	}
	if n <= 0 {
		return dst, nil
	}
	s := &d.slots[slot]
	keep := 0
	for keep < len(s.held) && keep < len(text)-1 && s.held[keep] == text[keep] { // the last token always runs
		keep++
	}
	s.held = s.held[:keep]
	s.cache.Truncate(0, keep)
	ids := text[keep:]
	for range n {
		for len(ids) > 0 {
			part := ids[:min(len(ids), chunkTokens)]
			ids = ids[len(part):]
			b := &model.Batch{IDs: part, Offsets: []int32{0, int32(len(part))}, Cache: s.cache}
			if len(ids) == 0 {
				b.Want = model.WantLastLogits
			}
			d.arena.Reset()
			out, err := d.m.Forward(grad.Infer(d.k, &d.arena), b)
			if err != nil {
				s.held = s.held[:0]
				s.cache.Truncate(0, 0)
				return dst, err
			}
			s.held = append(s.held, part...)
			if len(ids) == 0 {
				dst = append(dst, sample.ArgMax(out.Logits.Data))
			}
		}
		ids = dst[len(dst)-1:]
	}
	return dst, nil
}
