package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// operands draws test data into guarded memory.
type operands struct {
	t   testing.TB
	rng *rand.Rand
}

func newOperands(t testing.TB, seed uint64) *operands {
	return &operands{t, rand.New(rand.NewPCG(seed, 0x7e4b5))}
}

// zeros returns n zeros before a guard page.
func (o *operands) zeros(n int) []float32 {
	b := guardedBytes(o.t, 4*n)
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// normal returns n draws of a standard normal before a guard page.
func (o *operands) normal(n int) []float32 {
	v := o.zeros(n)
	for i := range v {
		v[i] = float32(o.rng.NormFloat64())
	}
	return v
}

// spread returns values of many magnitudes, zeros and both signs, within ±limit.
func (o *operands) spread(n int, limit float64) []float32 {
	v := o.zeros(n)
	for i := range v {
		switch o.rng.IntN(8) {
		case 0:
			v[i] = 0
		case 1:
			v[i] = float32(o.rng.NormFloat64() * 1e-6)
		default:
			v[i] = float32((o.rng.Float64()*2 - 1) * limit)
		}
	}
	return v
}

func (o *operands) ids(n, below int) []int32 {
	b := guardedBytes(o.t, 4*n)
	v := unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), n)
	for i := range v {
		v[i] = int32(o.rng.IntN(below))
	}
	return v
}

// copyOf returns a guarded copy.
func (o *operands) copyOf(v []float32) []float32 {
	c := o.zeros(len(v))
	copy(c, v)
	return c
}

func wide(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

// u is the unit roundoff of float32.
const u = 1.0 / (1 << 24)

// Budgets: how far a result may be from the float64 oracle.

// reduction is the budget of a float32 sum of n terms whose absolute values add up to mass. Rounding errors of n additions behave like a
// random walk, hence the root; the factor leaves room for any order of summation.
func reduction(n int, mass float64) float64 { return u * (6 + 4*math.Sqrt(float64(n))) * mass }

// elementwise is the budget of a function of one value that is computed from a few float32 operations: 8 ulp of the larger of result and
// argument, and as much near zero as the vector polynomials leave.
func elementwise(x, want float64) float64 {
	return 8*u*max(math.Abs(want), math.Abs(x)) + 1.5e-7
}

// near fails when got is further than budget from want; NaN and infinities must agree.
func near(t testing.TB, got float32, want, budget float64, what string, args ...any) {
	t.Helper()
	g := float64(got)
	if math.IsNaN(want) && math.IsNaN(g) || g == want {
		return
	}
	if d := math.Abs(g - want); !(d <= budget) {
		t.Fatalf("%s: got %g, want %g: differs by %g, budget %g", fmt.Sprintf(what, args...), got, want, d, budget)
	}
}

// same fails when two results differ in any bit (NaN equals NaN).
func same(t testing.TB, got, want []float32, what string, args ...any) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", fmt.Sprintf(what, args...), len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) && (got[i] == got[i] || want[i] == want[i]) {
			t.Fatalf("%s: element %d of %d is %g (%08x), want %g (%08x), bit for bit", fmt.Sprintf(what, args...), i, len(got),
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

// slope returns the derivative of f at x by central differences in float64; f must not keep x.
func slope(f func(x []float64) float64, x []float64) []float64 {
	const h = 1e-5
	g := make([]float64, len(x))
	for i, v := range x {
		x[i] = v + h
		up := f(x)
		x[i] = v - h
		down := f(x)
		x[i] = v
		g[i] = (up - down) / (2 * h)
	}
	return g
}

// finite is the budget against central differences: their own error is about 1e-9 here, so float32 rounding of sums decides.
func finite(want, scale float64) float64 { return 2e-5*scale + 2e-5*math.Abs(want) }
