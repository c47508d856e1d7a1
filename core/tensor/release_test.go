package tensor

import (
	"os"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

func TestReleaseLeavesTheHeapAlone(t *testing.T) {
	heap := make([]float32, 4*os.Getpagesize())
	for i := range heap {
		heap[i] = 1
	}
	other := make([]byte, 64)
	forget := Mapped(other)
	FromF32("w", heap, len(heap)).Release()
	for i, v := range heap {
		if v != 1 {
			t.Fatalf("element %d became %g", i, v)
		}
	}
	forget()
	for _, m := range mappings {
		assert.NotEqual(t, unsafe.SliceData(other), unsafe.SliceData(m))
	}
}
