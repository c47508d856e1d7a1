//go:build !linux

package native

import "sync/atomic"

// parker lets one goroutine sleep until another wakes it.
type parker struct {
	parked atomic.Bool
	ch     chan struct{}
}

func (p *parker) init() { p.ch = make(chan struct{}, 1) }

// prepare announces that wait follows, unless a check in between says otherwise and cancel.
func (p *parker) prepare() { p.parked.Store(true) }

// cancel takes prepare back. It fails when somebody has called wake; then wait returns at once.
func (p *parker) cancel() bool { return p.parked.CompareAndSwap(true, false) }

// wait sleeps until wake.
func (p *parker) wait() { <-p.ch }

// wake ends the wait of one who has prepared for it.
func (p *parker) wake() {
	if p.parked.Load() && p.cancel() {
		p.ch <- struct{}{}
	}
}

// cpuMask is a set of CPUs.
type cpuMask struct{}

const maxCPUs = 0

// allowedCPUs knows none here: threads stay where the system puts them.
func allowedCPUs() (m cpuMask, n int) { return m, 0 }

func (m cpuMask) keepFrom(tid, cpu int) {}

func threadID() int { return 0 }
