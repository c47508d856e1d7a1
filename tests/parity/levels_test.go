package parity

import (
	"testing"

	"github.com/temper-ml/temper/backend"
)

// eachLevel runs f on the reference kernels and on every level of native kernels that this machine has.
func eachLevel(t *testing.T, f func(t *testing.T, k backend.Kernels)) {
	t.Helper()
	run := func(k backend.Kernels) {
		defer k.Close()
		t.Run(k.Level(), func(t *testing.T) { f(t, k) })
	}
	run(backend.Generic(2))
}
