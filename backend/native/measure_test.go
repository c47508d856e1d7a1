package native_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/tensor"
)

func TestMeasure(t *testing.T) {
	l := native.Measure(1)
	require.Equal(t, native.Best(), l.Level)
	require.Positive(t, l.ReadRate)
	if l.Level != "generic" {
		require.Greater(t, l.FlopRate, 1e9)
	}
}

// BenchmarkShareOfPeak reports the best rate of products as a share of the peak that is measured between them:
// go test -run xxx -bench ShareOfPeak -benchtime 1x ./backend/native
func BenchmarkShareOfPeak(b *testing.B) {
	for _, threads := range []int{1, 2} {
		for _, s := range [][3]int{{1, 1536, 384}, {4, 1536, 384}, {16, 1536, 384}, {16, 384, 1536}, {128, 384, 384}, {128, 1536, 384}, {512, 1152, 384}, {512, 384, 1536}, {4096, 1536, 384}, {1024, 1024, 1024}} {
			rows, out, in := s[0], s[1], s[2]
			b.Run(fmt.Sprintf("%d threads/%dx%dx%d", threads, rows, out, in), func(b *testing.B) {
				k := kernels(b, "", threads)
				w := make([]float32, out*in)
				for i := range w {
					w[i] = float32(i%7) - 3
				}
				pw := k.Pack(backend.Weight{DType: tensor.F32, Out: out, In: in, Data: tensor.Bytes(w)})
				x, dst := make([]float32, rows*in), make([]float32, rows*out)
				for i := range x {
					x[i] = float32(i%5) - 2
				}
				var peak, rate float64
				for range b.N {
					for range 8 {
						peak = max(peak, native.PeakFMA(threads))
						for range max(3, 20_000_000_000/(2*rows*out*in)/10) {
							start := time.Now()
							k.Linear(dst, x, rows, pw, backend.Epilogue{})
							rate = max(rate, 2*float64(rows)*float64(out)*float64(in)/time.Since(start).Seconds())
						}
					}
				}
				b.ReportMetric(rate/1e9, "GFLOP/s")
				b.ReportMetric(peak/1e9, "peak")
				b.ReportMetric(rate/peak, "share")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
