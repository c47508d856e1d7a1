package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/plugins/meter"
)

// engine answers requests, one at a time. A request is a JSON object with an "op"; what takes long is a task, which goes on for one
// bounded step each time it is asked to (see task).
type engine struct {
	kernels backend.Kernels
	// buffer returns bytes that the page has written, by address.
	buffer func(ptr uint32) ([]byte, bool)
	// plugin asks the page to run a plugin (see plugin.go); nil where no page is there.
	plugin func(name string, request []byte) ([]byte, error)
	models map[int]*opened
	tasks  map[int]*task
	nextID int
	// asked is whom a plugin may question while it runs.
	asked *question
}

// opened is a model and the buffers that its weights are views of.
type opened struct {
	*pipeline.Pipeline                   // nil for a decoder
	decoder            *generate.Decoder // nil for the others
	files              map[string][]byte
	name               string
}

// Close implements io.Closer.
func (o *opened) Close() error {
	if o.decoder != nil {
		return o.decoder.Close()
	}
	return o.Pipeline.Close()
}

func (o *opened) tokenizer() *token.Tokenizer {
	if o.decoder != nil {
		return o.decoder.Tokenizer
	}
	return o.Bundle().Tokenizer
}

func newEngine(k backend.Kernels) *engine {
	return &engine{kernels: k, models: map[int]*opened{}, tasks: map[int]*task{}}
}

// request is the union of all requests.
type request struct {
	Op    string `json:"op"`
	Model int    `json:"model"`
	Task  int    `json:"task"`
	Kind  string `json:"kind"`

	Name  string `json:"name"`
	Head  string `json:"head"`
	Files []struct {
		Name string `json:"name"`
		Ptr  uint32 `json:"ptr"`
		At   uint32 `json:"at"`
		Len  uint32 `json:"len"`
	} `json:"files"`

	Texts     []string          `json:"texts"`
	Text      string            `json:"text"`
	Label     *int              `json:"label"`
	N         int               `json:"n"`
	MaxTokens int               `json:"maxTokens"`
	Recipe    string            `json:"recipe"`
	Plugin    string            `json:"plugin"`
	Params    map[string]string `json:"params"`
	Budget    int               `json:"budget"`
	Seed      uint64            `json:"seed"`

	Examples []example `json:"examples"`
	Method   string    `json:"method"`
	Epochs   int       `json:"epochs"`
	Batch    int       `json:"batch"`
	LR       float64   `json:"lr"`
	C        float64   `json:"c"`

	Messages   json.RawMessage `json:"messages"`
	Generation generation      `json:"generation"`
}

type example struct {
	Text  string `json:"text"`
	Label string `json:"label"`
}

// reply is what goes back: a JSON object, and raw float32 rows where there are many numbers.
type reply struct {
	value any
	blob  []float32
}

// userError is an error of the request, not of the engine.
type userError struct{ error }

func badRequest(format string, a ...any) error { return userError{fmt.Errorf(format, a...)} }

// handle answers one request with JSON; it never panics on what a page can send.
func (e *engine) handle(body []byte) (out []byte, blob []float32) {
	defer func() {
		if r := recover(); r != nil {
			out, blob = failure(fmt.Errorf("internal error: %v", r)), nil
		}
	}()
	var q request
	if err := json.Unmarshal(body, &q); err != nil {
		return failure(badRequest("request: %w", err)), nil
	}
	r, err := e.answer(&q)
	if err != nil {
		return failure(err), nil
	}
	b, err := json.Marshal(map[string]any{"ok": r.value})
	if err != nil {
		return failure(err), nil
	}
	return b, r.blob
}

func failure(err error) []byte {
	kind := "engine"
	var u userError
	switch {
	case errors.Is(err, context.Canceled):
		kind = "aborted"
	case errors.As(err, &u):
		kind = "request"
	}
	b, _ := json.Marshal(map[string]any{"error": map[string]string{"kind": kind, "message": err.Error()}})
	return b
}

func (e *engine) answer(q *request) (reply, error) {
	switch q.Op {
	case "info":
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return reply{value: map[string]any{"level": e.kernels.Level(), "threads": e.kernels.Threads(), "go": runtime.Version(), "heap": m.HeapAlloc,
			"reserved": m.Sys, "recipes": attack.RecipeNames()}}, nil
	case "open":
		return e.open(q)
	case "close":
		o, err := e.model(q.Model)
		if err != nil {
			return reply{}, err
		}
		delete(e.models, q.Model)
		err = o.Close()
		runtime.GC()
		return reply{value: true}, err
	case "tokenize":
		return e.tokenize(q)
	case "chatPrompt":
		o, err := e.model(q.Model)
		if err != nil {
			return reply{}, err
		}
		if o.decoder == nil {
			return reply{}, badRequest("%s is no decoder", o.name)
		}
		prompt, err := o.decoder.Render(q.Messages, nil, nil)
		if err != nil {
			return reply{}, userError{err}
		}
		stop := []string{}
		if o.decoder.Plain {
			stop = generate.PlainStops
		}
		return reply{value: map[string]any{"prompt": prompt, "stop": stop}}, nil
	case "meter": // a plugin's module, rewritten to pay for its work and to keep within its memory
		if len(q.Files) != 1 {
			return reply{}, badRequest("meter takes one file")
		}
		b, ok := e.buffer(q.Files[0].Ptr)
		if !ok || int(q.Files[0].Len) > len(b) {
			return reply{}, badRequest("no buffer at %d", q.Files[0].Ptr)
		}
		metered, _, err := meter.Rewrite(b[:q.Files[0].Len], uint32(max(q.N, 1)))
		if err != nil {
			return reply{}, userError{err}
		}
		var out floatWriter
		if _, err := out.Write(metered); err != nil {
			return reply{}, err
		}
		return reply{value: map[string]any{"bytes": out.n}, blob: out.floats()}, nil
	case "save":
		return e.save(q)
	case "start":
		return e.start(q)
	case "step":
		t, ok := e.tasks[q.Task]
		if !ok {
			return reply{}, badRequest("there is no task %d", q.Task)
		}
		return e.step(q.Task, t)
	case "cancel":
		if t, ok := e.tasks[q.Task]; ok {
			t.cancel()
		}
		return reply{value: true}, nil
	}
	return reply{}, badRequest("unknown operation %q", q.Op)
}

