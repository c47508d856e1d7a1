package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/canon"
	"github.com/temper-ml/temper/core/harden"
)

func (a *app) hardenCmd() *cobra.Command {
	var t tuneFlags
	var method, against, before, clean string
	var plugins, recipes []string
	var examples, budget, guard, wide int
	var heldOut []string
	var lexicon, synonyms string
	var wordNoise, share, closed float64
	cmd := &cobra.Command{
		Use:   "harden BASE --data FILE -o DIR",
		Short: "Train a classifier to resist being fooled",
		Long: "harden trains as tune does, on texts that are perturbed anew every time and on worst-case changes of word embeddings, and measures\n" +
			"accuracy under attack before and after on --dev (or --attack-data).\n\nMethods: " + strings.Join(harden.Methods(), ", ") + "; augment combines with any other by +.",
		Example: "  temper harden minilm/ --data train.tsv --dev dev.tsv --tune lora -o hard/\n" +
			"  temper harden minilm/ --data train.tsv --dev dev.tsv --tune lora --synonym-encoding synonyms.tsv -o hard/",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if _, err := harden.Objective(method, harden.Sources{}); err != nil {
				return usageError{err}
			}
			for _, r := range recipes {
				if !slices.Contains(attack.RecipeNames(), r) {
					return usagef("--recipe %q: expected one of %s", r, strings.Join(attack.RecipeNames(), ", "))
				}
			}
			canonical, err := canon.ParseOptions(clean)
			if err != nil {
				return usageError{err}
			}
			if guard < 0 {
				return usagef("--guard %d: want 0 (none) or more", guard)
			}
			if wide < 0 {
				return usagef("--guard-unseen %d: want 0 (none) or more", wide)
			}
			if !(closed >= 0 && closed < 1) {
				return usagef("--drop-pieces %g: want at least 0, less than 1", closed)
			}
			for _, r := range heldOut {
				if !slices.Contains(attack.RecipeNames(), r) {
					return usagef("--held-out %q: expected one of %s", r, strings.Join(attack.RecipeNames(), ", "))
				}
			}
			if !(share > 0 && share <= 1) {
				return usagef("--share %g: want more than 0, at most 1", share)
			}
			if wordNoise < 0 || wordNoise >= 1 {
				return usagef("--word-noise %g: want at least 0, less than 1", wordNoise)
			}
			o := harden.Defaults()
			o.Method, o.Before, o.Recipes, o.Guard, o.Canon, o.HeldOut = method, before, recipes, guard, canonical, heldOut
			o.Share, o.Perturbers, o.Wide, o.Closed = share, nil, wide, closed
			if wordNoise > 0 {
				o.Perturbers = append(o.Perturbers, &harden.WordNoise{Least: wordNoise / 2, Rate: wordNoise})
			}
			if lexicon != "" {
				if o.Words, err = readLexicon("--lexicon", lexicon); err != nil {
					return err
				}
			}
			if synonyms != "" {
				if o.Synonyms, err = readLexicon("--synonym-encoding", synonyms); err != nil {
					return err
				}
			}
			tune, err := t.prepare(a, cmd, args[0])
			if err != nil {
				return err
			}
			for _, path := range plugins {
				p, err := a.openPlugin(ctx, path)
				if err != nil {
					return err
				}
				defer p.Close()
				o.Perturbers = append(o.Perturbers, p)
			}
			if examples > 0 {
				set := tune.Dev
				if against != "" {
					if set, err = t.open(a, against, "", false); err != nil {
						return err
					}
				}
				if set != nil {
					s := *set
					if err := s.MapLabels(tune.Train.LabelNames); err != nil {
						return err
					}
					part, err := pick(&s, examples, a.seed)
					if err != nil {
						return err
					}
					o.Examples = attackExamples(part)
				}
			}
			watch, done := a.watch("training")
			tune.Progress = watch
			o.Tune = tune
			o.Attack = attack.Options{Seed: a.seed, Budget: budget}
			bar := a.progress("attacking", -1)
			o.Attack.Progress = func(p attack.Progress) {
				bar.set(p.Done, p.Total, fmt.Sprintf("fooled %d, held %d, %.0f texts/s", p.Won, p.Held, p.QueriesPerSecond))
			}
			o.Phase = func(name string) { a.logf("%s …", name) }
			r, err := harden.Run(ctx, o)
			done()
			bar.done()
			if err != nil {
				return a.interrupted(ctx, err, t.out)
			}
			defer r.Bundle.Close()
			if err := addCost(tune.Base, t.out, ledgerStep{Step: "harden", Method: method + ", " + r.Method, Seconds: r.Seconds, Cost: r.Cost}); err != nil {
				return err
			}
			if r.After != nil && len(r.After.Reports) > 0 {
				against := cmp.Or(against, t.dev)
				if err := putCard(t.out, reportsOf(r.After, recipes), a.meta(t.out, against)); err != nil {
					return err
				}
			}
			a.hint(r.Dev)
			return a.result(r, func(w io.Writer) error {
				if err := printStandings(w, r.Before, r.After); err != nil {
					return err
				}
				return a.printTuned(w, &r.Result, t.out)
			})
		},
	}
	t.add(cmd, "tune")
	def := harden.Defaults()
	f := cmd.Flags()
	f.StringVar(&method, "method", harden.DefaultMethod, "defence, see above")
	f.StringVar(&clean, "canonical", "invisible,compatibility,confusables", "disguises that the tokenizer undoes: invisible, compatibility, confusables, accents,\nspacing, leetspeak, numbers (words with two digits or more read as one number, in training too), all (but accents and\nnumbers) or none")
	f.IntVar(&guard, "guard", def.Guard, "words whose misspellings the tokenizer reads as the word (0: none; some 7 MB a thousand)")
	f.IntVar(&wide, "guard-unseen", def.Wide, "with --guard: that many usual words which no training text holds are guarded too")
	f.Float64Var(&closed, "drop-pieces", def.Closed, "with --guard: parts of words that make up less than this share of the training texts leave the vocabulary, so that\ngarbled words are unknown words (0: all stay)")
	f.Float64Var(&share, "share", def.Share, "with augment or online: share of the texts that get a copy")
	f.Float64Var(&wordNoise, "word-noise", 0.5, "with augment or online: some copies lose up to this share of their words, so that no prediction hangs on a few\n(0: none)")
	f.StringVar(&lexicon, "lexicon", "", "synonyms for ascc and a2t, word<TAB>synonym synonym … (default: words that the base finds near)")
	f.StringVar(&synonyms, "synonym-encoding", "", "lexicon, as --lexicon, whose near words the tokenizer reads as one, in training too: most of its synonyms cannot\nfool the model then")
	f.StringSliceVar(&heldOut, "held-out", nil, "attacks whose edits training must not see")
	f.StringArrayVar(&plugins, "plugin", nil, "a plugin's .wasm to draw perturbations from (may be repeated)")
	f.StringSliceVar(&recipes, "recipe", []string{"deepwordbug"}, "attacks to measure with")
	f.IntVar(&examples, "attack-examples", 100, "examples to attack before and after (0: none)")
	f.StringVar(&against, "attack-data", "", "labelled texts to attack (default: --dev)")
	f.IntVar(&budget, "budget", 0, "queries allowed an example (default: no limit)")
	f.StringVar(&before, "before", "", "model to compare with: a folder, plain (same tuning, no defence), or none")
	return cmd
}

// reportsOf lists the reports of a standing in the order of the recipes.
func reportsOf(s *harden.Standing, recipes []string) []*attack.Report {
	var out []*attack.Report
	for _, name := range recipes {
		if r := s.Reports[name]; r != nil {
			out = append(out, r)
		}
	}
	return out
}

// printStandings shows what hardening has changed.
func printStandings(w io.Writer, before, after *harden.Standing) error {
	if before == nil && after == nil {
		return nil
	}
	t := newTable(w, "accuracy", "before", "after")
	show := func(s *harden.Standing, v func(*harden.Standing) float64) string {
		if s == nil {
			return "-"
		}
		return percent(v(s))
	}
	t.AppendRow([]any{"clean", show(before, func(s *harden.Standing) float64 { return s.Accuracy }), show(after, func(s *harden.Standing) float64 { return s.Accuracy })})
	if after != nil {
		for _, name := range slices.Sorted(maps.Keys(after.UnderAttack)) {
			v := func(s *harden.Standing) float64 { return s.UnderAttack[name] }
			t.AppendRow([]any{"under " + name, show(before, v), show(after, v)})
		}
	}
	t.Render()
	_, err := fmt.Fprintln(w)
	return err
}
