package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/pretrain"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
)

// Files in a folder that pretrain wrote: the course of the run, and a picture of it.
const (
	trainingLog = "training_log.json"
	lossPlot    = "loss.svg"
)

// pretrainFlags are those of temper pretrain.
type pretrainFlags struct {
	o                       pretrain.Options
	shape                   pretrain.Shape
	text, held              []string
	split                   string
	columns                 dataFlags
	tokenizer, config, from string
	base                    string // where --init was found
	vocab                   int
	lower                   bool
	dtype, store, mask      string
}

func (a *app) pretrainCmd() *cobra.Command {
	var p pretrainFlags
	cmd := &cobra.Command{
		Use:   "pretrain --data FILE --family bert|llama -o DIR",
		Short: "Train a language model from plain text",
		Long: "pretrain learns a vocabulary and a network from plain text: a masked language model (an encoder, --family bert) or a causal one (a decoder,\n" +
			"--family llama), or whatever --config describes. Text is tokenized once to disk and read from there in random order, so that it may be of any\n" +
			"size. A run that was killed goes on with --resume and ends with the same bits.\n\n" +
			"Documents are cut at blank lines, at every line (--split line) or at the ends of files (--split file); a line <|endoftext|> always ends one.",
		Example: "  temper pretrain --data stories.txt --eval held.txt --family llama --tokenizer bpe --vocab-size 2048 --epochs 4 -o stories/\n" +
			"  temper pretrain --data corpus.txt --family bert --mask span --dtype bf16 --schedule wsd -o base/",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.prepare(a, cmd); err != nil {
				return err
			}
			watch, done := a.watch("pretraining")
			p.o.Progress = watch
			p.o.Measured = func(e pretrain.Eval) { a.logf("step %d: held-out %s", e.Step, describe(e)) }
			r, err := pretrain.Run(cmd.Context(), p.o)
			done()
			if err != nil {
				return a.interrupted(cmd.Context(), err, p.o.Out)
			}
			if err := addCost(p.base, p.o.Out, ledgerStep{Step: "pretrain", Method: r.Objective, Seconds: r.Seconds, Cost: r.Cost}); err != nil {
				return err
			}
			return a.result(r, func(w io.Writer) error {
				tw := newTable(w, "", "")
				tw.AppendRow([]any{"objective", r.Objective})
				tw.AppendRow([]any{"parameters", humanize.Comma(int64(r.Parameters))})
				tw.AppendRow([]any{"text", fmt.Sprintf("%s tokens, %s bytes, %s documents", humanize.Comma(r.Text.Tokens), humanize.Comma(r.Text.Bytes), humanize.Comma(r.Text.Documents))})
				if r.Text.Dropped > 0 {
					tw.AppendRow([]any{"left out, as it repeats held-out text", fmt.Sprintf("%s documents", humanize.Comma(r.Text.Dropped))})
				}
				tw.AppendRow([]any{"steps", fmt.Sprintf("%d (%.2f epochs)", r.Steps, r.Epochs)})
				tw.AppendRow([]any{"training loss", fmt.Sprintf("%.4f", r.Loss)})
				if r.Held != nil {
					tw.AppendRow([]any{"held-out", describe(*r.Held)})
				}
				tw.AppendRow([]any{"time", seconds(r.Seconds)})
				tw.AppendRow([]any{"tokens per second", humanize.Comma(int64(r.TokensPerSecond))})
				tw.AppendRow([]any{"peak memory", humanize.IBytes(uint64(max(0, r.PeakRSS)))})
				tw.AppendRow([]any{"cost (estimate)", money(r.Cost)})
				tw.Render()
				_, err := fmt.Fprintf(w, "\nwrote %s\n", p.o.Out)
				return err
			})
		},
	}
	p.add(cmd)
	return cmd
}

func describe(e pretrain.Eval) string {
	s := fmt.Sprintf("loss %.4f, perplexity %.2f", e.Loss, e.Perplexity)
	if e.BitsPerByte > 0 {
		s += fmt.Sprintf(", %.4f bits per byte", e.BitsPerByte)
	}
	return s
}

