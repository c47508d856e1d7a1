package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

func isTerminal(fd int) bool { return term.IsTerminal(fd) }

// printJSON writes v as one line.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// result prints v as JSON when asked to, otherwise calls text.
func (a *app) result(v any, text func(w io.Writer) error) error {
	if a.json {
		return a.printJSON(v)
	}
	return text(a.out)
}

// newTable returns a plain table on w.
func newTable(w io.Writer, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	s := table.StyleLight
	s.Options.DrawBorder = false
	s.Options.SeparateColumns = false
	s.Format.Header = 0
	t.SetStyle(s)
	t.AppendHeader(table.Row(header))
	return t
}

func percent(share float64) string {
	if math.IsNaN(share) {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*share)
}

func seconds(s float64) string {
	switch {
	case s < 1:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 120:
		return fmt.Sprintf("%.1f s", s)
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

// progress draws a bar on stderr when that is a terminal, and a line every few seconds otherwise. total < 0 means unknown.
type progress struct {
	a    *app
	bar  *progressbar.ProgressBar
	what string
	last time.Time
	from time.Time
}

func (a *app) progress(what string, total int) *progress {
	p := &progress{a: a, what: what, from: time.Now(), last: time.Now()}
	if !a.quiet && interactive(a.err) {
		p.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(a.err), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetWidth(24))
	}
	return p
}

// set moves the bar to done of total and shows note (loss, throughput) beside it.
func (p *progress) set(done, total int, note string) {
	switch {
	case p.bar != nil:
		p.bar.ChangeMax(total)
		p.bar.Describe(p.what + " " + note)
		_ = p.bar.Set(done)
	case !p.a.quiet && time.Since(p.last) >= 5*time.Second:
		p.last = time.Now()
		left := ""
		if done > 0 && total > done {
			left = ", " + seconds(time.Since(p.from).Seconds()/float64(done)*float64(total-done)) + " left"
		}
		fmt.Fprintf(p.a.err, "%s: %d/%d %s%s\n", p.what, done, total, note, left)
	}
}

func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

// logf writes a line to stderr unless --quiet.
func (a *app) logf(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}
