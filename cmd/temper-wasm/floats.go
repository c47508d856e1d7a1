package main

import "unsafe"

// floatWriter collects bytes in storage that a reply can carry as its blob.
type floatWriter struct {
	f []float32
	n int
}

func (w *floatWriter) Write(b []byte) (int, error) {
	need := (w.n + len(b) + 3) / 4
	if need > cap(w.f) {
		next := make([]float32, len(w.f), max(need, 2*cap(w.f)))
		copy(next, w.f)
		w.f = next
	}
	w.f = w.f[:need]
	copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w.f))), 4*cap(w.f))[w.n:], b)
	w.n += len(b)
	return len(b), nil
}

func (w *floatWriter) floats() []float32 { return w.f }
