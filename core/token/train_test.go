package token_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

var trainingTexts = strings.Split(strings.Repeat("low lower lowest\nnew newer newest\nwide wider widest\nthe low road is the new road\nNaïve café, naïve?\n", 5), "\n")

type trainer struct {
	name  string
	train func(texts []string, o token.TrainOptions) (*token.Tokenizer, error)
	least int
}

var trainers = []trainer{
	{"bpe", func(texts []string, o token.TrainOptions) (*token.Tokenizer, error) {
		return token.TrainBPE(slices.Values(texts), o)
	}, 300},
	{"unigram", func(texts []string, o token.TrainOptions) (*token.Tokenizer, error) {
		return token.TrainUnigram(slices.Values(texts), o)
	}, 40},
}

func TestTrain(t *testing.T) {
	for _, tr := range trainers {
		t.Run(tr.name, func(t *testing.T) {
			o := token.TrainOptions{VocabSize: tr.least, Lowercase: true}
			tok, err := tr.train(trainingTexts, o)
			require.NoError(t, err)
			assert.LessOrEqual(t, tok.VocabSize(), tr.least)
			e, err := tok.Encode("The NEWEST road, naïve?", token.Options{})
			require.NoError(t, err)
			assert.Equal(t, "the newest road, naïve?", tok.Decode(e.IDs, true))
			assert.NotContains(t, e.IDs, tok.Special().UNK)
			letters := len([]rune("the newest road, naïve?"))
			assert.Less(t, e.Len(), letters*2/3, "frequent words have pieces of their own: %q", e.Tokens)

			again, err := tr.train(trainingTexts, o)
			require.NoError(t, err)
			a, err := tok.Save()
			require.NoError(t, err)
			b, err := again.Save()
			require.NoError(t, err)
			assert.Equal(t, string(a), string(b), "the same texts give the same vocabulary")

			_, err = tr.train(nil, o)
			assert.ErrorContains(t, err, "no words")
			_, err = tr.train(trainingTexts, token.TrainOptions{VocabSize: 5})
			assert.ErrorContains(t, err, "expected")
		})
	}
}

// TestTrainBPEBytes holds byte-level vocabularies to their promise: any text comes back.
func TestTrainBPEBytes(t *testing.T) {
	tok, err := token.TrainBPE(slices.Values(trainingTexts), token.TrainOptions{VocabSize: 280})
	require.NoError(t, err)
	for _, text := range []string{"", " ", "你好 😀\x00\u0301", "\tlow\r\n  lower  "} {
		assert.Equal(t, text, tok.Decode(tok.AppendIDs(nil, text, true), true))
	}
}

// TestTrainEnglish trains on real text and looks at how many tokens it becomes.
func TestTrainEnglish(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(fixture.Data(t), "text", "wikitext2-test.txt"))
	require.NoError(t, err)
	text := string(raw[:200_000])
	lines := strings.Split(text, "\n")
	for _, tr := range trainers {
		t.Run(tr.name, func(t *testing.T) {
			var per []float64
			for _, size := range []int{600, 2000} {
				tok, err := tr.train(lines, token.TrainOptions{VocabSize: size})
				require.NoError(t, err)
				require.InDelta(t, size, tok.VocabSize(), 0.1*float64(size))
				n := 0
				for _, l := range lines {
					n += len(tok.AppendIDs(nil, l, false))
				}
				per = append(per, float64(len(text))/float64(n))
			}
			t.Logf("bytes a token: %.2f", per)
			assert.Greater(t, per[0], 1.8)
			assert.Greater(t, per[1], per[0]+0.5, "a greater vocabulary makes longer tokens")
			assert.Less(t, per[1], 6.0)
			assert.False(t, math.IsNaN(per[1]))
		})
	}
}
