package train

import (
	"runtime"
	"syscall"
)

// usage is the CPU time of the process in seconds and the memory that Go obtained, in bytes.
func usage() (cpu float64, peak int64) {
	var created, exited, kernel, user syscall.Filetime
	if h, err := syscall.GetCurrentProcess(); err == nil {
		if syscall.GetProcessTimes(h, &created, &exited, &kernel, &user) == nil {
			cpu = float64(ticks(kernel)+ticks(user)) / 1e7
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return cpu, int64(m.Sys)
}

// ticks are units of 100 ns.
func ticks(f syscall.Filetime) int64 { return int64(f.HighDateTime)<<32 | int64(f.LowDateTime) }
