package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/bundle"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/sample"
	"github.com/temper-ml/temper/core/train"
)

// task is work that goes on step by step: its goroutine runs only while the page waits in a step, until it has something to report.
type task struct {
	ctx    context.Context
	cancel context.CancelFunc
	events chan event
	resume chan struct{}
}

type event struct {
	reply
	err  error
	done bool
}

// yield reports value and waits for the next step. Its error says that the page has cancelled the task.
func (t *task) yield(value any) error {
	t.events <- event{reply: reply{value: value}}
	<-t.resume
	return t.ctx.Err()
}

func (e *engine) start(q *request) (reply, error) {
	run, err := e.work(q)
	if err != nil {
		return reply{}, err
	}
	t := &task{events: make(chan event), resume: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	go func() {
		<-t.resume
		var r reply
		err := t.ctx.Err()
		func() {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("internal error: %v", p)
				}
			}()
			if err == nil {
				r, err = run(t)
			}
		}()
		t.events <- event{reply: r, err: err, done: true}
	}()
	id := e.id()
	e.tasks[id] = t
	return reply{value: map[string]any{"task": id}}, nil
}

// step lets a task go on until its next report.
func (e *engine) step(id int, t *task) (reply, error) {
	t.resume <- struct{}{}
	ev := <-t.events
	if !ev.done {
		return reply{value: map[string]any{"progress": ev.value}}, nil
	}
	t.cancel()
	delete(e.tasks, id)
	if ev.err != nil {
		return reply{}, ev.err
	}
	return reply{value: map[string]any{"done": ev.value}, blob: ev.blob}, nil
}

// stepText is about how much text a step takes: it bounds the time between two looks at the page's wishes.
const stepText = 8 << 10

// portions cuts texts into steps.
func portions(texts []string) [][]string {
	var out [][]string
	for len(texts) > 0 {
		n, size := 0, 0
		for n < len(texts) && (n == 0 || size+len(texts[n]) <= stepText) {
			size += len(texts[n])
			n++
		}
		out, texts = append(out, texts[:n]), texts[n:]
	}
	return out
}

func (e *engine) work(q *request) (func(t *task) (reply, error), error) {
	o, err := e.model(q.Model)
	if err != nil {
		return nil, err
	}
	if (o.decoder != nil) != (q.Kind == "generate") {
		if o.decoder != nil {
			return nil, badRequest("%s is a decoder: it generates, it cannot %s", o.name, q.Kind)
		}
		return nil, badRequest("%s cannot generate: its head is %q", o.name, o.Config().Head)
	}
	switch q.Kind {
	case "classify":
		return func(t *task) (reply, error) { return classify(t, o, q.Texts) }, nil
	case "embed":
		return func(t *task) (reply, error) { return embed(t, o, q.Texts) }, nil
	case "fill":
		return func(t *task) (reply, error) {
			words, err := o.Fill(t.ctx, q.Text, max(q.N, 1))
			if err != nil {
				return reply{}, userError{err}
			}
			return reply{value: map[string]any{"results": words}}, nil
		}, nil
	case "attack":
		return e.attack(o, q)
	case "tune":
		return func(t *task) (reply, error) { return e.tune(t, o, q) }, nil
	case "generate":
		return func(t *task) (reply, error) { return e.generate(t, o, q) }, nil
	}
	return nil, badRequest("unknown kind of task %q", q.Kind)
}

func classify(t *task, o *opened, texts []string) (reply, error) {
	out := []pipeline.Prediction{}
	all := portions(texts)
	for i, part := range all {
		p, err := o.Classify(t.ctx, part)
		if err != nil {
			return reply{}, userError{err}
		}
		out = append(out, p...)
		if i+1 < len(all) {
			if err := t.yield(map[string]int{"texts": len(out), "of": len(texts)}); err != nil {
				return reply{}, err
			}
		}
	}
	return reply{value: map[string]any{"results": out}}, nil
}

