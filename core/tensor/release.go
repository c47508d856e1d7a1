package tensor

import (
	"slices"
	"sync"
	"unsafe"
)

var (
	mappingsMu sync.Mutex
	mappings   [][]byte
)

// Mapped makes a read-only mapping of a file known to Release. The mapping must not be unmapped before forget was called.
func Mapped(data []byte) (forget func()) {
	mappingsMu.Lock()
	defer mappingsMu.Unlock()
	mappings = append(mappings, data)
	return func() {
		mappingsMu.Lock()
		defer mappingsMu.Unlock()
		mappings = slices.DeleteFunc(mappings, func(m []byte) bool { return unsafe.SliceData(m) == unsafe.SliceData(data) })
	}
}

// Release tells the system that t's values are not needed for now, since they have been copied elsewhere. Pages of a mapped file are dropped
// and read again when they are touched, so nothing changes but the memory in use. Tensors on the heap are left alone.
func (t Tensor) Release() {
	if len(t.Data) == 0 {
		return
	}
	mappingsMu.Lock()
	defer mappingsMu.Unlock()
	at := uintptr(unsafe.Pointer(unsafe.SliceData(t.Data)))
	for _, m := range mappings {
		from := uintptr(unsafe.Pointer(unsafe.SliceData(m)))
		if at >= from && at+uintptr(len(t.Data)) <= from+uintptr(len(m)) {
			release(t.Data)
			return
		}
	}
}
