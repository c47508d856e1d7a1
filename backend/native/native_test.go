package native_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/backendtest"
	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/tensor"
)

func kernels(t testing.TB, level string, threads int) backend.Kernels {
	k, err := native.New(native.Options{Threads: threads, Level: level})
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

func TestConformance(t *testing.T) {
	for _, level := range native.Levels() {
		t.Run(level, func(t *testing.T) { backendtest.Run(t, kernels(t, level, 2)) })
	}
}

func TestThreads(t *testing.T) {
	for _, level := range native.Levels() {
		t.Run(level, func(t *testing.T) {
			backendtest.RunThreads(t, func(threads int) backend.Kernels {
				k, err := native.New(native.Options{Threads: threads, Level: level})
				require.NoError(t, err)
				return k
			})
		})
	}
}

func TestOptions(t *testing.T) {
	_, err := native.New(native.Options{Level: "mmx"})
	require.ErrorContains(t, err, `native: level is "mmx", this machine offers generic`)
	t.Setenv(native.EnvLevel, "sse9")
	_, err = native.New(native.Options{})
	require.ErrorContains(t, err, native.EnvLevel)
	t.Setenv(native.EnvLevel, "generic")
	k, err := native.New(native.Options{})
	require.NoError(t, err)
	require.Equal(t, "generic", k.Level())
	_, err = native.New(native.Options{Threads: -1})
	require.Error(t, err)
}

func FuzzKernels(f *testing.F) { backendtest.Fuzz(f, kernels(f, "", 2)) }

func BenchmarkKernels(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(map[int]string{1: "one", 2: "two"}[threads], func(b *testing.B) { backendtest.Bench(b, kernels(b, "", threads)) })
	}
}

// bf16 rounds as the kernels do.
func bf16(v []float32) []float32 {
	r := make([]float32, len(v))
	for i, x := range v {
		r[i] = tensor.BF16ToF32(tensor.F32ToBF16(x))
	}
	return r
}

func TestBF16(t *testing.T) {
	_, err := native.New(native.Options{Level: "generic", BF16: true})
	require.ErrorContains(t, err, "level generic has no bfloat16 products")
	for _, level := range native.Levels() {
		if native.OffersBF16(level) {
			t.Run(level, func(t *testing.T) { testBF16(t, level) })
		}
	}
}

func testBF16(t *testing.T, level string) {
	var last [][]float32
	for _, threads := range []int{1, 2} {
		k, err := native.New(native.Options{Level: level, Threads: threads, BF16: true})
		require.NoError(t, err)
		defer k.Close()
		var results [][]float32
		rng := rand.New(rand.NewPCG(1, 2))
		draw := func(n int) []float32 {
			v := make([]float32, n)
			for i := range v {
				v[i] = float32(rng.NormFloat64())
			}
			return v
		}
		// Against float32 products of the rounded operands.
		ref := backend.Generic(1)
		for _, s := range [][3]int{{1, 1, 1}, {1, 33, 7}, {3, 16, 2}, {13, 40, 65}, {14, 64, 300}, {29, 100, 1025}, {70, 17, 1}, {5, 5, 0}, {2, 130, 64}, {65, 300, 1100}, {33, 64, 1024}} {
			for mode := range 8 {
				m, n, kk := s[0], s[1], s[2]
				g := backend.MatMulArgs{M: m, N: n, K: kk, LDA: kk + 1, LDB: n + 3, LDC: n, TransA: mode&1 != 0, TransB: mode&2 != 0, Accumulate: mode&4 != 0, Alpha: 0.5}
				if g.TransA {
					g.LDA = m + 2
				}
				if g.TransB {
					g.LDB = kk
				}
				g.A, g.B, g.C = draw((m+kk)*(g.LDA+1)), draw((n+kk)*(g.LDB+1)), draw(m*n)
				want := g
				want.A, want.B, want.C = bf16(g.A), bf16(g.B), append([]float32(nil), g.C...)
				k.MatMul(g)
				ref.MatMul(want)
				for i := range g.C {
					require.InDelta(t, want.C[i], g.C[i], 2e-5*(1+float64(kk)/16), "%v mode %d [%d]", s, mode, i)
				}
				results = append(results, g.C)
			}
			rows, out, in := s[0], s[1], s[2]
			w, x, bias := draw(out*in), draw(rows*in), draw(out)
			weight := backend.Weight{DType: tensor.F32, Out: out, In: in, Data: tensor.Bytes(w)}
			rounded := backend.Weight{DType: tensor.F32, Out: out, In: in, Data: tensor.Bytes(bf16(w))}
			got, want := make([]float32, rows*out), make([]float32, rows*out)
			k.Linear(got, x, rows, k.Pack(weight), backend.Epilogue{Bias: bias})
			ref.Linear(want, bf16(x), rows, ref.Pack(rounded), backend.Epilogue{Bias: bias})
			for i := range got {
				require.InDelta(t, want[i], got[i], 2e-5*(1+float64(in)/16), "linear %v [%d]", s, i)
			}
			results = append(results, got)
			if rows > 1 && in > 0 {
				alone := make([]float32, out)
				k.Linear(alone, x[in:2*in], 1, k.Pack(weight), backend.Epilogue{Bias: bias})
				require.Equal(t, got[out:2*out], alone, "a row alone")
			}
		}
		if last != nil {
			require.Equal(t, last, results, "on %d threads", threads)
		}
		last = results
	}
}

func BenchmarkBF16(b *testing.B) {
	if !native.OffersBF16(native.Best()) {
		b.Skip("this machine has no bfloat16 products")
	}
	k, err := native.New(native.Options{Threads: 1, BF16: true})
	require.NoError(b, err)
	b.Cleanup(k.Close)
	backendtest.Bench(b, k)
}