func (e *engine) model(id int) (*opened, error) {
	o, ok := e.models[id]
	if !ok {
		return nil, badRequest("there is no model %d", id)
	}
	return o, nil
}

func (e *engine) id() int {
	e.nextID++
	return e.nextID
}

// open makes a model of files that the page has streamed into buffers. The weights stay where they are.
func (e *engine) open(q *request) (reply, error) {
	files := map[string][]byte{}
	for _, f := range q.Files {
		b, ok := e.buffer(f.Ptr)
		if !ok || uint64(f.At)+uint64(f.Len) > uint64(len(b)) {
			return reply{}, badRequest("file %s: no buffer of %d bytes at %d+%d", f.Name, f.Len, f.Ptr, f.At)
		}
		files[f.Name] = b[f.At : f.At+f.Len : f.At+f.Len]
	}
	return e.openFiles(q.Name, files, model.Head(q.Head), q.MaxTokens)
}

func (e *engine) openFiles(name string, files map[string][]byte, head model.Head, maxTokens int) (reply, error) {
	if b, ok := files["model.gguf"]; ok {
		g, err := checkpoint.ParseGGUF(name, b)
		if err != nil {
			return reply{}, userError{err}
		}
		d, err := generate.FromGGUF(g)
		if err != nil {
			return reply{}, userError{err}
		}
		return e.registerDecoder(d, files, name), nil
	}
	f, err := checkpoint.NewFolder(name, files)
	if err != nil {
		return reply{}, userError{err}
	}
	if raw, err := f.Config(); err == nil && (head == model.HeadCausal || head == model.HeadAuto && causal(raw)) {
		d, err := generate.FromFolder(f)
		if err != nil {
			return reply{}, userError{err}
		}
		return e.registerDecoder(d, files, name), nil
	}
	p, err := pipeline.OpenFolder(f, e.kernels, pipeline.Options{Head: head, MaxTokens: maxTokens})
	if err != nil {
		return reply{}, userError{err}
	}
	return e.register(p, files, name), nil
}

// causal tells whether a config names a causal language model.
func causal(config []byte) bool {
	var c struct {
		Architectures []string `json:"architectures"`
	}
	return json.Unmarshal(config, &c) == nil && len(c.Architectures) > 0 && (strings.HasSuffix(c.Architectures[0], "ForCausalLM") || strings.HasSuffix(c.Architectures[0], "LMHeadModel"))
}

func (e *engine) registerDecoder(d *generate.Decoder, files map[string][]byte, name string) reply {
	id := e.id()
	e.models[id] = &opened{decoder: d, files: files, name: name}
	parameters := 0
	for _, w := range d.Model.Params() {
		parameters += w.T.Len()
	}
	c := d.Model.Config()
	return reply{value: map[string]any{"model": id, "name": name, "head": string(model.HeadCausal), "family": c.ModelType, "labels": []string{}, "parameters": parameters,
		"vocabulary": d.Tokenizer.VocabSize(), "maxTokens": c.MaxPositions}}
}

func (e *engine) register(p *pipeline.Pipeline, files map[string][]byte, name string) reply {
	id := e.id()
	e.models[id] = &opened{Pipeline: p, files: files, name: name}
	parameters := 0
	for _, w := range p.Bundle().Model.Params() {
		parameters += w.T.Len()
	}
	c := p.Config()
	// A copy: JSON must hold a list even where there are no labels.
	labels := slices.Clone(p.Labels())
	if labels == nil || c.Head != model.HeadSequence {
		labels = []string{}
	}
	return reply{value: map[string]any{"model": id, "name": name, "head": string(c.Head), "family": c.ModelType, "labels": labels, "parameters": parameters,
		"vocabulary": p.Bundle().Tokenizer.VocabSize(), "maxTokens": p.Bundle().MaxTokens}}
}

func (e *engine) tokenize(q *request) (reply, error) {
	o, err := e.model(q.Model)
	if err != nil {
		return reply{}, err
	}
	type encoding struct {
		IDs     []int32  `json:"ids"`
		Tokens  []string `json:"tokens"`
		Offsets [][2]int `json:"offsets"`
	}
	out := []encoding{}
	for _, t := range q.Texts {
		enc, err := o.tokenizer().Encode(t, token.Options{NoLimits: true})
		if err != nil {
			return reply{}, userError{err}
		}
		x := encoding{IDs: enc.IDs, Tokens: enc.Tokens, Offsets: [][2]int{}}
		for _, at := range enc.Offsets {
			x.Offsets = append(x.Offsets, [2]int{at.Start, at.End})
		}
		out = append(out, x)
	}
	return reply{value: map[string]any{"encodings": out}}, nil
}
