package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
)

// outcome is what one engine did with a slice of rows.
type outcome struct {
	Recipe  string  `json:"recipe"`
	Engine  string  `json:"engine"`
	Rows    []int   `json:"rows"`
	Won     int     `json:"won"`
	Held    int     `json:"held"`
	Skipped int     `json:"skipped"`
	Queries int     `json:"queries"` // over won and held examples, cached answers included
	Texts   int     `json:"texts"`   // texts that the victim scored
	Seconds float64 `json:"seconds"`
	// Plain is the time that the victim alone takes for the same texts, in full batches; 0 where it was not measured.
	Plain float64 `json:"plain_seconds,omitempty"`
}

func (o *outcome) add(p outcome) {
	o.Rows = append(o.Rows, p.Rows...)
	o.Won += p.Won
	o.Held += p.Held
	o.Skipped += p.Skipped
	o.Queries += p.Queries
	o.Texts += p.Texts
	o.Seconds += p.Seconds
	o.Plain += p.Plain
}

func (o *outcome) rate() float64    { return float64(len(o.Rows)) / o.Seconds }
func (o *outcome) success() float64 { return 100 * float64(o.Won) / float64(max(1, o.Won+o.Held)) }
func (o *outcome) queries() float64 { return float64(o.Queries) / float64(max(1, o.Won+o.Held)) }

// targets are the ratios of examples per second that are asked for.
var targets = map[[2]string]float64{
	{"deepwordbug", "f32"}: 1.6, {"deepwordbug", "int8"}: 3.5, {"textbugger-chars", "f32"}: 5, {"pruthi", "f32"}: 10,
}

// printTable pools the slices of each engine. An engine is compared with the peer over the slices that the peer finished too.
func printTable(all []outcome) {
	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"recipe", "engine", "rows", "success", "queries", "texts/s", "rows/s", "× peer", "asked", "overhead"})
	var recipes []string
	for _, o := range all {
		if !slices.Contains(recipes, o.Recipe) {
			recipes = append(recipes, o.Recipe)
		}
	}
	for _, r := range recipes {
		var engines []string
		for _, o := range all {
			if o.Recipe == r && !slices.Contains(engines, o.Engine) {
				engines = append(engines, o.Engine)
			}
		}
		for _, e := range engines {
			var sum, mine, peer outcome
			for _, o := range all {
				if o.Recipe != r || o.Engine != e {
					continue
				}
				sum.add(o)
				k := slices.IndexFunc(all, func(p outcome) bool { return p.Recipe == r && p.Engine == "textattack" && slices.Equal(p.Rows, o.Rows) })
				if k >= 0 {
					mine.add(o)
					peer.add(all[k])
				}
			}
			row := table.Row{r, e, len(sum.Rows), fmt.Sprintf("%.1f %%", sum.success()), fmt.Sprintf("%.1f", sum.queries()),
				fmt.Sprintf("%.0f", float64(sum.Texts)/sum.Seconds), fmt.Sprintf("%.2f", sum.rate()), "", "", ""}
			if e != "textattack" && len(peer.Rows) > 0 {
				row[7] = fmt.Sprintf("%.2f", mine.rate()/peer.rate())
			}
			if want := targets[[2]string{r, e}]; want > 0 {
				row[8] = fmt.Sprintf("%.1f", want)
			}
			if sum.Plain > 0 {
				row[9] = fmt.Sprintf("%.1f %%", 100*(sum.Seconds/sum.Plain-1))
			}
			t.AppendRow(row)
		}
	}
	t.Render()
}
