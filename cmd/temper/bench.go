package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/quant"
)

// benchResult is the contract of temper bench.
type benchResult struct {
	Milliseconds struct {
		Min    float64 `json:"min"`
		Median float64 `json:"median"`
	} `json:"milliseconds"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	GFLOPS          float64 `json:"gflops"`
	Threads         int     `json:"threads"`
	Level           string  `json:"level"`
	Batch           int     `json:"batch"`
	Sequence        int     `json:"seq"`
	Type            string  `json:"type"`
}

func (a *app) benchCmd() *cobra.Command {
	var batch, seq, runs int
	var kind string
	cmd := &cobra.Command{
		Use:     "bench MODEL",
		Short:   "Time a model's forward pass on this machine",
		Example: "  temper bench minilm/ --batch 8 --seq 64 --threads 1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if batch < 1 || seq < 1 || runs < 1 {
				return usagef("--batch %d --seq %d --runs %d: want 1 or more", batch, seq, runs)
			}
			if !slices.Contains([]string{"f32", "bf16", "int8"}, kind) {
				return usagef("--type %q: want f32, bf16 or int8", kind)
			}
			a.bf16 = kind == "bf16"
			b, err := a.openBundle(cmd, args[0], peft.OpenOptions{})
			if err != nil {
				return err
			}
			defer b.Close()
			k, err := a.backend()
			if err != nil {
				return err
			}
			if b.MaxTokens > 0 && seq > b.MaxTokens {
				return usagef("--seq %d: the model takes at most %d tokens", seq, b.MaxTokens)
			}
			if kind == "int8" {
				if err := quant.Int8Model(b.Model, quant.Options{Threads: k.Threads()}); err != nil {
					return err
				}
			}
			in := randomBatch(b.Model.Config().Vocab, batch, seq)
			var arena grad.Arena
			var times []float64
			for i := -2; i < runs; i++ {
				if err := cmd.Context().Err(); err != nil {
					return err
				}
				arena.Reset()
				start := time.Now()
				if _, err := b.Model.Forward(grad.Infer(k, &arena), in); err != nil {
					return err
				}
				if i >= 0 {
					times = append(times, time.Since(start).Seconds()*1000)
				}
			}
			slices.Sort(times)
			r := benchResult{Threads: k.Threads(), Level: k.Level(), Batch: batch, Sequence: seq, Type: kind}
			r.Milliseconds.Min, r.Milliseconds.Median = times[0], times[len(times)/2]
			r.TokensPerSecond = float64(batch*seq) / times[0] * 1000
			r.GFLOPS = forwardFLOPs(b.Model, batch, seq) / times[0] / 1e6
			return a.result(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%d x %d tokens, %s, %d threads: best %.2f ms, median %.2f ms, %.0f tokens/s, %.1f GFLOP/s\n",
					batch, seq, r.Level, r.Threads, r.Milliseconds.Min, r.Milliseconds.Median, r.TokensPerSecond, r.GFLOPS)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&batch, "batch", 1, "sequences")
	f.IntVar(&seq, "seq", 128, "tokens a sequence")
	f.StringVar(&kind, "type", "f32", "f32 (as stored), bf16 or int8 products")
	f.IntVar(&runs, "runs", 20, "timed runs, after two warm-ups")
	return cmd
}

func randomBatch(vocab, batch, seq int) *model.Batch {
	rng := rand.New(rand.NewPCG(1, 2))
	b := &model.Batch{Offsets: make([]int32, 1, batch+1)}
	for range batch {
		for range seq {
			b.IDs = append(b.IDs, rng.Int32N(int32(vocab)))
		}
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
	}
	return b
}

// forwardFLOPs counts multiply-adds of the linear layers, twice, and of attention (scores and sums: 4·seq·hidden a token and layer).
func forwardFLOPs(m model.Model, batch, seq int) float64 {
	weights := 0.0
	for _, l := range m.Linears() {
		weights += float64(l.In) * float64(l.Out)
	}
	c := m.Config()
	tokens := float64(batch * seq)
	return tokens * (2*weights + 4*float64(seq)*float64(c.Hidden)*float64(c.Layers))
}
