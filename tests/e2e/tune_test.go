package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/tests/fixture"
)

// temper runs the binary and returns its standard output; it must succeed.
func temper(t *testing.T, args ...string) string {
	t.Helper()
	var out, errb bytes.Buffer
	cmd := exec.Command(binary(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errb
	require.NoError(t, cmd.Run(), "%s\n%s", strings.Join(args, " "), errb.String())
	return out.String()
}

func messages(t *testing.T, part string) string {
	t.Helper()
	b, err := builtin.MessagesTSV(part)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), part+".tsv")
	require.NoError(t, os.WriteFile(path, b, 0o644))
	return path
}

// A run killed at any moment and resumed ends with the same weights, bit for bit, as one that was left alone.
func TestKilledAndResumed(t *testing.T) {
	base := filepath.Join(fixture.Parity(t), "models", "bert-seqcls")
	data, dev := messages(t, "train"), messages(t, "dev")
	for _, method := range []string{"full", "lora"} {
		t.Run(method, func(t *testing.T) {
			args := func(out string) []string {
				return []string{"tune", base, "--data", data, "--dev", dev, "--method", method, "--epochs", "6", "--batch", "8", "--seed", "5",
					"--save-steps", "7", "--save-every", "-1s", "--patience", "50", "-q", "-o", out}
			}
			whole := filepath.Join(t.TempDir(), "whole")
			start := time.Now()
			temper(t, args(whole)...)
			took := time.Since(start)
			broken := filepath.Join(t.TempDir(), "broken")
			kills := 0
			for i := range 60 {
				ctx, cancel := context.WithTimeout(context.Background(), took*time.Duration(2+i)/8)
				cmd := exec.CommandContext(ctx, binary(t), append(args(broken), "--resume")...)
				err := cmd.Run() // the end of ctx sends SIGKILL
				cancel()
				if err == nil {
					break
				}
				require.Error(t, ctx.Err(), "the run failed before it was killed: %v", err)
				kills++
			}
			require.Positive(t, kills, "the run was never killed")
			want, err := os.ReadFile(filepath.Join(whole, "model.safetensors"))
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(broken, "model.safetensors"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "weights differ after %d kills", kills)
			_, err = os.Stat(filepath.Join(broken, "checkpoint"))
			require.ErrorIs(t, err, os.ErrNotExist, "a finished run leaves no checkpoint")
		})
	}
}

// The same seed gives the same weights on one thread and on two.
func TestThreadsDoNotMatter(t *testing.T) {
	base := filepath.Join(fixture.Parity(t), "models", "bert-seqcls")
	data := messages(t, "dev")
	var all [][]byte
	for _, threads := range []string{"1", "2", "3"} {
		out := filepath.Join(t.TempDir(), "out")
		temper(t, "tune", base, "--data", data, "--epochs", "2", "--threads", threads, "--seed", "3", "-q", "-o", out)
		b, err := os.ReadFile(filepath.Join(out, "model.safetensors"))
		require.NoError(t, err)
		all = append(all, b)
	}
	require.True(t, bytes.Equal(all[0], all[1]))
	require.True(t, bytes.Equal(all[0], all[2]))
}

func TestHelpOfEveryVerb(t *testing.T) {
	out := temper(t, "--help")
	verbs := 0
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) > 1 && len(line) > 2 && line[:2] == "  " && f[0] == strings.ToLower(f[0]) && !strings.HasPrefix(f[0], "-") && !strings.HasPrefix(f[0], "temper") {
			if f[0] == "help" || f[0] == "completion" {
				continue
			}
			help := temper(t, f[0], "--help")
			require.Contains(t, strings.ToLower(help), "usage", f[0])
			verbs++
		}
	}
	require.Greater(t, verbs, 8, out)
}