func embed(t *task, o *opened, texts []string) (reply, error) {
	var r reply
	dim, n := 0, 0
	all := portions(texts)
	for i, part := range all {
		rows, err := o.Embed(t.ctx, part)
		if err != nil {
			return reply{}, userError{err}
		}
		for _, row := range rows {
			dim = len(row)
			r.blob = append(r.blob, row...)
		}
		n += len(rows)
		if i+1 < len(all) {
			if err := t.yield(map[string]int{"texts": n, "of": len(texts)}); err != nil {
				return reply{}, err
			}
		}
	}
	r.value = map[string]int{"dim": dim, "count": n}
	return r, nil
}

// watched is a victim that gives the page a turn after each batch and shows it what was tried.
type watched struct {
	victim interface {
		attack.GradientVictim
		attack.EmbeddingVictim
		attack.FlipVictim
		attack.TokenVictim
	}
	t     *task
	tried int
	// quiet is set while a plugin waits for an answer: the page is inside a call then and cannot have a turn.
	quiet bool
}

func (w *watched) Labels() []string { return w.victim.Labels() }

func (w *watched) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	s, err := w.victim.Scores(ctx, texts)
	if err != nil {
		return nil, err
	}
	w.tried += len(texts)
	if w.quiet {
		return s, nil
	}
	// One of the batch is enough to watch.
	if err := w.t.yield(map[string]any{"queries": w.tried, "text": texts[len(texts)-1], "scores": s[len(texts)-1]}); err != nil {
		return nil, err
	}
	return s, nil
}

func (w *watched) SpanImportance(ctx context.Context, text string, label int, spans []attack.Span) ([]float32, error) {
	return w.victim.SpanImportance(ctx, text, label, spans)
}

func (w *watched) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	return w.victim.Embed(ctx, texts)
}

func (w *watched) Nearest(ctx context.Context, word string, n int) ([]string, error) {
	return w.victim.Nearest(ctx, word, n)
}

func (w *watched) Flips(ctx context.Context, text string, label int, spans []attack.Span, n int) ([][]attack.Candidate, error) {
	return w.victim.Flips(ctx, text, label, spans, n)
}

func (w *watched) Tokens(text string) ([]attack.Span, []string) { return w.victim.Tokens(text) }

func (e *engine) attack(o *opened, q *request) (func(t *task) (reply, error), error) {
	v, err := o.Victim()
	if err != nil {
		return nil, userError{err}
	}
	w := &watched{}
	var ok bool
	if w.victim, ok = v.(interface {
		attack.GradientVictim
		attack.EmbeddingVictim
		attack.FlipVictim
		attack.TokenVictim
	}); !ok {
		return nil, errors.New("the classifier lacks a capability that attacks use")
	}
	var recipe attack.Recipe
	switch {
	case q.Plugin != "":
		recipe = attack.PluginRecipe(&pagePlugin{name: q.Plugin, e: e, w: w})
	case !slices.Contains(attack.RecipeNames(), q.Recipe):
		return nil, badRequest("unknown recipe %q, expected one of %s", q.Recipe, strings.Join(attack.RecipeNames(), ", "))
	default:
		if recipe, err = attack.NewRecipe(q.Recipe, attack.Capabilities(w, attack.Options{})...); err != nil {
			return nil, userError{err}
		}
	}
	return func(t *task) (reply, error) {
		w.t = t
		var examples []attack.Example
		if q.Text != "" { // one text, against what the model says of it
			label := -1
			if q.Label != nil {
				label = *q.Label
			} else {
				s, err := v.Scores(t.ctx, []string{q.Text})
				if err != nil {
					return reply{}, err
				}
				label = attack.Argmax(s[0])
			}
			if label < 0 || label >= len(o.Labels()) {
				return reply{}, badRequest("label %d, the model has %d", label, len(o.Labels()))
			}
			examples = []attack.Example{{Text: q.Text, Label: label}}
		}
		for i, x := range q.Examples {
			at := slices.Index(o.Labels(), x.Label)
			if at < 0 {
				return reply{}, badRequest("example %d has the label %q, the model knows %s", i, x.Label, strings.Join(o.Labels(), ", "))
			}
			examples = append(examples, attack.Example{Row: i, Text: x.Text, Label: at})
		}
		if len(examples) == 0 {
			return reply{}, badRequest("nothing to attack: no text and no examples")
		}
		rep, err := attack.Run(t.ctx, w, examples, recipe, attack.Options{Seed: q.Seed, Budget: q.Budget, Batch: 32, InFlight: 8, Params: q.Params})
		if err != nil {
			return reply{}, err
		}
		return reply{value: rep}, nil
	}, nil
}

