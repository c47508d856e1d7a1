package token_test

import (
	"path/filepath"
	"strings"
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

func tinyGGUF(model string, tokens ...string) token.GGUF {
	g := token.GGUF{Model: model, Tokens: tokens, BOS: -1, EOS: -1, UNK: -1, SEP: -1, PAD: -1, CLS: -1, MASK: -1, EOT: -1}
	g.Scores = make([]float32, len(tokens))
	g.Types = make([]int32, len(tokens))
	for i := range tokens {
		g.Scores[i], g.Types[i] = -float32(i), 1
	}
	return g
}

// TestGGUFBert reads a vocabulary in which beginnings of words are marked, and not their continuations.
func TestGGUFBert(t *testing.T) {
	g := tinyGGUF("bert", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁low", "er", "▁,")
	for i := range 4 {
		g.Types[i] = 3
	}
	g.UNK, g.BOS, g.SEP = 1, 2, 3
	tok, err := token.FromGGUF(g)
	require.NoError(t, err)
	e, err := tok.EncodePair("Lower, x", "low", token.Options{})
	require.NoError(t, err)
	assert.Equal(t, []int32{2, 4, 5, 6, 1, 3, 4, 3}, e.IDs)
	assert.Equal(t, []int32{0, 0, 0, 0, 0, 0, 1, 1}, e.TypeIDs)
	assert.Equal(t, []string{"[CLS]", "low", "##er", ",", "[UNK]", "[SEP]", "low", "[SEP]"}, e.Tokens)
	assert.Equal(t, "lower, low", tok.Decode(e.IDs, true))
}

// Merges that lead to each other in circles, or are given twice, end all the same: each makes two symbols one.
func TestGGUFMergesInCircles(t *testing.T) {
	g := tinyGGUF("gpt2", "a", "b", "ab", "ba", "aba", "abab")
	g.Merges = []string{"ba b", "aba b", "ab ab", "b a", "a b", "ab a", "a ba", "a b", "abab ab", "ab abab", "b a"}
	tok, err := token.FromGGUF(g)
	require.NoError(t, err)
	text := strings.Repeat("abba", 50000) + strings.Repeat("ab", 50000)
	ids := tok.AppendPlainIDs(nil, text)
	require.Less(t, len(ids), len(text))
	require.Equal(t, text, tok.Decode(ids, false))
}

func TestGGUFErrors(t *testing.T) {
	short := tinyGGUF("llama", "a", "b")
	short.Scores = short.Scores[:1]
	far := tinyGGUF("llama", "a")
	far.BOS = 7
	noMerges := tinyGGUF("gpt2", "a")
	pre := tinyGGUF("gpt2", "a")
	pre.Merges, pre.Pre = []string{"a a"}, "from-the-future"
	for want, g := range map[string]token.GGUF{"empty": {}, "as many of each": short, "below 1": far, "expected llama, gpt2": tinyGGUF("rwkv", "a"), "merges": noMerges, "from-the-future": pre} {
		_, err := token.FromGGUF(g)
		assert.ErrorContains(t, err, want)
	}
	_, err := token.GGUFFrom(func(key string) any {
		if key == "tokenizer.ggml.tokens" {
			return 5
		}
		return nil
	})
	assert.ErrorContains(t, err, "tokenizer.ggml.tokens")
	tok, err := token.FromGGUF(tinyGGUF("llama", "a", "▁"))
	require.NoError(t, err)
	_, err = tok.Save()
	assert.ErrorIs(t, err, token.ErrNoSource)
	_, err = tok.Encode("b", token.Options{})
	assert.ErrorContains(t, err, "not in the vocabulary")
}
