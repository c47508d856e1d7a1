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
	out, n, err := Typos(raw, Guard{Words: []string{"grand", "fin"}, StandIns: map[string]string{"grand": "great", "fin": "nothing"}, Rare: 1})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	guarded, err := token.Load(out)
	require.NoError(t, err)
	require.Equal(t, ids(tok, "great"), ids(guarded, "garnd"))
	require.Equal(t, ids(tok, "grand"), ids(guarded, "grand"))

	out, _, err = Typos(raw, Guard{Words: []string{"fun", "filt"}, StandIns: map[string]string{"filt": "story"}, Rare: 2})
	require.NoError(t, err)
	guarded, err = token.Load(out)
	require.NoError(t, err)
	require.Equal(t, ids(tok, "story"), ids(guarded, "film"), "no text held a film")
	require.Equal(t, ids(tok, "great"), ids(guarded, "great"))
	out, _, err = Typos(raw, Guard{Words: []string{"fun", "filt"}, StandIns: map[string]string{"filt": "story"}, Rare: 1})
	require.NoError(t, err)
	guarded, err = token.Load(out)
	require.NoError(t, err)
	require.Equal(t, ids(tok, "film"), ids(guarded, "film"))
}

func TestTelling(t *testing.T) {
	got := Telling([]string{"good film", "good story", "bad film", "bad story", "Good one", "bad one"}, []int{1, 1, 0, 0, 1, 0}, 2)
	require.ElementsMatch(t, []string{"good", "bad"}, got)
}
