package grad

import "unsafe"

// Arena hands out float32 storage that is given back all at once. It grows by chunks on first use and allocates nothing in the steady
// state: a step that needs what the last one needed reuses the same memory. Values that live in it are recycled the same way, so neither
// data nor its description is garbage. It is for one goroutine.
type Arena struct {
	chunks [][]float32
	chunk  int // current chunk
	used   int // of the current chunk
	values [][]Value
	slab   int      // current slab of values
	taken  int      // of the current slab
	lanes  []*Arena // of workers, see Ctx.Apart
}

// Mark is a point to release to.
type Mark struct{ chunk, used, slab, taken int }

const (
	arenaMin   = 1 << 18 // 1 MiB of float32
	arenaAlign = 16      // elements: 64 bytes
	arenaSlab  = 64      // values
)

// Alloc returns n uninitialised elements, 64-byte aligned.
func (a *Arena) Alloc(n int) []float32 {
	need := (n + arenaAlign - 1) &^ (arenaAlign - 1)
	for a.chunk < len(a.chunks) {
		c := a.chunks[a.chunk]
		if a.used+need <= len(c) {
			s := c[a.used : a.used+n : a.used+need]
			a.used += need
			return s
		}
		a.chunk, a.used = a.chunk+1, 0
	}
	size := max(need, arenaMin, a.Bytes()/4/2) // grow by half
	c := make([]float32, size+arenaAlign)
	off := 0
	for uintptr(unsafe.Pointer(&c[off]))%64 != 0 {
		off++
	}
	a.chunks = append(a.chunks, c[off:off+size])
	a.chunk, a.used = len(a.chunks)-1, need
	return a.chunks[a.chunk][:n:need]
}

// value returns a cleared Value that lives as long as the storage handed out with it.
func (a *Arena) value() *Value {
	if a.slab == len(a.values) {
		a.values = append(a.values, make([]Value, arenaSlab))
	}
	v := &a.values[a.slab][a.taken]
	if a.taken++; a.taken == arenaSlab {
		a.slab, a.taken = a.slab+1, 0
	}
	*v = Value{}
	return v
}

// Owns reports whether s was handed out by this arena.
func (a *Arena) Owns(s []float32) bool {
	if len(s) == 0 {
		return false
	}
	p := uintptr(unsafe.Pointer(unsafe.SliceData(s)))
	for _, c := range a.chunks {
		lo := uintptr(unsafe.Pointer(unsafe.SliceData(c)))
		if p >= lo && p < lo+uintptr(len(c))*4 {
			return true
		}
	}
	return false
}

// Mark returns the current point.
func (a *Arena) Mark() Mark { return Mark{a.chunk, a.used, a.slab, a.taken} }

// Release gives back all that was handed out since m.
func (a *Arena) Release(m Mark) { a.chunk, a.used, a.slab, a.taken = m.chunk, m.used, m.slab, m.taken }

// Reset gives back everything; memory is kept.
func (a *Arena) Reset() { a.Release(Mark{}) }

// Bytes is the memory held for data.
func (a *Arena) Bytes() int {
	n := 0
	for _, c := range a.chunks {
		n += len(c) * 4
	}
	for _, l := range a.lanes {
		n += l.Bytes()
	}
	return n
}
