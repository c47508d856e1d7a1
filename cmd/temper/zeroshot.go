package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/train"
	"github.com/temper-ml/temper/core/zeroshot"
)

// zeroFlags are those of zero-shot and few-shot classification.
type zeroFlags struct {
	labels      []string
	describe    string
	task        string
	examples    string
	exampleRows string
	perLabel    int
	prompt      zeroshot.PromptOptions
	columns     dataFlags
}

func (z *zeroFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&z.labels, "labels", nil, "labels to choose from with no training: an encoder goes by embeddings or entailment, a decoder by likelihood")
	f.StringVar(&z.describe, "describe", "", "YAML file that describes the labels (label: description, one a line)")
	f.StringVar(&z.task, "task", "", "built-in description: "+strings.Join(taskNames(), ", "))
	f.StringVar(&z.examples, "examples", "", "a few labelled texts to go by: .csv, .tsv, .jsonl or .parquet")
	f.StringVar(&z.exampleRows, "example-rows", "", "file with the row numbers of --examples to use")
	f.IntVar(&z.perLabel, "shots", 0, "use this many of the --examples per label, drawn by --seed (0: all)")
	f.IntVar(&z.prompt.Shots, "shown", 0, "decoder: examples shown in the prompt (0: up to 16, negative: none)")
	f.IntVar(&z.prompt.Context, "prompt-tokens", 0, "decoder: tokens of a prompt at most (0: 2048, or what the model takes)")
	f.BoolVar(&z.prompt.Raw, "no-calibration", false, "decoder: leave the labels' likelihoods as they are")
	f.BoolVar(&z.prompt.Keep, "first-prompt", false, "decoder: take the first prompt, do not choose on the examples")
}

func taskNames() []string {
	var out []string
	for _, t := range builtin.Tasks() {
		out = append(out, t.Name)
	}
	return out
}

// wanted reports whether any of the flags asks for classification without training.
func (z *zeroFlags) wanted() bool {
	return z.labels != nil || z.describe != "" || z.task != "" || z.examples != ""
}

// read makes the task and its examples.
func (z *zeroFlags) read(a *app) (*zeroshot.Task, []zeroshot.Example, error) {
	var t *zeroshot.Task
	var err error
	switch {
	case z.describe != "" && z.task != "":
		return nil, nil, usagef("give --describe or --task, not both")
	case z.describe != "":
		raw, rerr := readLimited(z.describe)
		if rerr != nil {
			return nil, nil, rerr
		}
		if t, err = zeroshot.Parse(raw, z.labels); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", z.describe, err)
		}
	case z.task != "":
		b, ok := builtin.FindTask(z.task)
		if !ok {
			return nil, nil, usagef("--task %q: want one of %s", z.task, strings.Join(taskNames(), ", "))
		}
		if z.labels != nil {
			return nil, nil, usagef("give --labels or --task, not both")
		}
		t, err = zeroshot.FromBuiltin(b)
	case z.labels != nil:
		if t, err = zeroshot.FromNames(z.labels); err != nil {
			return nil, nil, usagef("--labels: %w", err)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if z.perLabel < 0 || z.prompt.Context < 0 {
		return nil, nil, usagef("--shots %d --prompt-tokens %d: want 0 (the default) or more", z.perLabel, z.prompt.Context)
	}
	if z.examples == "" {
		if z.exampleRows != "" || z.perLabel > 0 {
			return nil, nil, usagef("--example-rows and --shots need --examples")
		}
		return t, nil, nil
	}
	set, err := z.columns.open(a, z.examples, z.exampleRows, false)
	if err != nil {
		return nil, nil, err
	}
	if z.perLabel > 0 {
		if set, err = set.Shots(z.perLabel, a.seed); err != nil {
			return nil, nil, err
		}
	}
	if t == nil {
		if t, err = zeroshot.FromNames(set.LabelNames); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", z.examples, err)
		}
	} else if err := set.MapLabels(t.Names()); err != nil {
		return nil, nil, err
	}
	examples := make([]zeroshot.Example, set.Len())
	for i := range examples {
		examples[i] = zeroshot.Example{Text: set.Texts[i], Label: set.Labels[i]}
	}
	return t, examples, nil
}