func (p *pretrainFlags) add(cmd *cobra.Command) {
	f, o, s := cmd.Flags(), &p.o, &p.shape
	f.StringArrayVar(&p.text, "data", nil, "text to learn from (may be repeated): plain text, or the texts of .csv, .tsv, .jsonl, .parquet")
	_ = cmd.MarkFlagRequired("data")
	f.StringArrayVar(&p.held, "eval", nil, "text to measure on (may be repeated); documents of --data that repeat it are left out")
	f.StringVar(&p.split, "split", pretrain.ByBlankLine, "what ends a document of plain text: blank, line or file")
	p.columns.columns(cmd)
	f.StringVarP(&o.Out, "out", "o", "", "folder to write")
	_ = cmd.MarkFlagRequired("out")
	f.StringVar(&p.tokenizer, "tokenizer", "", "wordpiece, bpe or unigram: learn it from the text; or a tokenizer.json or a model folder (default: wordpiece for bert, bpe for llama)")
	f.IntVar(&p.vocab, "vocab-size", 8000, "tokens of a vocabulary to learn")
	f.BoolVar(&p.lower, "lowercase", false, "a learnt vocabulary folds case")
	f.StringVar(&p.config, "config", "", "config.json of the network (default: by the flags below)")
	f.StringVar(&s.Family, "family", "", "bert (masked) or llama (causal)")
	f.IntVar(&s.Hidden, "hidden", 192, "width")
	f.IntVar(&s.Layers, "layers", 4, "blocks")
	f.IntVar(&s.Heads, "heads", 6, "attention heads")
	f.IntVar(&s.KVHeads, "kv-heads", 0, "heads of keys and values (default: as --heads)")
	f.IntVar(&s.FFN, "ffn", 512, "width of the feed-forward layers")
	f.IntVar(&s.Context, "context", 256, "longest text in tokens")
	f.BoolVar(&s.Untied, "untied", false, "the output layer has weights of its own, not those of the word table")
	f.StringVar(&p.from, "init", "", "model folder whose weights to start from")
	f.StringVar(&p.mask, "mask", "word", "masked models: hide whole words (word), runs of words (span) or single pieces (piece)")
	f.Float64Var(&o.Masking.Share, "mask-share", 0.15, "masked models: share of the tokens to hide")
	f.IntVar(&o.Length, "length", 0, "tokens of a row (default: 256, or --context if that is less)")
	f.IntVar(&o.Batch, "batch", 16, "rows of a micro-batch")
	f.IntVar(&o.Accumulate, "accumulate", 1, "micro-batches of a step")
	f.Float64Var(&o.Epochs, "epochs", 1, "passes over the text")
	f.IntVar(&o.Steps, "steps", 0, "optimiser steps, in place of --epochs")
	f.IntVar(&o.StopAfter, "stop-after", 0, "write the model after this many of the steps, in the middle of the schedule: to go on with --init")
	f.Float64Var(&o.LR, "lr", 1e-3, "peak learning rate")
	f.Float64Var(&o.MinLR, "min-lr", 0.1, "share of the rate that is left at the end")
	f.Float64Var(&o.Warmup, "warmup", 0.02, "warm-up: steps, or a share of them below 1")
	f.StringVar(&o.Schedule, "schedule", "cosine", strings.Join(train.Schedules, ", ")+" (wsd: warm-up, stable, decay)")
	f.Float64Var(&o.Decay, "decay", 0.2, "last phase of wsd: steps, or a share of them below 1")
	f.Float64Var(&o.WeightDecay, "weight-decay", 0.1, "decoupled weight decay")
	f.Float64Var(&o.Beta2, "beta2", 0.95, "decay of AdamW's second moment")
	f.Float64Var(&o.Clip, "clip", 1, "largest gradient norm (negative: none)")
	f.Float64Var(&o.Dropout, "dropout", -1, "dropout of embeddings, branches and attention (default: what the config says)")
	f.StringVar(&p.dtype, "dtype", "f32", "f32, or bf16: products of bfloat16 with float32 sums, where the CPU has them")
	f.StringVar(&p.store, "store", "f32", "element type of the written weights: f32 or bf16")
	f.IntVar(&o.EvalSteps, "eval-steps", 0, "steps between measurements on --eval (default: a twentieth of the run)")
	f.IntVar(&o.SaveSteps, "save-steps", 0, "steps between checkpoints (beside one each minute)")
	f.BoolVar(&o.Resume, "resume", false, "go on from the last checkpoint in the folder to write")
}

