//go:build wasip1

package wasm

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/backendtest"
)

//go:wasmimport temper_host start_workers
func startWorkers(ctl, stacks, stack, n uint32)

var shared *Kernels

// TestMain sends the workers home at the end, or the host would wait for them.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		shared.Close()
	}
	os.Exit(code)
}

// threaded returns kernels whose workers run, if the host has a shared memory.
func threaded(t testing.TB) *Kernels {
	if shared != nil {
		return shared
	}
	k, err := New(hostThreads())
	require.NoError(t, err)
	shared = k
	if k.threads > 1 {
		ctl, stacks, stack := k.Control()
		startWorkers(ctl, stacks, stack, uint32(k.threads-1))
		k.Workers(k.threads - 1)
	}
	return k
}

func hostThreads() int {
	n, _ := strconv.Atoi(os.Getenv("TEMPER_THREADS"))
	return max(n, 1)
}

func TestConformance(t *testing.T) { backendtest.Run(t, threaded(t)) }

func TestThreads(t *testing.T) {
	if hostThreads() == 1 {
		t.Skip("the host runs one thread")
	}
	// One set of kernels, of whose workers 0, 1 or 2 take part.
	k := threaded(t)
	backendtest.RunThreads(t, func(threads int) backend.Kernels {
		k.Workers(threads - 1)
		return keepOpen{k}
	})
}

type keepOpen struct{ *Kernels }

func (keepOpen) Close() {}

func BenchmarkKernels(b *testing.B) { backendtest.Bench(b, threaded(b)) }