// tune teaches classes from examples; the tuned model is a new one, the old one stays.
func (e *engine) tune(t *task, o *opened, q *request) (reply, error) {
	if len(q.Examples) == 0 {
		return reply{}, badRequest("tune: no examples")
	}
	set := &data.Dataset{Name: "examples"}
	for i, x := range q.Examples {
		if x.Label == "" || strings.TrimSpace(x.Text) == "" {
			return reply{}, badRequest("tune: example %d lacks a text or a label", i)
		}
		at := slices.Index(set.LabelNames, x.Label)
		if at < 0 {
			at = len(set.LabelNames)
			set.LabelNames = append(set.LabelNames, x.Label)
		}
		set.Texts, set.Labels, set.Rows = append(set.Texts, x.Text), append(set.Labels, at), append(set.Rows, i)
	}
	if len(set.LabelNames) < 2 {
		return reply{}, badRequest("tune: examples of at least two labels are needed, got %s", set.LabelNames[0])
	}
	f, err := checkpoint.NewFolder(o.name, o.files)
	if err != nil {
		return reply{}, err
	}
	method := q.Method
	if method == "" {
		method = "head"
	}
	last := time.Now()
	var stopped error
	res, err := train.Run(t.ctx, train.Options{
		Base: o.name, Folder: f, Kernels: e.kernels, Train: set, Method: method, Epochs: q.Epochs, Batch: q.Batch, LR: q.LR, C: q.C, Seed: q.Seed,
		MaxTokens: q.MaxTokens, SaveEvery: -1,
		Progress: func(p train.Progress) {
			if stopped != nil {
				return
			}
			now := time.Now()
			stopped = t.yield(map[string]any{"step": p.Step, "steps": p.Steps, "epoch": p.Epoch, "loss": p.Loss, "tokensPerSecond": p.TokensPerSecond,
				"milliseconds": now.Sub(last).Milliseconds()})
			last = now
		},
	})
	if err != nil {
		if t.ctx.Err() != nil {
			return reply{}, t.ctx.Err()
		}
		return reply{}, userError{err}
	}
	p, err := pipeline.New(res.Bundle, e.kernels, pipeline.Options{})
	if err != nil {
		return reply{}, err
	}
	r := e.register(p, o.files, o.name)
	v := r.value.(map[string]any)
	v["tuned"] = res
	return r, nil
}

// save writes a model as a bundle; the page reads it from the blob.
func (e *engine) save(q *request) (reply, error) {
	o, err := e.model(q.Model)
	if err != nil {
		return reply{}, err
	}
	if o.decoder != nil {
		return reply{}, badRequest("%s is a decoder, which is not changed here: keep its file", o.name)
	}
	files, err := checkpoint.MemoryFolder(o.Bundle().SaveTo(nil))
	if err != nil {
		return reply{}, err
	}
	for name, b := range o.files { // pooling and the like
		if _, ok := files[name]; !ok && strings.HasSuffix(name, ".json") && strings.Contains(name, "/") || name == checkpoint.ModulesFile {
			files[name] = b
		}
	}
	var out floatWriter
	if err := bundle.Write(&out, files); err != nil {
		return reply{}, err
	}
	names := slices.Sorted(maps.Keys(files))
	return reply{value: map[string]any{"bytes": out.n, "files": names}, blob: out.floats()}, nil
}

