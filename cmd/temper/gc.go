package main

import (
	"os"
	"runtime/debug"
	"time"
)

// restGC keeps the collector from running while a process starts: short calls are over before there is much to collect, and their second core
// has better things to do. GOGC, where it is set, stays in charge.
func restGC() {
	if os.Getenv("GOGC") != "" {
		return
	}
	usual := debug.SetGCPercent(-1)
	time.AfterFunc(80*time.Millisecond, func() { debug.SetGCPercent(usual) })
}
