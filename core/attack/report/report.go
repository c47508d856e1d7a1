// Package report turns the outcome of attacks into what people read and machines check: a page, tables, data sets, a gate, a card.
package report

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/temper-ml/temper/core/attack"
)

// Meta is what a report says of the model and the run besides the figures.
type Meta struct {
	// Title, Model and Data are shown as they are.
	Title, Model, Data string
	// Version is temper's.
	Version string
	// Made is the date, as text; reports with the same Made are identical to the byte.
	Made string
	// Commands are what to type to get the same figures.
	Commands []string
	// Costs tells what each step took, in the order given.
	Costs []Cost
}

// Cost of a step.
type Cost struct {
	Step    string  `json:"step"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail,omitempty"`
}

// LabelRow are the figures of one class.
type LabelRow struct {
	Label               string  `json:"label"`
	Examples            int     `json:"examples"`
	CleanAccuracy       float64 `json:"clean_accuracy"`
	AccuracyUnderAttack float64 `json:"accuracy_under_attack"`
	AttackSuccessRate   float64 `json:"attack_success_rate"`
	AverageQueries      float64 `json:"average_queries"`
}

// ByLabel splits a report by true class, leaving out classes without examples.
func ByLabel(rep *attack.Report) []LabelRow {
	var rows []LabelRow
	for k, name := range rep.Labels {
		part := attack.Report{Labels: rep.Labels}
		for _, r := range rep.Results {
			if r.Label == k {
				part.Results = append(part.Results, r)
			}
		}
		if len(part.Results) == 0 {
			continue
		}
		part.Summarise()
		rows = append(rows, LabelRow{name, part.Examples, part.CleanAccuracy, part.AccuracyUnderAttack, part.AttackSuccessRate, part.AverageQueries})
	}
	return rows
}

// MostFooled returns up to n won results, the largest fall of the true class's score first, then the fewest words changed.
func MostFooled(rep *attack.Report, n int) []attack.Result {
	var won []attack.Result
	for _, r := range rep.Results {
		if r.Status == attack.Won {
			won = append(won, r)
		}
	}
	fall := func(r attack.Result) float64 {
		if r.Label >= len(r.Before) || r.Label >= len(r.After) {
			return 0
		}
		return float64(r.Before[r.Label] - r.After[r.Label])
	}
	sort.SliceStable(won, func(i, j int) bool {
		if a, b := fall(won[i]), fall(won[j]); a != b {
			return a > b
		}
		return won[i].Changed < won[j].Changed
	})
	return won[:min(n, len(won))]
}

// WriteJSON writes the reports, results included, as one JSON object {"reports": […]}.
func WriteJSON(w io.Writer, reports []*attack.Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any{"reports": reports}); err != nil {
		return fmt.Errorf("attack report: %w", err)
	}
	return nil
}

// WriteCSV writes one row per example and recipe.
func WriteCSV(w io.Writer, reports []*attack.Report) error {
	c := csv.NewWriter(w)
	rows := [][]string{{"recipe", "row", "status", "label", "predicted", "predicted_after", "score_before", "score_after", "queries", "words", "changed", "text", "adversarial"}}
	for _, rep := range reports {
		name := func(k int) string {
			if k >= 0 && k < len(rep.Labels) {
				return rep.Labels[k]
			}
			return strconv.Itoa(k)
		}
		score := func(s []float32, k int) string {
			if k < 0 || k >= len(s) {
				return ""
			}
			return strconv.FormatFloat(float64(s[k]), 'f', 4, 32)
		}
		for _, r := range rep.Results {
			after := ""
			if r.Status != attack.Skipped {
				after = name(r.PredictedAfter)
			}
			rows = append(rows, []string{
				rep.Recipe, strconv.Itoa(r.Row), string(r.Status), name(r.Label), name(r.Predicted), after, score(r.Before, r.Label), score(r.After, r.Label),
				strconv.Itoa(r.Queries), strconv.Itoa(r.Words), strconv.Itoa(r.Changed), r.Text, r.Adversarial,
			})
		}
	}
	if err := c.WriteAll(rows); err != nil {
		return fmt.Errorf("attack report: %w", err)
	}
	return nil
}

// WriteDataset writes the texts that won, with their true classes, as a data set "label<TAB>text" to train on, each text once. Tabs and
// line breaks in a text become spaces.
func WriteDataset(w io.Writer, reports []*attack.Report) error {
	var b bytes.Buffer
	b.WriteString("label\ttext\n")
	flat := strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")
	seen := map[string]bool{}
	for _, rep := range reports {
		for _, r := range rep.Results {
			if r.Status != attack.Won || r.PredictedAfter == r.Label || seen[r.Adversarial] || r.Label >= len(rep.Labels) {
				continue
			}
			seen[r.Adversarial] = true
			b.WriteString(flat.Replace(rep.Labels[r.Label]) + "\t" + flat.Replace(r.Adversarial) + "\n")
		}
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("attack report: %w", err)
	}
	return nil
}

//go:embed page.html
var pageSource string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"percent": func(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) },
	"number":  func(x float64) string { return strconv.FormatFloat(x, 'f', 1, 64) },
}).Parse(pageSource))

// shown are the examples listed per recipe in the page.
const shown = 20

type pageRecipe struct {
	*attack.Report
	Color     template.CSS
	Labels    []LabelRow
	Fooled    []pageExample
	Rejects   []pageReject
	Histogram histogram
	Departs   string
}

type pageExample struct {
	Row                     int
	Label, Predicted, After string
	Before, Behind          string
	Queries, Changed        int
	Old, New                []Piece
	Points                  []string
}

