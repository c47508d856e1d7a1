package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/core/chat"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/train"
)

// builtinDialogues stands for the built-in dialogues in --data and --dev.
const builtinDialogues = "builtin:dialogues"

// dialoguesOf reads dialogues when that is what the file holds: JSONL with messages; nil when it holds something else.
func (t *tuneFlags) dialoguesOf(a *app, file, rows, part string) ([][]data.Message, error) {
	if file == builtinDialogues {
		train, test := builtin.Dialogues()
		if part == "test" {
			train = test
		}
		var out [][]data.Message
		for _, d := range train {
			var turns []data.Message
			for _, m := range d.Messages {
				turns = append(turns, data.Message{Role: m.Role, Content: m.Content})
			}
			out = append(out, turns)
		}
		return out, nil
	}
	if t.format != "jsonl" && !strings.HasSuffix(strings.TrimSuffix(file, ".gz"), ".jsonl") {
		return nil, nil
	}
	set, err := t.open(a, file, rows, true)
	if err != nil {
		return nil, err
	}
	return set.Messages, nil
}

// dialogues reads --data and --dev when BASE is a decoder and they hold dialogues; train is nil otherwise.
func (t *tuneFlags) dialogues(a *app, cmd *cobra.Command, base string) (path string, train, dev [][]data.Message, err error) {
	if a.named(base) || t.file == "-" {
		return "", nil, nil, nil
	}
	if path, err = a.modelPath(cmd, base); err != nil {
		return "", nil, nil, err
	}
	decoder, err := isDecoder(path)
	if err != nil || !decoder {
		return "", nil, nil, nil // the ordinary way says what is wrong
	}
	if train, err = t.dialoguesOf(a, t.file, t.rows, "train"); err != nil {
		return "", nil, nil, err
	}
	if train == nil {
		if strings.HasSuffix(path, ".gguf") {
			return "", nil, nil, fmt.Errorf("%s: a GGUF decoder is tuned on dialogues: JSONL with \"messages\", got %s", path, t.file)
		}
		return "", nil, nil, nil
	}
	if t.dev != "" {
		if dev, err = t.dialoguesOf(a, t.dev, "", "test"); err == nil && dev == nil {
			err = fmt.Errorf("%s: expected JSONL with messages", t.dev)
		}
	}
	return path, train, dev, err
}

// tuneCausal trains an adapter on dialogues.
func (t *tuneFlags) tuneCausal(a *app, cmd *cobra.Command, path string, talks, held [][]data.Message) error {
	if t.shots > 0 {
		return usagef("--shots is for labelled texts: dialogues have no labels; use --rows")
	}
	if t.o.Method == "full" && !cmd.Flags().Changed("method") {
		t.o.Method = "qlora"
	}
	if t.o.Method == "full" || t.o.Method == "head" {
		return usagef("--method %s: dialogues are learnt by an adapter: qlora, lora, dora, ia3 and so on", t.o.Method)
	}
	d, err := generate.Open(path, generate.OpenOptions{})
	if err != nil {
		return err
	}
	defer d.Close()
	k, err := a.backend()
	if err != nil {
		return err
	}
	limit := t.o.MaxTokens
	if limit <= 0 {
		limit = 512
	}
	encode := func(file string, talks [][]data.Message) ([]train.Example, error) {
		var out []train.Example
		for i, turns := range talks {
			var ms []chat.Message
			for _, m := range turns {
				ms = append(ms, chat.Message{Role: m.Role, Content: m.Content})
			}
			ids, targets, err := d.Dialogue(ms, limit)
			if err != nil {
				return nil, fmt.Errorf("%s: dialogue %d: %w", file, i+1, err)
			}
			out = append(out, train.Example{IDs: ids, Targets: targets})
		}
		return out, nil
	}
	base, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	c := train.CausalOptions{Model: d.Model, Base: base, Kernels: k, Method: t.o.Method, Epochs: t.o.Epochs, Batch: t.o.Batch, Accumulate: t.o.Accumulate,
		LR: t.o.LR, WeightDecay: t.o.WeightDecay, Warmup: t.o.Warmup, Schedule: t.o.Schedule, NoDropout: t.o.NoDropout, Recompute: t.o.Recompute,
		Layers: t.layers, CacheBytes: t.cacheBytes(),
		Seed: a.seed, Out: t.out, SaveSteps: t.o.SaveSteps, SaveEvery: t.saveEvery, Resume: t.resume}
	if c.Train, err = encode(t.file, talks); err != nil {
		return err
	}
	if c.Dev, err = encode(t.dev, held); err != nil {
		return err
	}
	if c.Adapter, err = t.adapter(); err != nil {
		return err
	}
	if c.BaseType, err = t.storage(); err != nil {
		return err
	}
	progress, done := a.watch("tuning")
	c.Progress = progress
	r, err := train.TuneCausal(cmd.Context(), c)
	done()
	if err != nil {
		if errors.Is(err, cmd.Context().Err()) {
			return a.interrupted(cmd.Context(), err, t.out)
		}
		return err
	}
	if err := addCost(path, t.out, ledgerStep{Step: "tune", Method: r.Method, Seconds: r.Seconds, Cost: r.Cost}); err != nil {
		return err
	}
	return a.result(r, func(w io.Writer) error {
		tw := newTable(w, "", "")
		tw.AppendRow([]any{"method", r.Method})
		tw.AppendRow([]any{"trained parameters", fmt.Sprintf("%s of %s", humanize.Comma(int64(r.Trainable)), humanize.Comma(int64(r.Total)))})
		tw.AppendRow([]any{"steps", r.Steps})
		tw.AppendRow([]any{"training loss", fmt.Sprintf("%.4f", r.Loss)})
		if r.Dev != nil {
			tw.AppendRow([]any{"held-out perplexity", fmt.Sprintf("%.2f, before %.2f", r.Dev.After, r.Dev.Before)})
		}
		tw.AppendRow([]any{"time", seconds(r.Seconds)})
		tw.AppendRow([]any{"tokens per second", humanize.Comma(int64(r.TokensPerSecond))})
		tw.AppendRow([]any{"peak memory", humanize.IBytes(uint64(max(0, r.PeakRSS)))})
		tw.AppendRow([]any{"cost (estimate)", money(r.Cost)})
		tw.Render()
		_, err := fmt.Fprintf(w, "\nwrote %s: temper chat %s --adapter %s\n", t.out, path, t.out)
		return err
	})
}
