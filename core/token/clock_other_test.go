//go:build !unix

package token_test

// cpuSeconds is not known here: rates go by the clock alone.
func cpuSeconds() float64 { return 0 }
