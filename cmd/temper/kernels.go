package main

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
)

// newKernels picks the backend: the one place where core meets it. TEMPER_CPU forces a level.
func newKernels(threads int) (backend.Kernels, error) {
	return native.New(native.Options{Threads: threads})
}
