package token_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

type ggufCase struct {
	Text            string  `json:"text"`
	IDs             []int32 `json:"ids"`
	IDsParseSpecial []int32 `json:"ids_parse_special"`
	Detokenized     string  `json:"detokenized"`
}

func fromGGUF(t testing.TB, path string) *token.Tokenizer {
	t.Helper()
	f, err := checkpoint.OpenGGUF(path)
	require.NoError(t, err)
	defer f.Close()
	g, err := token.GGUFFrom(f.Value)
	require.NoError(t, err)
	tok, err := token.FromGGUF(g)
	require.NoError(t, err)
	return tok
}

func checkGGUF(t *testing.T, tok *token.Tokenizer, path string) {
	for i, c := range readLines[ggufCase](t, path) {
		e, err := tok.Encode(c.Text, token.Options{SpecialAsText: true})
		require.NoError(t, err)
		if !assert.Equal(t, c.IDs, append([]int32{}, e.IDs...), "case %d %q", i+1, c.Text) {
			continue
		}
		assert.Equal(t, c.IDsParseSpecial, tok.AppendIDs([]int32{}, c.Text, true), "case %d %q: with special tokens", i+1, c.Text)
		assert.Equal(t, c.Detokenized, tok.Decode(c.IDs, true), "case %d %q: decoded", i+1, c.Text)
	}
}

func TestGGUF(t *testing.T) {
	root := filepath.Join(fixture.Parity(t), "gguf")
	dirs, err := filepath.Glob(filepath.Join(root, "*", "tokenize.jsonl"))
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	for _, path := range dirs {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			checkGGUF(t, fromGGUF(t, filepath.Join(filepath.Dir(path), "model-F16.gguf")), path)
		})
	}
}

func TestGGUFGemma(t *testing.T) {
	checkGGUF(t, fromGGUF(t, fixture.Gemma(t)), filepath.Join(fixture.Parity(t), "gguf", "gemma-tokenize.jsonl"))
}
