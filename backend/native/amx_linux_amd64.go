//go:build amd64 && !purego

package native

import (
	"sync"
	"syscall"
)

// offersAMX asks the system for the use of tile registers, which it grants to a process that asks: their state has to be kept when threads switch.
var offersAMX = sync.OnceValue(func() bool {
	const requestPermission, tileData = 0x1023, 18 // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
	_, _, err := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return err == 0
})
