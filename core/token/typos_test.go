package token

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// typosFile is a tokenizer.json with words and their misspellings.
func typosFile(t testing.TB, words []string, counts []float64, real []string) (whole []byte, typos *Typos) {
	t.Helper()
	vocab := map[string]int32{"[UNK]": 0, "##s": 1, "##ness": 2, "a": 3, "heart": 4, "##e": 5, "th": 6}
	typos = &Typos{Counts: counts, Words: words, Real: real}
	for i, w := range words {
		id := int32(4)
		if i%5 != 4 { // each fifth is read as another word
			id = int32(len(vocab))
			vocab[w] = id
		}
		typos.IDs = append(typos.IDs, id)
	}
	v, err := json.Marshal(vocab)
	require.NoError(t, err)
	plain := fmt.Appendf(nil, `{"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"BertPreTokenizer"},"model":{"continuing_subword_prefix":"##",`+
		`"max_input_chars_per_word":100,"type":"WordPiece","unk_token":"[UNK]","vocab":%s}}`+"\n", v)
	whole, err = WithTypos(plain, typos, typos.Table())
	require.NoError(t, err)
	return whole, typos
}

// full reads a file as other programs do: by its vocabulary alone.
func full(t testing.TB, whole []byte) *Tokenizer {
	t.Helper()
	tok, err := Load(bytes.Replace(whole, []byte(typosName), []byte("other_name__"), 1))
	require.NoError(t, err)
	return tok
}

// What is found when it is met is what the file's entries say, for each of them, for words that begin with them and for others.
func TestTyposAreTheTable(t *testing.T) {
	words := []string{"great", "grate", "three", "there", "bee", "been", "aaa", "ooze", "booze", "letter", "better", "butter"}
	counts := []float64{5, 5, 1, 2, 0, 0.5, 1, 3, 1, 1, 7, 1}
	whole, typos := typosFile(t, words, counts, []string{"grape", "heat", "ben"})
	want, got := full(t, whole), mustLoad(t, whole)
	require.Nil(t, want.model.(*wordPiece).typos)
	require.NotNil(t, got.model.(*wordPiece).typos)
	ids := func(k *Tokenizer, s string) []int32 { return k.AppendIDs(nil, s, false) }
	table := typos.Table()
	require.Greater(t, len(table), 2000)
	for e, r := range table {
		require.Equal(t, ids(want, e), ids(got, e), e)
		if id, ok := want.ID(e); ok {
			again, ok := got.ID(e)
			require.True(t, ok)
			require.Equal(t, id, again)
			_ = r
		}
		for _, tail := range []string{"s", "ness", "x", "é"} {
			require.Equal(t, ids(want, e+tail), ids(got, e+tail), e+tail)
		}
	}
	for _, s := range []string{"grape", "heat", "ben", "heart", "hart", "Graet", "graet-treh", "gre4t", "", "ggreatt", "éreat", "greaté"} {
		require.Equal(t, ids(want, s), ids(got, s), s)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		b := []byte(words[r.IntN(len(words))])
		for range r.IntN(4) {
			switch i := r.IntN(len(b) + 1); r.IntN(3) {
			case 0:
				b = slices.Insert(b, i, "abegrt"[r.IntN(6)])
			case 1:
				if i < len(b) && len(b) > 1 {
					b = slices.Delete(b, i, i+1)
				}
			default:
				if i+1 < len(b) {
					b[i], b[i+1] = b[i+1], b[i]
				}
			}
		}
		require.Equal(t, ids(want, string(b)), ids(got, string(b)), string(b))
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { typos.read([]byte("graet")[:5:5]) }))
}

func mustLoad(t testing.TB, raw []byte) *Tokenizer {
	t.Helper()
	tok, err := Load(raw)
	require.NoError(t, err)
	return tok
}

func TestStripAndExpand(t *testing.T) {
	whole, _ := typosFile(t, []string{"great", "three", "there"}, []float64{1, 2, 3}, []string{"grape"})
	short, ok := Strip(whole)
	require.True(t, ok)
	require.Less(t, 10*len(short), len(whole))
	back, err := Expand(short)
	require.NoError(t, err)
	require.Equal(t, string(whole), string(back))
	for _, raw := range [][]byte{whole, short} {
		tok := mustLoad(t, raw)
		require.Equal(t, []int32{7}, tok.AppendIDs(nil, "graet", false))
		name, _ := tok.Token(7)
		require.Equal(t, "great", name, "and no misspelling of it")
		saved, err := tok.Save()
		require.NoError(t, err)
		require.Equal(t, string(whole), string(saved), "what is written is for every reader")
		require.NoError(t, tok.SetPadding(&Padding{Length: 4, Token: "[UNK]"}))
		saved, err = tok.Save()
		require.NoError(t, err)
		require.Equal(t, []int32{7}, full(t, saved).AppendIDs(nil, "graet", false)[:1:1], "padding is of Encode")
	}

	// Entries that somebody changed are read as they are.
	other := bytes.Replace(whole, []byte(`"graet":7`), []byte(`"graet":4`), 1)
	require.NotEqual(t, whole, other)
	_, ok = Strip(other)
	require.False(t, ok)
	require.Equal(t, []int32{4}, mustLoad(t, other).AppendIDs(nil, "graet", false))
	var spaced bytes.Buffer
	require.NoError(t, json.Indent(&spaced, whole, "", " "))
	require.Equal(t, []int32{7}, mustLoad(t, spaced.Bytes()).AppendIDs(nil, "graet", false))
	plain := []byte(`{"model":{"type":"WordPiece","vocab":{"[UNK]":0}}}`)
	same, ok := Strip(plain)
	require.False(t, ok)
	require.Equal(t, plain, same)
	same, err = Expand(plain)
	require.NoError(t, err)
	require.Equal(t, plain, same)
}

