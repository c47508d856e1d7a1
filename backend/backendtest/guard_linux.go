//go:build linux

package backendtest

import (
	"syscall"
	"testing"
	"unsafe"
)

// guardedBytes returns n bytes that end where an inaccessible page begins, so that a read or write beyond them crashes. They are freed
// when the test ends.
func guardedBytes(t testing.TB, n int) []byte {
	page := syscall.Getpagesize()
	size := (n + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("map guard pages: %v", err)
	}
	for _, g := range [][]byte{m[:page], m[page+size:]} {
		if err := syscall.Mprotect(g, syscall.PROT_NONE); err != nil {
			t.Fatalf("protect guard page: %v", err)
		}
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) })
	if n == 0 {
		return unsafe.Slice(&m[page], 0)
	}
	return m[page+size-n : page+size : page+size]
}
