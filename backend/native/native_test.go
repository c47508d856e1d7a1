package native_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/backendtest"
	"github.com/temper-ml/temper/backend/native"
)

func kernels(t testing.TB, level string, threads int) backend.Kernels {
	k, err := native.New(native.Options{Threads: threads, Level: level})
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

func TestConformance(t *testing.T) {
	for _, level := range native.Levels() {
		t.Run(level, func(t *testing.T) { backendtest.Run(t, kernels(t, level, 2)) })
	}
}

func TestThreads(t *testing.T) {
	for _, level := range native.Levels() {
		t.Run(level, func(t *testing.T) {
			backendtest.RunThreads(t, func(threads int) backend.Kernels {
				k, err := native.New(native.Options{Threads: threads, Level: level})
				require.NoError(t, err)
				return k
			})
		})
	}
}

func TestOptions(t *testing.T) {
	_, err := native.New(native.Options{Level: "mmx"})
	require.ErrorContains(t, err, `native: level is "mmx", this machine offers generic`)
	t.Setenv(native.EnvLevel, "sse9")
	_, err = native.New(native.Options{})
	require.ErrorContains(t, err, native.EnvLevel)
	t.Setenv(native.EnvLevel, "generic")
	k, err := native.New(native.Options{})
	require.NoError(t, err)
	require.Equal(t, "generic", k.Level())
	_, err = native.New(native.Options{Threads: -1})
	require.Error(t, err)
}

func FuzzKernels(f *testing.F) { backendtest.Fuzz(f, kernels(f, "", 2)) }

func BenchmarkKernels(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(map[int]string{1: "one", 2: "two"}[threads], func(b *testing.B) { backendtest.Bench(b, kernels(b, "", threads)) })
	}
}
