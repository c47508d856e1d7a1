package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/builtin"
)

// messageFiles writes part of the built-in messages, with labels or as lines of text.
func messageFiles(t *testing.T, part string, n int) (labelled, plain string) {
	t.Helper()
	raw, err := builtin.MessagesTSV(part)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	lines = lines[:min(n+1, len(lines))]
	header := strings.Split(lines[0], "\t")
	at := 0
	for i, h := range header {
		if h == "text" {
			at = i
		}
	}
	var texts []string
	for _, l := range lines[1:] {
		texts = append(texts, strings.Split(l, "\t")[at])
	}
	return file(t, part+".tsv", strings.Join(lines, "\n")), file(t, part+".txt", strings.Join(texts, "\n"))
}

// A teacher labels texts, a student learns them; the ledger tells both steps and follows the model into other forms.
func TestLabelsFrom(t *testing.T) {
	few, _ := messageFiles(t, "dev", 60)
	_, texts := messageFiles(t, "train", 120)
	out := filepath.Join(t.TempDir(), "student")
	code, stdout, stderr := call(t, "", "distill", "--labels-from", builtinBase, "--examples", few, "--data", texts, "--student", builtinBase, "-o", out, "-q", "--json", "--threads", "1")
	require.Zero(t, code, stderr)
	var r labelResult
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	assert.Equal(t, 120, r.Texts)
	assert.Equal(t, 120, r.Kept)
	assert.Positive(t, r.Cost.Tokens)
	assert.Positive(t, r.Cost.FLOPs)
	assert.Len(t, r.Labels, 2)
	require.NotNil(t, r.Student)
	labels, err := os.ReadFile(filepath.Join(out, labelsFile))
	require.NoError(t, err)
	assert.Equal(t, 121, strings.Count(string(labels), "\n"))

	small := filepath.Join(t.TempDir(), "int8")
	code, _, stderr = call(t, "", "quantize", out, "-o", small, "-q")
	require.Zero(t, code, stderr)
	prices := file(t, "prices.json", `{"currency":"EUR","machine":{"core_hour":3.6,"watts_per_core":5},"apis":[{"name":"dear","input_per_million_tokens":1000},{"name":"free","input_per_million_tokens":0}]}`)
	plot := filepath.Join(t.TempDir(), "cost.svg")
	code, stdout, stderr = call(t, "", "cost", small, "--prices", prices, "--plot", plot, "--json", "--threads", "1")
	require.Zero(t, code, stderr)
	var c costResult
	require.NoError(t, json.Unmarshal([]byte(stdout), &c))
	before, err := readLedger(builtinBase) // the student's own past comes first
	require.NoError(t, err)
	require.NotEmpty(t, before.Steps)
	require.Len(t, c.Steps, len(before.Steps)+2)
	assert.Equal(t, "distill", c.Steps[0].Step)
	c.Steps = c.Steps[len(before.Steps):]
	for i, want := range []string{"label", "tune"} {
		assert.Equal(t, want, c.Steps[i].Step)
	}
	assert.InDelta(t, c.Made.CPUSeconds/1000, c.Made.Money, 1e-9, "3.6 an hour is a thousandth a second")
	assert.InDelta(t, 5*c.Made.CPUSeconds, c.Made.Joules, 1e-6)
	assert.Equal(t, "EUR", c.Made.Currency)
	require.Len(t, c.APIs, 2)
	assert.Positive(t, c.APIs[0].BreakEven)
	assert.EqualValues(t, -1, c.APIs[1].BreakEven)
	svg, err := os.ReadFile(plot)
	require.NoError(t, err)
	assert.Contains(t, string(svg), "dear")
}

func TestDistillRefuses(t *testing.T) {
	text := file(t, "a.txt", strings.Repeat("Some words that stand in a line of their own.\n", 3))
	out := filepath.Join(t.TempDir(), "out")
	for want, args := range map[string][]string{
		"TEACHER, or --labels-from": {"distill", "--data", text, "-o", out},
		"go with --labels-from":     {"distill", builtinBase, "--data", text, "--labels", "a,b", "-o", out},
		"is no classifier":          {"distill", "--labels-from", builtinBase, "--data", text, "-o", out},
		"--min-score 2":             {"distill", "--labels-from", builtinBase, "--labels", "a,b", "--min-score", "2", "--data", text, "-o", out},
		"read the same tokens":      {"distill", builtinBase, "--attention-loss", "1", "--noise", "0.1", "--data", text, "-o", out},
		"--family bert or llama":    {"pretrain", "--data", text, "-o", out},
		"--mask \"all\"":            {"pretrain", "--data", text, "--family", "bert", "--mask", "all", "-o", out},
		"--split \"page\"":          {"pretrain", "--data", text, "--family", "bert", "--split", "page", "-o", out},
	} {
		code, _, stderr := call(t, "", args...)
		assert.Equal(t, exitUsage, code, "%s: %s", want, stderr)
		assert.Contains(t, stderr, want)
	}
}
