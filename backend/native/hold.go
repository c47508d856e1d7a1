package native

// Packed weights lie side by side in large pieces of memory, for which the system is asked for huge pages: a network's weights are read from
// end to end at each step, and with pages of 4 KB there are more of those than the CPU keeps addresses for.

const (
	firstPiece = 4 << 20 // bytes
	largePiece = 16 << 20
)

// holder hands out memory that stays.
type holder struct {
	rest []float32
	size int // of the piece last made, in bytes
}

// take returns n floats at a multiple of 64 bytes, all 0.
func (h *holder) take(n int) []float32 {
	need := (n + 15) &^ 15
	if need > len(h.rest) {
		if 4*need >= largePiece/2 { // a piece of its own
			v := aligned(need)
			hugePages(v)
			return v[:n:n]
		}
		h.size = min(max(2*h.size, firstPiece), largePiece)
		h.size = max(h.size, 4*need)
		h.rest = aligned(h.size / 4)
		hugePages(h.rest)
	}
	v := h.rest[:n:need]
	h.rest = h.rest[need:]
	return v
}
