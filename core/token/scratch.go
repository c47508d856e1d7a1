package token

import (
	"slices"
	"sync"
)

// scratch is the working memory of one call. It is kept between calls, so that a call allocates nothing once warmed up.
type scratch struct {
	text  []byte
	at    []span
	build builder
	marks []mark
	one   []byte
	// letters is a word of a byte-level vocabulary.
	letters []byte
	pieces  []piece
	spare   []piece
	out     []tok
	cuts    []cut
	syms    []symbol
	links   []link
	heap    []candidate
	nodes   []node
	joins   []joining
	hits    []hit
	taken   []bool
	words   wordCache
}

// keepBytes bounds what an idle scratch holds on to: one that served a huge text is dropped.
const keepBytes = 1 << 22

// scratches is a free list; unlike sync.Pool it survives collections, so that word caches stay warm. It holds no more than were ever in use at once.
type scratches struct {
	mu   sync.Mutex
	free []*scratch
}

func (p *scratches) get() *scratch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		sc := p.free[n-1]
		p.free = p.free[:n-1]
		return sc
	}
	return &scratch{}
}

func (p *scratches) put(sc *scratch) {
	if cap(sc.text)+8*cap(sc.at)+24*cap(sc.marks)+16*cap(sc.out)+64*cap(sc.pieces)+16*cap(sc.nodes)+32*cap(sc.syms)+24*cap(sc.hits) > keepBytes {
		return
	}
	p.mu.Lock()
	p.free = append(p.free, sc)
	p.mu.Unlock()
}

// reset forgets the last call. The arena is truncated, not cleared: pieces of earlier calls are gone by then.
func (sc *scratch) reset() {
	sc.text, sc.at, sc.out, sc.pieces = sc.text[:0], sc.at[:0], sc.out[:0], sc.pieces[:0]
}

func sortMarks(m []mark) {
	slices.SortStableFunc(m, func(a, b mark) int { return int(a.class) - int(b.class) })
}

// clear drops what is idle, and the word caches with it.
func (p *scratches) clear() {
	p.mu.Lock()
	p.free = nil
	p.mu.Unlock()
}
