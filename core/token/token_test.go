package token_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

// What a tokenizer makes of texts is compared with the original libraries in tests/parity; here are the parts around it.

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

func loadText(t testing.TB, file string) *token.Tokenizer {
	t.Helper()
	tok, err := token.Load([]byte(file))
	require.NoError(t, err)
	return tok
}

// kinds are tokenizers of each sort among the fixtures.
func kinds(t testing.TB) map[string]string {
	out := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(fixture.Parity(t), "tokenizers", "*", "tokenizer.json"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, p := range paths {
		out[filepath.Base(filepath.Dir(p))] = p
	}
	return out
}

type textCase struct {
	Text string  `json:"text"`
	Pair *string `json:"pair"`
}

func texts(t testing.TB) []string {
	var out []string
	for _, c := range readLines[textCase](t, filepath.Join(fixture.Parity(t), "tokenizers", "cases-minilm.jsonl")) {
		out = append(out, c.Text)
	}
	return append(out, oddTexts...)
}

func TestEncoding(t *testing.T) {
	tok := loadText(t, tinyWordPiece)
	e, err := tok.Encode("Ab é", token.Options{NoLimits: true})
	require.NoError(t, err)
	assert.Equal(t, []int32{1, 2, 3, 0}, e.IDs, "accents go, and the vocabulary has none without")
	assert.Equal(t, []string{"[C]", "a", "##b", "[UNK]"}, e.Tokens)
	assert.Equal(t, []token.Offset{{}, {Start: 0, End: 1}, {Start: 1, End: 2}, {Start: 3, End: 5}}, e.Offsets)
	assert.Equal(t, []token.Offset{{}, {Start: 0, End: 1}, {Start: 1, End: 2}, {Start: 3, End: 4}}, e.Runes)
	assert.Equal(t, []int32{-1, 0, 0, 1}, e.Words)
	assert.Equal(t, []int8{-1, 0, 0, 0}, e.Sequences)
	assert.Equal(t, []int32{1, 0, 0, 0}, e.SpecialMask)

	e, err = tok.Encode("a <x> a", token.Options{NoLimits: true})
	require.NoError(t, err)
	assert.Equal(t, []int32{1, 2, 9, 2}, e.IDs)
	assert.Equal(t, token.Offset{Start: 1, End: 6}, e.Offsets[2], "an added token takes the white space around it when told to")

	e, err = tok.Encode("[UNK]", token.Options{NoLimits: true, NoSpecial: true, SpecialAsText: true})
	require.NoError(t, err)
	assert.Len(t, e.IDs, 3, "a name of a special token is text like any other when strangers write it")
	assert.Equal(t, e.IDs, tok.AppendPlainIDs(nil, "[UNK]"))

	e, err = tok.Encode("a a a a a a a", token.Options{})
	require.NoError(t, err)
	assert.Equal(t, []int32{1, 2, 2, 2, 2, 0, 0}, e.IDs, "cut to five, padded to seven")
	assert.Equal(t, []int32{1, 1, 1, 1, 1, 0, 0}, e.AttentionMask)
	require.Len(t, e.Overflowing, 1)
	assert.Equal(t, []int32{1, 2, 2, 2, 2, 0, 0}, e.Overflowing[0].IDs)

	assert.Equal(t, 7, tok.VocabSize())
	assert.Equal(t, int32(9), tok.MaxID())
	name, ok := tok.Token(9)
	assert.True(t, ok)
	assert.Equal(t, "<x>", name)
	_, ok = tok.Token(7)
	assert.False(t, ok, "a hole in the ids")
	_, ok = tok.ID("nothing")
	assert.False(t, ok)
}

func TestErrors(t *testing.T) {
	tok := loadText(t, `{"model":{"type":"WordPiece","unk_token":"?","vocab":{"a":0}}}`)
	_, err := tok.Encode("b", token.Options{})
	assert.ErrorContains(t, err, "unknown token")
	assert.Empty(t, tok.AppendIDs(nil, "b", true))
	_, err = tok.EncodeBatch([]string{"a", "b"}, token.Options{})
	assert.ErrorContains(t, err, "text 1")
	for want, tr := range map[string]token.Truncation{"stride": {MaxLength: 2, Stride: 2}, "strategy": {MaxLength: 1, Strategy: "Sideways"}, "negative": {MaxLength: -1}, "second": {MaxLength: 1, Strategy: token.OnlySecond}} {
		_, err = loadText(t, tinyBPE).Encode("ab ab ab", token.Options{Truncation: &tr})
		assert.ErrorContains(t, err, want)
	}
	_, err = tok.Encode("a", token.Options{Padding: &token.Padding{Length: 1 << 40}})
	assert.ErrorContains(t, err, "padding")
}

func TestSave(t *testing.T) {
	for kind, path := range kinds(t) {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		tok := load(t, path)
		saved, err := tok.Save()
		require.NoError(t, err)
		require.Equal(t, raw, saved, "%s: what was not changed is saved byte for byte", kind)

		require.NoError(t, tok.SetTruncation(&token.Truncation{MaxLength: 9, Stride: 2, Strategy: token.OnlyFirst, Left: true}))
		require.NoError(t, tok.SetPadding(&token.Padding{MultipleOf: 4, ID: 1, Token: "[PAD]", Left: true}))
		saved, err = tok.Save()
		require.NoError(t, err)
		again, err := token.Load(saved)
		require.NoError(t, err)
		assert.Equal(t, tok.Truncation(), again.Truncation())
		assert.Equal(t, tok.Padding(), again.Padding())

		require.NoError(t, tok.SetTruncation(nil))
		require.NoError(t, tok.SetPadding(nil))
		old := tok.Normalizer()
		require.NoError(t, tok.SetNormalizer(json.RawMessage(`{"type":"Lowercase"}`)))
		assert.JSONEq(t, `{"type":"Lowercase"}`, string(tok.Normalizer()))
		saved, err = tok.Save()
		require.NoError(t, err)
		again, err = token.Load(saved)
		require.NoError(t, err)
		assert.Nil(t, again.Truncation())
		assert.Equal(t, tok.AppendIDs(nil, "ABC déf", true), again.AppendIDs(nil, "ABC déf", true), kind)
		require.NoError(t, tok.SetNormalizer(old))
		assert.Error(t, tok.SetNormalizer(json.RawMessage(`{"type":"Nonsense"}`)))
		assert.Error(t, tok.SetNormalizer(json.RawMessage(`{"type":`)))
		assert.Error(t, tok.SetPadding(&token.Padding{Length: 1 << 40}))
		assert.Error(t, tok.SetTruncation(&token.Truncation{MaxLength: -1}))
	}
	// A key that the file lacks is put in.
	tok := loadText(t, `{"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0}}}`)
	require.NoError(t, tok.SetTruncation(&token.Truncation{MaxLength: 3}))
	saved, err := tok.Save()
	require.NoError(t, err)
	assert.Equal(t, 3, loadText(t, string(saved)).Truncation().MaxLength)
}

func TestApplyConfig(t *testing.T) {
	tok := loadText(t, tinyWordPiece)
	require.NoError(t, tok.ApplyConfig([]byte(`{"cls_token":"[C]","pad_token":{"content":"[UNK]"},"mask_token":"gone","model_max_length":1e30,"do_lower_case":false,"strip_accents":false}`)))
	assert.Equal(t, int32(1), tok.Special().CLS)
	assert.Equal(t, int32(0), tok.Special().PAD)
	assert.Equal(t, int32(-1), tok.Special().MASK)
	assert.Zero(t, tok.MaxLength(), "1e30 stands for no limit")
	assert.Equal(t, []int32{5}, tok.AppendIDs(nil, "é", false), "accents stay now")
	assert.Equal(t, []int32{0}, tok.AppendIDs(nil, "A", false), "and so does case")
	require.NoError(t, tok.ApplyConfig([]byte(`{"model_max_length":512}`)))
	assert.Equal(t, 512, tok.MaxLength())
	assert.ErrorContains(t, tok.ApplyConfig([]byte(`[`)), "tokenizer_config.json")
	assert.ErrorContains(t, tok.ApplyConfig([]byte(`{"cls_token":5}`)), "cls_token")
}

func TestFromVocabTxt(t *testing.T) {
	dir := fixture.MiniLM(t)
	raw, err := os.ReadFile(filepath.Join(dir, "vocab.txt"))
	require.NoError(t, err)
	tok, err := token.FromVocabTxt(raw, true)
	require.NoError(t, err)
	want := load(t, filepath.Join(dir, "tokenizer.json"))
	for _, s := range texts(t) {
		assert.Equal(t, want.AppendIDs(nil, s, true), tok.AppendIDs(nil, s, true), "%q", s)
	}
	_, err = token.FromVocabTxt([]byte("a\nb\n"), true)
	assert.ErrorContains(t, err, "[UNK]")
}

func TestFromFiles(t *testing.T) {
	dir := fixture.MiniLM(t)
	whole := os.DirFS(dir)
	without := func(name string) ([]byte, error) {
		if name == "tokenizer.json" {
			return nil, fs.ErrNotExist
		}
		return fs.ReadFile(whole, name)
	}
	want, err := token.FromFiles(func(name string) ([]byte, error) { return fs.ReadFile(whole, name) }, "bert")
	require.NoError(t, err)
	got, err := token.FromFiles(without, "bert")
	require.NoError(t, err)
	for _, s := range texts(t) {
		assert.Equal(t, want.AppendIDs(nil, s, true), got.AppendIDs(nil, s, true), "%q", s)
	}
	assert.Equal(t, want.MaxLength(), got.MaxLength())
	// Other families number and cut otherwise.
	_, err = token.FromFiles(without, "mpnet")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = token.FromFiles(without, "gpt2")
	require.ErrorIs(t, err, fs.ErrNotExist)
	has := func(name string) bool { return name == "vocab.txt" }
	assert.True(t, token.HasFiles(has, "electra"))
	assert.False(t, token.HasFiles(has, "gpt2"))
	assert.True(t, token.HasFiles(func(name string) bool { return name == "vocab.json" || name == "merges.txt" }, "roberta"))

	cased := map[string]string{"vocab.txt": "[UNK]\n[CLS]\n[SEP]\nAa\naa\n", "tokenizer_config.json": `{"do_lower_case":false}`}
	tok, err := token.FromFiles(func(name string) ([]byte, error) {
		if s, ok := cased[name]; ok {
			return []byte(s), nil
		}
		return nil, fs.ErrNotExist
	}, "bert")
	require.NoError(t, err)
	assert.Equal(t, []int32{1, 3, 4, 2}, tok.AppendIDs(nil, "Aa aa", true))
}

func TestFromGPT2(t *testing.T) {
	for _, kind := range []string{"bpe-gpt2", "bpe-roberta"} {
		path := kinds(t)[kind]
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		var f struct {
			Model struct {
				Vocab  map[string]int
				Merges [][2]string
			}
			Added []struct {
				ID      int
				Content string
			} `json:"added_tokens"`
		}
		require.NoError(t, json.Unmarshal(raw, &f))
		for _, a := range f.Added {
			f.Model.Vocab[a.Content] = a.ID
		}
		vocab, err := json.Marshal(f.Model.Vocab)
		require.NoError(t, err)
		merges := "#version: 0.2\n"
		for _, m := range f.Model.Merges {
			merges += m[0] + " " + m[1] + "\n"
		}
		tok, err := token.FromGPT2(vocab, []byte(merges))
		require.NoError(t, err)
		want := load(t, path)
		for _, s := range texts(t) {
			a, err := want.Encode(s, token.Options{})
			require.NoError(t, err)
			b, err := tok.Encode(s, token.Options{})
			require.NoError(t, err)
			assert.Equal(t, a, b, "%s %q", kind, s)
		}
	}
	_, err := token.FromGPT2([]byte(`[]`), nil)
	assert.ErrorContains(t, err, "vocab.json")
	_, err = token.FromGPT2([]byte(`{"a":0}`), []byte("a b c"))
	assert.ErrorContains(t, err, "merges.txt")
}

// TestStream feeds ids one by one: the parts are whole characters, and make up what Decode gives for all.
func TestStream(t *testing.T) {
	for kind, path := range kinds(t) {
		tok := load(t, path)
		for _, s := range texts(t) {
			ids := tok.AppendIDs(nil, s, true)
			for _, skip := range []bool{true, false} {
				stream := tok.Stream(skip)
				var out strings.Builder
				for _, id := range ids {
					out.WriteString(stream.Next(id))
				}
				out.WriteString(stream.Flush())
				assert.Equal(t, tok.Decode(ids, skip), out.String(), "%s %q", kind, s)
			}
		}
	}
	// A character whose bytes are tokens of their own comes whole, with its last byte.
	tok := load(t, kinds(t)["bpe-gpt2"])
	stream := tok.Stream(true)
	var parts []string
	for _, id := range tok.AppendIDs(nil, "😀", false) {
		parts = append(parts, stream.Next(id))
	}
	assert.Equal(t, "😀", parts[len(parts)-1])
	assert.Empty(t, strings.Join(parts[:len(parts)-1], ""))
}

// TestConcurrent shares one tokenizer between goroutines; run with -race.
func TestConcurrent(t *testing.T) {
	for _, kind := range []string{"bpe-llama3", "wordpiece-uncased", "unigram-xlmr"} {
		tok := load(t, kinds(t)[kind])
		all := texts(t)
		want := make([][]int32, len(all))
		for i, s := range all {
			want[i] = tok.AppendIDs(nil, s, true)
		}
		var wg sync.WaitGroup
		errs := make(chan string, 4*len(all))
		for range 4 {
			wg.Go(func() {
				for i, s := range all {
					if got := tok.AppendIDs(nil, s, true); fmt.Sprint(got) != fmt.Sprint(want[i]) {
						errs <- s
					}
				}
			})
		}
		batch, err := tok.EncodeBatch(all, token.Options{NoLimits: true})
		require.NoError(t, err)
		for i := range batch {
			assert.Equal(t, append([]int32{}, want[i]...), append([]int32{}, batch[i].IDs...))
		}
		wg.Wait()
		assert.Empty(t, errs)
	}
}

// TestNoAllocations holds AppendIDs to its promise.
func TestNoAllocations(t *testing.T) {
	text := strings.Repeat("The quick brown fox didn't jump over 12 lazy dogs, naïvely. ", 20)
	paths := kinds(t)
	for kind, path := range paths {
		tok := load(t, path)
		ids := tok.AppendIDs(nil, text, true)
		n := testing.AllocsPerRun(20, func() { ids = tok.AppendIDs(ids[:0], text, true) })
		assert.LessOrEqual(t, n, 2.0, "%s: %v allocations for %d tokens", kind, n, len(ids))
	}
}

// Fit and Drop cut as truncation does, without keeping what they cut away.
func TestCutShort(t *testing.T) {
	for _, kind := range []string{"wordpiece-uncased", "bpe-gpt2", "bpe-llama3", "unigram-xlmr", "spbpe-llama2"} {
		tok := load(t, filepath.Join(fixture.Parity(t), "tokenizers", kind, "tokenizer.json"))
		text := strings.Repeat("Some words, and mañana! ", 20)
		for _, limit := range []int{0, 1, 2, 3, 7, 40, 10000} {
			want, wantErr := tok.Encode(text, token.Options{NoLimits: true, Truncation: &token.Truncation{MaxLength: limit}})
			got, err := tok.Encode(text, token.Options{NoLimits: true, Truncation: &token.Truncation{MaxLength: limit, Drop: true}})
			ids, fitErr := tok.Fit(tok.AppendIDs(nil, text, true), limit)
			require.Equal(t, wantErr, err)
			require.Equal(t, wantErr, fitErr)
			if err != nil {
				continue
			}
			want.Overflowing = nil
			require.Equal(t, want, got, "%s, %d tokens", kind, limit)
			require.Equal(t, want.IDs, ids[:len(ids):len(ids)], "%s, %d tokens", kind, limit)
		}
	}
}
