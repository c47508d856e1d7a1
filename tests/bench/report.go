package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"slices"
	"strings"
)

// report joins JSON files of several runs into a Markdown table and a plot; of a row that is in several, the last counts.
func report(args []string, w io.Writer) error {
	fs := flag.NewFlagSet("bench report", flag.ContinueOnError)
	match := fs.String("rows", "", "only rows whose name contains one of these, separated by commas")
	plot := fs.String("svg", "", "also draw the ratios to this file")
	merged := fs.String("json", "", "also write the rows to this file")
	title := fs.String("title", "Speed of temper over the fastest peer", "of the plot")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return errors.New("report needs the JSON files of runs")
	}
	var rows []result
	for _, name := range fs.Args() {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var run struct{ Rows []result }
		if err := json.Unmarshal(b, &run); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, r := range run.Rows {
			if !wanted(r.Name, *match) || r.Error != "" {
				continue
			}
			at := slices.IndexFunc(rows, func(o result) bool { return o.Name == r.Name && o.Threads == r.Threads })
			if at < 0 {
				rows = append(rows, r)
			} else {
				rows[at] = r
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b result) int {
		return cmp.Or(a.Threads-b.Threads, rank(a.Name)-rank(b.Name))
	})
	markdown(w, rows)
	if *merged != "" {
		b, err := json.MarshalIndent(map[string]any{"rows": rows}, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*merged, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if *plot == "" {
		return nil
	}
	return os.WriteFile(*plot, []byte(svg(*title, rows)), 0o644)
}

// rank puts rows of a kind together, the runs that they come from notwithstanding.
func rank(name string) int {
	return slices.IndexFunc([]string{"infer f32", "infer int8", "infer bf16", "train", "process", ""}, func(p string) bool { return strings.HasPrefix(name, p) })
}

// markdown prints one line for each row; ratios below their target are bold.
func markdown(w io.Writer, rows []result) {
	fmt.Fprintln(w, "| row | threads | temper, best ms | fastest peer, best ms | ratio | target |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, r := range rows {
		ratio, target := fmt.Sprintf("%.2f", r.Ratio), ""
		if r.Target > 0 {
			target = fmt.Sprintf("%g", r.Target)
			if r.Ratio < r.Target {
				ratio = "**" + ratio + "**"
			}
		}
		fmt.Fprintf(w, "| %s | %d | %s | %s %s | %s | %s |\n", r.Name, r.Threads, figures(r.Temper), figures(r.Peers[r.Peer]), r.Peer, ratio, target)
	}
}

// figures prints three significant figures, and no point in large numbers.
func figures(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// svg draws a bar for each row, a line where both are as fast, and a mark at each target.
func svg(title string, rows []result) string {
	const left, line, width, top = 250, 22, 420, 52
	most := 2.0
	for _, r := range rows {
		most = max(most, min(r.Ratio, 6))
	}
	x := func(ratio float64) float64 { return left + min(ratio, most)/most*width }
	height := top + line*len(rows) + 30
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12">`+"\n", left+width+70, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n")
	fmt.Fprintf(&b, `<text x="12" y="22" font-size="15" font-weight="600">%s</text>`+"\n", html.EscapeString(title))
	fmt.Fprintf(&b, `<text x="12" y="40" fill="#555">peer's time over temper's, median over rounds; the line: as fast; the mark: the target</text>`+"\n")
	for i, r := range rows {
		y := top + line*i
		fill := "#2b7a78"
		if r.Target > 0 && r.Ratio < r.Target {
			fill = "#c2603b"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s, %d thr</text>`+"\n", left-8, y+15, html.EscapeString(r.Name), r.Threads)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y+3, x(r.Ratio)-left, line-6, fill)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="#333">%.2f</text>`+"\n", x(r.Ratio)+6, y+15, r.Ratio)
		if r.Target > 0 {
			fmt.Fprintf(&b, `<path d="M%.1f %dv%d" stroke="#111" stroke-width="2"/>`+"\n", x(r.Target), y+1, line-2)
		}
	}
	fmt.Fprintf(&b, `<path d="M%.1f %dV%d" stroke="#999" stroke-dasharray="3 3"/>`+"\n", x(1), top-4, top+line*len(rows)+4)
	fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">1</text>`+"\n</svg>\n", x(1), top+line*len(rows)+18)
	return b.String()
}
