package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	browserdemo "github.com/temper-ml/temper/browser-demo"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/canon"
	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/train"
)

// demoResult is the contract of temper demo, with what the table shows beside it.
type demoResult struct {
	Before     *harden.Standing `json:"before"`
	After      *harden.Standing `json:"after"`
	NaiveBayes float64          `json:"naive_bayes_accuracy"`
	Unseen     [2]float64       `json:"accuracy_on_unseen_topics"` // naive Bayes, hardened model
	Base       string           `json:"base"`
	Train      int              `json:"train_messages"`
	Test       int              `json:"test_messages"`
	Attacked   int              `json:"attacked_messages"`
	Seconds    float64          `json:"seconds"`
	Cost       train.Cost       `json:"cost"`
}

// demoRecipes are the attacks shown, from the plainest to the one least visible to people.
var demoRecipes = []string{"deepwordbug", "leetspeak", "bad-characters"}

func (a *app) demoCmd() *cobra.Command {
	var noServe bool
	var addr, decoder, site string
	var examples int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the whole of it on built-in messages: tune, attack, harden",
		Long: "demo trains a scam and spam filter on messages that come with temper, shows how easily it is fooled, hardens it, and shows how it\n" +
			"stands then. Nothing is downloaded. Afterwards it serves the in-browser demo, unless --no-serve is given.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			if decoder, err = a.decoderPath(cmd, decoder); err != nil {
				return fmt.Errorf("--decoder: %w", err)
			}
			if writes, err := a.writes(decoder); err != nil || !writes {
				return errors.Join(fmt.Errorf("--decoder: %s is no model that generates", decoder), err)
			}
			dir, err := os.MkdirTemp("", "temper-demo-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			r, err := a.demo(ctx, dir, examples)
			if err != nil {
				return err
			}
			if err := a.result(r, func(w io.Writer) error { return printDemo(w, r) }); err != nil {
				return err
			}
			if noServe && site == "" {
				return nil
			}
			m, err := a.pageModels(dir, decoder)
			if err != nil {
				return err
			}
			m.Samples = samples(r)
			if site != "" {
				if err := browserdemo.WriteStatic(site, m); err != nil {
					return fmt.Errorf("--site: %w", err)
				}
				fmt.Fprintf(a.err, "the page, for any static host: %s\n", site)
			}
			if noServe {
				return nil
			}
			return a.serveDemo(ctx, addr, m)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&noServe, "no-serve", false, "do not serve the page afterwards")
	f.StringVar(&addr, "addr", "127.0.0.1:8765", "address of the page")
	f.StringVar(&decoder, "decoder", builtinStories, "decoder of the page: a folder, a GGUF file or a built-in name")
	f.StringVar(&site, "site", "", "folder to write the page to, for any static host")
	f.IntVar(&examples, "attack-examples", 100, "test messages to attack")
	return cmd
}

func messages(ex []builtin.Example, labels []string) *data.Dataset {
	d := &data.Dataset{Name: "built-in messages", LabelNames: labels}
	for i, e := range ex {
		d.Texts = append(d.Texts, e.Text)
		d.Labels = append(d.Labels, slices.Index(labels, e.Label))
		d.Rows = append(d.Rows, i)
	}
	return d
}

// Folders that demo writes inside its own.
const (
	demoOrdinary = "ordinary"
	demoHardened = "hardened"
)

