package main

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
)

// newKernels picks the backend: the one place where core meets it. TEMPER_CPU forces a level. bf16 asks for products of bfloat16.
func newKernels(threads int, bf16 bool) (backend.Kernels, error) {
	return native.New(native.Options{Threads: threads, BF16: bf16})
}