// generation are the settings of generate and chat.
type generation struct {
	Prompt    string   `json:"prompt"`
	MaxTokens int      `json:"maxTokens"`
	Stop      []string `json:"stop"`

	Temperature   float64 `json:"temperature"`
	TopK          int     `json:"topK"`
	TopP          float64 `json:"topP"`
	MinP          float64 `json:"minP"`
	RepeatPenalty float64 `json:"repeatPenalty"`
	Seed          uint64  `json:"seed"`
	// Plain leaves out the tokens that the tokenizer's template adds: the prompt holds them already.
	Plain bool `json:"plain"`
}

// prefillStep is how many tokens of a prompt a step takes.
const prefillStep = 64

func (e *engine) generate(t *task, o *opened, q *request) (reply, error) {
	g := q.Generation
	s, err := sample.New(sample.Params{Temperature: g.Temperature, TopK: g.TopK, TopP: g.TopP, MinP: g.MinP, RepeatPenalty: g.RepeatPenalty, Seed: g.Seed})
	if err != nil {
		return reply{}, userError{err}
	}
	d := o.decoder
	cfg := d.Model.Config()
	ids := d.Encode(g.Prompt, g.Plain)
	if len(ids) == 0 {
		return reply{}, badRequest("the prompt has no tokens")
	}
	limit := g.MaxTokens
	if limit <= 0 {
		limit = 64
	}
	if cfg.MaxPositions > 0 {
		if len(ids) >= cfg.MaxPositions {
			return reply{}, badRequest("the prompt has %d tokens, the model takes %d", len(ids), cfg.MaxPositions)
		}
		limit = min(limit, cfg.MaxPositions-len(ids))
	}
	s.Accept(ids...)
	cache := model.NewCache(cfg, 1, len(ids)+limit)
	var arena grad.Arena
	forward := func(ids []int32, want model.Want) ([]float32, error) {
		arena.Reset()
		out, err := d.Model.Forward(grad.Infer(e.kernels, &arena), &model.Batch{IDs: ids, Offsets: []int32{0, int32(len(ids))}, Cache: cache, Want: want})
		if err != nil || out.Logits == nil {
			return nil, err
		}
		return out.Logits.Data[len(out.Logits.Data)-out.Logits.Cols:], nil
	}
	began := time.Now()
	var logits []float32
	for at := 0; at < len(ids); {
		n := min(prefillStep, len(ids)-at)
		want := model.Want(0)
		if at+n == len(ids) {
			want = model.WantLastLogits
		}
		if logits, err = forward(ids[at:at+n], want); err != nil {
			return reply{}, userError{err}
		}
		at += n
		if at < len(ids) {
			if err := t.yield(map[string]any{"prompt": at, "of": len(ids)}); err != nil {
				return reply{}, err
			}
		}
	}
	prompted := time.Now()
	stream := d.Tokenizer.Stream(true)
	text, reason, made := "", "length", 0
	for made < limit {
		id, err := s.Next(logits)
		if err != nil {
			return reply{}, err
		}
		if slices.Contains(d.End, id) {
			reason = "stop"
			break
		}
		made++
		s.Accept(id)
		piece := stream.Next(id)
		text += piece
		if at := stopAt(text, g.Stop); at >= 0 {
			text, reason = text[:at], "stop"
			break
		}
		if err := t.yield(map[string]any{"token": id, "text": piece, "whole": text}); err != nil {
			return reply{}, err
		}
		if logits, err = forward([]int32{id}, model.WantLastLogits); err != nil {
			return reply{}, err
		}
	}
	rate := func(n int, d time.Duration) float64 { return float64(n) / max(d.Seconds(), 1e-6) }
	return reply{value: map[string]any{"text": text, "tokens": made, "prompt_tokens": len(ids), "finish_reason": reason,
		"prompt_tokens_per_second": rate(len(ids), prompted.Sub(began)), "tokens_per_second": rate(made, time.Since(prompted))}}, nil
}

func stopAt(text string, stops []string) int {
	first := -1
	for _, s := range stops {
		if at := strings.Index(text, s); s != "" && at >= 0 && (first < 0 || at < first) {
			first = at
		}
	}
	return first
}
