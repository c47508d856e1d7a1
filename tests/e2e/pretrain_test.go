package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tales writes n simple sentences to a file.
func tales(t *testing.T, name string, n int, seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 7))
	pick := func(s ...string) string { return s[rng.IntN(len(s))] }
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "The %s %s found a %s near the %s.\n\n", pick("old", "small", "happy", "sad"), pick("cat", "dog", "bird"), pick("fish", "ball", "shoe"), pick("river", "house"))
	}
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	return path
}

// Pretraining that is killed at any moment and resumed ends with the same files, bit for bit, as one that was left alone; what it writes
// generates, and tells what it has cost.
func TestPretrain(t *testing.T) {
	text, held := tales(t, "text.txt", 600, 1), tales(t, "held.txt", 60, 2)
	args := func(out string) []string {
		return []string{"pretrain", "--data", text, "--eval", held, "--family", "llama", "--vocab-size", "300", "--hidden", "32", "--layers", "2", "--heads", "4", "--ffn", "64",
			"--context", "32", "--batch", "8", "--steps", "250", "--lr", "5e-3", "--dropout", "0.1", "--seed", "4", "--save-steps", "9", "--threads", "1", "-o", out, "--json"}
	}
	whole := filepath.Join(t.TempDir(), "whole")
	start := time.Now()
	var r struct {
		Steps int
		Held  struct {
			BitsPerByte float64 `json:"bits_per_byte"`
		}
		Cost struct{ Tokens, FLOPs float64 }
	}
	require.NoError(t, json.Unmarshal([]byte(temper(t, args(whole)...)), &r))
	took := time.Since(start)
	assert.Equal(t, 250, r.Steps)
	assert.Less(t, r.Held.BitsPerByte, 1.0)
	assert.Positive(t, r.Cost.FLOPs)
	broken := filepath.Join(t.TempDir(), "broken")
	kills := 0
	for i := range 60 {
		ctx, cancel := context.WithTimeout(context.Background(), took*time.Duration(1+i)/10)
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
	for _, name := range []string{"model.safetensors", "config.json", "tokenizer.json", "training_log.json", "loss.svg"} {
		want, err := os.ReadFile(filepath.Join(whole, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(broken, name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%s differs after %d kills", name, kills)
	}
	_, err := os.Stat(filepath.Join(broken, "checkpoint"))
	require.ErrorIs(t, err, os.ErrNotExist)

	out := temper(t, "generate", whole, "--prompt", "The old cat", "--temperature", "0", "--max-tokens", "12")
	assert.Contains(t, out, "found a")
	var cost struct {
		Steps []struct{ Step string }
	}
	require.NoError(t, json.Unmarshal([]byte(temper(t, "cost", whole, "--tokens", "8", "--json")), &cost))
	require.Len(t, cost.Steps, 1)
	assert.Equal(t, "pretrain", cost.Steps[0].Step)
}

// A masked model from plain text fills gaps, and is a base to tune.
func TestPretrainMasked(t *testing.T) {
	out := filepath.Join(t.TempDir(), "base")
	temper(t, "pretrain", "--data", tales(t, "text.txt", 600, 1), "--family", "bert", "--vocab-size", "200", "--lowercase", "--hidden", "32", "--layers", "2",
		"--heads", "4", "--ffn", "64", "--context", "32", "--batch", "16", "--steps", "500", "--lr", "3e-3", "--dropout", "0", "--seed", "4", "--schedule", "wsd", "-q", "-o", out)
	var r struct{ Results []struct{ Token string } }
	require.NoError(t, json.Unmarshal([]byte(temper(t, "fill", out, "The old cat found a [MASK] near the river.", "--json")), &r))
	assert.Contains(t, []string{"fish", "ball", "shoe"}, r.Results[0].Token)
	tuned := filepath.Join(t.TempDir(), "tuned")
	temper(t, "tune", out, "--data", messages(t, "dev"), "--method", "head", "-q", "-o", tuned)
	assert.Contains(t, temper(t, "cost", tuned), "pretrain masked")
}
