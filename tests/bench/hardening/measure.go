package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/canon"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/train"
)

// set is a task: its training rows, and the rows that are attacked. Positive, when not empty, is the class that a filter is to catch: all
// attacked rows have it. Hardening, when not nil, are the settings that this task wants, chosen on dev rows.
type set struct {
	Name, Train, Draw, Attack string
	Epochs, HardEpochs        int // 0: the defaults of tune and harden
	Positive                  string
	Hardening                 func(*harden.Options)
}

// sets are those of the issue on robustness: sizes and passes are part of the task.
var sets = []set{
	{Name: "sst2", Train: "train_sentences.tsv", Draw: "sst2-train_sentences-2000.txt", Attack: "sst2-test-attack200.txt"},
	{Name: "mr", Train: "train.tsv", Draw: "mr-train-3000.txt", Attack: "mr-test-attack200.txt"},
	{Name: "ag_news", Train: "train.tsv", Draw: "ag_news-train-4000.txt", Attack: "ag_news-test-attack200.txt", Epochs: 1, HardEpochs: 1},
	{Name: "jigsaw_toxic_balanced", Train: "train.tsv", Draw: "jigsaw_toxic_balanced-train-4000.txt", Attack: "jigsaw_toxic_balanced-test-attack.txt", Epochs: 1, HardEpochs: 1, Positive: "toxic"},
	// Spam is full of numbers, and what tells it ("txt", "urgnt") is not spelt by the rules anyway.
	{Name: "sms_spam", Train: "train.tsv", Attack: "sms_spam-test-attack.txt", Epochs: 1, HardEpochs: 1, Positive: "spam", Hardening: func(o *harden.Options) {
		o.Canon.Numbers, o.Closed = true, 0
	}},
}

// variant is a way to train. Of names another variant whose weights it takes, changing the tokenizer alone.
type variant struct {
	Name    string
	Plain   bool
	Of      string
	Lexicon bool // the tokenizer reads the near words of the lexicon alike
	Options func(*harden.Options)
}

// attackers that the judges' and our recipes stand for: what "held-out" leaves out of training.
var heldOut = []string{"deepwordbug", "synonyms", "bad-characters"}

var variants = []variant{
	{Name: "plain", Plain: true},
	{Name: "hardened", Options: func(o *harden.Options) {}},
	{Name: "held-out", Options: func(o *harden.Options) { o.HeldOut = heldOut }},
	{Name: "lexicon", Lexicon: true, Options: func(o *harden.Options) { o.HeldOut = heldOut }},
	{Name: "plain+canonical", Of: "plain", Options: func(o *harden.Options) { o.Guard = 0 }},
	{Name: "plain+guard", Of: "plain", Options: func(o *harden.Options) {}},
	{Name: "held-out-weights", Of: "held-out", Options: func(o *harden.Options) { o.Guard = 0; o.Canon = canon.Options{} }},
	{Name: "held-out+stand-ins", Of: "held-out", Options: func(o *harden.Options) { o.StandIns = true }},
	{Name: "held-out+all", Of: "held-out", Options: func(o *harden.Options) { o.Canon = canon.Latin() }},
	{Name: "held-out-guard", Of: "held-out", Options: func(o *harden.Options) { o.Guard = 0 }},
}

func variantNames() []string {
	var out []string
	for _, v := range variants {
		out = append(out, v.Name)
	}
	return out
}

// measured is one model of one set under all attacks. Accuracies are shares.
type measured struct {
	Set     string `json:"set"`
	Variant string `json:"variant"`
	Defence string `json:"defence,omitempty"`
	// Accuracy is on the whole test set. Recall and FalsePositives are those of the positive class, where there is one, at the model's own
	// decision (the largest score).
	Accuracy       float64 `json:"accuracy"`
	Dev            float64 `json:"dev_accuracy,omitempty"`
	Recall         float64 `json:"recall,omitempty"`
	FalsePositives float64 `json:"false_positive_rate,omitempty"`
	TrainCPU       float64 `json:"train_cpu_seconds"`
	TrainSeconds   float64 `json:"train_seconds"`
	// Judged are the independent attacker's, Own those of temper's recipes.
	Judged map[string]figure `json:"judged"`
	Own    map[string]figure `json:"own,omitempty"`
}

