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

// threaded returns kernels whose workers run, if the host has a shared memory.
func threaded(t testing.TB, threads int) *Kernels {
	k, err := New(threads)
	require.NoError(t, err)
	if k.threads > 1 {
		ctl, stacks, stack := k.Control()
		startWorkers(ctl, stacks, stack, uint32(k.threads-1))
		k.Workers(k.threads - 1)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func hostThreads() int {
	n, _ := strconv.Atoi(os.Getenv("TEMPER_THREADS"))
	return max(n, 1)
}

func TestConformance(t *testing.T) { backendtest.Run(t, threaded(t, hostThreads())) }

func TestThreads(t *testing.T) {
	if hostThreads() == 1 {
		t.Skip("the host runs one thread")
	}
	// The host's workers belong to one set of kernels, so the counts differ in how many take part.
	k := threaded(t, 3)
	backendtest.RunThreads(t, func(threads int) backend.Kernels {
		k.Workers(threads - 1)
		return keepOpen{k}
	})
}

type keepOpen struct{ *Kernels }

func (keepOpen) Close() {}

func BenchmarkKernels(b *testing.B) { backendtest.Bench(b, threaded(b, hostThreads())) }
