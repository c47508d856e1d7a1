package native

import "github.com/temper-ml/temper/backend"

// lane is a worker's own kernels: one thread, storage of its own, the same assembly.
type lane struct {
	*kernels
	home *kernels
}

// Home implements backend.Lane.
func (l *lane) Home() backend.Kernels { return l.home }

// Lanes implements backend.Lanes.
func (k *kernels) Lanes() []backend.Kernels {
	for len(k.lanes) < k.pool.threads {
		k.lanes = append(k.lanes, &lane{newKernels(k.o, 1, k.exact, k.bf16), k})
	}
	return k.lanes
}

// Each implements backend.Lanes.
func (k *kernels) Each(n int, f func(lane, i int)) {
	k.pool.run(n, 1, func(w, lo, hi int) {
		for i := lo; i < hi; i++ {
			f(w, i)
		}
	})
}
