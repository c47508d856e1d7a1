package native_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// BenchmarkOneRow reports how fast one row of activations meets a block weight, in GB of weights a second: a matrix that stays in the second-level
// cache, and one that comes from memory.
// go test -run xxx -bench OneRow -benchtime 1x ./backend/native
func BenchmarkOneRow(b *testing.B) {
	for _, typ := range []tensor.DType{tensor.Q8_0, tensor.Q5_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K} {
		for _, s := range [][2]int{{1024, 512}, {262144, 768}} {
			for _, threads := range []int{1, 2} {
				out, in := s[0], s[1]
				b.Run(fmt.Sprintf("%v/%dx%d/%d threads", typ, out, in, threads), func(b *testing.B) {
					k := kernels(b, "", threads)
					data := make([]byte, out*typ.RowBytes(in))
					r := rand.New(rand.NewPCG(1, 2))
					for i := range data {
						data[i] = byte(r.Uint32()) & 0x3b // scales stay finite
					}
					w := k.Pack(backend.Weight{DType: typ, Out: out, In: in, Data: data})
					x, dst := make([]float32, in), make([]float32, out)
					for i := range x {
						x[i] = float32(r.NormFloat64())
					}
					var rate float64
					for range b.N {
						for range 3 {
							n := max(1, 300_000_000/len(data))
							start := time.Now()
							for range n {
								k.Linear(dst, x, 1, w, backend.Epilogue{})
							}
							rate = max(rate, float64(n)*float64(len(data))/time.Since(start).Seconds())
						}
					}
					b.ReportMetric(rate/1e9, "GB/s")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}
