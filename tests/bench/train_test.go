package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/tests/fixture"
)

// BenchmarkTrainLarge times training steps of 32 sequences of 128 tokens on one thread.
func BenchmarkTrainLarge(b *testing.B) {
	dir := fixture.MiniLM(b)
	for _, mode := range []string{"full", "lora", "fgm"} {
		b.Run(mode, func(b *testing.B) {
			t, err := newTrainer(dir, 1, mode)
			require.NoError(b, err)
			step := t.step(randomIDs(32, 128, t.m.Config().Vocab, 7))
			_, err = step() // buffers grow
			require.NoError(b, err)
			b.ReportAllocs()
			best := time.Hour
			for b.Loop() {
				start := processTime()
				_, err := step()
				require.NoError(b, err)
				best = min(best, processTime()-start)
			}
			b.ReportMetric(ms(best), "cpu-ms")
		})
	}
}
