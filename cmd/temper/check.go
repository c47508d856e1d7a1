package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/report"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/pipeline"
)

// writeReport writes reports by the ending of the file: .html, .json, .csv, or .tsv for the texts that won, to train on.
func writeReport(path string, reports []*attack.Report, meta report.Meta) error {
	write := map[string]func(io.Writer) error{
		".html": func(w io.Writer) error { return report.WriteHTML(w, reports, meta) },
		".json": func(w io.Writer) error { return report.WriteJSON(w, reports) },
		".csv":  func(w io.Writer) error { return report.WriteCSV(w, reports) },
		".tsv":  func(w io.Writer) error { return report.WriteDataset(w, reports) },
	}[strings.ToLower(filepath.Ext(path))]
	if write == nil {
		return usagef("--report %s: expected a name that ends in .html, .json, .csv, or .tsv (the texts that won, to train on)", path)
	}
	return checkpoint.WriteFile(path, write)
}

func checkReportNames(paths []string) error {
	for _, p := range paths {
		if !slices.Contains([]string{".html", ".json", ".csv", ".tsv"}, strings.ToLower(filepath.Ext(p))) {
			return usagef("--report %s: expected a name that ends in .html, .json, .csv, or .tsv (the texts that won, to train on)", p)
		}
	}
	return nil
}

// gateResult is what temper check prints with --json.
type gateResult struct {
	Passed   bool             `json:"passed"`
	Accuracy float64          `json:"accuracy"`
	Cases    []report.Case    `json:"cases"`
	Reports  []*attack.Report `json:"reports"`
}

func (a *app) checkCmd() *cobra.Command {
	var d dataFlags
	var t attackFlags
	var recipes []string
	var minAccuracy, minRobust float64
	var junit, markdown string
	var card bool
	cmd := &cobra.Command{
		Use:   "check MODEL --data FILE --min-accuracy A --min-robust R",
		Short: "A gate for CI: fail when a classifier is not accurate or robust enough",
		Long: "check measures accuracy on all of --data and accuracy under attack on --examples of it. It exits with 3 when a bar is not met, and writes a\n" +
			"JUnit file and a Markdown summary for CI. --card writes the outcome into the model's README.md and config.json.",
		Example: "  temper check hard/ --data test.tsv --min-accuracy 0.9 --min-robust 0.5 --examples 200 --junit robustness.xml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if f := cmd.Flags(); !f.Changed("min-accuracy") && !f.Changed("min-robust") && !card {
				return usagef("give --min-accuracy, --min-robust or both: without a bar there is no gate (--card needs none)")
			}
			for name, v := range map[string]float64{"min-accuracy": minAccuracy, "min-robust": minRobust} {
				if v < 0 || v > 1 {
					return usagef("--%s %g: want a share between 0 and 1", name, v)
				}
			}
			p, err := a.openPipeline(cmd, args[0], pipeline.Options{MaxTokens: t.maxTokens})
			if err != nil {
				return err
			}
			defer p.Close()
			r, err := a.evaluate(cmd, p, &d, t.maxTokens)
			if err != nil {
				return err
			}
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
			names := recipes
			if len(t.plugins) > 0 {
				names = append(names, "")
			} else if len(names) == 0 {
				names = []string{"deepwordbug"}
			}
			out := gateResult{Accuracy: r.Accuracy}
			for _, name := range names {
				f := t
				f.recipe = name
				if name != "" {
					f.plugins = nil
				}
				rec, done, err := a.recipeOf(ctx, &f, v, o)
				if err != nil {
					return err
				}
				rep, err := a.runAttack(ctx, rec.Name, v, attackExamples(set), rec, o)
				done()
				if err != nil {
					return err
				}
				out.Reports = append(out.Reports, rep)
			}
			out.Cases, out.Passed = report.Gate{MinAccuracy: minAccuracy, MinRobust: minRobust}.Check(r.Accuracy, r.Examples, out.Reports)
			if junit != "" {
				if err := checkpoint.WriteFile(junit, func(w io.Writer) error { return report.WriteJUnit(w, args[0], out.Cases) }); err != nil {
					return err
				}
			}
			if markdown != "" {
				if err := checkpoint.WriteFile(markdown, func(w io.Writer) error {
					_, err := io.WriteString(w, report.Markdown(args[0], out.Cases))
					return err
				}); err != nil {
					return err
				}
			}
			if card {
				meta := a.meta(args[0], d.file)
				for _, rep := range out.Reports {
					meta.Costs = append(meta.Costs, report.Cost{Step: "attack " + rep.Recipe, Seconds: rep.Seconds})
				}
				if err := putCard(args[0], out.Reports, meta); err != nil {
					return err
				}
			}
			for _, rep := range out.Reports {
				rep.Results = nil
			}
			if err := a.result(out, func(w io.Writer) error {
				tw := newTable(w, "", "measured", "95 % interval", "wanted", "")
				for _, c := range out.Cases {
					mark := "met"
					if !c.Met {
						mark = "NOT MET"
					}
					tw.AppendRow([]any{c.Name, percent(c.Value), percent(c.Low) + " to " + percent(c.High), percent(c.Minimum), mark})
				}
				tw.Render()
				return nil
			}); err != nil {
				return err
			}
			if !out.Passed {
				return errGate
			}
			return nil
		},
	}
	d.add(cmd, true)
	t.add(cmd)
	t.measure.add(cmd)
	f := cmd.Flags()
	f.Lookup("recipe").Hidden = true
	f.StringSliceVar(&recipes, "recipes", nil, "attacks to stand against (default deepwordbug)")
	f.Float64Var(&minAccuracy, "min-accuracy", 0, "least clean accuracy, between 0 and 1")
	f.Float64Var(&minRobust, "min-robust", 0, "least accuracy under each attack, between 0 and 1")
	f.StringVar(&junit, "junit", "", "JUnit file to write")
	f.StringVar(&markdown, "markdown", "", "Markdown summary to write")
	f.BoolVar(&card, "card", false, "write the robustness card into the model folder's README.md and config.json")
	return cmd
}

// meta is what reports say of the run.
func (a *app) meta(model, data string) report.Meta {
	return report.Meta{Title: "Robustness of " + filepath.Base(filepath.Clean(model)), Model: model, Data: data, Version: version,
		Made: time.Now().UTC().Format("2006-01-02"), Commands: []string{"temper " + strings.Join(os.Args[1:], " ")}}
}
