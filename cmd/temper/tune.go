package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/train"
)

// tuneFlags are shared by tune and harden.
type tuneFlags struct {
	dtype string
	dataFlags
	dev       string
	out       string
	shots     int
	o         train.Options
	rank      int
	alpha     float64
	targets   []string
	layers    string
	baseType  string
	cache     float64
	resume    bool
	smoothing float64
	saveEvery time.Duration
}

func (t *tuneFlags) add(cmd *cobra.Command, method string) {
	t.dataFlags.add(cmd, true)
	f := cmd.Flags()
	f.StringVar(&t.dev, "dev", "", "labelled texts to evaluate on while training")
	f.StringVarP(&t.out, "out", "o", "", "folder to write")
	_ = cmd.MarkFlagRequired("out")
	f.IntVar(&t.shots, "shots", 0, "train on this many examples per label, drawn by --seed")
	f.StringVar(&t.o.Method, method, "full", "what is trained: "+strings.Join(train.Methods(), ", "))
	f.IntVar(&t.o.Freeze, "freeze", 0, "with full: 1 freezes the embeddings, each further one a block")
	f.IntVar(&t.o.Epochs, "epochs", 0, "passes over the data (default 3)")
	f.IntVar(&t.o.Batch, "batch", 0, "examples a step (default 32)")
	f.IntVar(&t.o.Accumulate, "accumulate", 0, "batches a step, to save memory (default 1)")
	f.Float64Var(&t.o.LR, "lr", 0, "learning rate (default by method: 2e-5 full, 5e-4 lora)")
	f.Float64Var(&t.o.WeightDecay, "weight-decay", 0, "decoupled weight decay (default 0.01; negative: none)")
	f.Float64Var(&t.o.Warmup, "warmup", 0, "share of the steps, or number of steps, of linear warm-up (default 0.1)")
	f.StringVar(&t.o.Schedule, "schedule", "", "linear, cosine, constant or wsd (default linear)")
	f.StringVar(&t.o.Optimizer, "optimizer", "", "adamw or sgd (default adamw)")
	f.IntVar(&t.o.MaxTokens, "max-tokens", 0, "texts are cut at this many tokens (default 128)")
	f.BoolVar(&t.o.NoDropout, "no-dropout", false, "train without dropout")
	f.BoolVar(&t.o.Recompute, "checkpointing", false, "save memory: keep the input of each block alone and compute it twice")
	f.BoolVar(&t.o.Recompute, "recompute", false, "the same as --checkpointing")
	f.Float64Var(&t.cache, "cache", float64(train.DefaultCacheBytes>>20), "MiB for the states of frozen layers below the first trained one, computed once per text where dropout is off (0: none)")
	f.BoolVar(&t.o.Balance, "balance", false, "weigh labels by the inverse of their frequency")
	f.Float64Var(&t.smoothing, "label-smoothing", 0, "mix targets with the uniform distribution")
	f.Float64Var(&t.o.C, "c", 0, "with head: inverse regularisation strength (default 10)")
	f.IntVar(&t.rank, "r", 0, "rank of the adapter")
	f.Float64Var(&t.alpha, "alpha", 0, "scale of the adapter (lora_alpha)")
	f.StringSliceVar(&t.targets, "target-modules", nil, "linear layers that get the adapter, by name")
	f.StringVar(&t.baseType, "base-type", "", "with qlora: how the frozen base is stored, q8_0, q4_0, q4_k and so on (default q8_0)")
	f.StringVar(&t.layers, "layers", "", "blocks that get the adapter: last:2, first:2, or numbers from 0 such as 3,5 (default: all)")
	f.IntVar(&t.o.EvalSteps, "eval-steps", 0, "steps between evaluations on --dev (default: each epoch)")
	f.IntVar(&t.o.Patience, "patience", 0, "stop after this many evaluations without improvement, keep the best (0: never)")
	f.DurationVar(&t.saveEvery, "save-every", 0, "time between checkpoints (default 1m; negative: none)")
	f.IntVar(&t.o.SaveSteps, "save-steps", 0, "steps between checkpoints, beside --save-every")
	f.StringVar(&t.dtype, "dtype", "f32", "f32, or bf16: products of bfloat16 with float32 sums, where the CPU has them")
	f.BoolVar(&t.resume, "resume", false, "go on from the last checkpoint in the folder to write")
}

