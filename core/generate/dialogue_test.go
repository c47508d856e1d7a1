package generate_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/chat"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/tests/fixture"
)

func TestDialogue(t *testing.T) {
	talk := []chat.Message{{Role: "system", Content: "be kind"}, {Role: "user", Content: "one two"}, {Role: "assistant", Content: "three four"},
		{Role: "user", Content: "five"}, {Role: "assistant", Content: "six"}}
	d, err := generate.Open(filepath.Join(fixture.Parity(t), "models", "qwen2-causal"), generate.OpenOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	learnt := func(ids, targets []int32) string {
		var out []int32
		for i, id := range targets {
			if id >= 0 {
				require.True(t, i+1 == len(ids) || ids[i+1] == id, "a target is the next token")
				out = append(out, id)
			}
		}
		return d.Tokenizer.Decode(out, false)
	}
	require.True(t, d.Plain)
	ids, targets, err := d.Dialogue(talk, 0)
	require.NoError(t, err)
	require.Len(t, targets, len(ids))
	end, _ := d.Tokenizer.Token(d.End[0])
	require.Equal(t, " three four\nUser: six\n"+end, learnt(ids, targets), "what the assistant says, and how a turn ends")
	// What is asked at inference is the beginning of what was learnt on.
	text, err := d.Render(chat.Messages(talk[:2]...), nil, nil)
	require.NoError(t, err)
	prompt := d.Encode(text, true)
	require.Equal(t, prompt, ids[:len(prompt)])

	d.Plain = false
	d.Template, err = chat.Parse("{% for m in messages %}[{{ m.role }}] {{ m.content }} ;\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}")
	require.NoError(t, err)
	ids, targets, err = d.Dialogue(talk, 0)
	require.NoError(t, err)
	require.Equal(t, " three four ;\n six ;\n", learnt(ids, targets))
	ids, targets, err = d.Dialogue(talk, 7)
	require.NoError(t, err)
	require.Len(t, ids, 7)
	require.Len(t, targets, 7)

	_, _, err = d.Dialogue(talk[:2], 0)
	require.ErrorContains(t, err, "assistant")
	d.Template, err = chat.Parse("{% for m in messages %}{{ loop.revindex }}{{ m.content }}{% endfor %}")
	require.NoError(t, err)
	_, _, err = d.Dialogue(talk, 0)
	require.ErrorContains(t, err, "differently")
}

func TestOpenAdapters(t *testing.T) {
	p := fixture.Parity(t)
	base := filepath.Join(p, "models", "llama-causal")
	lora, dora := filepath.Join(p, "peft", "lora-llama"), filepath.Join(p, "peft", "dora-llama")
	for says, o := range map[string]generate.OpenOptions{
		"cannot be used to generate": {Adapters: []string{filepath.Join(p, "peft", "prefix-llama")}},
		"name of its own":            {Adapters: []string{"a=" + lora, "a=" + dora}},
		"expected a PEFT folder":     {Adapters: []string{base}},
		"no such file":               {Adapters: []string{"x=./nothing"}},
	} {
		_, err := generate.Open(base, o)
		require.ErrorContains(t, err, says)
	}
	_, err := generate.Open(filepath.Join(p, "models", "bert-mlm"), generate.OpenOptions{})
	require.Error(t, err)
	_, err = generate.Open(lora, generate.OpenOptions{Adapters: []string{dora}})
	require.ErrorContains(t, err, "adapter itself")
}

// Bytes of tokens, put together, are the text.
func TestBytes(t *testing.T) {
	for _, name := range []string{"models/llama-causal", "models/gemma3-causal", "models/gpt2-causal", "models/qwen2-causal", "gguf/llama/model-F32.gguf", "gguf/qwen2/model-F32.gguf", "gguf/gemma3/model-F32.gguf"} {
		d, err := generate.Open(filepath.Join(fixture.Parity(t), filepath.FromSlash(name)), generate.OpenOptions{})
		if err != nil && strings.Contains(err.Error(), "no such file") {
			continue
		}
		require.NoError(t, err)
		text := "It's 12 o'clock, naïve  café — 日本 🙂!"
		ids := d.Tokenizer.AppendPlainIDs(nil, text)
		var b []byte
		for _, id := range ids {
			b = append(b, d.Tokenizer.Bytes(id)...)
		}
		require.Equal(t, strings.TrimLeft(d.Tokenizer.Decode(ids, true), " "), strings.TrimLeft(string(b), " "), name)
		require.NoError(t, d.Close())
	}
}