type pageReject struct {
	Name  string
	Count int
}

type pageData struct {
	Meta
	Recipes []pageRecipe
	Curve   curve
}

// WriteHTML writes one self-contained page that needs no network.
func WriteHTML(w io.Writer, reports []*attack.Report, meta Meta) error {
	if meta.Title == "" {
		meta.Title = "Robustness report"
	}
	d := pageData{Meta: meta}
	colors := []template.CSS{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#777777"}
	for i, rep := range reports {
		p := pageRecipe{Report: rep, Color: colors[i%len(colors)], Labels: ByLabel(rep), Histogram: newHistogram(rep)}
		if r, err := attack.NewRecipe(rep.Recipe); err == nil {
			p.Departs = r.Departures
		}
		for name, n := range rep.Rejected {
			p.Rejects = append(p.Rejects, pageReject{name, n})
		}
		slices.SortFunc(p.Rejects, func(a, b pageReject) int { return strings.Compare(a.Name, b.Name) })
		for _, r := range MostFooled(rep, shown) {
			p.Fooled = append(p.Fooled, newExample(rep, r))
		}
		d.Recipes = append(d.Recipes, p)
	}
	d.Curve = newCurve(d.Recipes)
	var b bytes.Buffer
	if err := page.Execute(&b, d); err != nil {
		return fmt.Errorf("attack report: %w", err)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("attack report: %w", err)
	}
	return nil
}

func newExample(rep *attack.Report, r attack.Result) pageExample {
	name := func(k int) string {
		if k >= 0 && k < len(rep.Labels) {
			return rep.Labels[k]
		}
		return strconv.Itoa(k)
	}
	score := func(s []float32) string {
		if r.Label >= len(s) {
			return "?"
		}
		return fmt.Sprintf("%.3f", s[r.Label])
	}
	e := pageExample{
		Row: r.Row, Label: name(r.Label), Predicted: name(r.Predicted), After: name(r.PredictedAfter), Before: score(r.Before), Behind: score(r.After),
		Queries: r.Queries, Changed: r.Changed,
	}
	e.Old, e.New = Diff(r.Text, r.Adversarial)
	var gone, come []string
	for _, p := range e.Old {
		gone = append(gone, p.Points...)
	}
	for _, p := range e.New {
		come = append(come, p.Points...)
	}
	const most = 24
	e.Points = append(e.Points, "− "+list(gone, most), "+ "+list(come, most))
	return e
}

func list(points []string, most int) string {
	if len(points) == 0 {
		return "none"
	}
	if len(points) > most {
		return strings.Join(points[:most], " ") + fmt.Sprintf(" and %d more", len(points)-most)
	}
	return strings.Join(points, " ")
}

// curve is the geometry of "accuracy against budget", in a box of 640 by 280 with a margin for the axes.
type curve struct {
	Lines  []curveLine
	Ticks  []tick
	Levels []tick
}

type curveLine struct {
	Name, Points string
	Color        template.CSS
}

type tick struct {
	At    float64
	Label string
}

const (
	left, right, top, bottom = 48.0, 630.0, 10.0, 240.0
)

func newCurve(recipes []pageRecipe) curve {
	most := 1
	for _, p := range recipes {
		for _, r := range p.Results {
			most = max(most, r.Queries)
		}
	}
	x := func(q int) float64 {
		return left + (right-left)*math.Log(float64(q))/math.Log(float64(max(2, most)))
	}
	y := func(a float64) float64 { return bottom - (bottom-top)*a }
	var c curve
	for q := 1; q <= most; q *= 10 {
		c.Ticks = append(c.Ticks, tick{x(q), strconv.Itoa(q)})
	}
	for k := range 6 {
		c.Levels = append(c.Levels, tick{y(float64(k) / 5), fmt.Sprintf("%d %%", 20*k)})
	}
	for _, p := range recipes {
		at := []int{1}
		for _, r := range p.Results {
			if r.Status == attack.Won {
				at = append(at, r.Queries)
			}
		}
		at = append(at, most)
		slices.Sort(at)
		at = slices.Compact(at)
		var b strings.Builder
		last := p.AccuracyAt(0)
		for _, q := range at {
			a := p.AccuracyAt(q)
			fmt.Fprintf(&b, "%.1f,%.1f %.1f,%.1f ", x(q), y(last), x(q), y(a))
			last = a
		}
		c.Lines = append(c.Lines, curveLine{p.Recipe, strings.TrimSpace(b.String()), p.Color})
	}
	return c
}

// histogram of the queries that examples took, in bars of equal width.
type histogram struct {
	Bars []bar
	Most int
}

type bar struct {
	X, Y, Width, Height float64
	From, To, Count     int
}

func newHistogram(rep *attack.Report) histogram {
	var h histogram
	most := 0
	for _, r := range rep.Results {
		if r.Status != attack.Skipped {
			most = max(most, r.Queries)
		}
	}
	if most == 0 {
		return h
	}
	const bins = 24
	width := max(1, int(math.Ceil(float64(most+1)/bins)))
	counts := make([]int, most/width+1)
	for _, r := range rep.Results {
		if r.Status != attack.Skipped {
			counts[r.Queries/width]++
			h.Most = max(h.Most, counts[r.Queries/width])
		}
	}
	for k, n := range counts {
		w := 400.0 / float64(len(counts))
		tall := 100 * float64(n) / float64(h.Most)
		h.Bars = append(h.Bars, bar{float64(k) * w, 110 - tall, w - 1, tall, k * width, (k+1)*width - 1, n})
	}
	return h
}