// prepare fills train.Options from the flags and reads the data.
func (t *tuneFlags) prepare(a *app, cmd *cobra.Command, base string) (train.Options, error) {
	o := t.o
	if !slices.Contains(train.Methods(), o.Method) {
		return o, usagef("method %q: expected one of %s", o.Method, strings.Join(train.Methods(), ", "))
	}
	switch t.dtype {
	case "", "f32":
	case "bf16":
		a.bf16 = true
		o.Extra += " bf16"
	default:
		return o, usagef("--dtype %q: want f32 or bf16", t.dtype)
	}
	if o.Schedule != "" && !slices.Contains(train.Schedules, o.Schedule) {
		return o, usagef("--schedule %q: want one of %s", o.Schedule, strings.Join(train.Schedules, ", "))
	}
	if o.Optimizer != "" && o.Optimizer != "adamw" && o.Optimizer != "sgd" {
		return o, usagef("--optimizer %q: want adamw or sgd", o.Optimizer)
	}
	if t.smoothing >= 1 {
		return o, usagef("--label-smoothing %g: want 0 or more, below 1", t.smoothing)
	}
	if !a.named(base) {
		path, err := a.modelPath(cmd, base)
		if err != nil {
			return o, err
		}
		o.Base = path
	} else {
		f, err := a.builtin(base)
		if err != nil {
			return o, err
		}
		o.Base, o.Folder = base, f
	}
	var err error
	if o.Train, err = t.open(a, t.file, t.rows, false); err != nil {
		return o, err
	}
	if t.shots > 0 {
		if o.Train, err = o.Train.Shots(t.shots, a.seed); err != nil {
			return o, err
		}
	}
	if t.dev != "" {
		if o.Dev, err = t.open(a, t.dev, "", false); err != nil {
			return o, err
		}
	}
	if o.Adapter, err = t.adapter(); err != nil {
		return o, err
	}
	if o.BaseType, err = t.storage(); err != nil {
		return o, err
	}
	o.Layers, o.CacheBytes = t.layers, t.cacheBytes()
	o.Loss.Smoothing = t.smoothing
	o.Seed, o.Out, o.Resume, o.SaveEvery, o.Rates = a.seed, t.out, t.resume, t.saveEvery, a.rates()
	o.Kernels, err = a.backend()
	return o, err
}

// adapter is the peft method with the settings that the flags change; nil when they change none.
func (t *tuneFlags) adapter() (*peft.Config, error) {
	if t.layers != "" && (t.o.Method == "full" || t.o.Method == "head") {
		return nil, usagef("--layers is for adapters: full takes --freeze")
	}
	if t.o.Method == "full" || t.o.Method == "head" || t.rank == 0 && t.alpha == 0 && len(t.targets) == 0 {
		return nil, nil
	}
	name := t.o.Method
	if name == "qlora" {
		name = "lora"
	}
	cfg, err := peft.Method(name)
	if err != nil {
		return nil, usageError{err}
	}
	if t.rank > 0 {
		cfg.R = t.rank
		if t.alpha == 0 {
			cfg.Alpha = 2 * float64(t.rank)
		}
	}
	if t.alpha > 0 {
		cfg.Alpha = t.alpha
	}
	if len(t.targets) > 0 {
		cfg.Targets = peft.Names(t.targets...)
	}
	return &cfg, nil
}

// storage reads --base-type.
func (t *tuneFlags) storage() (tensor.DType, error) {
	if t.baseType == "" {
		return tensor.Invalid, nil
	}
	if t.o.Method != "qlora" {
		return tensor.Invalid, usagef("--base-type %s: the base is quantized by --method qlora, not %s", t.baseType, t.o.Method)
	}
	d, err := tensor.ParseDType(t.baseType)
	if err != nil || !d.Quantized() || d == tensor.Q8Row {
		return tensor.Invalid, usagef("--base-type %q: want a block type: q8_0, q4_0, q4_k and so on", t.baseType)
	}
	return d, nil
}

// cacheBytes is the bound for states of frozen layers as train.Options wants it.
func (t *tuneFlags) cacheBytes() int64 {
	if t.cache <= 0 {
		return -1
	}
	return int64(t.cache * (1 << 20))
}

