package native_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/backendtest"
	"github.com/temper-ml/temper/backend/native"
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

// The battery reaches every function of every level's table.
func TestEveryFunction(t *testing.T) {
	if testing.Short() {
		t.Skip("conformance runs it all, uncounted")
	}
	for _, level := range native.Levels()[1:] {
		t.Run(level, func(t *testing.T) {
			k, idle := native.Counted(level, 2, false)
			defer k.Close()
			backendtest.Run(t, k)
			left := idle()
			if native.OffersBF16(level) {
				half, idleHalf := native.Counted(level, 2, true)
				defer half.Close()
				backendtest.RunBF16(t, half)
				left = slices.DeleteFunc(left, func(name string) bool { return !slices.Contains(idleHalf(), name) })
			}
			require.Subset(t, []string{"peakFMA", "sum"}, left, "beside what measures the machine")
		})
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

func TestSum(t *testing.T) {
	for _, level := range native.Levels()[1:] {
		for n := range 200 {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(i)
			}
			require.Equal(t, float32(n*(n-1)/2), native.Sum(level, x), "%s, %d", level, n)
		}
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

func FuzzKernels(f *testing.F) {
	var ks []backend.Kernels
	for _, level := range native.Levels()[1:] {
		ks = append(ks, kernels(f, level, 2))
	}
	if len(ks) == 0 {
		f.Skip("this machine has no kernels beside the generic ones")
	}
	backendtest.Fuzz(f, ks...)
}

func FuzzBF16(f *testing.F) {
	var ks []backend.Kernels
	for _, level := range native.Levels() {
		if native.OffersBF16(level) {
			k, err := native.New(native.Options{Level: level, Threads: 2, BF16: true})
			require.NoError(f, err)
			f.Cleanup(k.Close)
			ks = append(ks, k)
		}
	}
	if len(ks) == 0 {
		f.Skip("this machine has no bfloat16 products")
	}
	backendtest.FuzzBF16(f, ks...)
}

func BenchmarkKernels(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(map[int]string{1: "one", 2: "two"}[threads], func(b *testing.B) { backendtest.Bench(b, kernels(b, "", threads)) })
	}
}

func TestBF16(t *testing.T) {
	_, err := native.New(native.Options{Level: "generic", BF16: true})
	require.ErrorContains(t, err, "level generic has no bfloat16 products")
	for _, level := range native.Levels() {
		if native.OffersBF16(level) {
			t.Run(level, func(t *testing.T) {
				var ks []backend.Kernels
				for _, threads := range []int{1, 2} {
					k, err := native.New(native.Options{Level: level, Threads: threads, BF16: true})
					require.NoError(t, err)
					defer k.Close()
					ks = append(ks, k)
				}
				backendtest.RunBF16(t, ks...)
			})
		}
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
