package main

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
)

func kernels(threads int, bf16 bool) (backend.Kernels, error) {
	return native.New(native.Options{Threads: threads, BF16: bf16})
}

// offersBF16 reports whether this machine multiplies bfloat16.
func offersBF16() bool { return native.OffersBF16(native.Best()) }
