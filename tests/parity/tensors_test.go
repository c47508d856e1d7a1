package parity

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/tensor"
)

// expected is a safetensors file of expectations that notes what was looked at.
type expected struct {
	t    *testing.T
	src  checkpoint.Source
	have map[string]bool
	seen map[string]bool
}

func open(t *testing.T, dir, name string) *expected {
	t.Helper()
	src, err := checkpoint.OpenSafetensors(filepath.Join(dir, name))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, src.Close()) })
	e := &expected{t: t, src: src, have: map[string]bool{}, seen: map[string]bool{}}
	for _, n := range src.Names() {
		e.have[n] = true
	}
	return e
}

func (e *expected) has(name string) bool { return e.have[name] }

func (e *expected) tensor(name string) tensor.Tensor {
	e.t.Helper()
	x, err := e.src.Tensor(name)
	require.NoError(e.t, err)
	if e.seen != nil {
		e.seen[name] = true
	}
	return x
}

// done fails on tensors that nothing looked at: the fixture promises something that no check here knows.
func (e *expected) done() {
	e.t.Helper()
	if e.t.Failed() {
		return // and may have stopped before it came to them
	}
	for _, n := range e.src.Names() {
		if !e.seen[n] {
			e.t.Errorf("%s: a tensor that no check looks at", n)
		}
	}
}

// onlyFiles fails on files of a fixture that its runner does not know; names may be patterns.
func onlyFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range entries {
		known := slices.ContainsFunc(names, func(n string) bool { ok, _ := filepath.Match(n, f.Name()); return ok })
		require.True(t, known, "%s: a file that no runner looks at", f.Name())
	}
}

// floats returns a tensor of floating-point numbers.
func (e *expected) floats(name string) []float32 {
	e.t.Helper()
	v, err := e.tensor(name).F32()
	require.NoError(e.t, err)
	return v
}

// ints returns a tensor of 64-bit integers.
func (e *expected) ints(name string) []int32 {
	e.t.Helper()
	x := e.tensor(name)
	require.Equal(e.t, tensor.I64, x.DType, name)
	out := make([]int32, x.Len())
	for i := range out {
		out[i] = int32(int64(binary.LittleEndian.Uint64(x.Data[i*8:])))
	}
	return out
}

// distance is the largest absolute difference; a NaN on either side is infinitely far.
func distance(t *testing.T, want, got []float32) float64 {
	t.Helper()
	require.Len(t, got, len(want))
	var d float64
	for i, w := range want {
		x := math.Abs(float64(w) - float64(got[i]))
		if math.IsNaN(x) {
			return math.Inf(1)
		}
		d = max(d, x)
	}
	return d
}

// near fails when got is farther than tol from want, and notes the distance in the table.
func near(t *testing.T, column, what string, want, got []float32, tol float64) {
	t.Helper()
	d := distance(t, want, got)
	results.add(t, column, d)
	if d > tol {
		t.Errorf("%s: differs by %.3g, tolerance %.3g", what, d, tol)
	}
}

// nearGradient compares gradients: 1e-4 of the tensor's largest element, plus 1e-6. The table shows the share of the tolerance used.
func nearGradient(t *testing.T, what string, want, got []float32) {
	t.Helper()
	nearGradientAmong(t, what, want, got, 0)
}

// nearGradientAmong is nearGradient where largest is the largest element of all gradients of the model. A tensor below a millionth of it is
// zero in exact arithmetic (the key bias of plain attention): what the reference shows is rounding noise, which grows with the
// gradients that flow, and so does the tolerance.
func nearGradientAmong(t *testing.T, what string, want, got []float32, largest float64) {
	t.Helper()
	top := absMax(want)
	d, tol := distance(t, want, got), 1e-4*top+1e-6
	if top < 1e-6*largest {
		tol += 1e-6 * largest
	}
	results.add(t, "grad/tol", d/tol)
	if d > tol {
		t.Errorf("%s: differs by %.3g, tolerance %.3g", what, d, tol)
	}
}

func absMax(v []float32) float64 {
	top := 0.0
	for _, x := range v {
		top = max(top, math.Abs(float64(x)))
	}
	return top
}
