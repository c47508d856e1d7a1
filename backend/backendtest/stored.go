package backendtest

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// storedRows: attention over stored keys and values is attention over their values, a query gets the same bits alone as among some others, and rows are
// stored as Quantize does.
func storedRows(t *testing.T, k backend.Kernels) {
	for _, c := range attentionCases {
		if c.bias || c.dropout > 0 {
			continue
		}
		for _, typ := range []tensor.DType{tensor.F32, tensor.F16, tensor.Q8_0} {
			if backend.CanStore(typ, c.dim) != nil {
				continue
			}
			t.Run(name("%s/%v", c.name, typ), func(t *testing.T) {
				o := newOperands(t, 3)
				c.fused = false
				a := c.args(o, false)
				a.BiasAt = nil
				width := c.kvHeads * c.dim
				keys, values := a.K, a.V
				a.K, a.V, a.KStride, a.VStride = nil, nil, width, width
				var stored []backend.Stored
				rows := func(x []float32, s backend.Seq) []byte {
					data := guardedBytes(t, s.KLen*typ.RowBytes(width))
					for r := range s.KLen {
						row := x[(s.KStart+r)*width:][:width]
						at := data[r*typ.RowBytes(width):][:typ.RowBytes(width)]
						backend.StoreRows(k, at, typ, row)
						if typ != tensor.F32 {
							want := make([]byte, len(at))
							backend.Quantize(want, typ, row)
							require.Equal(t, want, at)
						}
					}
					return data
				}
				for _, s := range a.Seqs {
					st := backend.Stored{Type: typ, K: rows(keys, s), V: rows(values, s)}
					stored = append(stored, st)
					a.K = append(a.K, backend.ExpandStored(nil, typ, st.K, s.KLen*width)...)
					a.V = append(a.V, backend.ExpandStored(nil, typ, st.V, s.KLen*width)...)
				}
				out, lse := a.Out, a.LSE
				want := a
				want.Out, want.LSE = o.zeros(len(out)), o.zeros(len(lse))
				k.Attention(want)
				a.K, a.V = nil, nil
				backend.AttendStored(k, a, stored)
				for i, v := range want.Out {
					near(t, a.Out[i], float64(v), reduction(1200, 4), "out %d", i)
				}
				for i, v := range want.LSE {
					if math.IsInf(float64(v), 0) {
						require.Equal(t, v, a.LSE[i])
						continue
					}
					near(t, a.LSE[i], float64(v), reduction(1200, 8), "lse %d", i)
				}
				for n, s := range a.Seqs {
					for i := 0; c.causal && s.QLen <= 32 && i < s.QLen && s.KLen >= s.QLen; i++ {
						one := a
						one.Seqs = []backend.Seq{{QStart: s.QStart + i, QLen: 1, KLen: s.KLen - s.QLen + i + 1}}
						one.Out, one.LSE = o.zeros(len(a.Out)), nil
						backend.AttendStored(k, one, stored[n:n+1])
						row := (s.QStart + i) * a.OStride
						same(t, one.Out[row:row+c.heads*c.dim], a.Out[row:row+c.heads*c.dim], "query %d alone", i)
					}
				}
			})
		}
	}
}
