package token

import (
	"encoding/binary"
	"math/bits"
)

// wordCache remembers what words became. It is a table of fixed size in which a new word takes the place of an older one; it belongs to one scratch, so it
// needs no lock.
type wordCache struct{ slots []wordSlot }

const (
	cacheSlots = 1 << 14
	cachedIDs  = 6
)

// A wordSlot is one cache line. Texts are kept, so that a hit is never wrong.
type wordSlot struct {
	hash uint64
	len  uint8
	n    uint8
	text [maxCachedWord]byte
	ids  [cachedIDs]int32
}

func hashWord(text []byte) uint64 {
	const k0, k1 = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
	h := uint64(len(text)) * k1
	for len(text) >= 8 {
		hi, lo := bits.Mul64(h^binary.LittleEndian.Uint64(text), k0)
		h = hi ^ lo
		text = text[8:]
	}
	var tail uint64
	switch n := len(text); {
	case n >= 4:
		tail = uint64(binary.LittleEndian.Uint32(text)) | uint64(binary.LittleEndian.Uint32(text[n-4:]))<<32
	case n > 0:
		tail = uint64(text[0]) | uint64(text[n/2])<<8 | uint64(text[n-1])<<16
	}
	hi, lo := bits.Mul64(h^tail, k1)
	return hi ^ lo
}

// get returns the ids of a word. They are valid until the next put.
func (c *wordCache) get(text []byte) ([]int32, bool) {
	if len(text) > maxCachedWord || c.slots == nil {
		return nil, false
	}
	h := hashWord(text)
	// A word has two places.
	for i := range uint64(2) {
		s := &c.slots[h%cacheSlots^i]
		if s.hash == h && int(s.len) == len(text) && string(s.text[:s.len]) == string(text) {
			return s.ids[:s.n], true
		}
	}
	return nil, false
}

func (c *wordCache) put(text []byte, ids []tok) {
	if len(text) > maxCachedWord || len(text) == 0 || len(ids) > cachedIDs {
		return
	}
	if c.slots == nil {
		c.slots = make([]wordSlot, cacheSlots)
	}
	h := hashWord(text)
	s := &c.slots[h%cacheSlots]
	if s.len > 0 {
		// The newer of two words stays in the first place, the older one moves to the second.
		c.slots[h%cacheSlots^1] = *s
	}
	s.hash, s.len, s.n = h, uint8(len(text)), uint8(len(ids))
	copy(s.text[:], text)
	for i := range ids {
		s.ids[i] = ids[i].id
	}
}
