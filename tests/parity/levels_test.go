package parity

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
)

// eachLevel runs f on the reference kernels and on every level of native kernels that this machine has.
func eachLevel(t *testing.T, f func(t *testing.T, k backend.Kernels)) {
	t.Helper()
	levels(t, false, f)
}

// eachExactLevel is eachLevel with activations that stay float32 before quantized weights.
func eachExactLevel(t *testing.T, f func(t *testing.T, k backend.Kernels)) {
	t.Helper()
	levels(t, true, f)
}

func levels(t *testing.T, exact bool, f func(t *testing.T, k backend.Kernels)) {
	t.Helper()
	run := func(name string, k backend.Kernels) {
		defer k.Close()
		t.Run(name, func(t *testing.T) { f(t, k) })
	}
	if exact {
		run("generic", backend.GenericF32(2))
	} else {
		run("generic", backend.Generic(2))
	}
	for _, level := range native.Levels() {
		if level == "generic" {
			continue
		}
		k, err := native.New(native.Options{Level: level, Threads: 2, F32Activations: exact})
		require.NoError(t, err)
		run(level, k)
	}
}

// best returns the fastest kernels of this machine.
func best(t *testing.T) backend.Kernels {
	t.Helper()
	k, err := native.New(native.Options{Threads: 2})
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}
