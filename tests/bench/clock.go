package main

import "time"

// countCPU is set by -cpu.
var countCPU bool

// stopwatch starts a measurement and returns what reads it: wall time, or this process's processor time.
func stopwatch() func() time.Duration {
	if countCPU {
		before := processTime()
		return func() time.Duration { return processTime() - before }
	}
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}
