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
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/pipeline"
)

// ablated is one defence on one set with one seed. Shares are of the rows named.
type ablated struct {
	Defence  string  `json:"defence"`
	Seed     uint64  `json:"seed"`
	Epochs   int     `json:"epochs"`
	Accuracy float64 `json:"accuracy"` // whole test set
	// Elsewhere is the mean recall of the labels on a domain that was not trained on, 0 when there is none.
	Elsewhere float64 `json:"elsewhere,omitempty"`
	// Flips is the share of test rows whose label one random typo changes.
	Flips    float64           `json:"flips"`
	Under    map[string]figure `json:"under"`
	TrainCPU float64           `json:"train_cpu_seconds"`
}

// guarded ends the names of defences whose tokenizer reads through typos and disguises.
const guarded = ", canonical and guard"

// ablations are the defences of the table: weights alone, then the tokenizer's part on top of the usual one.
func ablations() []string {
	out := []string{"none"}
	for _, m := range harden.Methods() {
		if m != "fgm-matrix" && m != "pgd-linf" { // adapters leave the table frozen; a second norm of pgd
			out = append(out, m)
		}
	}
	i := slices.Index(out, harden.DefaultMethod)
	return slices.Insert(out, i+1, harden.DefaultMethod+guarded)
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
	names := slices.DeleteFunc(ablations(), func(n string) bool { return strings.HasSuffix(n, guarded) }) // made from the same weights
	if b.defences != "" {
		names = split(b.defences)
	}
	for _, name := range names {
		for seed := b.seed; seed < b.seed+uint64(seeds); seed++ {
			if i := slices.IndexFunc(all, func(a ablated) bool { return a.Defence == name && a.Seed == seed }); i >= 0 {
				if all[i].Epochs != epochs {
					return fmt.Errorf("%s: %s, seed %d has %d passes, asked for %d: give a fresh -out", record, name, seed, all[i].Epochs, epochs)
				}
				continue
			}
			b.logf("ablation: %s, seed %d", name, seed)
			made, err := b.ablate(ctx, s, name, name == harden.DefaultMethod, epochs, seed)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, made...)
			if err := writeJSON(record, all); err != nil {
				return err
			}
		}
	}
	order := ablations()
	slices.SortStableFunc(all, func(x, y ablated) int { return slices.Index(order, x.Defence) - slices.Index(order, y.Defence) })
	printAblation(os.Stdout, all)
	if svg != "" {
		return os.WriteFile(svg, []byte(drawAblation(all)), 0o644)
	}
	return nil
}

// ablate trains a defence once and measures it; with guard it also measures the same weights with the tokenizer's part.
func (b *bench) ablate(ctx context.Context, s set, name string, guard bool, epochs int, seed uint64) ([]ablated, error) {
	o, err := b.settings(s)
	if err != nil {
		return nil, err
	}
	whole := o // what the tokenizer is made from
	o.Method = name
	o.Guard, o.Canon = 0, canon.Options{}
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
	out := []ablated{{Defence: name, Seed: seed, Epochs: epochs, TrainCPU: r.Cost.CPUSeconds}}
	if guard {
		out = append(out, out[0])
		out[1].Defence += guarded
	}
	for i := range out {
		if i == 1 {
			raw, err := whole.Tokenizer(ctx)
			if err != nil {
				return nil, err
			}
			if err := p.Bundle().SetTokenizer(raw); err != nil {
				return nil, err
			}
		}
		if err := b.stand(ctx, s, p, &out[i]); err != nil {
			return nil, err
		}
		b.logf("  %s: accuracy %.3f elsewhere %.3f flips %.3f %v, %.0f CPU s", out[i].Defence, out[i].Accuracy, out[i].Elsewhere, out[i].Flips, out[i].Under, out[i].TrainCPU)
	}
	return out, nil
}

// stand measures one model: the test set, the same with a typo in each row, another domain, and attacks.
func (b *bench) stand(ctx context.Context, s set, p *pipeline.Pipeline, a *ablated) error {
	test, err := b.judged(s, false)
	if err != nil {
		return err
	}
	if err := test.MapLabels(p.Labels()); err != nil {
		return err
	}
	before, err := p.Classify(ctx, test.Texts)
	if err != nil {
		return err
	}
	typos, err := b.typos(ctx, test.Texts)
	if err != nil {
		return err
	}
	after, err := p.Classify(ctx, typos)
	if err != nil {
		return err
	}
	right, flipped := 0, 0
	for i, x := range before {
		if x.Class == test.Labels[i] {
			right++
		}
		if x.Class != after[i].Class {
			flipped++
		}
	}
	a.Accuracy, a.Flips = share(right, len(before)), share(flipped, len(before))
	if b.elsewhere != "" {
		if a.Elsewhere, err = meanRecall(ctx, p, b.elsewhere); err != nil {
			return err
		}
	}
	v, err := p.Victim()
	if err != nil {
		return err
	}
	examples, words, err := b.examplesOf(s, p.Labels())
	if err != nil {
		return err
	}
	a.Under = map[string]figure{}
	for _, recipe := range split(b.recipes) {
		r, err := attack.NewRecipe(recipe)
		if err != nil {
			return err
		}
		rep, err := attack.Run(ctx, v, examples, r, attack.Options{Seed: b.seed, Words: words})
		if err != nil {
			return err
		}
		a.Under[recipe] = figure{rep.Examples, rep.CleanAccuracy, rep.AccuracyUnderAttack, rep.AverageQueries}
	}
	return nil
}