// demo tunes, attacks, hardens and attacks again; the two models are written below dir.
func (a *app) demo(ctx context.Context, dir string, examples int) (*demoResult, error) {
	if examples < 1 {
		return nil, usagef("--attack-examples %d: want 1 or more", examples)
	}
	start := time.Now()
	set := builtin.Messages()
	labels := []string{builtin.Ham, builtin.Spam}
	trainSet, test := messages(slices.Concat(set.Train, set.Dev), labels), messages(set.Test, labels)
	k, err := a.backend()
	if err != nil {
		return nil, err
	}
	folder, recipe, err := a.demoBase()
	if err != nil {
		return nil, err
	}
	a.logf("base %s; %d messages to learn from, %d to test on", builtinBase, trainSet.Len(), test.Len())
	attacked, err := pick(test, examples, a.seed)
	if err != nil {
		return nil, err
	}
	recipe.Folder, recipe.Base, recipe.Kernels, recipe.Train, recipe.Dev, recipe.Seed = folder, builtinBase, k, trainSet, test, a.seed
	phase := "tuning"
	a.logf("%s …", phase)
	bar := a.progress(phase, -1)
	recipe.Progress = func(p train.Progress) { bar.set(p.Step, p.Steps, fmt.Sprintf("loss %.3f", p.Loss)) }
	ordinary := recipe
	ordinary.Out, ordinary.SaveEvery = filepath.Join(dir, demoOrdinary), -1
	plain, err := train.Run(ctx, ordinary)
	if err != nil {
		return nil, err
	}
	if err := plain.Bundle.Close(); err != nil {
		return nil, err
	}
	// The first run has closed the folder that it was given.
	if recipe.Folder, _, err = a.demoBase(); err != nil {
		return nil, err
	}
	recipe.Out, recipe.SaveEvery = filepath.Join(dir, demoHardened), -1
	o := harden.Options{Tune: recipe, Method: "augment+fgm", Guard: 3000, Canon: canon.Latin(), Before: ordinary.Out, Recipes: demoRecipes, Examples: attackExamples(attacked),
		Attack: attack.Options{Seed: a.seed, Progress: func(p attack.Progress) {
			bar.set(p.Done, p.Total, fmt.Sprintf("fooled %d, held %d", p.Won, p.Held))
		}},
		Phase: func(name string) {
			bar.done()
			if name == "before" {
				return
			}
			phase = map[string]string{"attack before": "attacking", "harden": "hardening", "attack after": "attacking again"}[name]
			a.logf("%s …", phase)
			bar = a.progress(phase, -1)
		}}
	res, err := harden.Run(ctx, o)
	bar.done()
	if err != nil {
		return nil, err
	}
	defer res.Bundle.Close()
	r := &demoResult{Before: res.Before, After: res.After, Base: builtinBase, Train: trainSet.Len(), Test: test.Len(), Attacked: attacked.Len(), Cost: plain.Cost.Add(res.Cost)}
	nb := trainBayes(trainSet.Texts, labelNames(trainSet))
	seen := map[string]bool{}
	for _, e := range slices.Concat(set.Train, set.Dev) {
		seen[e.Topic] = true
	}
	var unseen []int
	for i, e := range set.Test {
		if nb.classify(e.Text) == e.Label {
			r.NaiveBayes++
			if !seen[e.Topic] {
				r.Unseen[0]++
			}
		}
		if !seen[e.Topic] {
			unseen = append(unseen, i)
		}
	}
	r.NaiveBayes /= float64(len(set.Test))
	r.Unseen[0] /= float64(max(1, len(unseen)))
	part, err := test.Select(unseen)
	if err != nil {
		return nil, err
	}
	s, err := scoresOf(ctx, res, k, part)
	if err != nil {
		return nil, err
	}
	r.Unseen[1] = s
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

func labelNames(d *data.Dataset) []string {
	out := make([]string, d.Len())
	for i := range out {
		out[i] = d.LabelName(i)
	}
	return out
}

func printDemo(w io.Writer, r *demoResult) error {
	t := newTable(w, "accuracy", "ordinary", "hardened", "naive Bayes")
	t.AppendRow([]any{fmt.Sprintf("%d test messages", r.Test), percent(r.Before.Accuracy), percent(r.After.Accuracy), percent(r.NaiveBayes)})
	t.AppendRow([]any{"topics never seen in training", "", percent(r.Unseen[1]), percent(r.Unseen[0])})
	for _, name := range demoRecipes {
		t.AppendRow([]any{fmt.Sprintf("%d messages under %s", r.Attacked, name), percent(r.Before.UnderAttack[name]), percent(r.After.UnderAttack[name]), ""})
	}
	t.Render()
	fmt.Fprintf(w, "\n%s, %s\n", seconds(r.Seconds), money(r.Cost))
	if before, after, name, ok := fooled(r); ok {
		fmt.Fprintf(w, "\nOne message that fooled the ordinary model (%s) and not the hardened one (%s):\n", before.Labels[0], name)
		for _, line := range letters(before.Result.Text, before.Result.Adversarial) {
			fmt.Fprintln(w, "  "+line)
		}
		fmt.Fprintf(w, "  ordinary: %s → %s; hardened: %s\n", label(before.Labels, before.Result.Label), label(before.Labels, before.Result.PredictedAfter), after)
	}
	return nil
}

func label(labels []string, i int) string {
	if i >= 0 && i < len(labels) {
		return labels[i]
	}
	return "?"
}

// example is a result with its report's labels.
type example struct {
	attack.Result
	Labels []string
}

// fooled finds the shortest message that one recipe turned before hardening and could not turn after.
func fooled(r *demoResult) (before example, after, recipe string, ok bool) {
	for _, name := range slices.Sorted(maps.Keys(r.Before.Reports)) {
		b, a := r.Before.Reports[name], r.After.Reports[name]
		if a == nil {
			continue
		}
		held := map[int]bool{}
		for _, x := range a.Results {
			held[x.Row] = x.Status == attack.Held
		}
		for _, x := range b.Results {
			if x.Status == attack.Won && held[x.Row] && (!ok || len(x.Text) < len(before.Text)) {
				before, recipe, ok = example{x, b.Labels}, name, true
			}
		}
	}
	if ok {
		after = label(before.Labels, before.Label)
	}
	return before, after, recipe, ok
}

// samples are messages that the page begins with: each turned by a recipe before hardening, within the page's budget, and not after. Spam goes
// first, which is what senders disguise; the shortest first among equals.
func samples(r *demoResult) []browserdemo.Sample {
	const most, budget, long = 3, 300, 160
	type found struct {
		browserdemo.Sample
		spam bool
	}
	var all []found
	seen := map[string]bool{}
	for _, name := range demoRecipes {
		b, a := r.Before.Reports[name], r.After.Reports[name]
		if b == nil || a == nil {
			continue
		}
		held := map[int]bool{}
		for _, x := range a.Results {
			held[x.Row] = x.Status == attack.Held
		}
		for _, x := range b.Results {
			if x.Status == attack.Won && held[x.Row] && x.Queries <= budget && len(x.Text) <= long && !seen[x.Text] {
				seen[x.Text] = true
				all = append(all, found{browserdemo.Sample{Text: x.Text, Recipe: name}, label(b.Labels, x.Label) == builtin.Spam})
			}
		}
	}
	slices.SortStableFunc(all, func(x, y found) int {
		if x.spam != y.spam {
			if x.spam {
				return -1
			}
			return 1
		}
		return len(x.Text) - len(y.Text)
	})
	var out []browserdemo.Sample
	for _, x := range all[:min(most, len(all))] {
		out = append(out, x.Sample)
	}
	return out
}

// letters shows two texts with the places where they differ marked below, and the code points of what came in.
func letters(a, b string) []string {
	x, y := []rune(a), []rune(b)
	// Longest common subsequence of runes.
	n, m := len(x), len(y)
	l := make([][]int, n+1)
	for i := range l {
		l[i] = make([]int, m+1)
	}
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if x[i] == y[j] {
				l[i][j] = l[i+1][j+1] + 1
			} else {
				l[i][j] = max(l[i+1][j], l[i][j+1])
			}
		}
	}
	var top, bottom strings.Builder
	var points []string
	for i, j := 0, 0; j < m; {
		switch {
		case i < n && x[i] == y[j]:
			top.WriteRune(y[j])
			bottom.WriteByte(' ')
			i, j = i+1, j+1
		case i < n && l[i+1][j] >= l[i][j+1]:
			i++
		default:
			shown := y[j]
			if shown < ' ' || invisible(shown) {
				shown = '·'
			}
			top.WriteRune(shown)
			bottom.WriteByte('^')
			points = append(points, fmt.Sprintf("U+%04X", y[j]))
			j++
		}
	}
	out := []string{string(x), top.String(), strings.TrimRight(bottom.String(), " ")}
	if len(points) > 0 {
		out = append(out, "new: "+strings.Join(points, " "))
	}
	return out
}

func invisible(r rune) bool {
	return r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2060 && r <= 0x2069 || r == 0xad || r == 0xfeff
}

// demoBase is the model that the demo starts from and how it is tuned.
func (a *app) demoBase() (f *checkpoint.Folder, o train.Options, err error) {
	f, err = a.builtin(builtinBase)
	return f, train.Options{Method: "full", Epochs: 6, LR: 3e-4, Batch: 16, MaxTokens: 64}, err
}
