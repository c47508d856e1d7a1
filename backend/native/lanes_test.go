package native_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/backendtest"
	"github.com/temper-ml/temper/backend/native"
)

// A lane gives the bits of the kernels that it belongs to, and runs what they packed.
func TestLanes(t *testing.T) {
	for _, level := range native.Levels() {
		l, ok := kernels(t, level, 3).(backend.Lanes)
		if !ok {
			require.Equal(t, "generic", level, "only the reference has no lanes")
			continue
		}
		lanes := l.Lanes()
		require.Len(t, lanes, 3)
		t.Run(level, func(t *testing.T) { backendtest.RunLanes(t, l) })
		seen := make([]int, 50)
		l.Each(len(seen), func(lane, i int) {
			if lane >= 0 && lane < len(lanes) {
				seen[i]++
			}
		})
		for i, n := range seen {
			require.Equal(t, 1, n, "part %d", i)
		}
	}
}
