package main

import "github.com/temper-ml/temper/backend"

// newKernels picks the backend: the one place where core meets it.
func newKernels(threads int) (backend.Kernels, error) {
	return backend.Generic(threads), nil
}
