// Command zeroshot measures zero-shot and few-shot classification beside tuning a head on the same examples, on the data sets' own test
// rows and few-shot draws, and prints a Markdown table: how well, what preparing took and what a thousand texts take. Processor time is that of
// the process; joules and money are estimates from it, at the rates of train.DefaultRates.
//
//	go run ./tests/bench/zeroshot --encoder minilm/ --data ../shared/data --lora
//	go run ./tests/bench/zeroshot --decoder gemma-3-270m-q4_k_m.gguf --data ../shared/data --rows 200
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/train"
	"github.com/temper-ml/temper/core/zeroshot"
)

type options struct {
	data, labels, encoder, decoder, sets string
	rows, shown, seeds                   int
	counts, perLabel                     string
	threads                              int
	lora, json                           bool
}

func main() {
	var o options
	flag.StringVar(&o.data, "data", "../shared/data", "folder of the data sets")
	flag.StringVar(&o.labels, "labels", "docs/labels", "folder of the label descriptions")
	flag.StringVar(&o.encoder, "encoder", "", "sentence encoder")
	flag.StringVar(&o.decoder, "decoder", "", "causal language model")
	flag.StringVar(&o.sets, "sets", "sst2,ag_news,trec6,banking77,sms_spam", "data sets")
	flag.IntVar(&o.rows, "rows", 0, "test rows, evenly spaced (0: all)")
	flag.IntVar(&o.shown, "shown", 0, "decoder: examples in the prompt")
	flag.IntVar(&o.seeds, "seeds", 3, "draws of examples")
	flag.StringVar(&o.counts, "counts", "", "decoder: instead of the rest, these numbers of examples in one fixed prompt, from the first draw of 16 per label: 0,4,8,16")
	flag.StringVar(&o.perLabel, "per-label", "0,8,16", "numbers of examples per label, of these")
	flag.BoolVar(&o.lora, "lora", false, "encoder: tune LoRA on the same examples too (10 epochs, batches of 8, learning rate 2e-3, neither tuned)")
	flag.IntVar(&o.threads, "threads", runtime.GOMAXPROCS(0), "threads of the kernels")
	flag.BoolVar(&o.json, "json", false, "a JSON object a line instead of the table")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "zeroshot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if (o.encoder == "") == (o.decoder == "") {
		return errors.New("give --encoder or --decoder")
	}
	if o.lora && o.encoder == "" || o.counts != "" && o.decoder == "" {
		return errors.New("--lora is for encoders, --counts for decoders")
	}
	k, err := native.New(native.Options{Threads: o.threads})
	if err != nil {
		return err
	}
	defer k.Close()
	b := &bench{o: o, k: k}
	if o.encoder != "" {
		p, err := pipeline.Open(o.encoder, k, pipeline.Options{MaxTokens: 128})
		if err != nil {
			return err
		}
		defer p.Close()
		b.e = &remembered{p: p, known: map[string]vector{}}
	} else if b.d, err = generate.Open(o.decoder, generate.OpenOptions{}); err != nil {
		return err
	} else {
		defer b.d.Close()
	}
	if !o.json {
		fmt.Println("| set | rows | examples | way | accuracy | macro-F1 | to prepare: s | CPU s | J | 1,000 texts: s | CPU s | J | USD |")
		fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	}
	for _, set := range strings.Split(o.sets, ",") {
		if err := b.set(ctx, set); err != nil {
			return fmt.Errorf("%s: %w", set, err)
		}
	}
	return nil
}

// took is what a piece of work took; joules and money follow from the processor's time.
type took struct {
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Joules     float64 `json:"joules"`
	Money      float64 `json:"money"`
	Currency   string  `json:"currency"`
}

func spent(seconds, cpu float64) took {
	c := train.DefaultRates().Fill(train.Cost{CPUSeconds: cpu})
	return took{seconds, cpu, c.Joules, c.Money, c.Currency}
}

func (t took) plus(u took) took     { return spent(t.Seconds+u.Seconds, t.CPUSeconds+u.CPUSeconds) }
func (t took) times(f float64) took { return spent(t.Seconds*f, t.CPUSeconds*f) }

// watch starts a clock; the function that it returns reads it.
func watch() func() took {
	begun := time.Now()
	before, _ := train.Usage()
	return func() took {
		after, _ := train.Usage()
		return spent(time.Since(begun).Seconds(), after-before)
	}
}

// remembered embeds each text once, and adds up what it would have taken to embed those again that it knew.
type remembered struct {
	p     *pipeline.Pipeline
	known map[string]vector
	saved took
}

type vector struct {
	v    []float32
	took took
}

func (r *remembered) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	var fresh []string
	for _, t := range texts {
		if v, ok := r.known[t]; ok {
			r.saved = r.saved.plus(v.took)
		} else {
			r.known[t] = vector{}
			fresh = append(fresh, t)
		}
	}
	clock := watch()
	vs, err := r.p.Embed(ctx, fresh)
	if err != nil {
		return nil, err
	}
	each := clock().times(1 / float64(max(len(fresh), 1)))
	for i, t := range fresh {
		r.known[t] = vector{vs[i], each}
	}
	out := make([][]float32, len(texts))
	for i, t := range texts {
		out[i] = append([]float32{}, r.known[t].v...)
	}
	return out, nil
}

