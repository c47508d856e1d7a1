package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/train"
)

// evalResult is the contract of temper eval on labelled texts.
type evalResult struct {
	Examples       int                `json:"examples"`
	Accuracy       float64            `json:"accuracy"`
	MacroF1        float64            `json:"macro_f1"`
	Loss           float64            `json:"loss"`
	Labels         []train.LabelScore `json:"labels"`
	Seconds        float64            `json:"seconds"`
	TextsPerSecond float64            `json:"texts_per_second"`
	// Without training: how labels were decided, and how long the examples took.
	Method         string  `json:"method,omitempty"`
	PrepareSeconds float64 `json:"prepare_seconds,omitempty"`
}

func (a *app) evalCmd() *cobra.Command {
	var d dataFlags
	var text textFlags
	var zero zeroFlags
	var maxTokens int
	cmd := &cobra.Command{
		Use:     "eval MODEL --data FILE|--text FILE",
		Short:   "Measure a classifier on labelled texts, or a decoder's perplexity on plain text",
		Example: "  temper eval out/ --data test.tsv --json\n  temper eval gemma-3-270m-q4_k_m.gguf --text book.txt",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case text.file != "" && d.file != "":
				return usagef("give --data or --text, not both")
			case text.file != "":
				return a.perplexity(cmd, args[0], &text)
			case d.file == "":
				return usagef("give labelled texts with --data, or a decoder's text with --text")
			}
			var r *evalResult
			var err error
			if zero.wanted() {
				r, err = a.evaluateZero(cmd, args[0], &d, &zero)
			} else {
				r, err = a.evaluateTrained(cmd, args[0], &d, maxTokens)
			}
			if err != nil {
				return err
			}
			return a.result(r, func(w io.Writer) error {
				t := newTable(w, "label", "examples", "precision", "recall", "F1")
				for _, l := range r.Labels {
					t.AppendRow([]any{l.Label, l.Support, percent(l.Precision), percent(l.Recall), percent(l.F1)})
				}
				t.Render()
				_, err := fmt.Fprintf(w, "\naccuracy %s, macro-F1 %s, loss %.4f on %d examples in %s (%.0f texts/s)\n",
					percent(r.Accuracy), percent(r.MacroF1), r.Loss, r.Examples, seconds(r.Seconds), r.TextsPerSecond)
				return err
			})
		},
	}
	d.add(cmd, false)
	text.add(cmd)
	zero.add(cmd)
	cmd.Flags().IntVar(&maxTokens, "max-tokens", 0, "cut texts at this many tokens (default: what the model takes)")
	return cmd
}

func (a *app) evaluateTrained(cmd *cobra.Command, ref string, d *dataFlags, maxTokens int) (*evalResult, error) {
	p, err := a.openPipeline(cmd, ref, pipeline.Options{MaxTokens: maxTokens})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return a.evaluate(cmd, p, d, maxTokens)
}

func (a *app) evaluate(cmd *cobra.Command, p *pipeline.Pipeline, d *dataFlags, maxTokens int) (*evalResult, error) {
	labels := p.Labels()
	if len(labels) < 2 {
		return nil, pipeline.ErrNotClassifier
	}
	set, err := labelled(a, d, labels)
	if err != nil {
		return nil, err
	}
	examples, err := train.EncodeAll(p.Bundle(), set, maxTokens)
	if err != nil {
		return nil, err
	}
	k, err := a.backend()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	var arena grad.Arena
	s, err := train.Evaluate(cmd.Context(), k, &arena, p.Bundle().Model, train.Loss{}, slices.Clone(examples), labels)
	if err != nil {
		return nil, err
	}
	sec := time.Since(start).Seconds()
	return &evalResult{Examples: len(examples), Accuracy: s.Accuracy, MacroF1: s.MacroF1, Loss: s.Loss, Labels: s.Labels, Seconds: sec,
		TextsPerSecond: float64(len(examples)) / sec}, nil
}
