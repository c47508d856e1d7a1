package token_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

func english(b *testing.B) string {
	data, err := os.ReadFile(filepath.Join(fixture.Data(b), "text", "wikitext2-test.txt"))
	require.NoError(b, err)
	return string(data)
}

// chunks cuts text into pieces of about n bytes at spaces.
func chunks(text string, n int) []string {
	var out []string
	for len(text) > n {
		i := n
		for i < len(text) && text[i] != ' ' {
			i++
		}
		out = append(out, text[:i])
		text = text[i:]
	}
	return append(out, text)
}

func benchIDs(b *testing.B, tok *token.Tokenizer) {
	text := english(b)
	parts := chunks(text, 512)
	var ids []int32
	for _, p := range parts {
		ids = tok.AppendIDs(ids[:0], p, true)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	b.ResetTimer()
	defer perCPU(b, len(text))()
	for range b.N {
		for _, p := range parts {
			ids = tok.AppendIDs(ids[:0], p, true)
		}
	}
}

// benchBatch is benchIDs on all processors: run it with -cpu 1,2,4 to see it scale.
func benchBatch(b *testing.B, tok *token.Tokenizer) {
	text := english(b)
	parts := chunks(text, 512)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	defer perCPU(b, len(text))()
	for b.Loop() {
		_, err := tok.EncodeBatch(parts, token.Options{NoLimits: true})
		require.NoError(b, err)
	}
}

// perCPU reports megabytes a second of processor time, which other programs on the machine disturb less than they do the clock.
func perCPU(b *testing.B, bytes int) (report func()) {
	start := cpuSeconds()
	return func() {
		if used := cpuSeconds() - start; used > 0 {
			b.ReportMetric(float64(bytes)*float64(b.N)/1e6/used, "MB/cpu-s")
		}
	}
}

func benchEncode(b *testing.B, tok *token.Tokenizer) {
	text := english(b)
	parts := chunks(text, 512)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range parts {
			_, err := tok.Encode(p, token.Options{NoLimits: true})
			require.NoError(b, err)
		}
	}
}

func BenchmarkAppendIDs(b *testing.B) {
	b.Run("minilm", func(b *testing.B) { benchIDs(b, load(b, filepath.Join(fixture.MiniLM(b), "tokenizer.json"))) })
	b.Run("gemma", func(b *testing.B) { benchIDs(b, fromGGUF(b, fixture.Gemma(b))) })
	for _, kind := range []string{"bpe-gpt2", "bpe-llama3", "bpe-qwen2", "spbpe-llama2", "unigram-xlmr"} {
		b.Run(kind, func(b *testing.B) {
			benchIDs(b, load(b, filepath.Join(fixture.Parity(b), "tokenizers", kind, "tokenizer.json")))
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	b.Run("minilm", func(b *testing.B) { benchEncode(b, load(b, filepath.Join(fixture.MiniLM(b), "tokenizer.json"))) })
	b.Run("bpe-gpt2", func(b *testing.B) {
		benchEncode(b, load(b, filepath.Join(fixture.Parity(b), "tokenizers", "bpe-gpt2", "tokenizer.json")))
	})
}

func BenchmarkLoad(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(fixture.MiniLM(b), "tokenizer.json"))
	require.NoError(b, err)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		_, err := token.Load(data)
		require.NoError(b, err)
	}
}

func BenchmarkBatch(b *testing.B) {
	b.Run("minilm", func(b *testing.B) { benchBatch(b, load(b, filepath.Join(fixture.MiniLM(b), "tokenizer.json"))) })
	b.Run("bpe-gpt2", func(b *testing.B) {
		benchBatch(b, load(b, filepath.Join(fixture.Parity(b), "tokenizers", "bpe-gpt2", "tokenizer.json")))
	})
}
