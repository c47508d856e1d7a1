package backendtest

import (
	"testing"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/tensor"
)

// Bench times k on the shapes of all-MiniLM-L6-v2 and of a small decoder.
func Bench(b *testing.B, k backend.Kernels) {
	o := newOperands(b, 1)
	gflops := func(b *testing.B, flop float64) {
		b.ReportMetric(flop*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	}
	for _, s := range [][3]int{{1, 384, 384}, {4, 1536, 384}, {16, 384, 384}, {16, 1536, 384}, {128, 384, 384}, {128, 1152, 384}, {128, 1536, 384}, {128, 384, 1536}, {512, 1536, 384}, {4096, 1536, 384}} {
		rows, out, in := s[0], s[1], s[2]
		b.Run(name("linear/%dx%dx%d", rows, out, in), func(b *testing.B) {
			w, x, dst := k.Pack(f32Weight(o.normal(out*in), out, in)), o.normal(rows*in), o.zeros(rows*out)
			for b.Loop() {
				k.Linear(dst, x, rows, w, backend.Epilogue{})
			}
			gflops(b, 2*float64(rows)*float64(out)*float64(in))
		})
	}
	for _, s := range [][3]int{{1, 384, 384}, {1, 1536, 384}, {16, 1536, 384}, {16, 384, 1536}, {128, 384, 384}, {128, 1536, 384}, {128, 384, 1536}, {512, 1536, 384}, {4096, 384, 1536}} {
		rows, out, in := s[0], s[1], s[2]
		b.Run(name("int8/%dx%dx%d", rows, out, in), func(b *testing.B) {
			w, x, dst := k.Pack(o.int8Weight(out, in)), o.normal(rows*in), o.zeros(rows*out)
			for b.Loop() {
				k.Linear(dst, x, rows, w, backend.Epilogue{})
			}
			gflops(b, 2*float64(rows)*float64(out)*float64(in))
		})
	}
	for _, typ := range []tensor.DType{tensor.Q8_0, tensor.Q4_K, tensor.Q6_K} {
		for _, s := range [][3]int{{1, 2048, 768}, {1, 32768, 768}, {6, 2048, 768}, {128, 2048, 768}} {
			rows, out, in := s[0], s[1], s[2]
			b.Run(name("%s/%dx%dx%d", typ, rows, out, in), func(b *testing.B) {
				w := k.Pack(o.blockWeight(typ, out, in))
				x, dst := o.normal(rows*in), o.zeros(rows*out)
				for b.Loop() {
					k.Linear(dst, x, rows, w, backend.Epilogue{})
				}
				gflops(b, 2*float64(rows)*float64(out)*float64(in))
				b.ReportMetric(float64(w.Bytes())*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
			})
		}
	}
	b.Run("linear gelu/512x1536x384", func(b *testing.B) {
		w, x, dst, bias := k.Pack(f32Weight(o.normal(1536*384), 1536, 384)), o.normal(512*384), o.zeros(512*1536), o.normal(1536)
		for b.Loop() {
			k.Linear(dst, x, 512, w, backend.Epilogue{Bias: bias, Act: backend.GELU})
		}
		gflops(b, 2*512*1536*384)
	})
	for mode, what := range []string{"nn", "tn", "nt", "tt"} {
		for _, s := range [][3]int{{512, 384, 1536}, {1536, 384, 1024}, {384, 8, 2048}} {
			b.Run(name("matmul/%s/%dx%dx%d", what, s[0], s[1], s[2]), func(b *testing.B) {
				m, n, kk := s[0], s[1], s[2]
				g := backend.MatMulArgs{M: m, N: n, K: kk, A: o.normal(m * kk), B: o.normal(kk * n), C: o.zeros(m * n), LDA: kk, LDB: n, LDC: n, TransA: mode&1 != 0, TransB: mode&2 != 0}
				if g.TransA {
					g.LDA = m
				}
				if g.TransB {
					g.LDB = kk
				}
				for b.Loop() {
					k.MatMul(g)
				}
				gflops(b, 2*float64(m)*float64(n)*float64(kk))
			})
		}
	}
	for _, s := range [][2]int{{8, 64}, {4, 128}, {1, 512}} {
		c := attentionCase{heads: 12, kvHeads: 12, dim: 32, fused: true}
		for range s[0] {
			c.seqs = append(c.seqs, [2]int{s[1], s[1]})
		}
		a := c.args(o, true)
		flop := 4 * 384 * float64(s[0]*s[1]*s[1])
		b.Run(name("attention/%dx%d", s[0], s[1]), func(b *testing.B) {
			for b.Loop() {
				k.Attention(a)
			}
			gflops(b, flop)
		})
		b.Run(name("attention backward/%dx%d", s[0], s[1]), func(b *testing.B) {
			k.Attention(a)
			for b.Loop() {
				k.AttentionBackward(a)
			}
			gflops(b, 2.5*flop)
		})
	}
	const rows, cols = 512, 384
	x, y, gain, mean, rstd := o.normal(rows*cols), o.zeros(rows*cols), o.normal(cols), o.zeros(rows), o.zeros(rows)
	for _, c := range []struct {
		what string
		f    func()
	}{
		{"gelu", func() { k.Act(y, x, backend.GELU) }},
		{"gelu backward", func() { k.ActBackward(y, x, x, backend.GELU) }},
		{"softmax", func() { k.Softmax(y, x, rows, cols) }},
		{"layer norm", func() { k.LayerNorm(y, x, gain, gain, rows, cols, 1e-5, mean, rstd) }},
		{"layer norm backward", func() { k.LayerNormBackward(y, y[:cols], y[:cols], x, x, gain, mean, rstd, rows, cols) }},
		{"rms norm", func() { k.RMSNorm(y, x, gain, rows, cols, 1e-5, rstd) }},
		{"add", func() { k.Add(y, x, x) }},
		{"adamw", func() { k.AdamW(backend.AdamWArgs{P: y, G: x, M: y, V: y, LR: 0, Step: 1}) }},
	} {
		b.Run("rows/"+c.what, func(b *testing.B) {
			b.SetBytes(4 * rows * cols)
			for b.Loop() {
				c.f()
			}
		})
	}
}
