package main

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
)

func kernels(threads int) (backend.Kernels, error) {
	return native.New(native.Options{Threads: threads})
}
