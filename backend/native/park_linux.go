package native

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// parker lets one thread sleep until another wakes it, directly: through Go's scheduler the sleeper would be queued with the thread that wakes it, and
// wait there until a third one steals it.
type parker struct{ parked uint32 }

func (p *parker) init() {}

// prepare announces that wait follows, unless a check in between says otherwise and cancel.
func (p *parker) prepare() { atomic.StoreUint32(&p.parked, 1) }

// cancel takes prepare back. It fails when somebody has called wake; then wait returns at once.
func (p *parker) cancel() bool { return atomic.CompareAndSwapUint32(&p.parked, 1, 0) }

const futexWait, futexWake = 0 | 128, 1 | 128 // within this process

// wait sleeps until wake.
func (p *parker) wait() {
	for atomic.LoadUint32(&p.parked) != 0 {
		_, _, _ = syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&p.parked)), futexWait, 1, 0, 0, 0)
	}
}

// wake ends the wait of one who has prepared for it.
func (p *parker) wake() {
	if atomic.LoadUint32(&p.parked) != 0 && p.cancel() {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&p.parked)), futexWake, 1, 0, 0, 0)
	}
}

// cpuMask is a set of CPUs.
type cpuMask [maxCPUs / 64]uint64

const maxCPUs = 1024

// allowedCPUs is the set that this process may use, and how many are in it.
func allowedCPUs() (m cpuMask, n int) {
	size, _, err := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(m), uintptr(unsafe.Pointer(&m)))
	if err != 0 {
		return m, 0
	}
	for i := range 8 * int(size) {
		n += int(m[i/64] >> (i % 64) & 1)
	}
	return m, n
}

// keepFrom keeps thread tid off a CPU.
func (m cpuMask) keepFrom(tid, cpu int) {
	m[cpu/64] &^= 1 << (cpu % 64)
	_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(m), uintptr(unsafe.Pointer(&m)))
}

func threadID() int { return syscall.Gettid() }
