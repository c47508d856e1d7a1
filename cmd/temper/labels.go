package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/train"
)

// labelsFile stands in the folder that distill --labels-from writes: the texts and the labels that the teacher gave them.
const labelsFile = "labels.tsv"

// labelFlags are those of labels from a teacher.
type labelFlags struct {
	from    string
	zero    zeroFlags
	least   float64
	student string
	method  string
}

func (l *labelFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.from, "labels-from", "", "teacher that labels the texts: a classifier, or any model with --labels, --describe, --task or --examples")
	l.zero.add(cmd)
	f.Float64Var(&l.least, "min-score", 0, "leave out texts whose label the teacher holds less likely")
	f.StringVar(&l.student, "student", "", "model to tune on the labels (default: write them only)")
	f.StringVar(&l.method, "student-method", "head", "what is trained of the student: "+strings.Join(train.Methods(), ", "))
}

type labelResult struct {
	Texts   int            `json:"texts"`
	Kept    int            `json:"kept"`
	Labels  map[string]int `json:"labels"`
	Teacher string         `json:"teacher"`
	Seconds float64        `json:"seconds"`
	Cost    train.Cost     `json:"cost"`
	Student *train.Result  `json:"student,omitempty"`
}

// run labels texts, writes them, and tunes the student on them.
func (l *labelFlags) run(a *app, cmd *cobra.Command, c *corpusFlags, out string) error {
	if l.least < 0 || l.least > 1 {
		return usagef("--min-score %g: want a share between 0 and 1", l.least)
	}
	texts, err := l.texts(a, c)
	if err != nil {
		return err
	}
	start := time.Now()
	cpu0, _ := train.Usage()
	names, scores, tokens, flops, err := l.label(a, cmd, texts)
	if err != nil {
		return err
	}
	cpu, _ := train.Usage()
	r := &labelResult{Texts: len(texts), Labels: map[string]int{}, Teacher: filepath.Base(l.from), Seconds: time.Since(start).Seconds(),
		Cost: a.rates().Fill(train.Cost{CPUSeconds: cpu - cpu0, Tokens: tokens, FLOPs: flops})}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	file := filepath.Join(out, labelsFile)
	if err := checkpoint.WriteFile(file, func(w io.Writer) error {
		b := bufio.NewWriter(w)
		fmt.Fprintln(b, "label\ttext\tscore")
		for i, s := range scores {
			best := 0
			for k, v := range s {
				if v > s[best] {
					best = k
				}
			}
			if s[best] < l.least {
				continue
			}
			r.Kept++
			r.Labels[names[best]]++
			fmt.Fprintf(b, "%s\t%s\t%.4f\n", names[best], strings.Join(strings.Fields(texts[i]), " "), s[best])
		}
		return b.Flush()
	}); err != nil {
		return err
	}
	if err := addCost("", out, ledgerStep{Step: "label", Method: r.Teacher, Seconds: r.Seconds, Cost: r.Cost}); err != nil {
		return err
	}
	if l.student != "" {
		if r.Student, err = l.tune(a, cmd, file, out); err != nil {
			return a.interrupted(cmd.Context(), err, out)
		}
	}
	return a.result(r, func(w io.Writer) error {
		t := newTable(w, "label", "texts")
		for _, n := range names {
			t.AppendRow([]any{n, humanize.Comma(int64(r.Labels[n]))})
		}
		t.Render()
		fmt.Fprintf(w, "\n%s labelled %s of %s texts in %s, %s\n", r.Teacher, humanize.Comma(int64(r.Kept)), humanize.Comma(int64(r.Texts)), seconds(r.Seconds), money(r.Cost))
		if r.Student != nil {
			return a.printTuned(w, r.Student, out)
		}
		_, err := fmt.Fprintf(w, "wrote %s: temper tune BASE --data %s\n", file, file)
		return err
	})
}