// The vocabulary before the misspellings counts, whatever somebody did to it; a word may be called as a member of the file.
func TestEditedTypos(t *testing.T) {
	whole, _ := typosFile(t, []string{"great", "three", "there"}, []float64{1, 2, 3}, nil)
	edited := bytes.Replace(whole, []byte(`"a":3,`), []byte(`"a":3,"lol":4,`), 1)
	require.NotEqual(t, whole, edited)
	_, ok := Strip(edited)
	require.False(t, ok, "or nobody would know the misspellings")
	tok := mustLoad(t, edited)
	require.Equal(t, []int32{7, 4}, tok.AppendIDs(nil, "graet lol", false))
	saved, err := tok.Save()
	require.NoError(t, err)
	require.Equal(t, string(edited), string(saved))

	typos := &Typos{Words: []string{"great"}, IDs: []int32{2}, Counts: []float64{1}}
	named, err := WithTypos([]byte(`{"model": {"type":"WordPiece","vocab":{"[UNK]":0,"vocab":1,"great":2,"model":3,"temper_typos":4}}}`), typos, typos.Table())
	require.NoError(t, err)
	tok = mustLoad(t, named)
	require.NotNil(t, tok.model.(*wordPiece).typos)
	id, found := tok.ID("graet")
	require.True(t, found)
	require.Equal(t, int32(2), id)

	bare, err := WithTypos([]byte(`{"pre_tokenizer":{"type":"BertPreTokenizer"},"model":{"type":"WordPiece","continuing_subword_prefix":"","unk_token":"[UNK]","vocab":{"[UNK]":0,"x":1,"great":2}}}`), typos, typos.Table())
	require.NoError(t, err)
	require.Equal(t, full(t, bare).AppendIDs(nil, "xxgraetx", false), mustLoad(t, bare).AppendIDs(nil, "xxgraetx", false), "pieces that continue a word look like those that begin one")
}

func TestTyposErrors(t *testing.T) {
	whole, _ := typosFile(t, []string{"great", "three"}, []float64{1, 2}, nil)
	short, ok := Strip(whole)
	require.True(t, ok)
	for _, c := range []struct{ old, new, want string }{
		{`"ids":[7,8]`, `"ids":[7]`, "as many of each"},
		{`"ids":[7,8]`, `"ids":[7,80]`, "no id 80"},
		{`["great","three"]`, `["great","great"]`, "twice"},
		{`["great","three"]`, `["great","Three"]`, "letters from a to z"},
		{`["great","three"]`, `["great","th"]`, "letters from a to z"},
		{`["great","three"]`, `["great",3]`, "temper_typos"},
	} {
		bad := bytes.Replace(short, []byte(c.old), []byte(c.new), 1)
		require.NotEqual(t, short, bad, c.old)
		_, err := Load(bad)
		require.ErrorContains(t, err, c.want)
	}
	_, err := Expand(bytes.Replace(short, []byte(`"counts":[1,2]`), []byte(`"counts":[1,2000]`), 1))
	require.NoError(t, err, "the same readings")
	_, err = Expand(bytes.Replace(short, []byte(`"words":["great","three"]`), []byte(`"words":["great","tree"]`), 1))
	require.ErrorContains(t, err, "other misspellings")
	_, err = Expand(bytes.Replace(short, []byte(`"bytes":`), []byte(`"bytes":9999999`), 1))
	require.ErrorContains(t, err, "have no")
	_, err = Expand(append([]byte(`{"zz":{},`), append(bytes.TrimPrefix(bytes.TrimSpace(short), []byte("{"))[:len(bytes.TrimSpace(short))-2], []byte(`,"zzz":{"a":1}}`)...)...))
	require.ErrorContains(t, err, "ends in its vocabulary")
	for _, bad := range []string{``, `{}`, `{"model":{"vocab":{}}}`, `{"model":{"vocab":{"a":1}},"x":[]}`} {
		_, err := WithTypos([]byte(bad), &Typos{Words: []string{"great"}, IDs: []int32{1}, Counts: []float64{1}}, nil)
		require.Error(t, err, bad)
	}
}

func FuzzTypos(f *testing.F) {
	words := []string{"great", "grate", "three", "there", "bee", "been", "aaa", "ooze", "booze", "letter"}
	whole, _ := typosFile(f, words, []float64{5, 5, 1, 2, 0, 0.5, 1, 3, 1, 1}, []string{"grape"})
	want, got := full(f, whole), mustLoad(f, whole)
	short, _ := Strip(whole)
	f.Add("graet threee", []byte(nil))
	f.Add("gr\u00e9at bene", short)
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		require.Equal(t, want.AppendIDs(nil, text, false), got.AppendIDs(nil, text, false))
		if tok, err := Load(raw); err == nil {
			tok.AppendIDs(nil, text, false)
		}
		_, _ = Expand(raw)
	})
}