// figure is the outcome of one attack.
type figure struct {
	Examples int     `json:"examples"`
	Clean    float64 `json:"clean_accuracy"`
	Under    float64 `json:"accuracy_under_attack"`
	Queries  float64 `json:"average_queries"`
}

func (f figure) kept() float64 {
	if f.Clean == 0 {
		return 0
	}
	return f.Under / f.Clean
}

type bench struct {
	options
	k, trainK backend.Kernels
	tweak     func(*harden.Options) // settings under trial
}

func (b *bench) path(s set, v string) string {
	return filepath.Join(b.out, s.Name, v)
}

func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().UTC().Format("15:04:05 ")+format+"\n", args...)
}

// measure trains a model when its folder is not there, and attacks it with what it was not attacked with yet.
func (b *bench) measure(ctx context.Context, s set, v variant) (*measured, error) {
	dir := b.path(s, v.Name)
	record := filepath.Join(dir, "measured.json")
	m := &measured{Set: s.Name, Variant: v.Name}
	raw, err := os.ReadFile(record)
	switch {
	case err == nil:
		if err := json.Unmarshal(raw, m); err != nil {
			return nil, fmt.Errorf("%s: %w", record, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	default:
		b.logf("%s, %s: training", s.Name, v.Name)
		if err := b.train(ctx, s, v, dir, m); err != nil {
			return nil, err
		}
		if err := writeJSON(record, m); err != nil {
			return nil, err
		}
	}
	if m.Accuracy == 0 { // a model that was trained with -dev
		p, err := pipeline.Open(dir, b.k, pipeline.Options{MaxTokens: b.maxTokens})
		if err != nil {
			return nil, err
		}
		err = b.clean(ctx, s, p, m)
		if err := errors.Join(err, p.Close()); err != nil {
			return nil, err
		}
	}
	if m.Judged == nil {
		m.Judged = map[string]figure{}
	}
	if m.Own == nil {
		m.Own = map[string]figure{}
	}
	if b.attacker != "" {
		for _, judge := range split(b.judges) {
			if f, ok := m.Judged[judge]; ok && f.Examples >= min(b.examples, b.attackable(s)) {
				continue
			}
			b.logf("%s, %s: %s by the independent attacker", s.Name, v.Name, judge)
			f, err := b.judge(ctx, s, dir, judge)
			if err != nil {
				return nil, err
			}
			m.Judged[judge] = f
			b.logf("  clean %.3f under %.3f kept %.3f", f.Clean, f.Under, f.kept())
			if err := writeJSON(record, m); err != nil {
				return nil, err
			}
		}
	}
	if err := b.attack(ctx, s, dir, m); err != nil {
		return nil, err
	}
	return m, writeJSON(record, m)
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func (b *bench) attackable(s set) int {
	rows, err := data.ReadRows(filepath.Join(b.data, "draws", s.Attack))
	if err != nil {
		return b.examples
	}
	return len(rows)
}

func (b *bench) open(s set, file, draw string) (*data.Dataset, error) {
	o := data.Options{}
	if draw != "" {
		o.RowsFile = filepath.Join(b.data, "draws", draw)
	}
	return data.Open(filepath.Join(b.data, s.Name, file), o)
}

// judged are the rows to measure on, or those of them to attack: the test set, or with -dev other rows that training does not see.
func (b *bench) judged(s set, attacked bool) (*data.Dataset, error) {
	if !b.dev {
		if attacked {
			return b.open(s, "test.tsv", s.Attack)
		}
		return b.open(s, "test.tsv", "")
	}
	file := filepath.Join(b.data, s.Name, "dev.tsv")
	var d *data.Dataset
	var err error
	if _, e := os.Stat(file); e == nil {
		if d, err = b.open(s, "dev.tsv", ""); err != nil {
			return nil, err
		}
	} else { // no dev set: rows that were not drawn for training
		if d, err = b.open(s, s.Train, ""); err != nil {
			return nil, err
		}
		drawn, err := data.ReadRows(filepath.Join(b.data, "draws", s.Draw))
		if err != nil {
			return nil, err
		}
		var rest []int
		for i := range d.Len() {
			if !slices.Contains(drawn, i) {
				rest = append(rest, i)
			}
		}
		if d, err = d.Select(rest[:min(1000, len(rest))]); err != nil {
			return nil, err
		}
	}
	if !attacked {
		return d, nil
	}
	var at []int
	for i, l := range d.Labels {
		if s.Positive == "" || d.LabelNames[l] == s.Positive {
			at = append(at, i)
		}
	}
	// Files may be sorted by label: a part of the rows must be drawn.
	r := rand.New(rand.NewPCG(b.seed, 0xde7))
	r.Shuffle(len(at), func(i, j int) { at[i], at[j] = at[j], at[i] })
	return d.Select(at)
}

// settings are those of the hardening of a set.
func (b *bench) settings(s set) (harden.Options, error) {
	d, err := b.open(s, s.Train, s.Draw)
	if err != nil {
		return harden.Options{}, err
	}
	o := harden.Defaults()
	o.Tune = train.Options{Base: b.model, Train: d, Kernels: b.trainK, Method: "lora", MaxTokens: b.maxTokens, Seed: b.seed, SaveEvery: -1}
	o.Before = "none"
	return o, nil
}

func (b *bench) train(ctx context.Context, s set, v variant, dir string, m *measured) error {
	o, err := b.settings(s)
	if err != nil {
		return err
	}
	began := time.Now()
	var p *pipeline.Pipeline
	if s.Hardening != nil && !v.Plain && v.Of != "plain" { // what training did not read, a tokenizer cannot add
		s.Hardening(&o)
	}
	if v.Of != "" {
		v.Options(&o)
		if b.tweak != nil {
			b.tweak(&o)
		}
		if p, err = pipeline.Open(b.path(s, v.Of), b.trainK, pipeline.Options{MaxTokens: b.maxTokens}); err != nil {
			return err
		}
		raw, err := o.Tokenizer(ctx)
		if err != nil {
			return err
		}
		if raw == nil { // nothing of it is asked for: the base's, not the one that the weights were saved with
			if raw, err = os.ReadFile(filepath.Join(b.model, "tokenizer.json")); err != nil {
				return err
			}
		}
		if err := p.Bundle().SetTokenizer(raw); err != nil {
			return err
		}
	} else {
		var r *train.Result
		if v.Plain {
			o.Tune.Epochs = s.Epochs
			if r, err = train.Run(ctx, o.Tune); err != nil {
				return err
			}
		} else {
			o.Tune.Epochs = s.HardEpochs
			if v.Lexicon {
				if o.Synonyms, err = readLexicon(b.lexicon); err != nil {
					return err
				}
			}
			v.Options(&o)
			if b.tweak != nil {
				b.tweak(&o)
			}
			h, err := harden.Run(ctx, o)
			if err != nil {
				return err
			}
			r, m.Defence = &h.Result, h.Defence
		}
		m.TrainCPU, m.TrainSeconds = r.Cost.CPUSeconds, time.Since(began).Seconds()
		if p, err = pipeline.New(r.Bundle, b.trainK, pipeline.Options{MaxTokens: b.maxTokens}); err != nil {
			return err
		}
	}
	defer p.Close()
	if err := b.clean(ctx, s, p, m); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return p.Save(dir)
}

// clean measures the test set without any attack.
func (b *bench) clean(ctx context.Context, s set, p *pipeline.Pipeline, m *measured) error {
	test, err := b.judged(s, false)
	if err != nil {
		return err
	}
	if err := test.MapLabels(p.Labels()); err != nil {
		return err
	}
	answers, err := p.Classify(ctx, test.Texts)
	if err != nil {
		return err
	}
	positive := slices.Index(p.Labels(), s.Positive)
	var right, caught, positives, alarms int
	for i, a := range answers {
		if a.Class == test.Labels[i] {
			right++
		}
		switch {
		case positive < 0:
		case test.Labels[i] == positive:
			positives++
			if a.Class == positive {
				caught++
			}
		case a.Class == positive:
			alarms++
		}
	}
	m.Accuracy = share(right, len(answers))
	m.Recall, m.FalsePositives = share(caught, positives), 0
	if positive >= 0 {
		m.FalsePositives = share(alarms, len(answers)-positives)
	}
	b.logf("  accuracy %.4f recall %.3f false positives %.3f, %.0f CPU s", m.Accuracy, m.Recall, m.FalsePositives, m.TrainCPU)
	return nil
}

func share(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// judge runs the independent attacker on a Hugging Face folder: lines of metric, value, unit, separated by tabs.
func (b *bench) judge(ctx context.Context, s set, dir, recipe string) (f figure, err error) {
	abs := func(p string) string {
		if q, err := filepath.Abs(p); err == nil {
			return q
		}
		return p
	}
	cmd := exec.CommandContext(ctx, b.python, b.attacker, s.Name, recipe, strconv.Itoa(b.examples))
	cmd.Env = append(os.Environ(), "VICTIM="+abs(dir), "DATA="+abs(b.data), "ROWS="+abs(filepath.Join(b.data, "draws", s.Attack)),
		"MAXLEN="+strconv.Itoa(b.maxTokens), "OUT="+abs(filepath.Join(dir, "judged-"+recipe+".tsv")), fmt.Sprintf("OMP_NUM_THREADS=%d", b.threads), "OMP_WAIT_POLICY=PASSIVE")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		tail := log.String()
		return f, fmt.Errorf("%s: %w: %s", b.attacker, err, tail[max(0, len(tail)-2000):])
	}
	return parseJudge(&out, "attack."+s.Name+"."+recipe+".")
}

func parseJudge(r io.Reader, prefix string) (f figure, err error) {
	seen := map[string]float64{}
	for sc := bufio.NewScanner(r); sc.Scan(); {
		parts := strings.Split(sc.Text(), "\t")
		if len(parts) < 2 || !strings.HasPrefix(parts[0], prefix) {
			continue
		}
		if v, err := strconv.ParseFloat(parts[1], 64); err == nil {
			seen[strings.TrimPrefix(parts[0], prefix)] = v
		}
	}
	for _, k := range []string{"examples", "clean_accuracy", "accuracy_under_attack"} {
		if _, ok := seen[k]; !ok {
			return f, fmt.Errorf("the attacker printed no %s%s", prefix, k)
		}
	}
	return figure{int(seen["examples"]), seen["clean_accuracy"] / 100, seen["accuracy_under_attack"] / 100, seen["mean_queries"]}, nil
}

// attack runs temper's recipes that were not run yet. Synonyms come from the lexicon of the data folder, as the judge's do.
func (b *bench) attack(ctx context.Context, s set, dir string, m *measured) error {
	var todo []string
	for _, r := range split(b.recipes) {
		if f, ok := m.Own[r]; !ok || f.Examples < min(b.ownExamples, b.attackable(s)) {
			todo = append(todo, r)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	p, err := pipeline.Open(dir, b.k, pipeline.Options{MaxTokens: b.maxTokens})
	if err != nil {
		return err
	}
	defer p.Close()
	v, err := p.Victim()
	if err != nil {
		return err
	}
	examples, words, err := b.examplesOf(s, p.Labels())
	if err != nil {
		return err
	}
	for _, name := range todo {
		r, err := attack.NewRecipe(name)
		if err != nil {
			return err
		}
		rep, err := attack.Run(ctx, v, examples, r, attack.Options{Seed: b.seed, Words: words})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		m.Own[name] = figure{rep.Examples, rep.CleanAccuracy, rep.AccuracyUnderAttack, rep.AverageQueries}
		b.logf("%s, %s: %s clean %.3f under %.3f", s.Name, m.Variant, name, rep.CleanAccuracy, rep.AccuracyUnderAttack)
	}
	return nil
}

// examplesOf are the rows that temper's recipes attack, and the lexicon of synonyms: the judge's own.
func (b *bench) examplesOf(s set, labels []string) ([]attack.Example, attack.Lexicon, error) {
	test, err := b.judged(s, true)
	if err != nil {
		return nil, nil, err
	}
	if err := test.MapLabels(labels); err != nil {
		return nil, nil, err
	}
	var examples []attack.Example
	for i := range min(b.ownExamples, test.Len()) {
		examples = append(examples, attack.Example{Row: test.Rows[i], Text: test.Texts[i], Label: test.Labels[i]})
	}
	words, err := readLexicon(filepath.Join(b.data, "lexicons", "counterfitted_neighbours.tsv"))
	return examples, words, err
}

func readLexicon(path string) (attack.Lexicon, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := attack.ReadLexicon(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// printTables prints Markdown: a line a model, then what filters recover.
func printTables(w io.Writer, all []*measured) {
	judges, own := map[string]bool{}, map[string]bool{}
	for _, m := range all {
		for j := range m.Judged {
			judges[j] = true
		}
		for j := range m.Own {
			own[j] = true
		}
	}
	js, os := slices.Sorted(maps.Keys(judges)), slices.Sorted(maps.Keys(own))
	fmt.Fprint(w, "| set | model | clean, whole test |")
	for _, j := range js {
		fmt.Fprintf(w, " %s: under attack (kept) |", j)
	}
	for _, j := range os {
		fmt.Fprintf(w, " temper %s (kept) |", j)
	}
	fmt.Fprintf(w, " training, CPU s |\n|---|---|---%s|\n", strings.Repeat("|---", len(js)+len(os)+1))
	for _, m := range all {
		fmt.Fprintf(w, "| %s | %s | %.1f %% |", m.Set, m.Variant, 100*m.Accuracy)
		for _, j := range js {
			cell(w, m.Judged, j)
		}
		for _, j := range os {
			cell(w, m.Own, j)
		}
		fmt.Fprintf(w, " %.0f |\n", m.TrainCPU)
	}
	first := true
	for _, m := range all {
		i := slices.IndexFunc(all, func(x *measured) bool { return x.Set == m.Set && x.Variant == "plain" })
		if m.Recall == 0 || i < 0 {
			continue
		}
		if first {
			fmt.Fprint(w, "\n| set | model | recall | false positives |")
			for _, j := range js {
				fmt.Fprintf(w, " recall under %s (recovered) |", j)
			}
			fmt.Fprintf(w, "\n|---|---|---|---%s|\n", strings.Repeat("|---", len(js)))
			first = false
		}
		fmt.Fprintf(w, "| %s | %s | %.1f %% | %.1f %% |", m.Set, m.Variant, 100*m.Recall, 100*m.FalsePositives)
		for _, j := range js {
			now, was := m.Judged[j], all[i].Judged[j]
			lost := was.Clean - was.Under
			if m == all[i] || lost <= 0 {
				fmt.Fprintf(w, " %.1f %% |", 100*now.Under)
			} else {
				fmt.Fprintf(w, " %.1f %% (%.0f %%) |", 100*now.Under, 100*(now.Under-was.Under)/lost)
			}
		}
		fmt.Fprintln(w)
	}
}

func cell(w io.Writer, from map[string]figure, name string) {
	f, ok := from[name]
	if !ok {
		fmt.Fprint(w, " |")
		return
	}
	fmt.Fprintf(w, " %.1f %% (%.0f %%) |", 100*f.Under, 100*f.kept())
}