// prepare turns flags into options: reads tables, learns the vocabulary, writes the config.
func (p *pretrainFlags) prepare(a *app, cmd *cobra.Command) (err error) {
	o := &p.o
	if !slices.Contains([]string{pretrain.ByBlankLine, pretrain.ByLine, pretrain.ByFile}, p.split) {
		return usagef("--split %q: want blank, line or file", p.split)
	}
	switch p.mask {
	case "word":
	case "span":
		o.Masking.Span = true
	case "piece":
		o.Masking.Pieces = true
	default:
		return usagef("--mask %q: want word, span or piece", p.mask)
	}
	switch p.dtype {
	case "f32":
	case "bf16":
		a.bf16, o.Extra = true, "bf16"
	default:
		return usagef("--dtype %q: want f32 or bf16", p.dtype)
	}
	switch p.store {
	case "f32":
		o.Store = tensor.F32
	case "bf16":
		o.Store = tensor.BF16
	default:
		return usagef("--store %q: want f32 or bf16", p.store)
	}
	for name, v := range map[string]int{"vocab-size": p.vocab, "hidden": p.shape.Hidden, "layers": p.shape.Layers, "heads": p.shape.Heads, "ffn": p.shape.FFN,
		"context": p.shape.Context, "batch": o.Batch, "accumulate": o.Accumulate} {
		if v < 1 {
			return usagef("--%s %d: want 1 or more", name, v)
		}
	}
	switch {
	case p.config != "" || p.shape.Family == "bert" || p.shape.Family == "llama":
	case p.shape.Family == "":
		return usagef("give --family bert or llama, or --config")
	default:
		return usagef("--family %q: want bert or llama, or give --config", p.shape.Family)
	}
	if o.Text, err = p.texts(a, p.text); err != nil {
		return err
	}
	if o.Held, err = p.texts(a, p.held); err != nil {
		return err
	}
	masked := p.shape.Family == "bert"
	if p.config != "" {
		if o.Config, err = os.ReadFile(p.config); err != nil {
			return err
		}
		var c struct {
			Architectures []string `json:"architectures"`
		}
		if err := json.Unmarshal(o.Config, &c); err != nil {
			return fmt.Errorf("%s: %w", p.config, err)
		}
		masked = !slices.ContainsFunc(c.Architectures, func(s string) bool { return strings.Contains(s, "Causal") || strings.Contains(s, "LMHead") })
	}
	if o.Tokenizer, err = p.vocabulary(a, cmd, masked); err != nil {
		return err
	}
	if p.config == "" {
		t, err := token.Load(o.Tokenizer)
		if err != nil {
			return err
		}
		if o.Config, err = p.shape.Config(t); err != nil {
			return usageError{err}
		}
	}
	if p.from != "" {
		path, err := a.decoderPath(cmd, p.from)
		if err != nil {
			return err
		}
		p.base = path
		f, err := a.openFolder(cmd, p.from)
		if err != nil {
			return err
		}
		if o.Init, err = f.Source(); err != nil {
			return err
		}
		o.InitName = filepath.Base(path)
	}
	o.Seed, o.Rates = a.seed, a.rates()
	if o.Kernels, err = a.backend(); err != nil {
		return err
	}
	o.More = func(w *checkpoint.FolderWriter, r *pretrain.Result) error {
		raw, err := json.MarshalIndent(r.Log, "", " ")
		if err != nil {
			return err
		}
		if err := w.File(trainingLog, append(raw, '\n')); err != nil {
			return err
		}
		svg, err := r.Log.SVG(fmt.Sprintf("%s language model, %s parameters", r.Objective, humanize.Comma(int64(r.Parameters))))
		if err != nil {
			return err
		}
		return w.File(lossPlot, svg)
	}
	return nil
}

// texts tells plain text, which is streamed, from tables.
func (p *pretrainFlags) texts(a *app, files []string) (pretrain.Texts, error) {
	t := pretrain.Texts{Split: p.split}
	for _, file := range files {
		switch ext := strings.ToLower(filepath.Ext(file)); {
		case p.columns.format != "" && p.columns.format != "txt", ext == ".csv", ext == ".tsv", ext == ".jsonl", ext == ".parquet":
			set, err := p.columns.open(a, file, "", true)
			if err != nil {
				return t, err
			}
			t.Rows = append(t.Rows, textsOf(set)...)
		default:
			t.Files = append(t.Files, file)
		}
	}
	return t, nil
}

// vocabulary learns a tokenizer or reads one. A learnt one stands in the checkpoint folder too, so that resuming need not learn it again.
func (p *pretrainFlags) vocabulary(a *app, cmd *cobra.Command, masked bool) ([]byte, error) {
	kind := p.tokenizer
	if kind == "" {
		if kind = "bpe"; masked {
			kind = "wordpiece"
		}
	}
	if !slices.Contains(pretrain.Tokenizers, kind) {
		if st, err := os.Stat(kind); err == nil && !st.IsDir() {
			return os.ReadFile(kind)
		}
		path, err := a.modelPath(cmd, kind)
		if err != nil {
			return nil, err
		}
		f, err := checkpoint.OpenFolder(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return f.File(checkpoint.TokenizerFile)
	}
	kept := filepath.Join(p.o.Out, train.CheckpointDir, checkpoint.TokenizerFile)
	if p.o.Resume {
		if raw, err := os.ReadFile(kept); err == nil {
			return raw, nil
		}
	}
	a.logf("learning a vocabulary")
	t, err := pretrain.TrainTokenizer(cmd.Context(), kind, p.o.Text, p.vocab, p.lower, masked)
	if err != nil {
		return nil, err
	}
	raw, err := t.Save()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return nil, err
	}
	a.logf("%d tokens", t.VocabSize())
	return raw, checkpoint.WriteFile(kept, func(w io.Writer) error { _, err := w.Write(raw); return err })
}
