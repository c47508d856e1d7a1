package generate

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/model"
)

// slots keeps keys and values of many sequences for one decoder: slot i of a layer is rows [i·room, (i+1)·room). Sequences come and go
// between steps; the room of all grows with the longest.
type slots struct {
	layers [][2][]float32
	width  int
	room   int
	most   int
	held   [][]int32 // the ids whose keys and values a slot holds
	of     []int     // the adapter that they were computed with
	busy   []bool
	used   []uint64 // when the slot was last given back, to evict the oldest
	clock  uint64
}

func newSlots(cfg *model.Config, n, room, most int) *slots {
	return &slots{layers: make([][2][]float32, cfg.Layers), width: cfg.KVHeads * cfg.HeadDim, room: min(room, most), most: most,
		held: make([][]int32, n), of: make([]int, n), busy: make([]bool, n), used: make([]uint64, n)}
}

// take reserves a free slot: the one that shares the longest beginning with ids, the oldest among equals. It returns the slot and how many
// positions of it are still right; −1 when all are busy.
func (s *slots) take(ids []int32, adapter int) (slot, keep int) {
	slot = -1
	for i := range s.held {
		if s.busy[i] {
			continue
		}
		n := 0
		for s.of[i] == adapter && n < len(s.held[i]) && n < len(ids)-1 && s.held[i][n] == ids[n] { // the last token is always run: its logits are wanted
			n++
		}
		if slot < 0 || n > keep || n == keep && s.used[i] < s.used[slot] {
			slot, keep = i, n
		}
	}
	if slot >= 0 {
		s.busy[slot], s.of[slot] = true, adapter
		s.held[slot] = s.held[slot][:keep]
	}
	return slot, keep
}

func (s *slots) release(slot int) {
	s.clock++
	s.busy[slot], s.used[slot] = false, s.clock
}

// Bytes is the memory of keys and values.
func (s *slots) bytes() int {
	n := 0
	for _, l := range s.layers {
		n += 4 * (len(l[0]) + len(l[1]))
	}
	return n
}

func (s *slots) reserve(need int) {
	if need <= s.room {
		return
	}
	room := min(max(need, s.room+s.room/2), s.most)
	for i := range s.layers {
		for j, old := range s.layers[i] {
			if old == nil {
				continue
			}
			next := make([]float32, len(s.held)*room*s.width)
			for k := range s.held {
				copy(next[k*room*s.width:], old[k*s.room*s.width:(k*s.room+len(s.held[k]))*s.width])
			}
			s.layers[i][j] = next
		}
	}
	s.room = room
}

// view is the cache of one batch: sequence i of the batch is slot at[i]. It implements model.Cache.
type view struct {
	s    *slots
	at   []int
	seqs []backend.Seq
}

func (v *view) Len(i int) int { return len(v.s.held[v.at[i]]) }

func (v *view) Append(layer int, k, vals []float32, cols int, offsets []int32) (ks, vs []float32, seqs []backend.Seq) {
	s := v.s
	l := &s.layers[layer]
	if size := len(s.held) * s.room * cols; len(l[0]) != size {
		l[0], l[1] = make([]float32, size), make([]float32, size)
	}
	v.seqs = v.seqs[:0]
	for i, slot := range v.at {
		lo, hi, n := int(offsets[i]), int(offsets[i+1]), len(s.held[slot])
		to := (slot*s.room + n) * cols
		copy(l[0][to:], k[lo*cols:hi*cols])
		copy(l[1][to:], vals[lo*cols:hi*cols])
		v.seqs = append(v.seqs, backend.Seq{QStart: lo, QLen: hi - lo, KStart: slot * s.room, KLen: n + hi - lo})
	}
	return l[0], l[1], v.seqs
}

// Advance does nothing: the generator records the ids of a slot after the step.
func (v *view) Advance([]int32) {}
