//go:build !wasip1

package wasm

import _ "embed"

// The kernel modules, for hosts. Plain runs everywhere; Relaxed needs relaxed SIMD; the others need a shared memory.
var (
	//go:embed kernels.wasm
	Plain []byte
	//go:embed kernels-relaxed.wasm
	Relaxed []byte
	//go:embed kernels-threads.wasm
	PlainThreads []byte
	//go:embed kernels-relaxed-threads.wasm
	RelaxedThreads []byte
)
