//go:build !unix && !windows

package train

import (
	"runtime"
	"time"
)

var started = time.Now()

// usage is the time since the start in seconds (one thread, always busy) and the memory that Go obtained, in bytes.
func usage() (cpu float64, peak int64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return time.Since(started).Seconds(), int64(m.Sys)
}
