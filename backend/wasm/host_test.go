//go:build !wasip1

package wasm_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend/wasm/host"
)

// TestConformance builds this package's tests for WebAssembly and runs them under wazero, on one thread and on three.
func TestConformance(t *testing.T) {
	ctx := t.Context()
	module, err := host.BuildTest(ctx, t.TempDir(), "github.com/temper-ml/temper/backend/wasm")
	require.NoError(t, err)
	for name, threads := range map[string]int{"one thread": 1, "three threads": 3} {
		t.Run(name, func(t *testing.T) {
			args := []string{"test", "-test.v"}
			if testing.Short() {
				args = append(args, "-test.short")
			}
			if run := os.Getenv("TEMPER_WASM_RUN"); run != "" { // one test of the battery
				args = append(args, "-test.run", run)
			}
			var out bytes.Buffer
			code, err := host.Run(ctx, host.Program{Module: module, Args: args, Stdout: &out, Stderr: &out, Threads: threads,
				Env: map[string]string{"TEMPER_THREADS": string(rune('0' + threads))}, CacheDir: cacheDir(t)})
			require.NoError(t, err, out.String())
			require.Zero(t, code, out.String())
			require.Contains(t, out.String(), "PASS: TestConformance")
			t.Log(out.String())
		})
	}
}

func cacheDir(t *testing.T) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(dir, "temper-test", "wazero")
}