// texts reads rows of tables and lines of plain text.
func (l *labelFlags) texts(a *app, c *corpusFlags) ([]string, error) {
	var out []string
	for _, file := range c.files {
		d := c.columns
		switch ext := strings.ToLower(filepath.Ext(file)); {
		case d.format != "", ext == ".csv", ext == ".tsv", ext == ".jsonl", ext == ".parquet":
		default:
			d.format = "txt"
		}
		set, err := d.open(a, file, "", true)
		if err != nil {
			return nil, err
		}
		some := textsOf(set)
		if c.limit > 0 {
			some = some[:min(len(some), c.limit)]
		}
		out = append(out, some...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no text in %s", strings.Join(c.files, ", "))
	}
	return out, nil
}

// label asks the teacher. tokens and flops count the texts alone: a prompt around them is not counted, its time is.
func (l *labelFlags) label(a *app, cmd *cobra.Command, texts []string) (names []string, scores [][]float64, tokens int64, flops float64, err error) {
	if l.zero.wanted() {
		c, t, end, err := l.zero.open(a, cmd, l.from)
		if err != nil {
			return nil, nil, 0, 0, err
		}
		defer end()
		a.logf("%s", c.About())
		if scores, err = a.zeroScores(cmd, c, texts); err != nil {
			return nil, nil, 0, 0, err
		}
		tok, err := a.openTokenizer(cmd, l.from)
		if err != nil {
			return nil, nil, 0, 0, err
		}
		var ids []int32
		for _, s := range texts {
			ids = tok.AppendPlainIDs(ids[:0], s)
			tokens += int64(len(ids))
		}
		flops, err = a.readingFLOPs(cmd, l.from, tokens)
		return t.Names(), scores, tokens, flops, err
	}
	p, err := a.openPipeline(cmd, l.from, pipeline.Options{})
	if err != nil {
		return nil, nil, 0, 0, err
	}
	defer p.Close()
	if p.Config().Head != model.HeadSequence || len(p.Bundle().Fresh) > 0 {
		return nil, nil, 0, 0, usagef("%s is no classifier: give --labels, --describe, --task or --examples", l.from)
	}
	preds, err := p.Classify(cmd.Context(), texts)
	if err != nil {
		return nil, nil, 0, 0, err
	}
	for i, pr := range preds {
		s := make([]float64, len(pr.Scores))
		for k, v := range pr.Scores {
			s[k] = float64(v)
		}
		scores = append(scores, s)
		ids, _, err := p.Bundle().Encode(texts[i], "", 0)
		if err != nil {
			return nil, nil, 0, 0, err
		}
		tokens += int64(len(ids))
	}
	flops, err = a.readingFLOPs(cmd, l.from, tokens)
	return p.Labels(), scores, tokens, flops, err
}

// readingFLOPs counts the products of reading tokens, attention left out.
func (a *app) readingFLOPs(cmd *cobra.Command, ref string, tokens int64) (float64, error) {
	path, err := a.decoderPath(cmd, ref)
	if err != nil {
		return 0, err
	}
	decoder, err := a.writes(path)
	if err != nil {
		return 0, err
	}
	var m model.Model
	if decoder {
		d, err := a.openDecoder(path, generate.OpenOptions{})
		if err != nil {
			return 0, err
		}
		defer d.Close()
		m = d.Model
	} else {
		b, err := a.openBundle(cmd, ref, peft.OpenOptions{})
		if err != nil {
			return 0, err
		}
		defer b.Close()
		m = b.Model
	}
	n := 0.0
	for _, l := range m.Linears() {
		n += float64(l.In) * float64(l.Out)
	}
	return 2 * n * float64(tokens), nil
}

// tune trains the student on what was written.
func (l *labelFlags) tune(a *app, cmd *cobra.Command, file, out string) (*train.Result, error) {
	o := train.Options{Method: l.method, Seed: a.seed, Out: out, Rates: a.rates()}
	if a.named(l.student) {
		f, err := a.builtin(l.student)
		if err != nil {
			return nil, err
		}
		o.Base, o.Folder = l.student, f
	} else {
		path, err := a.modelPath(cmd, l.student)
		if err != nil {
			return nil, err
		}
		o.Base = path
	}
	var err error
	if o.Train, err = data.Open(file, data.Options{}); err != nil {
		return nil, err
	}
	if o.Kernels, err = a.backend(); err != nil {
		return nil, err
	}
	var done func()
	o.Progress, done = a.watch("tuning")
	r, err := train.Run(cmd.Context(), o)
	done()
	if err != nil {
		return nil, err
	}
	defer r.Bundle.Close()
	before, err := readLedger(out) // the labels' step
	if err != nil {
		return nil, err
	}
	return r, addCost(o.Base, out, append(before.Steps, ledgerStep{Step: "tune", Method: r.Method, Seconds: r.Seconds, Cost: r.Cost})...)
}
