package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/generate"
)

// textFlags are those of temper eval --text.
type textFlags struct {
	file            string
	context, stride int
	base            string
	adapters        []string
}

func (f *textFlags) add(cmd *cobra.Command) {
	g := cmd.Flags()
	g.StringVar(&f.file, "text", "", "plain text: measure the perplexity of a decoder")
	g.IntVar(&f.context, "context", 0, "with --text: tokens of a window (default: 1024, or what the model takes if that is less)")
	g.IntVar(&f.stride, "stride", 0, "with --text: tokens that a window scores (default: half of it)")
	g.StringArrayVar(&f.adapters, "adapter", nil, "with --text: folder of a PEFT adapter over the decoder (repeatable: LoRA adapters add up)")
	g.StringVar(&f.base, "base", "", "with --text: base model of a PEFT folder")
}

// perplexityResult is the contract of temper eval on plain text.
type perplexityResult struct {
	generate.Perplexity
	Seconds         float64 `json:"seconds"`
	TokensPerSecond float64 `json:"tokens_per_second"`
}

func (a *app) perplexity(cmd *cobra.Command, ref string, f *textFlags) error {
	if f.context < 0 || f.stride < 0 {
		return usagef("--context %d --stride %d: want 0 (the default) or more", f.context, f.stride)
	}
	raw, err := readLimited(f.file)
	if err != nil {
		return err
	}
	path, err := a.decoderPath(cmd, ref)
	if err != nil {
		return err
	}
	d, err := a.openDecoder(path, generate.OpenOptions{Base: f.base, Adapters: f.adapters})
	if err != nil {
		return err
	}
	defer d.Close()
	k, err := a.backend()
	if err != nil {
		return err
	}
	r, err := a.measureText(cmd, d, f, string(raw), func() (*generate.Scorer, error) { return generate.NewScorer(d.Model, k) })
	if err != nil {
		return fmt.Errorf("%s: %w", f.file, err)
	}
	return a.result(r, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "perplexity %.3f, %.4f bits per byte, %d tokens in windows of %d in %s (%.0f tokens/s)\n",
			r.Perplexity.Perplexity, r.BitsByte, r.Tokens, r.Context, seconds(r.Seconds), r.TokensPerSecond)
		return err
	})
}

func (a *app) measureText(cmd *cobra.Command, d *generate.Decoder, f *textFlags, text string, scorer func() (*generate.Scorer, error)) (*perplexityResult, error) {
	window, stride := f.context, f.stride
	most := d.Model.Config().MaxPositions
	if window == 0 {
		window = 1024
		if most > 0 {
			window = min(window, most)
		}
	}
	if most > 0 && window > most {
		return nil, usagef("--context %d: the model takes at most %d", window, most)
	}
	if stride == 0 {
		stride = max(window/2, 1)
	}
	s, err := scorer()
	if err != nil {
		return nil, err
	}
	adapter, err := d.Together()
	if err != nil {
		return nil, err
	}
	if err := d.Use(adapter); err != nil {
		return nil, err
	}
	start := time.Now()
	bar := a.progress("perplexity", -1)
	defer bar.done()
	p, err := s.Text(cmd.Context(), d.Tokenizer.AppendPlainIDs(nil, text), d.BOS(), len(text), window, stride, func(done, total int) { bar.set(done, total, "tokens") })
	if err != nil {
		return nil, err
	}
	sec := time.Since(start).Seconds()
	return &perplexityResult{p, sec, rate(p.Tokens, sec)}, nil
}
