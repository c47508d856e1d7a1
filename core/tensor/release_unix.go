//go:build linux || darwin

package tensor

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// release drops the pages that lie wholly within b.
func release(b []byte) {
	page := os.Getpagesize()
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % uintptr(page))
	if n := (len(b) - skip) / page * page; n > 0 {
		_ = unix.Madvise(b[skip:skip+n], unix.MADV_DONTNEED) // advice: a refusal costs memory only
	}
}
