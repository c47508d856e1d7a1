//go:build !unix

package main

import "time"

var started = time.Now()

// processTime is wall time where the system does not tell processor time.
func processTime() time.Duration { return time.Since(started) }
