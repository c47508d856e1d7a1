package meter_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/temper-ml/temper/plugins/meter"
)

// counting is a module that exports a memory and run(n), which adds up n, n-1 … 1 in a loop.
//
//	(func (param i32) (result i32) (local i32)
//	  (block (loop (br_if 1 (i32.eqz (local.get 0)))
//	    (local.set 1 (i32.add (local.get 1) (local.get 0))) (local.set 0 (i32.sub (local.get 0) (i32.const 1))) (br 0)))
//	  (local.get 1))
var counting = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x06\x01\x60\x01\x7f\x01\x7f" + "\x03\x02\x01\x00" + "\x05\x03\x01\x00\x01" +
	"\x07\x10\x02\x06memory\x02\x00\x03run\x00\x00" +
	"\x0a\x23\x01\x21\x01\x01\x7f" + "\x02\x40\x03\x40\x20\x00\x45\x0d\x01\x20\x01\x20\x00\x6a\x21\x01\x20\x00\x41\x01\x6b\x21\x00\x0c\x00\x0b\x0b\x20\x01\x0b")

func instantiate(t testing.TB, wasm []byte, config wazero.RuntimeConfig) api.Module {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), config)
	t.Cleanup(func() { r.Close(t.Context()) })
	m, err := r.Instantiate(t.Context(), wasm)
	require.NoError(t, err)
	return m
}

func TestFuel(t *testing.T) {
	wasm, info, err := meter.Rewrite(counting, 16)
	require.NoError(t, err)
	assert.Equal(t, []string{"run"}, info.Functions)
	m := instantiate(t, wasm, wazero.NewRuntimeConfig())
	fuel, ok := m.ExportedGlobal(meter.FuelGlobal).(api.MutableGlobal)
	require.True(t, ok)
	used := func(n uint64) int64 {
		fuel.Set(1_000_000)
		out, err := m.ExportedFunction("run").Call(t.Context(), n)
		require.NoError(t, err)
		assert.Equal(t, uint32(n*(n+1)/2), uint32(out[0]), "the rewritten code does the same")
		return 1_000_000 - int64(fuel.Get())
	}
	// An iteration has 12 instructions and the end; there is one more than n, in which the loop is left.
	base, step := used(0), used(1)-used(0)
	assert.EqualValues(t, 13, step)
	assert.Equal(t, base+1000*step, used(1000))
	fuel.Set(uint64(base + 10*step - 1))
	_, err = m.ExportedFunction("run").Call(t.Context(), 10)
	require.Error(t, err)
	assert.Negative(t, int64(fuel.Get()))
	fuel.Set(uint64(base + 10*step))
	_, err = m.ExportedFunction("run").Call(t.Context(), 10)
	require.NoError(t, err, "just enough")
}

func TestMemoryIsCapped(t *testing.T) {
	wasm, _, err := meter.Rewrite(counting, 3)
	require.NoError(t, err)
	m := instantiate(t, wasm, wazero.NewRuntimeConfig())
	_, ok := m.Memory().Grow(2)
	assert.True(t, ok)
	_, ok = m.Memory().Grow(1)
	assert.False(t, ok)
	_, _, err = meter.Rewrite(counting, 0)
	require.ErrorContains(t, err, "starts with 1 pages")
}

// Whatever a compiler made stays valid.
func TestExamplesStayValid(t *testing.T) {
	files, err := filepath.Glob("../examples/*/*.wasm")
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		wasm, _, err := meter.Rewrite(b, 1024)
		require.NoError(t, err)
		r := wazero.NewRuntime(t.Context())
		_, err = r.CompileModule(t.Context(), wasm)
		require.NoError(t, err, f)
		require.NoError(t, r.Close(t.Context()))
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add(counting)
	f.Add(counting[:40])
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x0a\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, _, err := meter.Rewrite(b, 16)
		if err == nil {
			_, _, err = meter.Rewrite(out, 16)
			require.ErrorContains(t, err, meter.FuelGlobal, "what is rewritten is not taken again")
		}
	})
}

// BenchmarkLoop compares a tight loop as it is, metered, and with wazero's own way to stop one. Run all three for the ratio.
func BenchmarkLoop(b *testing.B) {
	metered, _, err := meter.Rewrite(counting, 16)
	require.NoError(b, err)
	for name, c := range map[string]struct {
		wasm   []byte
		config wazero.RuntimeConfig
	}{
		"plain":                 {counting, wazero.NewRuntimeConfig()},
		"metered":               {metered, wazero.NewRuntimeConfig()},
		"close-on-context-done": {counting, wazero.NewRuntimeConfig().WithCloseOnContextDone(true)},
	} {
		b.Run(name, func(b *testing.B) {
			m := instantiate(b, c.wasm, c.config)
			run := m.ExportedFunction("run")
			fuel, _ := m.ExportedGlobal(meter.FuelGlobal).(api.MutableGlobal)
			for b.Loop() {
				if fuel != nil {
					fuel.Set(1 << 40)
				}
				if _, err := run.Call(b.Context(), 1_000_000); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
