package parity

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

var _ = register("tokenizers", kind{fixture: tokenizerFixture, top: tokenizerTop})

// tokenizerCase is a line of cases.jsonl. What is absent has the value that the fixtures' README gives.
type tokenizerCase struct {
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

func jsonLines[T any](t *testing.T, path string) []T {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var out []T
	for line := range bytes.Lines(raw) {
		var v T
		require.NoError(t, json.Unmarshal(line, &v))
		out = append(out, v)
	}
	require.NotEmpty(t, out)
	return out
}

func loadTokenizer(t *testing.T, path string) *token.Tokenizer {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	tok, err := token.Load(raw)
	require.NoError(t, err)
	return tok
}

func (c *tokenizerCase) encode(tok *token.Tokenizer, opt token.Options) (token.Encoding, error) {
	opt.NoSpecial = c.AddSpecial != nil && !*c.AddSpecial
	if c.Pair != nil {
		return tok.EncodePair(c.Text, *c.Pair, opt)
	}
	return tok.Encode(c.Text, opt)
}

func orAll(s []int32, n int, v int32) []int32 {
	if s != nil {
		return s
	}
	s = make([]int32, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func tokenizerFixture(t *testing.T, dir string) {
	onlyFiles(t, dir, "tokenizer.json", "tokenizer_config.json", "cases.jsonl", "batches.json")
	tok := loadTokenizer(t, filepath.Join(dir, "tokenizer.json"))
	// What is saved must tokenize as what was loaded.
	saved, err := tok.Save()
	require.NoError(t, err)
	tok, err = token.Load(saved)
	require.NoError(t, err)
	config, err := os.ReadFile(filepath.Join(dir, "tokenizer_config.json"))
	require.NoError(t, err)
	require.NoError(t, tok.ApplyConfig(config))
	for i, c := range jsonLines[tokenizerCase](t, filepath.Join(dir, "cases.jsonl")) {
		e, err := c.encode(tok, token.Options{})
		if c.Error != "" {
			assert.Error(t, err, "case %d, %q", i+1, c.Text)
			continue
		}
		if assert.NoError(t, err, "case %d, %q", i+1, c.Text) {
			checkEncoding(t, tok, i+1, &c, &e)
		}
	}
	checkBatches(t, tok, filepath.Join(dir, "batches.json"))
}

func checkEncoding(t *testing.T, tok *token.Tokenizer, i int, c *tokenizerCase, e *token.Encoding) {
	n := len(c.IDs)
	if !assert.Equal(t, c.IDs, append([]int32{}, e.IDs...), "case %d, %q: ids", i, c.Text) {
		return
	}
	offsets := make([][2]int, n)
	for j, o := range e.Runes {
		offsets[j] = [2]int{o.Start, o.End}
	}
	assert.Equal(t, c.Tokens, e.Tokens, "case %d, %q: tokens", i, c.Text)
	assert.Equal(t, c.Offsets, offsets, "case %d, %q: offsets", i, c.Text)
	checkBytes(t, i, c, e)
	assert.Equal(t, orAll(c.TypeIDs, n, 0), e.TypeIDs, "case %d, %q: type ids", i, c.Text)
	assert.Equal(t, orAll(c.AttentionMask, n, 1), e.AttentionMask, "case %d, %q: attention mask", i, c.Text)
	assert.Equal(t, orAll(c.SpecialMask, n, 0), e.SpecialMask, "case %d, %q: special mask", i, c.Text)
	over := [][]int32{}
	for j := range e.Overflowing {
		over = append(over, e.Overflowing[j].IDs)
	}
	assert.Equal(t, append([][]int32{}, c.Overflowing...), over, "case %d, %q: windows", i, c.Text)
	if c.Decoded == nil {
		return
	}
	with := *c.Decoded
	if c.DecodedWithSpecial != nil {
		with = *c.DecodedWithSpecial
	}
	for _, d := range []struct {
		skip bool
		want string
	}{{true, *c.Decoded}, {false, with}} {
		assert.Equal(t, d.want, tok.Decode(c.IDs, d.skip), "case %d, %q: decoded", i, c.Text)
		stream, text := tok.Stream(d.skip), ""
		for _, id := range c.IDs {
			text += stream.Next(id)
		}
		assert.Equal(t, d.want, text+stream.Flush(), "case %d, %q: decoded as a stream", i, c.Text)
	}
}

// checkBytes compares the offsets in bytes with those in code points.
func checkBytes(t *testing.T, i int, c *tokenizerCase, e *token.Encoding) {
	texts := [][]rune{[]rune(c.Text), nil}
	if c.Pair != nil {
		texts[1] = []rune(*c.Pair)
	}
	for j, o := range e.Runes {
		s := e.Sequences[j]
		if s < 0 {
			assert.Zero(t, e.Offsets[j], "case %d, %q: token %d", i, c.Text, j)
			continue
		}
		// Past the end of a text the original counts on; bytes stay inside.
		clip := func(k int) int { return len(string(texts[s][:min(k, len(texts[s]))])) }
		assert.Equal(t, token.Offset{Start: clip(o.Start), End: clip(o.End)}, e.Offsets[j], "case %d, %q: bytes of token %d", i, c.Text, j)
	}
}

func checkBatches(t *testing.T, tok *token.Tokenizer, path string) {
	raw, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return
	}
	require.NoError(t, err)
	var batches []struct {
		Inputs      []json.RawMessage `json:"inputs"`
		IDs         [][]int32         `json:"ids"`
		Mask        [][]int32         `json:"attention_mask"`
		TypeIDs     [][]int32         `json:"type_ids"`
		Overflowing [][][]int32       `json:"overflowing"`
		Error       string            `json:"error"`
	}
	require.NoError(t, json.Unmarshal(raw, &batches))
	require.NotEmpty(t, batches)
	for i, b := range batches {
		var texts []string
		var pairs [][2]string
		for _, in := range b.Inputs {
			var text string
			var pair [2]string
			if json.Unmarshal(in, &text) == nil {
				texts = append(texts, text)
			} else {
				require.NoError(t, json.Unmarshal(in, &pair))
				pairs = append(pairs, pair)
			}
		}
		var got []token.Encoding
		if texts != nil {
			require.Nil(t, pairs)
			got, err = tok.EncodeBatch(texts, token.Options{})
		} else {
			got, err = tok.EncodePairs(pairs, token.Options{})
		}
		if b.Error != "" {
			assert.Error(t, err, "batch %d", i)
			continue
		}
		require.NoError(t, err)
		require.Len(t, got, len(b.Inputs))
		for j := range got {
			assert.Equal(t, b.IDs[j], got[j].IDs, "batch %d, text %d: ids", i, j)
			assert.Equal(t, b.Mask[j], got[j].AttentionMask, "batch %d, text %d: attention mask", i, j)
			assert.Equal(t, b.TypeIDs[j], got[j].TypeIDs, "batch %d, text %d: type ids", i, j)
			if b.Overflowing != nil {
				over := [][]int32{}
				for k := range got[j].Overflowing {
					over = append(over, got[j].Overflowing[k].IDs)
				}
				assert.Equal(t, append([][]int32{}, b.Overflowing[j]...), over, "batch %d, text %d: windows", i, j)
			}
		}
	}
}

// tokenizerTop runs the cases of the real MiniLM.
func tokenizerTop(t *testing.T, dir string, files []string) {
	for _, f := range files {
		switch f {
		case "summary.json", "minilm-embeddings.json", "minilm-embeddings.safetensors": // the embeddings belong to the models' tests
		case "cases-minilm.jsonl":
			t.Run("minilm", func(t *testing.T) {
				tok := loadTokenizer(t, filepath.Join(fixture.MiniLM(t), "tokenizer.json"))
				for i, c := range jsonLines[tokenizerCase](t, filepath.Join(dir, f)) {
					e, err := c.encode(tok, token.Options{NoLimits: true})
					require.NoError(t, err)
					assert.Equal(t, c.IDs, e.IDs, "case %d, %q", i+1, c.Text)
				}
			})
		default:
			assert.Fail(t, "a file that no runner looks at", f)
		}
	}
}
