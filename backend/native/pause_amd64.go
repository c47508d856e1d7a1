//go:build amd64 && !purego

package native

import (
	"runtime"

	"github.com/klauspost/cpuid/v2"
)

// pause tells the core that this is a spinning loop.
func pause()

// knowsCPU: cpuNumber tells a CPU of cpuMask.
var knowsCPU = runtime.GOOS == "linux" && cpuid.CPU.Has(cpuid.RDTSCP)

// cpuNumber is the CPU that the thread runs on, as Linux has it kept for RDTSCP.
func cpuNumber() int
