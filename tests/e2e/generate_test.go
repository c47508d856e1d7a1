package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/tests/fixture"
)

func TestGenerate(t *testing.T) {
	p := fixture.Parity(t)
	m := filepath.Join(p, "models", "qwen2-causal")
	out, errs, code := run(t, "", "generate", m, "--prompt", "the quick brown", "--max-tokens", "8", "--temperature", "0.8", "--seed", "4", "--logprobs", "2", "--json")
	require.Zero(t, code, errs)
	var r struct {
		Text         string  `json:"text"`
		Tokens       int     `json:"tokens"`
		PromptTokens int     `json:"prompt_tokens"`
		PromptSpeed  float64 `json:"prompt_tokens_per_second"`
		Speed        float64 `json:"tokens_per_second"`
		LogProbs     []struct {
			Top []any `json:"top"`
		} `json:"logprobs"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, 8, r.Tokens)
	require.Positive(t, r.PromptTokens)
	require.Positive(t, r.PromptSpeed)
	require.Positive(t, r.Speed)
	require.Len(t, r.LogProbs, 8)
	require.Len(t, r.LogProbs[0].Top, 2)

	// The same seed gives the same text, streamed, from a file, guessed ahead.
	file := filepath.Join(t.TempDir(), "prompt.txt")
	require.NoError(t, os.WriteFile(file, []byte("the quick brown"), 0o600))
	for _, more := range [][]string{{"--prompt", "the quick brown"}, {"--prompt-file", file}, {"--prompt", "the quick brown", "--draft", "3"},
		{"--prompt", "the quick brown", "--draft-model", m}} {
		out, errs, code := run(t, "", append([]string{"generate", m, "--max-tokens", "8", "--temperature", "0.8", "--seed", "4"}, more...)...)
		require.Zero(t, code, errs)
		require.Equal(t, r.Text+"\n", out, more)
	}
	out, _, code = run(t, "the quick brown", "generate", m, "--max-tokens", "8", "--temperature", "0.8", "--seed", "4", "-q")
	require.Zero(t, code)
	require.Equal(t, r.Text+"\n", out)

	bad := filepath.Join(t.TempDir(), "bad.gbnf")
	require.NoError(t, os.WriteFile(bad, []byte(`root ::= "a" root`), 0o600))
	for says, c := range map[string]struct {
		code int
		args []string
	}{
		"not both":           {2, []string{"--prompt", "a", "--prompt-file", file}},
		"top-p":              {2, []string{"--prompt", "a", "--top-p", "2"}},
		"needs a temp":       {2, []string{"--prompt", "a", "--mirostat", "2"}},
		"--json-schema or":   {2, []string{"--prompt", "a", "--json-schema", file, "--grammar", bad}},
		"no finite text":     {1, []string{"--prompt", "a", "--grammar", bad}},
		"leaves no room":     {1, []string{"--prompt", strings.Repeat("word ", 5000)}},
		"TOKEN=VALUE":        {2, []string{"--prompt", "a", "--logit-bias", "x"}},
		"empty":              {1, []string{"--prompt", "", "--no-bos"}},
		"PEFT folder":        {1, []string{"--prompt", "a", "--adapter", m}},
		"--top-k needs":      {2, []string{"--prompt", "a", "--top-k", "3"}},
		"at most 1e+06":      {2, []string{"--prompt", "a", "--logit-bias", "3=inf"}},
		"want 0 or more":     {2, []string{"--prompt", "a", "--max-tokens", "-1"}},
		"no such file":       {1, []string{"--prompt", "a", "--grammar", "./nothing"}},
		"expected 1 to 3":    {-1, nil},
		"--logprobs 1000":    {2, []string{"--prompt", "a", "--logprobs", "1000"}},
		"--stop \"\"":        {2, []string{"--prompt", "a", "--stop", ""}},
		"give a text":        {2, nil},
		"draft-model: stat ": {-1, nil},
	} {
		if c.code < 0 {
			continue
		}
		_, errs, code := run(t, "", append([]string{"generate", m}, c.args...)...)
		require.Equal(t, c.code, code, "%s: %s", says, errs)
		require.Contains(t, errs, says)
	}
}

// Several LoRA adapters at once are their sum; others do not add up.
func TestSeveralAdapters(t *testing.T) {
	p := fixture.Parity(t)
	m, lora, dora := filepath.Join(p, "models", "llama-causal"), filepath.Join(p, "peft", "lora-llama"), filepath.Join(p, "peft", "dora-llama")
	say := func(args ...string) string {
		out, errs, code := run(t, "", append([]string{"generate", m, "--prompt", "the quick brown", "--max-tokens", "12"}, args...)...)
		require.Zero(t, code, errs)
		return out
	}
	once := say("--adapter", lora)
	require.NotEqual(t, say(), once)
	require.NotEqual(t, once, say("--adapter", "a="+lora, "--adapter", "b="+lora))
	_, errs, code := run(t, "", "generate", m, "--prompt", "a", "--adapter", lora, "--adapter", dora)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "adapters lora-llama+dora-llama at once")
	require.Contains(t, errs, "no plain LoRA")
}

func TestPerplexity(t *testing.T) {
	p := fixture.Parity(t)
	file := filepath.Join(t.TempDir(), "text.txt")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 20)), 0o600))
	out, errs, code := run(t, "", "eval", filepath.Join(p, "gguf", "llama", "model-F32.gguf"), "--text", file, "--context", "64", "--json", "-q")
	require.Zero(t, code, errs)
	var r struct {
		Perplexity float64 `json:"perplexity"`
		Tokens     int     `json:"tokens"`
		Bits       float64 `json:"bits_per_byte"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Greater(t, r.Perplexity, 1.0)
	require.Greater(t, r.Tokens, 100)
	require.Positive(t, r.Bits)
	_, errs, code = run(t, "", "eval", filepath.Join(p, "models", "bert-seqcls"), "--text", file)
	require.NotZero(t, code)
	require.NotEmpty(t, errs)
}

// A talk over pipes: commands and answers.
func TestChat(t *testing.T) {
	m := filepath.Join(fixture.Parity(t), "models", "gpt2-causal")
	saved := filepath.Join(t.TempDir(), "talk.jsonl")
	out, errs, code := run(t, "hello\n/system be kind\nmore \\\nlines\n/stats\n/save "+saved+"\n/exit\nnever read\n", "chat", m, "--max-tokens", "6", "--seed", "1")
	require.Zero(t, code, errs)
	require.Equal(t, 2, strings.Count(strings.TrimRight(out, "\n")+"\n", "\n"), out)
	require.Contains(t, errs, "2 answers")
	raw, err := os.ReadFile(saved)
	require.NoError(t, err)
	var talk struct {
		Messages []struct{ Role, Content string }
	}
	require.NoError(t, json.Unmarshal(raw, &talk))
	require.Len(t, talk.Messages, 5)
	require.Equal(t, "be kind", talk.Messages[0].Content)
	require.Equal(t, "more \nlines", talk.Messages[3].Content)
	_, errs, code = run(t, "/nonsense\n", "chat", m)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "/nonsense")
}

// An interrupt stops an answer, not the program.
func TestChatInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("interrupts cannot be sent to a process there")
	}
	if testing.Short() {
		t.Skip("needs the real model: the tiny ones are too quick to be stopped")
	}
	letters := filepath.Join(t.TempDir(), "letters.gbnf")
	require.NoError(t, os.WriteFile(letters, []byte("root ::= [a-z ]+"), 0o600))
	cmd := exec.Command(binary(t), "chat", fixture.Gemma(t), "--max-tokens", "0", "--grammar", letters, "--logit-bias", "<eos>=-1000")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var log strings.Builder
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	r := bufio.NewReader(pipe)
	_, err = in.Write([]byte("hello\n"))
	require.NoError(t, err)
	_, err = r.ReadByte() // it has begun to answer
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	time.Sleep(300 * time.Millisecond)
	_, err = in.Write([]byte("/stats\n"))
	require.NoError(t, err)
	require.NoError(t, in.Close())
	go func() { _, _ = r.WriteTo(&strings.Builder{}) }()
	require.NoError(t, cmd.Wait(), log.String())
	require.Contains(t, log.String(), "(stopped)")
	require.Contains(t, log.String(), "context")
}
