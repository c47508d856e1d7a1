package native

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPoolCoversEveryItemOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 5} {
		p := newPool(threads)
		for round := range 300 {
			n := round * 7 % 100
			seen := make([]atomic.Int32, n)
			p.run(n, 1+round%9, func(w, lo, hi int) {
				if w < 0 || w >= threads || lo >= hi {
					t.Errorf("worker %d of %d got [%d, %d)", w, threads, lo, hi)
				}
				for i := lo; i < hi; i++ {
					seen[i].Add(1)
				}
			})
			for i := range seen {
				require.EqualValues(t, 1, seen[i].Load(), "item %d of %d on %d threads", i, n, threads)
			}
			if round%100 == 50 {
				time.Sleep(2 * time.Millisecond) // workers park
			}
		}
		p.close()
	}
}

// BenchmarkPool is the cost of a parallel loop of nothing.
func BenchmarkPool(b *testing.B) {
	p := newPool(2)
	defer p.close()
	var by [2]int
	f := func(w, lo, hi int) {
		by[w]++
		for range 40 {
			pause()
		}
	}
	for b.Loop() {
		p.run(2, 1, f)
	}
	b.ReportMetric(float64(by[1])/float64(by[0]+by[1]), "second")
}
