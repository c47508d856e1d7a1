package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/canon"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/pipeline"
)

// ablated is one defence on one set with one seed. Shares are of the rows named.
type ablated struct {
	Defence  string  `json:"defence"`
	Seed     uint64  `json:"seed"`
	Accuracy float64 `json:"accuracy"` // whole test set
	// Flips is the share of test rows whose label one random typo changes.
	Flips    float64           `json:"flips"`
	Under    map[string]figure `json:"under"`
	TrainCPU float64           `json:"train_cpu_seconds"`
}

// ablations are the defences of the table: weights alone, then the tokenizer's part on top of the usual one.
func ablations() []string {
	out := []string{"none"}
	for _, m := range harden.Methods() {
		if m != "fgm-matrix" && m != "pgd-linf" { // adapters leave the table frozen; a second norm of pgd
			out = append(out, m)
		}
	}
	return append(out, harden.DefaultMethod, harden.DefaultMethod+", canonical and guard")
}

// ablation trains every defence for the same passes on sst2 and prints a table; with a path it draws it too.
func (b *bench) ablation(ctx context.Context, epochs int, seeds int, svg string) error {
	s := sets[slices.IndexFunc(sets, func(s set) bool { return s.Name == "sst2" })]
	record := filepath.Join(b.out, "ablation.json")
	var all []ablated
	if raw, err := os.ReadFile(record); err == nil {
		if err := json.Unmarshal(raw, &all); err != nil {
			return fmt.Errorf("%s: %w", record, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	for seed := b.seed; seed < b.seed+uint64(seeds); seed++ {
		for _, name := range ablations() {
			if slices.ContainsFunc(all, func(a ablated) bool { return a.Defence == name && a.Seed == seed }) {
				continue
			}
			b.logf("ablation: %s, seed %d", name, seed)
			a, err := b.ablate(ctx, s, name, epochs, seed)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			b.logf("  accuracy %.3f flips %.3f %v, %.0f CPU s", a.Accuracy, a.Flips, a.Under, a.TrainCPU)
			all = append(all, *a)
			if err := writeJSON(record, all); err != nil {
				return err
			}
		}
	}
	printAblation(os.Stdout, all)
	if svg != "" {
		return os.WriteFile(svg, []byte(drawAblation(all)), 0o644)
	}
	return nil
}

func (b *bench) ablate(ctx context.Context, s set, name string, epochs int, seed uint64) (*ablated, error) {
	o, err := b.settings(s)
	if err != nil {
		return nil, err
	}
	method, whole := strings.CutSuffix(name, ", canonical and guard")
	o.Method = method
	if !whole {
		o.Guard, o.Canon = 0, canon.Options{}
	}
	o.Tune.Epochs, o.Tune.Seed, o.Tune.LR = epochs, seed, 1e-3
	r, err := harden.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	p, err := pipeline.New(r.Bundle, b.trainK, pipeline.Options{MaxTokens: b.maxTokens})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var m measured
	if err := b.clean(ctx, s, p, &m); err != nil {
		return nil, err
	}
	a := &ablated{Defence: name, Seed: seed, Accuracy: m.Accuracy, Under: map[string]figure{}, TrainCPU: r.Cost.CPUSeconds}
	if a.Flips, err = b.flips(ctx, s, p); err != nil {
		return nil, err
	}
	v, err := p.Victim()
	if err != nil {
		return nil, err
	}
	examples, words, err := b.examplesOf(s, p.Labels())
	if err != nil {
		return nil, err
	}
	for _, recipe := range split(b.recipes) {
		r, err := attack.NewRecipe(recipe)
		if err != nil {
			return nil, err
		}
		rep, err := attack.Run(ctx, v, examples, r, attack.Options{Seed: b.seed, Words: words})
		if err != nil {
			return nil, err
		}
		a.Under[recipe] = figure{rep.Examples, rep.CleanAccuracy, rep.AccuracyUnderAttack, rep.AverageQueries}
	}
	return a, nil
}

// flips changes one word of every test row by one random edit and counts the labels that follow.
func (b *bench) flips(ctx context.Context, s set, p *pipeline.Pipeline) (float64, error) {
	test, err := b.judged(s, false)
	if err != nil {
		return 0, err
	}
	noise := harden.NewCharNoise()
	noise.Least, noise.Rate, noise.Twice = 0, 0, 0
	reqs := make([]attack.Request, test.Len())
	for i, text := range test.Texts {
		reqs[i] = attack.Request{Text: text, Words: attack.Words(text), Max: 1, Seed: b.seed<<32 | uint64(i)}
		for j := range reqs[i].Words {
			reqs[i].May = append(reqs[i].May, j)
		}
	}
	made, err := noise.Perturb(ctx, reqs, nil)
	if err != nil {
		return 0, err
	}
	texts := make([]string, len(made))
	for i := range made {
		texts[i] = made[i][0]
	}
	before, err := p.Classify(ctx, test.Texts)
	if err != nil {
		return 0, err
	}
	after, err := p.Classify(ctx, texts)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range before {
		if before[i].Class != after[i].Class {
			n++
		}
	}
	return share(n, len(before)), nil
}

// meanAndDeviation of a value over the seeds of a defence; the deviation is NaN for one seed.
func meanAndDeviation(all []ablated, name string, value func(ablated) float64) (mean, sd float64) {
	var x []float64
	for _, a := range all {
		if a.Defence == name {
			x = append(x, value(a))
		}
	}
	for _, v := range x {
		mean += v / float64(len(x))
	}
	if len(x) < 2 {
		return mean, math.NaN()
	}
	for _, v := range x {
		sd += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, math.Sqrt(sd)
}

func names(all []ablated) (defences, recipes []string) {
	for _, a := range all {
		if !slices.Contains(defences, a.Defence) {
			defences = append(defences, a.Defence)
		}
		for r := range a.Under {
			if !slices.Contains(recipes, r) {
				recipes = append(recipes, r)
			}
		}
	}
	slices.Sort(recipes)
	return defences, recipes
}

func printAblation(w io.Writer, all []ablated) {
	defences, recipes := names(all)
	fmt.Fprint(w, "| defence | clean | flips under one typo |")
	for _, r := range recipes {
		fmt.Fprintf(w, " under %s |", r)
	}
	fmt.Fprintf(w, " training, CPU s |\n|---|---|---%s|\n", strings.Repeat("|---", len(recipes)+1))
	show := func(name string, value func(ablated) float64) {
		mean, sd := meanAndDeviation(all, name, value)
		if math.IsNaN(sd) {
			fmt.Fprintf(w, " %.1f %% |", 100*mean)
		} else {
			fmt.Fprintf(w, " %.1f ± %.1f %% |", 100*mean, 100*sd)
		}
	}
	for _, d := range defences {
		fmt.Fprintf(w, "| %s |", d)
		show(d, func(a ablated) float64 { return a.Accuracy })
		show(d, func(a ablated) float64 { return a.Flips })
		for _, r := range recipes {
			show(d, func(a ablated) float64 { return a.Under[r].Under })
		}
		cpu, _ := meanAndDeviation(all, d, func(a ablated) float64 { return a.TrainCPU })
		fmt.Fprintf(w, " %.0f |\n", cpu)
	}
}

// drawAblation is a bar chart: per defence, clean accuracy and accuracy under each attack.
func drawAblation(all []ablated) string {
	defences, recipes := names(all)
	const left, row, width, bar = 215, 34, 420, 8
	colours := []string{"#5b6770", "#c8553d", "#2d6a8f", "#5a8f4e", "#8a6fb0"}
	height := len(defences)*row + 70
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img" aria-label="Accuracy of each defence, clean and under attack">`+"\n", left+width+70, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n")
	for i := 0; i <= 100; i += 20 {
		x := left + i*width/100
		fmt.Fprintf(&b, `<path d="M%d 40V%d" stroke="#dddddd"/><text x="%d" y="%d" text-anchor="middle" fill="#555555">%d %%</text>`+"\n", x, height-25, x, height-8, i)
	}
	series := append([]string{"clean"}, recipes...)
	for i, s := range series {
		fmt.Fprintf(&b, `<rect x="%d" y="12" width="12" height="12" fill="%s"/><text x="%d" y="22">%s</text>`+"\n", left+i*150, colours[i%len(colours)], left+i*150+17, html.EscapeString(map[bool]string{true: "clean", false: "under " + s}[s == "clean"]))
	}
	for i, d := range defences {
		y := 44 + i*row
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+17, html.EscapeString(d))
		for j, s := range series {
			v, _ := meanAndDeviation(all, d, func(a ablated) float64 {
				if s == "clean" {
					return a.Accuracy
				}
				return a.Under[s].Under
			})
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, y+j*(bar+1), v*width, bar, colours[j%len(colours)])
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" font-size="9" fill="#333333">%.1f</text>`+"\n", left+v*width+4, y+j*(bar+1)+bar, 100*v)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
