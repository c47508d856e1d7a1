package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/checkpoint"
)

func TestCertify(t *testing.T) {
	good := tiny(t)
	data := file(t, "d.tsv", "label\ttext\nLABEL_0\tone two three four five six\nLABEL_1\tthree four\nLABEL_0\t!\nLABEL_2\tsix seven eight nine ten\n")
	for _, kind := range []string{"mask", "delete", "synonyms"} {
		args := []string{"certify", good, "--data", data, "--kind", kind, "--samples", "60", "--verify", "2", "--verify-votes", "20", "--results", "--json", "-q"}
		code, stdout, stderr := call(t, "", args...)
		require.Zero(t, code, stderr)
		var r certifyResult
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
		require.Equal(t, 4, r.Examples)
		require.Len(t, r.Results, 4)
		require.NotEmpty(t, r.Certified)
		for i := 1; i < len(r.Certified); i++ {
			require.LessOrEqual(t, r.Certified[i], r.Certified[i-1])
			require.LessOrEqual(t, r.CertifiedAccuracy[i], r.Certified[i])
		}
		require.InDelta(t, 1, r.Certified[0]+r.Abstained, 1e-9)
		_, again, _ := call(t, "", args...)
		var q certifyResult
		require.NoError(t, json.Unmarshal([]byte(again), &q))
		require.Equal(t, r.Results, q.Results, "same seed, same certificates")
		code, text, stderr := call(t, "", "certify", good, "--data", data, "--kind", kind, "--samples", "20", "-q")
		require.Zero(t, code, stderr)
		require.Contains(t, text, "certified")
	}
	for _, bad := range [][]string{{"--kind", "magic"}, {"--keep", "0"}, {"--confidence", "1"}, {"--samples", "0"}} {
		code, _, stderr := call(t, "", append([]string{"certify", good, "--data", data}, bad...)...)
		require.Equal(t, 2, code, stderr)
		require.Contains(t, stderr, bad[0])
	}
	code, _, stderr := call(t, "", "certify", good, "--data", data, "--lexicon", "absent.tsv")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "absent.tsv")
}

// Hardening leaves the card in README.md and config.json, and the model still opens.
func TestCard(t *testing.T) {
	data := file(t, "d.tsv", "label\ttext\nLABEL_0\tone two\nLABEL_1\tthree four\nLABEL_0\tfive\nLABEL_2\tsix seven\n")
	out := filepath.Join(t.TempDir(), "out")
	code, _, stderr := call(t, "", "harden", tiny(t), "--data", data, "--dev", data, "--epochs", "1", "--before", "none", "--guard", "10", "--word-noise", "0.5", "-o", out, "-q")
	require.Zero(t, code, stderr)
	for range 2 { // check writes it again
		readme, err := os.ReadFile(filepath.Join(out, "README.md"))
		require.NoError(t, err)
		require.Contains(t, string(readme), "| deepwordbug | ")
		require.Contains(t, string(readme), "| harden |")
		raw, err := os.ReadFile(filepath.Join(out, checkpoint.ConfigFile))
		require.NoError(t, err)
		var c map[string]map[string]any
		_ = json.Unmarshal(raw, &c) // members of other types are left out
		require.Contains(t, c[cardKey], "attacks")
		code, _, stderr = call(t, "", "check", out, "--data", data, "--card", "-q")
		require.Zero(t, code, stderr)
	}
}
