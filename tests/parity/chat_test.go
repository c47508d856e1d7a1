package parity

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/chat"
)

var _ = register("chat", kind{fixture: chatFixture})

// chatFixture renders every case of a style and compares the text, or the complaint.
func chatFixture(t *testing.T, dir string) {
	onlyFiles(t, dir, "chat_template.jinja", "special_tokens.json", "cases.jsonl")
	source, err := os.ReadFile(filepath.Join(dir, "chat_template.jinja"))
	require.NoError(t, err)
	tokens := map[string]string{}
	raw, err := os.ReadFile(filepath.Join(dir, "special_tokens.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &tokens))
	tpl, err := chat.Parse(string(source))
	require.NoError(t, err)
	lines, err := os.ReadFile(filepath.Join(dir, "cases.jsonl"))
	require.NoError(t, err)
	n := 0
	for line := range bytes.Lines(lines) {
		n++
		c := map[string]json.RawMessage{}
		require.NoError(t, json.Unmarshal(line, &c))
		in := chat.Input{Messages: c["messages"], Tools: c["tools"], Tokens: tokens, Variables: map[string]json.RawMessage{}}
		var title, want, wantErr, message string
		for key, to := range map[string]any{"title": &title, "expected": &want, "error": &wantErr, "error_message": &message,
			"add_generation_prompt": &in.AddGenerationPrompt, "continue_final_message": &in.ContinueFinalMessage} {
			if c[key] != nil {
				require.NoError(t, json.Unmarshal(c[key], to))
			}
			delete(c, key)
		}
		delete(c, "messages")
		delete(c, "tools")
		for key, v := range c {
			in.Variables[key] = v
		}
		got, err := tpl.Render(in)
		if wantErr == "" {
			if assert.NoError(t, err, "case %d, %s", n, title) {
				assert.Equal(t, want, got, "case %d, %s", n, title)
			}
			continue
		}
		if assert.Error(t, err, "case %d, %s", n, title) && wantErr == "TemplateError" {
			var own *chat.TemplateError
			if assert.True(t, errors.As(err, &own), "case %d, %s: expected the template's own complaint, got %v", n, title, err) {
				assert.Equal(t, message, own.Message, "case %d, %s", n, title)
			}
		}
	}
	require.NotZero(t, n)
}
