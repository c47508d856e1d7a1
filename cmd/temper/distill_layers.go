package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/distill"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
)

// layerFlags are those of distillation with a look inside the teacher.
type layerFlags struct {
	w     distill.Weights
	from  []int
	vocab int
	heads int
}

func (l *layerFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Float64Var(&l.w.Hidden, "hidden-loss", 0, "weight of the loss on states after each block")
	f.Float64Var(&l.w.Attention, "attention-loss", 0, "weight of the loss on how queries, keys and values relate in the last block")
	f.Float64Var(&l.w.Logits, "logit-loss", 0, "weight of the loss on outputs: labels of a classifier, tokens of a language model")
	f.Float64Var(&l.w.Temperature, "temperature", 2, "with --logit-loss: softens both outputs")
	f.Float64Var(&l.w.Embedding, "embedding-loss", 0, "weight of the loss on sentence embeddings, beside the losses above")
	f.IntSliceVar(&l.from, "from-layers", nil, "make the student of these blocks of the teacher, from 0 (default: --layers new ones)")
	f.IntVar(&l.vocab, "keep-vocab", 0, "keep about this many of the teacher's pieces, the most frequent ones (0: all)")
	f.IntVar(&l.heads, "relation-heads", 0, "parts that --attention-loss cuts the width into (default 12, or what divides both)")
}

func (l *layerFlags) wanted() bool {
	return l.w.Hidden != 0 || l.w.Attention != 0 || l.w.Logits != 0 || l.w.Embedding != 0 || l.from != nil || l.vocab != 0
}

// run distils with a look inside. o holds texts and the settings of both kinds of distillation.
func (l *layerFlags) run(a *app, cmd *cobra.Command, ref string, o *distill.Options, config string, shape func(vocab int) []byte) error {
	if o.Noise > 0 {
		return usagef("--noise: student and teacher read the same tokens when they are compared inside")
	}
	if l.vocab < 0 || l.heads < 0 {
		return usagef("--keep-vocab %d --relation-heads %d: want 0 (the default) or more", l.vocab, l.heads)
	}
	f, err := a.openFolder(cmd, ref)
	if err != nil {
		return err
	}
	po := peft.OpenOptions{}
	if l.w.Logits == 0 {
		po.Head = model.HeadNone
	}
	b, err := peft.OpenFolder(f, po)
	if err != nil {
		f.Close()
		return err
	}
	defer b.Close()
	if l.w.Logits > 0 && len(b.Fresh) > 0 {
		return fmt.Errorf("%s: no trained tensor %q: there are no logits to learn from", ref, b.Fresh[0])
	}
	raw, err := f.Config()
	if err != nil {
		return err
	}
	tok, err := f.File(checkpoint.TokenizerFile)
	if err != nil {
		return err
	}
	src, err := f.Source()
	if err != nil {
		return err
	}
	s, err := distill.Select(raw, tok, src, l.from, l.vocab, o.Texts)
	if err != nil {
		return err
	}
	if l.from == nil { // a shape of its own over the teacher's tokens
		s.Init, s.Layers = nil, nil
		vocab := len(s.Tokens)
		if vocab == 0 {
			vocab = b.Model.Config().Vocab
		}
		s.Config = shape(vocab)
		if config != "" {
			if s.Config, err = os.ReadFile(config); err != nil {
				return err
			}
		}
	}
	lo := distill.LayersOptions{Student: *s, Teacher: b.Model, TeacherName: filepath.Base(ref), Weights: l.w, Heads: l.heads, Texts: o.Texts, Out: o.Out, Epochs: o.Epochs,
		Batch: o.Batch, MaxTokens: o.MaxTokens, LR: o.LR, WeightDecay: o.WeightDecay, Seed: a.seed, Resume: o.Resume, Rates: a.rates()}
	if l.w.Hidden+l.w.Attention+l.w.Logits+l.w.Embedding == 0 {
		lo.Weights.Embedding = 1 // a selection alone: what its parts say together is to stay
	}
	if lo.Kernels, err = a.backend(); err != nil {
		return err
	}
	var done func()
	lo.Progress, done = a.watch("distilling")
	r, err := distill.Layers(cmd.Context(), lo)
	done()
	if err != nil {
		return a.interrupted(cmd.Context(), err, o.Out)
	}
	if err := addCost("", o.Out, ledgerStep{Step: "distill", Method: lo.TeacherName, Seconds: r.Seconds, Cost: r.Cost}); err != nil {
		return err
	}
	return a.result(r, func(w io.Writer) error {
		var parts []string
		for name, v := range r.Losses {
			parts = append(parts, fmt.Sprintf("%s %.4f", name, v))
		}
		slices.Sort(parts)
		_, err := fmt.Fprintf(w, "%s parameters, %d steps, loss %.4f (last: %s), %s, %s\nwrote %s\n", humanize.Comma(int64(r.Parameters)), r.Steps, r.Loss,
			strings.Join(parts, ", "), seconds(r.Seconds), money(r.Cost), o.Out)
		return err
	})
}
