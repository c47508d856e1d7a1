//go:build !linux

package backendtest

import "testing"

// guardedBytes returns plain memory: there are no guard pages here.
func guardedBytes(_ testing.TB, n int) []byte { return make([]byte, n+8)[:n:n] }
