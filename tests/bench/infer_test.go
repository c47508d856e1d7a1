package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/tests/fixture"
)

// BenchmarkInfer times a forward on one thread; cpu-ms is the least processor time, which other work on the machine hardly moves, and with -benchmem
// it shows that the steady state allocates next to nothing.
func BenchmarkInfer(b *testing.B) {
	for _, kind := range []string{"f32", "int8"} {
		e, err := open(fixture.MiniLM(b), 1, model.HeadNone, kind)
		require.NoError(b, err)
		for _, s := range [][2]int{{1, 16}, {1, 128}, {8, 64}, {32, 25}, {32, 128}} {
			b.Run(fmt.Sprintf("%s/%dx%d", kind, s[0], s[1]), func(b *testing.B) {
				ids := randomIDs(s[0], s[1], e.m.Config().Vocab, 1)
				b.ReportAllocs()
				best := time.Hour
				for b.Loop() {
					start := processTime()
					_, err := e.forward(ids)
					require.NoError(b, err)
					best = min(best, processTime()-start)
				}
				b.ReportMetric(ms(best), "cpu-ms")
			})
		}
	}
}

// BenchmarkTrain times a training step on one thread.
func BenchmarkTrain(b *testing.B) {
	dir := fixture.MiniLM(b)
	for _, mode := range []string{"full", "lora", "fgm"} {
		b.Run(mode, func(b *testing.B) {
			t, err := newTrainer(dir, 1, mode)
			require.NoError(b, err)
			step := t.step(randomIDs(16, 64, t.m.Config().Vocab, 7))
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
