package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/pipeline"
)

// attackFlags are shared by attack, harden and check.
type attackFlags struct {
	recipe    string
	plugin    string
	params    map[string]string
	examples  int
	budget    int
	maxTokens int
}

func (t *attackFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.recipe, "recipe", "", "attack: "+strings.Join(attack.RecipeNames(), ", ")+" (default deepwordbug)")
	f.StringVar(&t.plugin, "plugin", "", "a plugin's .wasm that makes the candidates")
	f.StringToStringVar(&t.params, "param", nil, "name=value passed to the plugin")
	f.IntVar(&t.examples, "examples", 0, "attack this many examples, drawn by --seed (default: all)")
	f.IntVar(&t.budget, "budget", 0, "queries allowed an example (default: no limit)")
	f.IntVar(&t.maxTokens, "max-tokens", 0, "cut texts at this many tokens (default: what the model takes)")
}

// pick draws n rows of a data set by a seed and keeps their order.
func pick(set *data.Dataset, n int, seed uint64) (*data.Dataset, error) {
	if n <= 0 || n >= set.Len() {
		return set, nil
	}
	at := rand.New(rand.NewPCG(seed, 0x61747461636b)).Perm(set.Len())[:n]
	slices.Sort(at)
	return set.Select(at)
}

func attackExamples(set *data.Dataset) []attack.Example {
	out := make([]attack.Example, set.Len())
	for i := range out {
		out[i] = attack.Example{Row: set.Rows[i], Text: set.Texts[i], Label: set.Labels[i]}
	}
	return out
}

// recipeOf returns the recipe that the flags name, and what to close afterwards.
func (a *app) recipeOf(ctx context.Context, t *attackFlags, victim attack.Victim) (attack.Recipe, func(), error) {
	if t.plugin != "" {
		if t.recipe != "" {
			return attack.Recipe{}, nil, usagef("--recipe and --plugin exclude each other")
		}
		p, err := a.openPlugin(ctx, t.plugin)
		if err != nil {
			return attack.Recipe{}, nil, err
		}
		return attack.PluginRecipe(p), func() { p.Close() }, nil
	}
	name := t.recipe
	if name == "" {
		name = "deepwordbug"
	}
	if !slices.Contains(attack.RecipeNames(), name) {
		return attack.Recipe{}, nil, usagef("--recipe %q: expected one of %s", name, strings.Join(attack.RecipeNames(), ", "))
	}
	r, err := attack.NewRecipe(name, attack.Capabilities(victim, attack.Options{})...)
	return r, func() {}, err
}

// runAttack shows progress and runs.
func (a *app) runAttack(ctx context.Context, what string, v attack.Victim, ex []attack.Example, r attack.Recipe, o attack.Options) (*attack.Report, error) {
	bar := a.progress(what, len(ex))
	o.Progress = func(p attack.Progress) {
		bar.set(p.Done, p.Total, fmt.Sprintf("fooled %d, held %d, %.0f texts/s", p.Won, p.Held, p.QueriesPerSecond))
	}
	defer bar.done()
	return attack.Run(ctx, v, ex, r, o)
}

func (a *app) attackCmd() *cobra.Command {
	var d dataFlags
	var t attackFlags
	var journal string
	var reports []string
	var all bool
	cmd := &cobra.Command{
		Use:     "attack MODEL --data FILE",
		Short:   "Measure how easily a classifier is fooled",
		Example: "  temper attack out/ --data test.tsv --examples 200 --recipe deepwordbug --report report.html",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := checkReportNames(reports); err != nil {
				return err
			}
			p, err := a.openPipeline(cmd, args[0], pipeline.Options{MaxTokens: t.maxTokens})
			if err != nil {
				return err
			}
			defer p.Close()
			set, err := labelled(a, &d, p.Labels())
			if err != nil {
				return err
			}
			if set, err = pick(set, t.examples, a.seed); err != nil {
				return err
			}
			v, err := p.Victim()
			if err != nil {
				return err
			}
			r, closer, err := a.recipeOf(ctx, &t, v)
			if err != nil {
				return err
			}
			defer closer()
			o := attack.Options{Seed: a.seed, Budget: t.budget, Params: t.params}
			if journal != "" {
				j, err := attack.OpenJournal(journal, args[0])
				if err != nil {
					return err
				}
				defer j.Close()
				o.Journal = j
			}
			rep, err := a.runAttack(ctx, r.Name, v, attackExamples(set), r, o)
			if err != nil {
				return err
			}
			for _, path := range reports {
				if err := writeReport(path, []*attack.Report{rep}, a.meta(args[0], d.file)); err != nil {
					return err
				}
				a.logf("wrote %s", path)
			}
			if !all && a.json {
				rep.Results = nil
			}
			return a.result(rep, func(w io.Writer) error { return printAttack(w, rep) })
		},
	}
	d.add(cmd, true)
	t.add(cmd)
	f := cmd.Flags()
	f.StringVar(&journal, "journal", "", "file that keeps finished examples: an interrupted attack goes on where it stopped")
	f.StringArrayVar(&reports, "report", nil, "file to write: .html (a page), .json, .csv, or .tsv (the texts that won, to train on); may be repeated")
	f.BoolVar(&all, "results", false, "with --json: include each example")
	return cmd
}

func printAttack(w io.Writer, rep *attack.Report) error {
	t := newTable(w, rep.Recipe, "")
	t.AppendRow([]any{"examples", rep.Examples})
	t.AppendRow([]any{"wrong before", rep.Skipped})
	t.AppendRow([]any{"clean accuracy", percent(rep.CleanAccuracy)})
	t.AppendRow([]any{"accuracy under attack", percent(rep.AccuracyUnderAttack)})
	t.AppendRow([]any{"attack success rate", percent(rep.AttackSuccessRate)})
	t.AppendRow([]any{"queries an example", fmt.Sprintf("%.1f", rep.AverageQueries)})
	t.AppendRow([]any{"words changed", fmt.Sprintf("%.1f (%s)", rep.AverageWordsChanged, percent(rep.AverageShareChanged))})
	t.AppendRow([]any{"texts per second", fmt.Sprintf("%.0f", rep.QueriesPerSecond)})
	t.AppendRow([]any{"time", seconds(rep.Seconds)})
	t.Render()
	shown := 0
	for _, r := range rep.Results {
		if r.Status == attack.Won && shown < 3 {
			shown++
			fmt.Fprintf(w, "\n%s → %s\n  %s\n  %s\n", rep.Labels[r.Label], rep.Labels[r.PredictedAfter], r.Text, r.Adversarial)
		}
	}
	return nil
}
