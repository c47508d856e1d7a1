package token

// pairs maps two neighbouring tokens to their merge. Open addressing over a power of two, at most half full.
type pairs struct {
	keys []uint64
	vals []merge
	mask uint64
}

// merge is the result of joining two tokens. Lower ranks go first.
type merge struct{ rank, id int32 }

const noPair = ^uint64(0)

func newPairs(n int) *pairs {
	size := 4
	for size < 2*n {
		size *= 2
	}
	p := &pairs{keys: make([]uint64, size), vals: make([]merge, size), mask: uint64(size - 1)}
	for i := range p.keys {
		p.keys[i] = noPair
	}
	return p
}

func (p *pairs) slot(key uint64) uint64 {
	h := key * 0x9E3779B97F4A7C15
	h ^= h >> 32
	for i := h & p.mask; ; i = (i + 1) & p.mask {
		if k := p.keys[i]; k == key || k == noPair {
			return i
		}
	}
}

func (p *pairs) set(a, b int32, m merge) {
	key := uint64(uint32(a))<<32 | uint64(uint32(b))
	i := p.slot(key)
	p.keys[i], p.vals[i] = key, m
}

func (p *pairs) get(a, b int32) (merge, bool) {
	key := uint64(uint32(a))<<32 | uint64(uint32(b))
	i := p.slot(key)
	return p.vals[i], p.keys[i] == key
}
