package native

import (
	"syscall"
	"unsafe"
)

// hugePages asks for pages of 2 MB where they fit into v. It is advice: whether the system follows changes nothing but time.
func hugePages(v []float32) {
	const page = 2 << 20
	if len(v) == 0 {
		return
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(v)))
	skip := int(-from % page)
	if n := (4*len(v) - skip) / page * page; n > 0 {
		_ = syscall.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(&v[skip/4])), n), syscall.MADV_HUGEPAGE)
	}
}
