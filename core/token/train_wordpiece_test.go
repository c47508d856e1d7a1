package token

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTrainWordPiece(t *testing.T) {
	texts := []string{"Low lower lowest", "new newer newest", "wide wider widest", "low new wide, low!", "café CAFÉ"}
	tok, err := TrainWordPiece(slices.Values(texts), TrainOptions{VocabSize: 60, Lowercase: true})
	require.NoError(t, err)
	for _, w := range []string{"[PAD]", "[MASK]", "l", "##o", "low", "new", "wide", "##est", "cafe"} {
		_, ok := tok.ID(w)
		require.True(t, ok, w)
	}
	enc, err := tok.Encode("Lowest wides CAFÉ ☃", Options{})
	require.NoError(t, err)
	require.Equal(t, "[CLS]", enc.Tokens[0])
	require.Equal(t, "[SEP]", enc.Tokens[len(enc.Tokens)-1])
	require.Equal(t, "[UNK]", enc.Tokens[len(enc.Tokens)-2], "a character that was never seen")
	require.Equal(t, "lowest wides cafe", tok.Decode(enc.IDs[:len(enc.IDs)-2], true), "words never seen have pieces")

	saved, err := tok.Save()
	require.NoError(t, err)
	again, err := TrainWordPiece(slices.Values(texts), TrainOptions{VocabSize: 60, Lowercase: true})
	require.NoError(t, err)
	same, err := again.Save()
	require.NoError(t, err)
	require.JSONEq(t, string(saved), string(same))

	small, err := TrainWordPiece(slices.Values(texts), TrainOptions{VocabSize: 12, Lowercase: true})
	require.NoError(t, err)
	require.Equal(t, 12, small.VocabSize())
	_, err = TrainWordPiece(slices.Values([]string{" "}), TrainOptions{})
	require.ErrorContains(t, err, "no words")
}

// Every pair joined is the most frequent one at its time: checked against a plain count on small text.
func TestJoinPairsIsGreedy(t *testing.T) {
	counts := map[string]int{"aaab": 4, "abab": 3, "bab": 5, "aab": 2}
	got := joinPairs(counts, TrainOptions{VocabSize: 9, MinCount: 1, Alphabet: 10}, 0)
	require.Equal(t, []string{"##a", "##b", "a", "b"}, got[:4])
	// ##a ##b stands in aaab (4), abab (3), bab (5) and aab (2): 14, more than any other pair.
	require.Equal(t, "##ab", got[4])
}
