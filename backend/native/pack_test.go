package native_test

import (
	"testing"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// BenchmarkPack is the time to load: bytes are those of the source.
func BenchmarkPack(b *testing.B) {
	k := kernels(b, "", 1)
	const out, in = 2048, 1024
	for _, typ := range []tensor.DType{tensor.F32, tensor.F16, tensor.Q8Row, tensor.Q8_0, tensor.Q5_0, tensor.Q4_K, tensor.Q6_K} {
		b.Run(typ.String(), func(b *testing.B) {
			w := backend.Weight{DType: typ, Out: out, In: in, Data: make([]byte, out*typ.RowBytes(in)), Scales: make([]float32, out)}
			b.SetBytes(int64(len(w.Data)))
			for b.Loop() {
				k.Pack(w)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(out*in), "ns/weight")
		})
	}
}
