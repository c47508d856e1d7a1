package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/quant"
)

// gradientSuffix names the variant of a recipe that ranks words by gradients.
const gradientSuffix = "+gradient"

// recording is the victim with a list of what it was asked, so that the same texts can be scored again without an attack.
type recording struct {
	attack.Victim
	texts []string
}

func (r *recording) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	r.texts = append(r.texts, texts...)
	return r.Victim.Scores(ctx, texts)
}

// SpanImportance hands gradients on.
func (r *recording) SpanImportance(ctx context.Context, text string, label int, spans []attack.Span) ([]float32, error) {
	return r.Victim.(attack.GradientVictim).SpanImportance(ctx, text, label, spans)
}

// Gains and Passes hand gradients of edits on.
func (r *recording) Gains(ctx context.Context, text string, label int, edits []attack.Edit) ([]float32, error) {
	return r.Victim.(attack.GuideVictim).Gains(ctx, text, label, edits)
}

func (r *recording) Passes() int { return r.Victim.(attack.GuideVictim).Passes() }

// runTemper attacks in this process; loading the model is not counted, as it is not for the peer.
func (s *settings) runTemper(ctx context.Context, kind string, rows []int) (outcome, error) {
	k, err := native.New(native.Options{Threads: s.threads})
	if err != nil {
		return outcome{}, err
	}
	p, err := pipeline.Open(s.model, k, pipeline.Options{MaxTokens: s.maxTokens})
	if err != nil {
		return outcome{}, err
	}
	defer p.Close()
	switch kind {
	case "f32":
	case "int8":
		if err := quant.Int8Model(p.Bundle().Model, quant.Options{Threads: s.threads}); err != nil {
			return outcome{}, err
		}
	default:
		return outcome{}, fmt.Errorf("engine %q: expected textattack, f32 or int8", kind)
	}
	set, err := data.Open(filepath.Join(s.data, s.task, "test.tsv"), data.Options{})
	if err != nil {
		return outcome{}, err
	}
	if err := set.MapLabels(p.Labels()); err != nil {
		return outcome{}, err
	}
	if set, err = set.Select(rows); err != nil {
		return outcome{}, err
	}
	examples := make([]attack.Example, set.Len())
	for i := range examples {
		examples[i] = attack.Example{Row: set.Rows[i], Text: set.Texts[i], Label: set.Labels[i]}
	}
	v, err := p.Victim()
	if err != nil {
		return outcome{}, err
	}
	name, gradient := strings.CutSuffix(s.recipe, gradientSuffix)
	r, err := attack.NewRecipe(name)
	if err != nil {
		return outcome{}, err
	}
	if gradient {
		r.Search = attack.GreedyRanked{By: attack.Gradient}
	}
	if name == "textbugger-chars" {
		// The script has three of the bugs: TextAttack's look-alikes need a table that its package lacks.
		inner := attack.CharOptions{SkipFirst: true, SkipLast: true}
		space := inner
		space.Letters = " "
		r.Transformation = attack.Composite{Label: "three bugs", Parts: []attack.Transformation{attack.InsertChars(space), attack.DeleteChars(inner), attack.SwapChars(inner)}}
	}
	// The first call lays the weights out for the kernels: that is part of loading.
	if _, err := v.Scores(ctx, set.Texts[:min(set.Len(), 16)]); err != nil {
		return outcome{}, err
	}
	rec := &recording{Victim: v}
	start := time.Now()
	rep, err := attack.Run(ctx, rec, examples, r, attack.Options{Seed: s.seed})
	if err != nil {
		return outcome{}, err
	}
	o := outcome{Recipe: s.recipe, Engine: kind, Rows: rows, Won: rep.Won, Held: rep.Held, Skipped: rep.Skipped, Texts: rep.VictimTexts,
		Seconds: time.Since(start).Seconds()}
	for _, x := range rep.Results {
		if x.Status != attack.Skipped {
			o.Queries += x.Queries
		}
	}
	start = time.Now()
	for part := range slices.Chunk(rec.texts, 256) {
		if _, err := v.Scores(ctx, part); err != nil {
			return outcome{}, err
		}
	}
	o.Plain = time.Since(start).Seconds()
	return o, nil
}

// runPeer runs the script in a process of its own and reads its log.
func (s *settings) runPeer(ctx context.Context, rows []int) (outcome, error) {
	dir, err := os.MkdirTemp("", "temper-bench-attack")
	if err != nil {
		return outcome{}, err
	}
	defer os.RemoveAll(dir)
	list, log := filepath.Join(dir, "rows.txt"), filepath.Join(dir, "log.tsv")
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintln(&b, r)
	}
	if err := os.WriteFile(list, []byte(b.String()), 0o600); err != nil {
		return outcome{}, err
	}
	paths := []string{s.model, s.data, s.script}
	for i := range paths {
		if paths[i], err = filepath.Abs(paths[i]); err != nil {
			return outcome{}, err
		}
	}
	cmd := exec.CommandContext(ctx, s.python, paths[2], s.task, s.recipe, strconv.Itoa(len(rows)))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "VICTIM="+paths[0], "DATA="+paths[1], "ROWS="+list, "OUT="+log, "MAXLEN="+strconv.Itoa(s.maxTokens), "OMP_NUM_THREADS=2")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return outcome{}, fmt.Errorf("%s %s: %w: %s", s.python, s.script, err, lines[len(lines)-1])
	}
	o := outcome{Recipe: s.recipe, Engine: "textattack", Rows: rows}
	for _, line := range strings.Split(string(out), "\n") {
		f := strings.Split(line, "\t")
		if len(f) < 2 {
			continue
		}
		v, _ := strconv.ParseFloat(f[1], 64)
		switch {
		case strings.HasSuffix(f[0], ".time"):
			o.Seconds = v
		case strings.HasSuffix(f[0], ".victim_texts"):
			o.Texts = int(v)
		}
	}
	f, err := os.Open(log)
	if err != nil {
		return outcome{}, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		c := strings.Split(lines.Text(), "\t")
		if len(c) < 3 {
			return outcome{}, fmt.Errorf("%s: a line of %d columns, expected at least 3", s.script, len(c))
		}
		n, err := strconv.Atoi(c[2])
		if err != nil {
			return outcome{}, fmt.Errorf("%s: number of queries: %w", s.script, err)
		}
		switch c[1] {
		case "Skipped":
			o.Skipped++
			continue
		case "Successful":
			o.Won++
		case "Failed":
			o.Held++
		default:
			return outcome{}, fmt.Errorf("%s: status %q", s.script, c[1])
		}
		o.Queries += n
	}
	if o.Seconds <= 0 || o.Won+o.Held+o.Skipped != len(rows) {
		return outcome{}, fmt.Errorf("%s: time %g s and %d outcomes for %d rows", s.script, o.Seconds, o.Won+o.Held+o.Skipped, len(rows))
	}
	return o, lines.Err()
}
