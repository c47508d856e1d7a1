package canon_test

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack/canon"
	"github.com/temper-ml/temper/core/token"
)

// tokenizer has every text of vocab as one word, so that an encoding shows what the normalizer made.
func tokenizer(t *testing.T, vocab ...string) []byte {
	t.Helper()
	ids := map[string]int{"[UNK]": 0}
	for _, s := range vocab {
		if _, ok := ids[s]; !ok {
			ids[s] = len(ids)
		}
	}
	b, err := json.Marshal(map[string]any{
		"version": "1.0", "added_tokens": []any{}, "normalizer": nil, "pre_tokenizer": nil, "post_processor": nil, "decoder": nil,
		"model": map[string]any{"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
	})
	require.NoError(t, err)
	return b
}

// The golden lines [options, text, normalized] were made by Hugging Face's tokenizers 0.23.3 from what Normalizer returns: both readers of the
// file see the same text.
func TestSameAsTokenizers(t *testing.T) {
	f, err := os.Open("testdata/normalized.jsonl")
	require.NoError(t, err)
	defer f.Close()
	lines := 0
	for s := bufio.NewScanner(f); s.Scan(); lines++ {
		var c [3]string
		require.NoError(t, json.Unmarshal(s.Bytes(), &c))
		o, err := canon.ParseOptions(c[0])
		require.NoError(t, err)
		file, err := canon.Prepend(tokenizer(t, c[2]), o)
		require.NoError(t, err)
		tok, err := token.Load(file)
		require.NoError(t, err)
		enc, err := tok.Encode(c[1], token.Options{})
		require.NoError(t, err)
		assert.Equal(t, []int32{1}, enc.IDs, "%s: %q becomes %q", c[0], c[1], c[2])
	}
	assert.Greater(t, lines, 60)
}

func TestPrependReplacesAndRemoves(t *testing.T) {
	plain := tokenizer(t, "a")
	normalizer := func(b []byte) string {
		var f struct{ Normalizer json.RawMessage }
		require.NoError(t, json.Unmarshal(b, &f))
		return string(f.Normalizer)
	}
	zero, err := canon.Prepend(plain, canon.Options{})
	require.NoError(t, err)
	assert.Equal(t, "null", normalizer(zero))

	var with map[string]any
	require.NoError(t, json.Unmarshal(plain, &with))
	with["normalizer"] = map[string]any{"type": "Lowercase"}
	lower, err := json.Marshal(with)
	require.NoError(t, err)
	for _, o := range []canon.Options{canon.Latin(), {Invisible: true}, {Accents: true, Leetspeak: true}} {
		once, err := canon.Prepend(lower, o)
		require.NoError(t, err)
		assert.Contains(t, normalizer(once), `{"type":"Lowercase"}`)
		twice, err := canon.Prepend(once, o)
		require.NoError(t, err)
		assert.Equal(t, string(once), string(twice), "prepending again changes nothing")
		back, err := canon.Prepend(twice, canon.Options{})
		require.NoError(t, err)
		assert.JSONEq(t, `{"type":"Lowercase"}`, normalizer(back))
	}
}

func TestErrors(t *testing.T) {
	_, err := canon.ParseOptions("invisible,nonsense")
	require.ErrorContains(t, err, "nonsense")
	for _, s := range []string{"", "[]", "{}", `{"model":{},"normalizer":3}`} {
		_, err := canon.Prepend([]byte(s), canon.Latin())
		require.ErrorContains(t, err, "tokenizer.json", s)
	}
}
