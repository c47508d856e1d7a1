//go:build !amd64 || purego

package native

import "runtime"

func pause() { runtime.Gosched() }

// knowsCPU: cpuNumber tells a CPU of cpuMask.
const knowsCPU = false

func cpuNumber() int { return 0 }
