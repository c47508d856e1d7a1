package token_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

// parityCase is a line of cases.jsonl, as parity/README.md describes it.
type parityCase struct {
	Text               string    `json:"text"`
	Pair               *string   `json:"pair"`
	AddSpecial         *bool     `json:"add_special_tokens"`
	IDs                []int32   `json:"ids"`
	Tokens             []string  `json:"tokens"`
	Offsets            [][2]int  `json:"offsets"`
	TypeIDs            []int32   `json:"type_ids"`
	AttentionMask      []int32   `json:"attention_mask"`
	SpecialMask        []int32   `json:"special_tokens_mask"`
	Overflowing        [][]int32 `json:"overflowing"`
	Decoded            *string   `json:"decoded"`
	DecodedWithSpecial *string   `json:"decoded_with_special"`
	Error              string    `json:"error"`
}

func readLines[T any](t testing.TB, path string) []T {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var out []T
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<24)
	for s.Scan() {
		var v T
		require.NoError(t, json.Unmarshal(s.Bytes(), &v))
		out = append(out, v)
	}
	require.NoError(t, s.Err())
	require.NotEmpty(t, out)
	return out
}

func load(t testing.TB, path string) *token.Tokenizer {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	tok, err := token.Load(data)
	require.NoError(t, err, path)
	return tok
}

func (c *parityCase) encode(tok *token.Tokenizer, opt token.Options) (token.Encoding, error) {
	if c.AddSpecial != nil && !*c.AddSpecial {
		opt.NoSpecial = true
	}
	if c.Pair != nil {
		return tok.EncodePair(c.Text, *c.Pair, opt)
	}
	return tok.Encode(c.Text, opt)
}

func orOf(s []int32, n int, v int32) []int32 {
	if s != nil {
		return s
	}
	out := make([]int32, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestParityMiniLM(t *testing.T) {
	tok := load(t, filepath.Join(fixture.MiniLM(t), "tokenizer.json"))
	for _, c := range readLines[parityCase](t, filepath.Join(fixture.Parity(t), "tokenizers", "cases-minilm.jsonl")) {
		e, err := c.encode(tok, token.Options{NoLimits: true})
		require.NoError(t, err)
		assert.Equal(t, c.IDs, e.IDs, "%q", c.Text)
		if c.Pair == nil {
			assert.Equal(t, c.IDs, tok.AppendIDs(nil, c.Text, c.AddSpecial == nil), "%q", c.Text)
		}
	}
}

func TestParity(t *testing.T) {
	root := filepath.Join(fixture.Parity(t), "tokenizers")
	kinds, err := filepath.Glob(filepath.Join(root, "*", "cases.jsonl"))
	require.NoError(t, err)
	require.NotEmpty(t, kinds)
	for _, path := range kinds {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			tok := load(t, filepath.Join(dir, "tokenizer.json"))
			for i, c := range readLines[parityCase](t, path) {
				e, err := c.encode(tok, token.Options{})
				if c.Error != "" {
					assert.Error(t, err, "case %d", i+1)
					continue
				}
				if !assert.NoError(t, err, "case %d %q", i+1, c.Text) {
					continue
				}
				checkCase(t, tok, i, &c, &e)
			}
		})
	}
}

func checkCase(t *testing.T, tok *token.Tokenizer, i int, c *parityCase, e *token.Encoding) {
	n := len(c.IDs)
	if !assert.Equal(t, c.IDs, append([]int32{}, e.IDs...), "case %d %q: ids", i+1, c.Text) {
		return
	}
	assert.Equal(t, c.Tokens, e.Tokens, "case %d %q: tokens", i+1, c.Text)
	offsets := make([][2]int, n)
	for j, o := range e.Runes {
		offsets[j] = [2]int{o.Start, o.End}
	}
	assert.Equal(t, c.Offsets, offsets, "case %d %q: offsets", i+1, c.Text)
	assert.Equal(t, orOf(c.TypeIDs, n, 0), e.TypeIDs, "case %d %q: type ids", i+1, c.Text)
	assert.Equal(t, orOf(c.AttentionMask, n, 1), e.AttentionMask, "case %d %q: attention mask", i+1, c.Text)
	assert.Equal(t, orOf(c.SpecialMask, n, 0), e.SpecialMask, "case %d %q: special mask", i+1, c.Text)
	var over [][]int32
	for j := range e.Overflowing {
		over = append(over, e.Overflowing[j].IDs)
	}
	assert.Equal(t, len(c.Overflowing), len(over), "case %d %q: windows", i+1, c.Text)
	for j := range min(len(over), len(c.Overflowing)) {
		assert.Equal(t, c.Overflowing[j], over[j], "case %d %q: window %d", i+1, c.Text, j)
	}
	if c.Decoded != nil {
		assert.Equal(t, *c.Decoded, tok.Decode(c.IDs, true), "case %d %q: decoded", i+1, c.Text)
		want := *c.Decoded
		if c.DecodedWithSpecial != nil {
			want = *c.DecodedWithSpecial
		}
		assert.Equal(t, want, tok.Decode(c.IDs, false), "case %d %q: decoded with special", i+1, c.Text)
	}
	if c.Pair == nil && len(c.Overflowing) == 0 && c.AttentionMask == nil {
		assert.Equal(t, c.IDs, tok.AppendIDs([]int32{}, c.Text, c.AddSpecial == nil || *c.AddSpecial), "case %d %q: AppendIDs", i+1, c.Text)
	}
}
