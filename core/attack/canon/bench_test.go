package canon_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack/canon"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

// BenchmarkGuarded opens all-MiniLM-L6-v2's tokenizer as harden guards it on sst2, and tokenizes dev rows with a letter lost from every long word: with
// misspellings found when they are met, and listed in the vocabulary as other readers have them.
func BenchmarkGuarded(b *testing.B) {
	raw, err := os.ReadFile(filepath.Join(fixture.MiniLM(b), "tokenizer.json"))
	require.NoError(b, err)
	train, err := data.Open(filepath.Join(fixture.Data(b), "sst2", "train_sentences.tsv"), data.Options{})
	require.NoError(b, err)
	dev, err := data.Open(filepath.Join(fixture.Data(b), "sst2", "dev.tsv"), data.Options{})
	require.NoError(b, err)
	guarded, _, err := canon.Typos(raw, canon.Guard{Words: canon.Telling(train.Texts, train.Labels, 8000)})
	require.NoError(b, err)
	found, err := canon.Prepend(guarded, canon.Options{Invisible: true, Compatibility: true, Confusables: true})
	require.NoError(b, err)
	var texts []string
	size := 0
	for _, t := range dev.Texts {
		words := strings.Fields(t)
		for i, w := range words {
			if len(w) > 5 {
				words[i] = w[:2] + w[3:]
			}
		}
		texts = append(texts, strings.Join(words, " "))
		size += len(texts[len(texts)-1])
	}
	for name, file := range map[string][]byte{"found": found, "listed": bytes.Replace(found, []byte(`"temper_typos"`), []byte(`"of_nobody___"`), 1)} {
		b.Run(name+"/open", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := token.Load(file)
				require.NoError(b, err)
			}
		})
		tok, err := token.Load(file)
		require.NoError(b, err)
		b.Run(name+"/tokens", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			var ids []int32
			for b.Loop() {
				for _, t := range texts {
					ids = tok.AppendIDs(ids[:0], t, true)
				}
			}
		})
	}
}