// open prepares a classifier of the kind that the model allows. The caller closes it.
func (z *zeroFlags) open(a *app, cmd *cobra.Command, ref string) (zeroshot.Classifier, *zeroshot.Task, func(), error) {
	t, examples, err := z.read(a)
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err := a.backend(); err != nil {
		return nil, nil, nil, err
	}
	if ref, err = a.decoderPath(cmd, ref); err != nil {
		return nil, nil, nil, err
	}
	writes, err := a.writes(ref)
	if err != nil {
		return nil, nil, nil, err
	}
	if writes {
		d, err := a.openDecoder(ref, generate.OpenOptions{})
		if err != nil {
			return nil, nil, nil, err
		}
		c, err := prompted(cmd, a, d, t, examples, z.prompt)
		if err != nil {
			d.Close()
			return nil, nil, nil, err
		}
		return c, t, func() { d.Close() }, nil
	}
	p, err := a.openPipeline(cmd, ref, pipeline.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	var c zeroshot.Classifier
	if p.Config().Head == model.HeadSequence && zeroshot.Entails(p.Labels()) >= 0 {
		if len(examples) > 0 {
			a.logf("an entailment model has no use for examples: they are left out")
		}
		c, err = zeroshot.NewEntailment(p, t)
	} else {
		c, err = zeroshot.NewEmbedding(cmd.Context(), p, t, examples)
	}
	if err != nil {
		p.Close()
		return nil, nil, nil, err
	}
	return c, t, func() { p.Close() }, nil
}

func prompted(cmd *cobra.Command, a *app, d *generate.Decoder, t *zeroshot.Task, examples []zeroshot.Example, o zeroshot.PromptOptions) (zeroshot.Classifier, error) {
	s, err := generate.NewScorer(d.Model, a.kernels)
	if err != nil {
		return nil, err
	}
	return zeroshot.NewPrompted(cmd.Context(), s, codec(d), t, examples, limitPrompt(o, d))
}

// limitPrompt keeps prompts within what the model takes.
func limitPrompt(o zeroshot.PromptOptions, d *generate.Decoder) zeroshot.PromptOptions {
	if o.Context == 0 {
		o.Context = 2048
	}
	if most := d.Model.Config().MaxPositions; most > 0 {
		o.Context = min(o.Context, most)
	}
	return o
}

func codec(d *generate.Decoder) zeroshot.Codec {
	return zeroshot.Codec{
		// Names of special tokens in a stranger's text are plain text.
		Prompt: func(text string) []int32 {
			var ids []int32
			if b := d.BOS(); b >= 0 {
				ids = append(ids, b)
			}
			return d.Tokenizer.AppendPlainIDs(ids, text)
		},
		Plain:  func(text string) []int32 { return d.Tokenizer.AppendPlainIDs(nil, text) },
		Decode: func(ids []int32) string { return d.Tokenizer.Decode(ids, true) },
	}
}

// classifyPieces is the number of texts between two looks at the progress.
const classifyPieces = 32

// zeroScores labels texts with progress.
func (a *app) zeroScores(cmd *cobra.Command, c zeroshot.Classifier, texts []string) ([][]float64, error) {
	bar := a.progress("labelling", len(texts))
	defer bar.done()
	var out [][]float64
	for len(out) < len(texts) {
		if err := cmd.Context().Err(); err != nil {
			return nil, err
		}
		some, err := c.Classify(cmd.Context(), texts[len(out):min(len(out)+classifyPieces, len(texts))])
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
		bar.set(len(out), len(texts), "texts")
	}
	return out, nil
}

// classifyZero is temper classify without training.
func (a *app) classifyZero(cmd *cobra.Command, ref string, texts []string, z *zeroFlags) error {
	c, t, end, err := z.open(a, cmd, ref)
	if err != nil {
		return err
	}
	defer end()
	a.logf("%s", c.About())
	scores, err := a.zeroScores(cmd, c, texts)
	if err != nil {
		return err
	}
	names := t.Names()
	preds := make([]pipeline.Prediction, len(texts))
	for i, s := range scores {
		p := pipeline.Prediction{Text: texts[i], Scores: make([]float32, len(s))}
		for l, v := range s {
			if p.Scores[l] = float32(v); v > s[p.Class] {
				p.Class = l
			}
		}
		p.Label, p.Score = names[p.Class], p.Scores[p.Class]
		preds[i] = p
	}
	return a.printClasses(preds, names)
}

// evaluateZero is temper eval without training.
func (a *app) evaluateZero(cmd *cobra.Command, ref string, d *dataFlags, z *zeroFlags) (*evalResult, error) {
	start := time.Now()
	c, t, end, err := z.open(a, cmd, ref)
	if err != nil {
		return nil, err
	}
	defer end()
	prepared := time.Since(start).Seconds()
	a.logf("%s", c.About())
	set, err := labelled(a, d, t.Names())
	if err != nil {
		return nil, err
	}
	start = time.Now()
	scores, err := a.zeroScores(cmd, c, set.Texts)
	if err != nil {
		return nil, err
	}
	sec := time.Since(start).Seconds()
	predicted, truth, loss := make([]int32, len(scores)), make([]int32, len(scores)), 0.0
	for i, s := range scores {
		for l, v := range s {
			if v > s[predicted[i]] {
				predicted[i] = int32(l)
			}
		}
		truth[i] = int32(set.Labels[i])
		loss -= math.Log(max(s[set.Labels[i]], 1e-12)) / float64(len(scores))
	}
	r := train.Score(predicted, truth, t.Names(), loss)
	return &evalResult{Examples: r.Examples, Accuracy: r.Accuracy, MacroF1: r.MacroF1, Loss: r.Loss, Labels: r.Labels, Seconds: sec,
		TextsPerSecond: rate(r.Examples, sec), Method: c.About(), PrepareSeconds: prepared}, nil
}
