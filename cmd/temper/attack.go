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
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
)

// attackFlags are shared by attack, harden and check.
type attackFlags struct {
	recipe    string
	plugins   []string
	params    map[string]string
	examples  int
	budget    int
	maxTokens int
	measure   measureFlags
}

// measureFlags are what attack and check offer beyond harden: goals, constraints, and models that serve them.
type measureFlags struct {
	encoder, masker, lexicon string
	target, evade            string
	below                    float64
	search                   string
	constraints              []string
}

func (m *measureFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.encoder, "encoder", "", "MODEL that judges sentence similarity (default: the classifier's own encoder)")
	f.StringVar(&m.masker, "masker", "", "MODEL with a masked-language-model head, for bae, bert-attack, clare and plausible=P")
	f.StringVar(&m.lexicon, "lexicon", "", "file of lines \"word<TAB>neighbours\" for synonyms (default: near words by the classifier's embeddings)")
	f.StringVar(&m.target, "target", "", "only this label counts as won (default: any wrong one)")
	f.StringVar(&m.evade, "evade", "", "win by bringing the score of this label below --below: a detector at its operating point")
	f.Float64Var(&m.below, "below", 0.5, "with --evade: the detector's threshold")
	f.StringVar(&m.search, "search", "", "search in place of the recipe's: "+strings.Join(attack.SearchNames(), ", "))
	f.StringArrayVar(&m.constraints, "constraint", nil, "further limit, may be repeated: "+strings.Join(attack.ConstraintForms(), ", "))
}

// options opens what the flags name; the closer gives it back.
func (m *measureFlags) options(a *app, cmd *cobra.Command, labels []string, o *attack.Options) (closer func(), err error) {
	var open []io.Closer
	giveBack := func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
	defer func() {
		if err != nil {
			giveBack()
		}
	}()
	label := func(flag, name string) (int, error) {
		if i := slices.Index(labels, name); i >= 0 {
			return i, nil
		}
		return 0, usagef("--%s %q: the model's labels are %s", flag, name, strings.Join(labels, ", "))
	}
	switch {
	case m.target != "" && m.evade != "":
		return nil, usagef("--target and --evade exclude each other")
	case m.target != "":
		i, err := label("target", m.target)
		if err != nil {
			return nil, err
		}
		o.Goal = attack.Targeted{Target: i}
	case m.evade != "":
		i, err := label("evade", m.evade)
		if err != nil {
			return nil, err
		}
		if !(m.below > 0 && m.below <= 1) {
			return nil, usagef("--below %g: want a score above 0, at most 1", m.below)
		}
		o.Goal = attack.Threshold{Class: i, Below: float32(m.below)}
	}
	if m.encoder != "" {
		p, err := a.openPipeline(cmd, m.encoder, pipeline.Options{Head: model.HeadNone})
		if err != nil {
			return nil, fmt.Errorf("--encoder: %w", err)
		}
		open = append(open, p)
		o.Encoder = p
	}
	if m.masker != "" {
		p, err := a.openPipeline(cmd, m.masker, pipeline.Options{})
		if err != nil {
			return nil, fmt.Errorf("--masker: %w", err)
		}
		open = append(open, p)
		if o.Masker, err = p.Masker(); err != nil {
			return nil, fmt.Errorf("--masker: %w", err)
		}
	}
	if m.lexicon != "" {
		l, err := readLexicon("--lexicon", m.lexicon)
		if err != nil {
			return nil, err
		}
		o.Words = l
	}
	return giveBack, nil
}

// constrain adds the limits that the flags name to a recipe.
func (m *measureFlags) constrain(r *attack.Recipe) error {
	for _, s := range m.constraints {
		c, need, err := attack.ParseConstraint(s)
		if err != nil {
			return usagef("--constraint: %v", err)
		}
		r.Constraints = append(slices.Clip(r.Constraints), c)
		if need != "" && !slices.Contains(r.Needs, need) {
			r.Needs = append(slices.Clip(r.Needs), need)
		}
	}
	return nil
}

func (t *attackFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.recipe, "recipe", "", "attack: "+strings.Join(attack.RecipeNames(), ", ")+" (default deepwordbug)")
	f.StringArrayVar(&t.plugins, "plugin", nil, "a plugin's .wasm that makes the candidates; given several times, one that fails is left out")
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
func (a *app) recipeOf(ctx context.Context, t *attackFlags, victim attack.Victim, o attack.Options) (attack.Recipe, func(), error) {
	if len(t.plugins) > 0 {
		if t.recipe != "" {
			return attack.Recipe{}, nil, usagef("--recipe and --plugin exclude each other")
		}
		var ps []attack.Perturber
		closer := func() {
			for _, p := range ps {
				_ = p.(io.Closer).Close()
			}
		}
		r, err := func() (attack.Recipe, error) {
			for _, path := range t.plugins {
				p, err := a.openPlugin(ctx, path)
				if err != nil {
					return attack.Recipe{}, err
				}
				ps = append(ps, p)
			}
			r := attack.PluginsRecipe(ps...)
			if t.measure.search != "" {
				var err error
				if r.Search, err = attack.ParseSearch(t.measure.search); err != nil {
					return attack.Recipe{}, usagef("--search: %v", err)
				}
			}
			return r, t.measure.constrain(&r)
		}()
		if err != nil {
			closer()
			return attack.Recipe{}, nil, err
		}
		return r, closer, nil
	}
	name := t.recipe
	if name == "" {
		name = "deepwordbug"
	}
	if !slices.Contains(attack.RecipeNames(), name) {
		return attack.Recipe{}, nil, usagef("--recipe %q: expected one of %s", name, strings.Join(attack.RecipeNames(), ", "))
	}
	r, err := attack.NewRecipe(name, attack.Capabilities(victim, o)...)
	if err != nil {
		return attack.Recipe{}, nil, err
	}
	if t.measure.search != "" {
		if r.Search, err = attack.ParseSearch(t.measure.search); err != nil {
			return attack.Recipe{}, nil, usagef("--search: %v", err)
		}
		r.Name += "+" + t.measure.search
	}
	return r, func() {}, t.measure.constrain(&r)
}

// runAttack shows progress and runs.
func (a *app) runAttack(ctx context.Context, what string, v attack.Victim, ex []attack.Example, r attack.Recipe, o attack.Options) (*attack.Report, error) {
	bar := a.progress(what, len(ex))
	o.Progress = func(p attack.Progress) {
		bar.set(p.Done, p.Total, fmt.Sprintf("fooled %d, held %d, %.0f texts/s", p.Won, p.Held, p.QueriesPerSecond))
	}
	defer bar.done()
	o.Complain = func(name string, err error) { a.logf("going on without %s where it fails: %v", name, err) }
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
			o := attack.Options{Seed: a.seed, Budget: t.budget, Params: t.params}
			closeModels, err := t.measure.options(a, cmd, p.Labels(), &o)
			if err != nil {
				return err
			}
			defer closeModels()
			r, closer, err := a.recipeOf(ctx, &t, v, o)
			if err != nil {
				return err
			}
			defer closer()
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
	t.measure.add(cmd)
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
