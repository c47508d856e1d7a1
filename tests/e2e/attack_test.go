package e2e

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/tests/fixture"
)

// filter tunes a small classifier of the built-in base and messages.
func filter(t *testing.T, method string) (model, data string) {
	t.Helper()
	model = filepath.Join(t.TempDir(), "filter")
	messages := filepath.Join(fixture.Root(), "core", "builtin", "messages")
	_, stderr, code := run(t, "", "tune", "temper-mini", "--data", filepath.Join(messages, "train.tsv"), "--shots", "16", "--method", method, "--seed", "1", "-q", "-o", model)
	require.Zero(t, code, stderr)
	return model, filepath.Join(messages, "test.tsv")
}

func results(t *testing.T, level, threads string, args ...string) []attack.Result {
	t.Helper()
	t.Setenv("TEMPER_CPU", level)
	out, stderr, code := run(t, "", append(args, "--threads", threads, "--json", "--results", "-q")...)
	if strings.Contains(stderr, "TEMPER_CPU") || strings.Contains(stderr, "level") {
		return nil // this CPU does not have the level
	}
	require.Zero(t, code, stderr)
	var rep attack.Report
	require.NoError(t, json.Unmarshal([]byte(out), &rep))
	require.NotEmpty(t, rep.Results)
	return rep.Results
}

// tie is how near two scores of float32 weights must have been where CPU levels part ways. (Scores of the built-in base as it is, in int8, differ by up to a
// thousandth: an activation that falls on the other side of a rounding moves them.)
const tie = 1e-4

// The same seed gives the same outcome to the bit on any number of threads; on another CPU level the same candidates win, or two scores were as near
// as the levels are.
func TestAttackIsTheSameOnEveryThreadCountAndLevel(t *testing.T) {
	model, data := filter(t, "full") // which writes float32
	args := []string{"attack", model, "--data", data, "--examples", "12", "--recipe", "deepwordbug-gradient", "--seed", "3"}
	first := results(t, "", "1", args...)
	require.Equal(t, first, results(t, "", "2", args...))
	require.Equal(t, first, results(t, "", "3", args...))
	won, same := 0, 0
	for _, level := range []string{"generic", "avx2", "avx512", "avx512vnni", "neon"} {
		got := results(t, level, "2", args...)
		if got == nil {
			t.Logf("no level %s on this machine", level)
			continue
		}
		require.Len(t, got, len(first))
		for i, r := range got {
			if r.Status == attack.Won {
				won++
			}
			for k := range r.Before {
				assert.InDelta(t, first[i].Before[k], r.Before[k], tie, "%s row %d", level, r.Row)
			}
			if r.Status == first[i].Status && r.Adversarial == first[i].Adversarial {
				same++
				continue
			}
			t.Logf("%s row %d: %q, elsewhere %q", level, r.Row, r.Adversarial, first[i].Adversarial)
			require.Equal(t, len(first[i].After), len(r.After))
			near := math.Inf(1)
			for k := range r.After {
				near = min(near, math.Abs(float64(r.After[k]-first[i].After[k])))
			}
			assert.Less(t, near, tie, "%s row %d differs without a near tie", level, r.Row)
		}
	}
	assert.Positive(t, won)
	assert.Positive(t, same)
}

// An attack whose journal ends in the middle of a line goes on and ends with the same results.
func TestAttackResumes(t *testing.T) {
	model, data := filter(t, "head")
	journal := filepath.Join(t.TempDir(), "attack.jsonl")
	args := []string{"attack", model, "--data", data, "--examples", "20", "--recipe", "leetspeak", "--seed", "3", "--journal", journal}
	want := results(t, "", "2", args...)
	whole, err := os.ReadFile(journal)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(journal, whole[:2*len(whole)/3], 0o600))
	assert.Equal(t, want, results(t, "", "2", args...))
	again, err := os.ReadFile(journal)
	require.NoError(t, err)
	assert.Equal(t, strings.Count(string(whole), "\n"), strings.Count(string(again), "\n"))
	_, stderr, code := run(t, "", "attack", model, "--data", data, "--examples", "20", "--recipe", "spacing", "--seed", "3", "--journal", journal)
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "is of another run")
}
