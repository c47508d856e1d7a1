package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/tests/fixture"
)

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "temper-e2e")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "temper")
	if runtime.GOOS == "windows" {
		file += ".exe"
	}
	cmd := exec.Command("go", "build", "-o", file, "./cmd/temper")
	cmd.Dir = fixture.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// binary is the built program.
func binary(t *testing.T) string {
	t.Helper()
	file, err := build()
	require.NoError(t, err)
	return file
}

// run runs the program to its end.
func run(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); !ok {
		require.NoError(t, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// server starts "temper serve" on a free port and returns its address and a way to end it, which waits.
func server(t *testing.T, args ...string) (url string, stop func() error) {
	t.Helper()
	cmd := exec.Command(binary(t), append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	pipe, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	found := make(chan string, 1)
	var log strings.Builder
	ended := make(chan error, 1)
	go func() {
		r := bufio.NewScanner(pipe)
		for r.Scan() {
			log.WriteString(r.Text() + "\n")
			if at, ok := strings.CutPrefix(r.Text(), "listening on "); ok {
				found <- at
			}
		}
		ended <- cmd.Wait()
	}()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				_ = cmd.Process.Kill()
			}
			select {
			case result = <-ended:
			case <-time.After(20 * time.Second):
				_ = cmd.Process.Kill()
				result = fmt.Errorf("the server did not end")
			}
		})
		return result
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case url = <-found:
	case err := <-ended:
		ended <- err
		t.Fatalf("the server ended: %v\n%s", err, log.String())
	case <-time.After(30 * time.Second):
		t.Fatalf("the server did not start")
	}
	return url, stop
}
