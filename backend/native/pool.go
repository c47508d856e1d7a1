package native

import (
	"runtime"
	"sync/atomic"
)

// pool runs one parallel loop at a time over persistent goroutines. The caller works too. Workers spin briefly for the next loop and then
// park; a worker that comes late (descheduled, on a shared machine) is not waited for: a loop ends when its items are done.
type pool struct {
	threads int
	spins   int

	// The loop: f(worker, lo, hi) over [0, items) in pieces of grain.
	f            func(worker, lo, hi int)
	items, grain int

	_ [64]byte
	// state is the loop's number (upper half), whether it may be joined (bit 31) and how many workers are in it.
	state atomic.Uint64
	_     [64]byte
	next  atomic.Int64
	_     [64]byte

	waiting atomic.Bool   // the caller is parked on done
	done    chan struct{} // the last worker to leave sends when waiting was set
	seats   []seat
	closed  atomic.Bool
}

// seat is where a worker parks.
type seat struct {
	parked atomic.Bool
	wake   chan struct{}
	_      [48]byte
}

const open = 1 << 31

func newPool(threads int) *pool {
	p := &pool{threads: threads, spins: 3000, done: make(chan struct{}, 1), seats: make([]seat, threads-1)}
	if runtime.GOMAXPROCS(0) < threads {
		p.spins = 1 // spinning would only keep the others from running
	}
	for i := range p.seats {
		p.seats[i].wake = make(chan struct{}, 1)
		go p.worker(i)
	}
	return p
}

// run calls f(worker, lo, hi) over disjoint pieces of [0, items), at most grain long. It must not be nested.
func (p *pool) run(items, grain int, f func(worker, lo, hi int)) {
	if items <= 0 {
		return
	}
	if items <= grain || len(p.seats) == 0 {
		f(0, 0, items)
		return
	}
	p.f, p.items, p.grain = f, items, grain
	p.next.Store(0)
	p.state.Store((p.state.Load()>>32+1)<<32 | open)
	for i := range p.seats {
		if s := &p.seats[i]; s.parked.Load() && s.parked.CompareAndSwap(true, false) {
			s.wake <- struct{}{}
		}
	}
	p.work(0)
	for {
		if s := p.state.Load(); p.state.CompareAndSwap(s, s&^open) {
			break
		}
	}
	for i := 0; p.state.Load()&(open-1) != 0; i++ {
		if i < p.spins {
			pause()
			continue
		}
		p.waiting.Store(true)
		if p.state.Load()&(open-1) != 0 || !p.waiting.CompareAndSwap(true, false) {
			<-p.done
		}
		break
	}
}

// work takes pieces until none is left.
func (p *pool) work(worker int) {
	for {
		lo := int(p.next.Add(1)-1) * p.grain
		if lo >= p.items {
			return
		}
		p.f(worker, lo, min(lo+p.grain, p.items))
	}
}

func (p *pool) worker(i int) {
	s := &p.seats[i]
	last := uint64(0)
	for idle := 0; ; {
		st := p.state.Load()
		if st&open != 0 && st>>32 != last {
			if !p.state.CompareAndSwap(st, st+1) {
				continue
			}
			last = st >> 32
			p.work(i + 1)
			if st := p.state.Add(^uint64(0)); st&(2*open-1) == 0 && p.waiting.CompareAndSwap(true, false) {
				p.done <- struct{}{}
			}
			idle = 0
			continue
		}
		if idle++; idle < p.spins {
			pause()
			continue
		}
		idle = 0
		s.parked.Store(true)
		if st := p.state.Load(); p.closed.Load() || st&open != 0 && st>>32 != last {
			if s.parked.CompareAndSwap(true, false) {
				if p.closed.Load() {
					return
				}
				continue
			}
		}
		<-s.wake
		if p.closed.Load() {
			return
		}
	}
}

func (p *pool) close() {
	p.closed.Store(true)
	for i := range p.seats {
		if s := &p.seats[i]; s.parked.CompareAndSwap(true, false) {
			s.wake <- struct{}{}
		}
	}
}
