package generate

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// slots keeps keys and values of sequences for one decoder. Each slot grows with its own sequence; a layer that sees a window of positions holds little
// more than that window, however long the text. Sequences come and go between steps.
type slots struct {
	typ  tensor.DType
	most int
	all  []slot
	// clock tells which slot was given back first.
	clock uint64
}

type slot struct {
	held    []int32 // the ids whose keys and values it holds
	adapter int     // that they were computed with
	busy    bool
	used    uint64
	layers  []lane
}

// lane is what a slot holds of one layer: rows from position base on.
type lane struct {
	k, v         []byte
	base, window int
}

// lookBack is how many positions beyond the window a layer keeps when it forgets, so that a text may go on from a little before its end.
const lookBack = 64

func newSlots(cfg *model.Config, typ tensor.DType, n, most int) *slots {
	s := &slots{typ: typ, most: most, all: make([]slot, n)}
	for i := range s.all {
		s.all[i].layers = make([]lane, cfg.Layers)
	}
	return s
}

// take reserves a free slot: the one that shares the longest beginning with ids, the oldest among equals. It returns the slot and how many
// positions of it are still right; −1 when all are busy.
func (s *slots) take(ids []int32, adapter int) (at, keep int) {
	at = -1
	for i := range s.all {
		if s.all[i].busy {
			continue
		}
		n := s.all[i].shares(ids, adapter)
		if at < 0 || n > keep || n == keep && s.all[i].used < s.all[at].used {
			at, keep = i, n
		}
	}
	if at >= 0 {
		one := &s.all[at]
		one.busy, one.adapter, one.held = true, adapter, one.held[:keep]
		for l := range one.layers {
			if keep == 0 {
				one.layers[l].base = 0
			}
		}
	}
	return at, keep
}

// shares is how many positions of the slot a sequence can go on from.
func (s *slot) shares(ids []int32, adapter int) int {
	n := 0
	for s.adapter == adapter && n < len(s.held) && n < len(ids)-1 && s.held[n] == ids[n] { // the last token is always run: its logits are wanted
		n++
	}
	for i := range s.layers {
		if l := &s.layers[i]; l.base > 0 && n-l.window+1 < l.base { // what the next token sees is forgotten
			return 0
		}
	}
	return n
}

func (s *slots) release(at int) {
	s.clock++
	s.all[at].busy, s.all[at].used = false, s.clock
}

// forget empties a slot.
func (s *slots) forget(at int) {
	one := &s.all[at]
	one.held = one.held[:0]
	for l := range one.layers {
		one.layers[l].base = 0
	}
}

// bytes is the memory of keys and values.
func (s *slots) bytes() int {
	n := 0
	for i := range s.all {
		for _, l := range s.all[i].layers {
			n += len(l.k) + len(l.v)
		}
	}
	return n
}

// extend makes room for more rows, of size bytes, after the first n positions, and returns the rows with those to come.
func (l *lane) extend(n, more, window, size, most int) (k, v []byte) {
	l.window = window
	rows := n - l.base
	if (rows+more)*size > len(l.k) && window > 0 {
		if drop := (rows - (window - 1) - lookBack) / model.KeyBlock * model.KeyBlock; drop > 0 {
			copy(l.k, l.k[drop*size:rows*size])
			copy(l.v, l.v[drop*size:rows*size])
			l.base, rows = l.base+drop, rows-drop
		}
	}
	if need := rows + more; need*size > len(l.k) {
		room := max(64, 2*len(l.k)/size)
		if window > 0 {
			room = min(room, window+lookBack+model.KeyBlock+more)
		}
		room = max(need, min(room, most-l.base))
		l.k, l.v = grown(l.k[:rows*size], room*size), grown(l.v[:rows*size], room*size)
	}
	return l.k[: (rows+more)*size : (rows+more)*size], l.v[: (rows+more)*size : (rows+more)*size]
}

func grown(b []byte, n int) []byte {
	next := make([]byte, n)
	copy(next, b)
	return next
}

// view is the cache of one batch: sequence i of the batch is slot at[i]. It implements model.StoredRows.
type view struct {
	s      *slots
	at     []int
	stored []backend.Stored
}

func (v *view) Len(i int) int { return len(v.s.all[v.at[i]].held) }

// Extend implements model.StoredRows.
func (v *view) Extend(layer, cols, window int, offsets []int32) []backend.Stored {
	v.stored = v.stored[:0]
	size := v.s.typ.RowBytes(cols)
	for i, at := range v.at {
		one := &v.s.all[at]
		k, vals := one.layers[layer].extend(len(one.held), int(offsets[i+1]-offsets[i]), window, size, v.s.most)
		v.stored = append(v.stored, backend.Stored{Type: v.s.typ, K: k, V: vals})
	}
	return v.stored
}

// Advance does nothing: the generator records the ids of a slot after the step.
func (v *view) Advance([]int32) {}
