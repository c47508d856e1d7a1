package grad

import "unsafe"

// Arena hands out float32 storage that is given back all at once. It grows by chunks on first use and allocates nothing in the steady
// state: a step that needs what the last one needed reuses the same memory.
type Arena struct {
	chunks [][]float32
	chunk  int // current chunk
	used   int // of the current chunk
	peak   int
}

// Mark is a point to release to.
type Mark struct{ chunk, used int }

const (
	arenaMin   = 1 << 18 // 1 MiB of float32
	arenaAlign = 16      // elements: 64 bytes
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
func (a *Arena) Mark() Mark { return Mark{a.chunk, a.used} }

// Release gives back all that was handed out since m.
func (a *Arena) Release(m Mark) { a.chunk, a.used = m.chunk, m.used }

// Reset gives back everything; memory is kept.
func (a *Arena) Reset() { a.chunk, a.used = 0, 0 }

// Bytes is the memory held.
func (a *Arena) Bytes() int {
	n := 0
	for _, c := range a.chunks {
		n += len(c) * 4
	}
	return n
}
