package canon

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
)

func TestTypos(t *testing.T) {
	texts := []string{"the film is great fun", "a great great story", "the film is awful", "awful and dull story", "fund the story"}
	tok, err := token.TrainWordPiece(slices.Values(slices.Repeat(texts, 3)), token.TrainOptions{VocabSize: 200, Lowercase: true})
	require.NoError(t, err)
	raw, err := tok.Save()
	require.NoError(t, err)
	out, n, err := Typos(raw, Guard{Words: []string{"great", "awful", "fun", "absent", "is"}})
	require.NoError(t, err)
	require.Equal(t, 3, n, "words of the vocabulary with three letters or more")
	guarded, err := token.Load(out)
	require.NoError(t, err)
	ids := func(k *token.Tokenizer, s string) []int32 { return k.AppendIDs(nil, s, false) }
	for typo, word := range map[string]string{"graet": "great", "grat": "great", "gxeat": "great", "greaat": "great", "AWFLU": "awful", "wful": "awful", "fn": "fun"} {
		require.Equal(t, ids(tok, word), ids(guarded, typo), typo)
		require.NotEqual(t, ids(tok, word), ids(tok, typo), typo)
	}
	for _, plain := range []string{"the film is great fun", "fund", "story"} {
		require.Equal(t, ids(tok, plain), ids(guarded, plain), "words themselves stay: %s", plain)
	}
	_, _, err = Typos([]byte(`{"model":{"type":"BPE"}}`), Guard{})
	require.ErrorContains(t, err, "WordPiece")
	_, _, err = Typos([]byte(`{`), Guard{})
	require.Error(t, err)
}

// A word of several pieces is read as its stand-in when misspelt, and as itself when not; entries of the vocabulary that no text holds give
// way to the first words.
func TestTyposStandIns(t *testing.T) {
	tok, err := token.TrainWordPiece(slices.Values(slices.Repeat([]string{"the film is great fun", "a great story"}, 3)), token.TrainOptions{VocabSize: 60, Lowercase: true})
	require.NoError(t, err)
	raw, err := tok.Save()
	require.NoError(t, err)
	ids := func(k *token.Tokenizer, s string) []int32 { return k.AppendIDs(nil, s, false) }
	out, n, err := Typos(raw, Guard{Words: []string{"grand", "fin"}, StandIns: map[string]string{"grand": "great", "fin": "nothing"}, Slips: 1})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	guarded, err := token.Load(out)
	require.NoError(t, err)
	require.Equal(t, ids(tok, "great"), ids(guarded, "garnd"))
	require.Equal(t, ids(tok, "grand"), ids(guarded, "grand"))

	out, _, err = Typos(raw, Guard{Words: []string{"fun", "filt"}, StandIns: map[string]string{"filt": "story"}, Counts: map[string]float64{"filt": 1}, Slips: 1})
	require.NoError(t, err)
	guarded, err = token.Load(out)
	require.NoError(t, err)
	require.Equal(t, ids(tok, "story"), ids(guarded, "film"), "no text held a film")
	require.Equal(t, ids(tok, "great"), ids(guarded, "great"))
	out, _, err = Typos(raw, Guard{Words: []string{"fun", "filt"}, StandIns: map[string]string{"filt": "story"}, Counts: map[string]float64{"filt": 1}, Slips: 0})
	require.NoError(t, err)
	guarded, err = token.Load(out)
	require.NoError(t, err)
	require.Equal(t, ids(tok, "film"), ids(guarded, "film"))
}

