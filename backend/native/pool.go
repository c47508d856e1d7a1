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

	done   parker // of the caller, whom the last worker to leave wakes
	seats  []seat
	closed atomic.Bool

	// Two threads may end up on one CPU, and stay there while another is idle: until the system notices, the second worker does nothing. So a worker
	// that was last seen on the caller's CPU is kept off it.
	apart bool
	cpus  cpuMask // that this process may use
}

// seat is where a worker parks.
type seat struct {
	parker
	thread, cpu atomic.Int32 // of the worker, as of its last loop
	off         int          // the CPU that it is kept off, -1: none; the caller's
	_           [40]byte
}

const open = 1 << 31

func newPool(threads int) *pool {
	p := &pool{threads: threads, spins: 3000, seats: make([]seat, threads-1)}
	p.done.init()
	if runtime.GOMAXPROCS(0) < threads {
		p.spins = 1 // spinning would only keep the others from running
	}
	if threads > 1 && knowsCPU {
		var n int
		p.cpus, n = allowedCPUs()
		p.apart = n >= threads && p.spins > 1
	}
	for i := range p.seats {
		s := &p.seats[i]
		s.init()
		s.cpu.Store(-1)
		s.off = -1
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
	here := -1
	if p.apart {
		here = cpuNumber()
	}
	for i := range p.seats {
		s := &p.seats[i]
		if here >= 0 && here < maxCPUs && here != s.off && int(s.cpu.Load()) == here {
			s.off = here
			p.cpus.keepFrom(int(s.thread.Load()), here)
		}
		s.wake()
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
		p.done.prepare()
		if p.state.Load()&(open-1) != 0 || !p.done.cancel() {
			p.done.wait() // or woken by one who left the loop before
		}
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
	if p.apart {
		runtime.LockOSThread() // for good: the thread ends with the worker, and with it what it is kept off
		s.thread.Store(int32(threadID()))
		s.cpu.Store(int32(cpuNumber()))
	}
	last := uint64(0)
	for idle := 0; ; {
		st := p.state.Load()
		if st&open != 0 && st>>32 != last {
			if !p.state.CompareAndSwap(st, st+1) {
				continue
			}
			last = st >> 32
			if p.apart {
				s.cpu.Store(int32(cpuNumber()))
			}
			p.work(i + 1)
			if st := p.state.Add(^uint64(0)); st&(2*open-1) == 0 {
				p.done.wake()
			}
			idle = 0
			continue
		}
		if idle++; idle < p.spins {
			pause()
			continue
		}
		idle = 0
		s.prepare()
		if st := p.state.Load(); p.closed.Load() || st&open != 0 && st>>32 != last {
			if s.cancel() {
				if p.closed.Load() {
					return
				}
				continue
			}
		}
		s.wait()
		if p.closed.Load() {
			return
		}
	}
}

func (p *pool) close() {
	p.closed.Store(true)
	for i := range p.seats {
		p.seats[i].wake()
	}
}