// watch shows the steps of a run.
func (a *app) watch(what string) (func(train.Progress), func()) {
	p := a.progress(what, -1)
	return func(s train.Progress) {
		note := fmt.Sprintf("loss %.4f, %s tokens/s", s.Loss, strings.TrimSpace(humanize.SIWithDigits(s.TokensPerSecond, 1, "")))
		if s.Dev != nil {
			note += fmt.Sprintf(", dev accuracy %.4f", s.Dev.Accuracy)
		}
		p.set(s.Step, s.Steps, note)
	}, p.done
}

func (a *app) tuneCmd() *cobra.Command {
	var t tuneFlags
	cmd := &cobra.Command{
		Use:   "tune BASE --data FILE -o DIR",
		Short: "Tune a model on labelled texts",
		Long: "tune trains a classifier on labelled texts, from BASE: a Hugging Face folder, a hub reference or a built-in name. full and head write a\n" +
			"Hugging Face folder, the parameter-efficient methods a PEFT adapter folder; both load in transformers and peft.",
		Example: "  temper tune minilm/ --data train.tsv --dev dev.tsv --method lora -o out/\n  temper tune minilm/ --data train.tsv --method head --shots 16 -o out/",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if path, talks, held, err := t.dialogues(a, cmd, args[0]); err != nil {
				return err
			} else if talks != nil {
				return t.tuneCausal(a, cmd, path, talks, held)
			}
			o, err := t.prepare(a, cmd, args[0])
			if err != nil {
				return err
			}
			var done func()
			o.Progress, done = a.watch("tuning")
			r, err := train.Run(cmd.Context(), o)
			done()
			if err != nil {
				return a.interrupted(cmd.Context(), err, t.out)
			}
			defer r.Bundle.Close()
			if err := addCost(o.Base, t.out, ledgerStep{Step: "tune", Method: r.Method, Seconds: r.Seconds, Cost: r.Cost}); err != nil {
				return err
			}
			a.hint(r.Dev)
			return a.result(r, func(w io.Writer) error { return a.printTuned(w, r, t.out) })
		},
	}
	t.add(cmd, "method")
	return cmd
}

// interrupted says what a stop has kept.
func (a *app) interrupted(ctx context.Context, err error, out string) error {
	if ctx.Err() != nil {
		a.logf("stopped; the last checkpoint is in %s: run the same command with --resume to go on", out)
		return ctx.Err()
	}
	return err
}

func (a *app) printTuned(w io.Writer, r *train.Result, out string) error {
	tw := newTable(w, "", "")
	tw.AppendRow([]any{"method", r.Method})
	tw.AppendRow([]any{"trained parameters", fmt.Sprintf("%s of %s", humanize.Comma(int64(r.Trainable)), humanize.Comma(int64(r.Total)))})
	tw.AppendRow([]any{"steps", r.Steps})
	tw.AppendRow([]any{"training loss", fmt.Sprintf("%.4f", r.Loss)})
	if r.Dev != nil {
		tw.AppendRow([]any{"dev accuracy", percent(r.Dev.Accuracy)})
		tw.AppendRow([]any{"dev macro-F1", percent(r.Dev.MacroF1)})
	}
	tw.AppendRow([]any{"time", seconds(r.Seconds)})
	tw.AppendRow([]any{"tokens per second", humanize.Comma(int64(r.TokensPerSecond))})
	tw.AppendRow([]any{"peak memory", humanize.IBytes(uint64(max(0, r.PeakRSS)))})
	tw.AppendRow([]any{"cost (estimate)", money(r.Cost)})
	tw.Render()
	_, err := fmt.Fprintf(w, "\nwrote %s\n", out)
	return err
}

// hint tells of a model that has learnt nothing: adapters at their usual rate take some hundred steps to begin.
func (a *app) hint(dev *train.Scores) {
	if dev == nil {
		return
	}
	if label := dev.Constant(); label != "" {
		a.logf("the model says %q of every text of --dev: it has learnt nothing yet; try more --epochs, a greater --lr or a smaller --batch", label)
	}
}

// money prints a cost, small ones in cents' fractions.
func money(c train.Cost) string {
	return fmt.Sprintf("%.4f %s, %.0f J, %.0f CPU s", c.Money, c.Currency, c.Joules, c.CPUSeconds)
}

// labelled reads a test set and matches its labels to a model's.
func labelled(a *app, d *dataFlags, labels []string) (*data.Dataset, error) {
	set, err := d.open(a, d.file, d.rows, false)
	if err != nil {
		return nil, err
	}
	return set, set.MapLabels(labels)
}
