package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// program builds testdata/program.
func program(t *testing.T, flags string) []byte {
	out := filepath.Join(t.TempDir(), "program.wasm")
	c := exec.Command("go", "build", "-trimpath", "-ldflags="+flags, "-o", out, "./testdata/program")
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	said, err := c.CombinedOutput()
	require.NoError(t, err, string(said))
	b, err := os.ReadFile(out)
	require.NoError(t, err)
	return b
}

// output runs a program and returns what it wrote and its exit code.
func output(t *testing.T, module []byte) (string, uint32) {
	ctx := t.Context()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	_, err := wasi_snapshot_preview1.Instantiate(ctx, r)
	require.NoError(t, err)
	var out bytes.Buffer
	_, err = r.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithStdout(&out).WithStderr(&out))
	var exit *sys.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err, out.String())
		return out.String(), 0
	}
	return out.String(), exit.ExitCode()
}

// TestTrimmedProgram runs a program that has lost its tables, its idle functions and their tables, and compares what it says.
func TestTrimmedProgram(t *testing.T) {
	whole := program(t, "-w")
	trimmed, err := Trim(whole)
	require.NoError(t, err)
	require.Less(t, len(trimmed), len(whole)*8/10)

	m, err := parse(trimmed)
	require.NoError(t, err)
	require.NotNil(t, m.section(sectionStart), "tables that follow from others are made by a start function")
	bodies, err := m.bodies()
	require.NoError(t, err)
	empty := 0
	for _, b := range bodies {
		if string(b) == "\x00\x00\x0b" {
			empty++
		}
	}
	require.Greater(t, empty, 50)
	t.Logf("%d bytes of %d, %d of %d functions idle", len(trimmed), len(whole), empty, len(bodies))

	want, code := output(t, whole)
	require.EqualValues(t, 3, code)
	require.Contains(t, want, "501 7 caught: runtime error: invalid memory address")
	got, code := output(t, trimmed)
	require.EqualValues(t, 3, code)
	require.Equal(t, want, got)

	_, err = Trim(trimmed)
	require.Error(t, err, "once is enough")
	_, err = Trim(program(t, "-s -w"))
	require.ErrorContains(t, err, "no names")
}

func TestIdleNames(t *testing.T) {
	for name, want := range map[string]bool{
		"time.Time.Format": true, "time.__Time_.UnmarshalJSON": true, "time.Time.Sub": false, "time.Duration.String": false,
		"runtime.traceLocker.GoStart": true, "runtime.traceLocker.ok": false, "runtime.schedtrace": true, "runtime.mallocgc": false,
		"os.__File_.ReadDir": true, "os.__File_.Write": false, "os.OpenFile": true,
	} {
		require.Equal(t, want, idle.MatchString(name), name)
	}
	for name, want := range map[string]bool{
		"fmt.__pp_.Write": true, "time.Duration.String": true, "fmt.Sprint": false, "fmt.Sprint.func1": false, "fmt.__pp_.free.func1": true,
		"github.com_temper_ml_temper_core_token.compile": false, "github.com_temper_ml_temper_core_token.compile.func1.2": false,
		"golang.org_x_text_unicode_norm.nextHangul": false, "golang.org_x_text_unicode_norm.Form.String": true,
	} {
		require.Equal(t, want, isMethod(name), name)
	}
}

func TestUses(t *testing.T) {
	body := []byte{1, 2, 0x7f} // two locals
	body = append(body, 0x02, 0x40, 0x0e, 1, 0, 0, 0x0b, 0x10, 0x85, 0x01, 0x28, 2, 8, 0x44, 1, 2, 3, 4, 5, 6, 7, 8, 0xfc, 10, 0, 0, 0x42)
	body = appendLong(body, 0x1234_0001_0000)
	body = append(body, 0x42, 0x7f, 0x11, 3, 0, 0x0b)
	var calls []int
	var constants []int64
	require.NoError(t, uses(body, func(f int) { calls = append(calls, f) }, func(v int64) { constants = append(constants, v) }))
	require.Equal(t, []int{133}, calls)
	require.Equal(t, []int64{0x1234_0001_0000, -1}, constants)
	require.Error(t, uses(body[:len(body)-3], func(int) {}, func(int64) {}), "cut short")
	require.Error(t, uses([]byte{0, 0xfd, 0, 0x0b}, func(int) {}, func(int64) {}), "Go writes no vectors")
}

func appendLong(b []byte, v int64) []byte {
	for ; v >= 0x40; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return binary.AppendUvarint(b, uint64(v))
}

func FuzzUses(f *testing.F) {
	f.Add([]byte{0, 0x0e, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0x0b})
	f.Fuzz(func(t *testing.T, body []byte) { _ = uses(body, func(int) {}, func(int64) {}) })
}