// An edit of two words is read as the one that it more likely comes from, and continuations that are not kept leave unknown words.
func TestTyposReading(t *testing.T) {
	tok, err := token.TrainWordPiece(slices.Values(slices.Repeat([]string{"world words gret film", "film world", "a film lot"}, 3)), token.TrainOptions{VocabSize: 120, Lowercase: true})
	require.NoError(t, err)
	raw, err := tok.Save()
	require.NoError(t, err)
	words := []string{"words", "world", "film"}
	for _, c := range []struct {
		name   string
		counts map[string]float64
		slips  float64
		typo   string
		want   string
	}{
		{"a swap is one of few, a replaced letter one of many", map[string]float64{"words": 1, "world": 1}, 0, "wordl", "world"},
		{"far more usual", map[string]float64{"words": 100, "world": 1}, 0, "wordl", "words"},
		{"nothing known: the first", nil, 0, "wordl", "words"},
		{"an entry stays", map[string]float64{"film": 100}, 0, "lot", "lot"},
	} {
		out, n, err := Typos(raw, Guard{Words: words, Counts: c.counts, Slips: c.slips})
		require.NoError(t, err)
		require.Equal(t, 3, n)
		guarded, err := token.Load(out)
		require.NoError(t, err)
		require.Equal(t, tok.AppendIDs(nil, c.want, false), guarded.AppendIDs(nil, c.typo, false), c.name)
	}
	for slips, want := range map[float64]string{0: "gret", 0.25: "great"} {
		both, err := token.TrainWordPiece(slices.Values(slices.Repeat([]string{"great gret"}, 3)), token.TrainOptions{VocabSize: 60, Lowercase: true})
		require.NoError(t, err)
		raw, err := both.Save()
		require.NoError(t, err)
		out, _, err := Typos(raw, Guard{Words: []string{"great"}, Counts: map[string]float64{"great": 40, "gret": 0.1}, Slips: slips})
		require.NoError(t, err)
		guarded, err := token.Load(out)
		require.NoError(t, err)
		require.Equal(t, both.AppendIDs(nil, want, false), guarded.AppendIDs(nil, "gret", false))
	}

	require.Greater(t, len(tok.AppendIDs(nil, "filmilm", false)), 1)
	out, _, err := Typos(raw, Guard{Words: words, Pieces: map[string]bool{}})
	require.NoError(t, err)
	closed, err := token.Load(out)
	require.NoError(t, err)
	unknown := closed.AppendIDs(nil, "filmilm", false)
	require.Len(t, unknown, 1)
	name, ok := closed.Token(unknown[0])
	require.True(t, ok)
	require.Equal(t, "[UNK]", name)
	require.Equal(t, tok.AppendIDs(nil, "world film", false), closed.AppendIDs(nil, "world film", false))
}

func TestTelling(t *testing.T) {
	got := Telling([]string{"good film", "good story", "bad film", "bad story", "Good one", "bad one"}, []int{1, 1, 0, 0, 1, 0}, 2)
	require.ElementsMatch(t, []string{"good", "bad"}, got)
}

// What canonicalisation and guard added can be taken away again; a stand-in keeps its meaning, or what is written could not be opened.
func TestBareAndStandIns(t *testing.T) {
	raw := []byte(`{"normalizer":{"type":"Lowercase"},"model":{"type":"WordPiece","unk_token":"[UNK]","vocab":{"[UNK]":0,"heart":1,"hearth":2,"##s":3}}}`)
	same, had, err := Bare(raw)
	require.NoError(t, err)
	require.False(t, had)
	require.Equal(t, raw, same)
	guarded, n, err := Typos(raw, Guard{Words: []string{"heart", "fireplace"}, StandIns: map[string]string{"fireplace": "hearth"}, Counts: map[string]float64{"heart": 9}, Slips: 0.25})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	tok, err := token.Load(guarded)
	require.NoError(t, err)
	id, _ := tok.ID("fireplce")
	require.Equal(t, int32(2), id)
	for _, o := range []Options{{}, {Numbers: true}, Latin()} {
		dressed, err := Prepend(guarded, o)
		require.NoError(t, err)
		bare, had, err := Bare(dressed)
		require.NoError(t, err)
		require.True(t, had)
		require.JSONEq(t, string(raw), string(bare))
		again, n, err := Typos(dressed, Guard{Words: []string{"heart"}})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		tok, err := token.Load(again)
		require.NoError(t, err)
		_, old := tok.ID("fireplce")
		require.False(t, old, "a guard takes the place of an older one")
	}
	for _, bad := range []string{"", "{", `{"normalizer":3,"model":{}}`} {
		_, _, err := Bare([]byte(bad))
		require.Error(t, err, bad)
	}
}