// meanRecall is the mean over the labels of a file of the share of their rows that the model finds: chance gives one over their number,
// however unequal they are.
func meanRecall(ctx context.Context, p *pipeline.Pipeline, file string) (float64, error) {
	d, err := data.Open(file, data.Options{})
	if err != nil {
		return 0, err
	}
	if err := d.MapLabels(p.Labels()); err != nil {
		return 0, err
	}
	answers, err := p.Classify(ctx, d.Texts)
	if err != nil {
		return 0, err
	}
	right, rows := make([]int, len(p.Labels())), make([]int, len(p.Labels()))
	for i, x := range answers {
		rows[d.Labels[i]]++
		if x.Class == d.Labels[i] {
			right[x.Class]++
		}
	}
	sum, labels := 0.0, 0
	for l, n := range rows {
		if n > 0 {
			sum += share(right[l], n)
			labels++
		}
	}
	return sum / float64(labels), nil
}

// typos changes one word of every text by one random edit, the same whatever the model.
func (b *bench) typos(ctx context.Context, texts []string) ([]string, error) {
	noise := harden.NewCharNoise()
	noise.Least, noise.Rate, noise.Twice = 0, 0, 0
	reqs := make([]attack.Request, len(texts))
	for i, text := range texts {
		reqs[i] = attack.Request{Text: text, Words: attack.Words(text), Max: 1, Seed: b.seed<<32 | uint64(i)}
		for j := range reqs[i].Words {
			reqs[i].May = append(reqs[i].May, j)
		}
	}
	made, err := noise.Perturb(ctx, reqs, nil)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(made))
	for i := range made {
		out[i] = made[i][0]
	}
	return out, nil
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
	away := slices.ContainsFunc(all, func(a ablated) bool { return a.Elsewhere > 0 })
	fmt.Fprint(w, "| defence | clean |")
	columns := 4 + len(recipes)
	if away {
		fmt.Fprint(w, " elsewhere |")
		columns++
	}
	fmt.Fprint(w, " flips under one typo |")
	for _, r := range recipes {
		fmt.Fprintf(w, " under %s |", r)
	}
	fmt.Fprintf(w, " training, CPU s |\n%s|\n", strings.Repeat("|---", columns))
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
		if away {
			show(d, func(a ablated) float64 { return a.Elsewhere })
		}
		show(d, func(a ablated) float64 { return a.Flips })
		for _, r := range recipes {
			show(d, func(a ablated) float64 { return a.Under[r].Under })
		}
		cpu, _ := meanAndDeviation(all, d, func(a ablated) float64 { return a.TrainCPU })
		fmt.Fprintf(w, " %.0f |\n", cpu)
	}
}

// drawAblation is a bar chart: per defence, clean accuracy, that on another domain and accuracy under each attack; whiskers are one standard
// deviation over the seeds to either side.
func drawAblation(all []ablated) string {
	type series struct {
		name  string
		value func(ablated) float64
	}
	defences, recipes := names(all)
	shown := []series{{"clean", func(a ablated) float64 { return a.Accuracy }}}
	if slices.ContainsFunc(all, func(a ablated) bool { return a.Elsewhere > 0 }) {
		shown = append(shown, series{"elsewhere", func(a ablated) float64 { return a.Elsewhere }})
	}
	for _, r := range recipes {
		shown = append(shown, series{"under " + r, func(a ablated) float64 { return a.Under[r].Under }})
	}
	const left, width, bar = 215, 420, 8
	row := len(shown)*(bar+1) + 14
	colours := []string{"#5b6770", "#2d6a8f", "#c8553d", "#5a8f4e", "#8a6fb0"}
	height := len(defences)*row + 70
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img" aria-label="Accuracy of each defence, clean and under attack">`+"\n", left+width+70, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n")
	for i := 0; i <= 100; i += 20 {
		x := left + i*width/100
		fmt.Fprintf(&b, `<path d="M%d 40V%d" stroke="#dddddd"/><text x="%d" y="%d" text-anchor="middle" fill="#555555">%d %%</text>`+"\n", x, height-25, x, height-8, i)
	}
	for i, s := range shown {
		fmt.Fprintf(&b, `<rect x="%d" y="12" width="12" height="12" fill="%s"/><text x="%d" y="22">%s</text>`+"\n", left+i*150, colours[i%len(colours)], left+i*150+17, html.EscapeString(s.name))
	}
	for i, d := range defences {
		y := 46 + i*row
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+len(shown)*(bar+1)/2+4, html.EscapeString(d))
		for j, s := range shown {
			v, sd := meanAndDeviation(all, d, s.value)
			top, mid := y+j*(bar+1), float64(y+j*(bar+1))+bar/2.0
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, top, v*width, bar, colours[j%len(colours)])
			end := v
			if sd > 0 { // false for NaN
				end += sd
				fmt.Fprintf(&b, `<path d="M%.1f %.1fH%.1f" stroke="#111111"/>`, left+max(0, v-sd)*width, mid, left+(v+sd)*width)
			}
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" font-size="9" fill="#333333">%.1f</text>`+"\n", left+end*width+4, top+bar, 100*v)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
