package model

import (
	"fmt"

	"github.com/temper-ml/temper/backend"
)

// FloatCache is FloatRows that keep keys and values as float32. It belongs to one stream of batches of the same sequences.
type FloatCache struct {
	layers [][2][]float32 // keys and values of each layer: sequences · room rows
	width  int
	room   int // rows per sequence
	length []int
	seqs   []backend.Seq
}

// NewCache returns an empty cache for a number of sequences. It begins with room for hint positions each and grows as needed.
func NewCache(cfg *Config, sequences, hint int) *FloatCache {
	return &FloatCache{layers: make([][2][]float32, cfg.Layers), width: cfg.KVHeads * cfg.HeadDim, room: max(hint, 1),
		length: make([]int, sequences), seqs: make([]backend.Seq, sequences)}
}

// Len is the number of positions held for sequence i.
func (f *FloatCache) Len(i int) int { return f.length[i] }

// Sequences is the number of sequences.
func (f *FloatCache) Sequences() int { return len(f.length) }

// Bytes is the memory held.
func (f *FloatCache) Bytes() int {
	n := 0
	for _, l := range f.layers {
		n += 4 * (len(l[0]) + len(l[1]))
	}
	return n
}

// Truncate forgets the positions of sequence i from n on.
func (f *FloatCache) Truncate(i, n int) { f.length[i] = min(f.length[i], max(n, 0)) }

// Append stores rows of keys and values after those held (see FloatRows).
func (f *FloatCache) Append(layer int, k, v []float32, cols int, offsets []int32) (ks, vs []float32, seqs []backend.Seq) {
	if cols != f.width || len(offsets) != len(f.length)+1 {
		panic(fmt.Sprintf("model.Cache: %d columns of %d sequences, made for %d of %d", cols, len(offsets)-1, f.width, len(f.length)))
	}
	need := 0
	for i, n := range f.length {
		need = max(need, n+int(offsets[i+1]-offsets[i]))
	}
	if need > f.room {
		f.grow(max(need, 2*f.room))
	}
	l := &f.layers[layer]
	if size := len(f.length) * f.room * cols; len(l[0]) != size {
		l[0], l[1] = make([]float32, size), make([]float32, size)
	}
	for i, n := range f.length {
		lo, hi := int(offsets[i]), int(offsets[i+1])
		to := (i*f.room + n) * cols
		copy(l[0][to:], k[lo*cols:hi*cols])
		copy(l[1][to:], v[lo*cols:hi*cols])
		f.seqs[i] = backend.Seq{QStart: lo, QLen: hi - lo, KStart: i * f.room, KLen: n + hi - lo}
	}
	return l[0], l[1], f.seqs
}

// grow gives each sequence more room, keeping what it holds.
func (f *FloatCache) grow(room int) {
	for i := range f.layers {
		for j, old := range f.layers[i] {
			if old == nil {
				continue
			}
			next := make([]float32, len(f.length)*room*f.width)
			for s := range f.length {
				copy(next[s*room*f.width:], old[s*f.room*f.width:(s+1)*f.room*f.width])
			}
			f.layers[i][j] = next
		}
	}
	f.room = room
}

// Advance counts the rows that all layers have stored.
func (f *FloatCache) Advance(offsets []int32) {
	for i := range f.length {
		f.length[i] += int(offsets[i+1] - offsets[i])
	}
}