type bench struct {
	o options
	k backend.Kernels
	e *remembered
	d *generate.Decoder
}

func (b *bench) open(file, rows string, names []string) (*data.Dataset, error) {
	set, err := data.Open(filepath.Join(b.o.data, file), data.Options{RowsFile: rows})
	if err == nil && names != nil {
		err = set.MapLabels(names)
	}
	return set, err
}

func (b *bench) set(ctx context.Context, name string) error {
	train, stem := name+"/train.tsv", name+"-train"
	if name == "sst2" {
		train, stem = "sst2/train_sentences.tsv", "sst2-train_sentences"
	}
	test, err := b.open(name+"/test.tsv", "", nil)
	if err != nil {
		return err
	}
	task, err := zeroshot.FromNames(test.LabelNames)
	if raw, rerr := os.ReadFile(filepath.Join(b.o.labels, name+".yaml")); rerr == nil {
		task, err = zeroshot.Parse(raw, nil)
	}
	if err != nil {
		return err
	}
	if err := test.MapLabels(task.Names()); err != nil {
		return err
	}
	if n := b.o.rows; n > 0 && n < test.Len() {
		at := make([]int, n)
		for i := range at {
			at[i] = i * test.Len() / n
		}
		if test, err = test.Select(at); err != nil {
			return err
		}
	}
	if b.d != nil && b.o.counts != "" {
		return b.shownCounts(ctx, name, train, filepath.Join(b.o.data, "draws", stem+"-few16-seed0.txt"), test, task)
	}
	for _, count := range strings.Split(b.o.perLabel, ",") {
		if count == "0" {
			if err := b.one(ctx, name, test, task, nil, "none", zeroshot.PromptOptions{Shots: b.o.shown}); err != nil {
				return err
			}
			continue
		}
		shots := "few" + count
		for seed := range b.o.seeds {
			rows := filepath.Join(b.o.data, "draws", fmt.Sprintf("%s-%s-seed%d.txt", stem, shots, seed))
			few, err := b.open(train, rows, task.Names())
			if err != nil {
				return err
			}
			title := fmt.Sprintf("%s per label, draw %d", strings.TrimPrefix(shots, "few"), seed)
			examples := samples(few)
			if err := b.one(ctx, name, test, task, examples, title, zeroshot.PromptOptions{Shots: b.o.shown}); err != nil {
				return err
			}
			if b.e != nil {
				if err := b.head(ctx, name, test, few, task, title); err != nil {
					return err
				}
			}
			if b.o.lora {
				if err := b.lora(ctx, name, test, few, task, title, uint64(seed)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func samples(set *data.Dataset) []zeroshot.Example {
	list := make([]zeroshot.Example, set.Len())
	for i := range list {
		list[i] = zeroshot.Example{Text: set.Texts[i], Label: set.Labels[i]}
	}
	return list
}

// shownCounts measures what examples in the prompt buy: the task's first prompt, nothing else chosen on the examples.
func (b *bench) shownCounts(ctx context.Context, name, train, rows string, test *data.Dataset, task *zeroshot.Task) error {
	few, err := b.open(train, rows, task.Names())
	if err != nil {
		return err
	}
	for _, count := range strings.Split(b.o.counts, ",") {
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 {
			return fmt.Errorf("--counts %q: want numbers", b.o.counts)
		}
		o, examples := zeroshot.PromptOptions{Keep: true, Shots: n}, samples(few)
		if n == 0 {
			examples = nil
		}
		if err := b.one(ctx, name, test, task, examples, fmt.Sprintf("%d in the prompt", n), o); err != nil {
			return err
		}
	}
	return nil
}

// watch is watch with what the memory of embeddings has saved.
func (b *bench) watch() func() took {
	clock := watch()
	if b.e == nil {
		return clock
	}
	b.e.saved = took{}
	return func() took { return clock().plus(b.e.saved) }
}

func (b *bench) one(ctx context.Context, name string, test *data.Dataset, task *zeroshot.Task, examples []zeroshot.Example, title string, o zeroshot.PromptOptions) error {
	var c zeroshot.Classifier
	var err error
	clock := b.watch()
	if b.e != nil {
		c, err = zeroshot.NewEmbedding(ctx, b.e, task, examples)
	} else {
		var s *generate.Scorer
		if s, err = generate.NewScorer(b.d.Model, b.k); err != nil {
			return err
		}
		o.Context = 1024
		c, err = zeroshot.NewPrompted(ctx, s, b.codec(), task, examples, o)
	}
	if err != nil {
		return err
	}
	r := result{Set: name, Examples: title, Way: "likelihood", About: c.About(), Prepare: clock()}
	if b.e != nil {
		r.Way = "embedding"
	}
	clock = b.watch()
	scores, err := c.Classify(ctx, test.Texts)
	if err != nil {
		return err
	}
	r.Texts = clock()
	predicted := make([]int32, len(scores))
	for i, s := range scores {
		for l, v := range s {
			if v > s[predicted[i]] {
				predicted[i] = int32(l)
			}
		}
	}
	fmt.Fprintln(os.Stderr, name, title, c.About())
	return b.report(r, predicted, test, task)
}

// result is a line of the table: one way on one set.
type result struct {
	Set      string  `json:"set"`
	Rows     int     `json:"rows"`
	Examples string  `json:"examples"`
	Way      string  `json:"way"`
	About    string  `json:"about,omitempty"`
	Threads  int     `json:"threads"`
	Accuracy float64 `json:"accuracy"`
	MacroF1  float64 `json:"macro_f1"`
	Prepare  took    `json:"prepare"`
	Texts    took    `json:"per_1000_texts"`
}

// report scores and prints r, whose Texts are those of all rows.
func (b *bench) report(r result, predicted []int32, test *data.Dataset, task *zeroshot.Task) error {
	truth := make([]int32, len(predicted))
	for i := range truth {
		truth[i] = int32(test.Labels[i])
	}
	s := train.Score(predicted, truth, task.Names(), 0)
	r.Rows, r.Threads, r.Accuracy, r.MacroF1 = len(truth), b.k.Threads(), s.Accuracy, s.MacroF1
	r.Texts = r.Texts.times(1000 / float64(len(truth)))
	if b.o.json {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	_, err := fmt.Printf("| %s | %d | %s | %s | %.1f %% | %.1f %% | %.1f | %.1f | %.0f | %.1f | %.1f | %.0f | %.5f |\n", r.Set, r.Rows, r.Examples, r.Way, 100*r.Accuracy, 100*r.MacroF1,
		r.Prepare.Seconds, r.Prepare.CPUSeconds, r.Prepare.Joules, r.Texts.Seconds, r.Texts.CPUSeconds, r.Texts.Joules, r.Texts.Money)
	return err
}

// head is logistic regression on the same embeddings: what temper tune --method head fits.
func (b *bench) head(ctx context.Context, name string, test, few *data.Dataset, task *zeroshot.Task, title string) error {
	flat := func(set *data.Dataset) ([]float32, int, error) {
		vs, err := b.e.Embed(ctx, set.Texts)
		if err != nil {
			return nil, 0, err
		}
		var x []float32
		for _, v := range vs {
			x = append(x, v...)
		}
		return x, len(vs[0]), nil
	}
	clock := b.watch()
	x, dim, err := flat(few)
	if err != nil {
		return err
	}
	y := make([]int32, few.Len())
	for i, l := range few.Labels {
		y[i] = int32(l)
	}
	fit, err := train.FitLogistic(ctx, b.k, x, dim, y, len(task.Labels), 10, nil)
	if err != nil {
		return err
	}
	r := result{Set: name, Examples: title, Way: "head", Prepare: clock()}
	clock = b.watch()
	if x, _, err = flat(test); err != nil {
		return err
	}
	predicted := make([]int32, test.Len())
	for i := range predicted {
		row, best := x[i*dim:(i+1)*dim], 0.0
		for l := range fit.Classes {
			v := float64(fit.B[l])
			for k, w := range fit.W[l*dim : (l+1)*dim] {
				v += float64(w) * float64(row[k])
			}
			if l == 0 || v > best {
				best, predicted[i] = v, int32(l)
			}
		}
	}
	r.Texts = clock()
	return b.report(r, predicted, test, task)
}

// lora is what temper tune --method lora does.
func (b *bench) lora(ctx context.Context, name string, test, few *data.Dataset, task *zeroshot.Task, title string, seed uint64) error {
	clock := watch()
	tuned, err := train.Run(ctx, train.Options{Base: b.o.encoder, Train: few, Kernels: b.k, Method: "lora", Epochs: 10, Batch: 8, LR: 2e-3, MaxTokens: 128,
		Seed: seed, SaveEvery: -1})
	if err != nil {
		return err
	}
	p, err := pipeline.New(tuned.Bundle, b.k, pipeline.Options{MaxTokens: 128})
	if err != nil {
		return err
	}
	defer p.Close()
	r := result{Set: name, Examples: title, Way: "LoRA", Prepare: clock()}
	clock = watch()
	preds, err := p.Classify(ctx, test.Texts)
	if err != nil {
		return err
	}
	r.Texts = clock()
	predicted := make([]int32, len(preds))
	for i, one := range preds {
		at := slices.Index(task.Names(), one.Label)
		if at < 0 {
			return fmt.Errorf("the tuned model says %q, which is no label of the task", one.Label)
		}
		predicted[i] = int32(at)
	}
	return b.report(r, predicted, test, task)
}

func (b *bench) codec() zeroshot.Codec {
	return zeroshot.Codec{
		Prompt: func(text string) []int32 {
			var ids []int32
			if t := b.d.BOS(); t >= 0 {
				ids = append(ids, t)
			}
			return b.d.Tokenizer.AppendPlainIDs(ids, text)
		},
		Plain:  func(text string) []int32 { return b.d.Tokenizer.AppendPlainIDs(nil, text) },
		Decode: func(ids []int32) string { return b.d.Tokenizer.Decode(ids, true) },
	}
}
