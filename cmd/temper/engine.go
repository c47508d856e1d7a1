package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/grammar"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/serve"
	"github.com/temper-ml/temper/core/zeroshot"
)

// engine does the server's work: decoders and encoders over one set of kernels, which they use in turn.
type engine struct {
	turn    sync.Mutex
	entries []*served
	small   []*generate.Decoder // guess ahead for others
}

// served is a model under its name: a decoder, perhaps with an adapter, or an encoder.
type served struct {
	serve.Model
	dec     *generate.Decoder
	gen     *generate.Generator
	adapter string
	pipe    *pipeline.Pipeline
	own     bool // a tuned classifier: it has classes of its own
}

// encodeBatch is the number of texts that an encoder runs before others get their turn.
const encodeBatch = 64

func (a *app) newEngine(cmd *cobra.Command, refs, adapters, drafters []string, o generate.Options) (_ *engine, err error) {
	k, err := a.backend()
	if err != nil {
		return nil, err
	}
	e := &engine{}
	o.Turn = &e.turn
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	for _, ref := range refs {
		if err := e.add(a, cmd, k, ref); err != nil {
			return nil, err
		}
	}
	for _, spec := range adapters {
		if err := e.adapt(spec); err != nil {
			return nil, err
		}
	}
	guess, err := e.drafters(a, cmd, drafters)
	if err != nil {
		return nil, err
	}
	for _, s := range slices.Clone(e.entries) {
		if s.dec == nil {
			continue
		}
		o.DraftModel = guess[s]
		if s.gen, err = s.dec.Start(k, o); err != nil {
			return nil, fmt.Errorf("%s: %w", s.ID, err)
		}
		s.Context = s.gen.Context()
		for _, ad := range s.dec.Adapters {
			one := *s
			one.ID, one.adapter = ad.Name, ad.Name
			if e.find(one.ID) != nil {
				return nil, usagef("two models are called %q: name them NAME=MODEL", one.ID)
			}
			e.entries = append(e.entries, &one)
		}
	}
	return e, nil
}

// add opens NAME=MODEL or MODEL.
func (e *engine) add(a *app, cmd *cobra.Command, k backend.Kernels, ref string) error {
	name, place, named := strings.Cut(ref, "=")
	if _, err := os.Stat(ref); err == nil || !named {
		place = ref
		name = strings.TrimSuffix(filepath.Base(filepath.Clean(ref)), ".gguf")
		if name == "." || name == ".." {
			if abs, err := filepath.Abs(ref); err == nil {
				name = filepath.Base(abs)
			}
		}
	}
	if name == "" {
		return usagef("%q: want NAME=MODEL", ref)
	}
	if e.find(name) != nil {
		return usagef("two models are called %q: name them NAME=MODEL", name)
	}
	s := &served{Model: serve.Model{ID: name}}
	if place == builtinStories {
		var err error
		if s.dec, err = a.openDecoder(place, generate.OpenOptions{}); err != nil {
			return err
		}
		s.Kinds = []string{serve.KindGenerate, serve.KindClassify}
		e.entries = append(e.entries, s)
		return nil
	}
	if a.named(place) {
		var err error
		if s.pipe, err = a.openPipeline(cmd, place, pipeline.Options{}); err != nil {
			return err
		}
	} else {
		path, err := a.modelPath(cmd, place)
		if err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		s.Created = st.ModTime().Unix()
		writes, err := isDecoder(path)
		if err != nil {
			return err
		}
		if writes {
			if s.dec, err = generate.Open(path, generate.OpenOptions{}); err != nil {
				return err
			}
			s.Kinds = []string{serve.KindGenerate, serve.KindClassify}
			e.entries = append(e.entries, s)
			return nil
		}
		if s.pipe, err = pipeline.Open(path, k, pipeline.Options{}); err != nil {
			return err
		}
	}
	s.Context = s.pipe.Bundle().MaxTokens
	s.own = s.pipe.Config().Head == model.HeadSequence && len(s.pipe.Bundle().Fresh) == 0
	s.Kinds = []string{serve.KindEmbed, serve.KindClassify}
	e.entries = append(e.entries, s)
	return nil
}

// isDecoder tells what path holds from its configuration alone.
func isDecoder(path string) (bool, error) {
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		return true, err // GGUF files hold decoders
	}
	raw, err := os.ReadFile(filepath.Join(path, checkpoint.ConfigFile))
	if errors.Is(err, os.ErrNotExist) {
		adapter, aerr := os.ReadFile(filepath.Join(path, checkpoint.AdapterConfigFile))
		if aerr != nil {
			return false, fmt.Errorf("%s: expected a model folder with %s: %w", path, checkpoint.ConfigFile, err)
		}
		cfg, err := peft.ParseConfig(adapter)
		if err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
		return cfg.TaskType == "CAUSAL_LM", nil
	}
	if err != nil {
		return false, err
	}
	cfg, err := model.ParseConfig(raw)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return cfg.Head == model.HeadCausal, nil
}

// adapt loads NAME=FOLDER over the only decoder, or NAME=MODEL:FOLDER over the one that is named.
func (e *engine) adapt(spec string) error {
	name, place, ok := strings.Cut(spec, "=")
	if !ok {
		name, place = filepath.Base(filepath.Clean(spec)), spec
	}
	var on *served
	for _, s := range e.entries {
		if s.dec == nil {
			continue
		}
		if folder, found := strings.CutPrefix(place, s.ID+":"); found {
			on, place = s, folder
			break
		}
		if on == nil {
			on = s
		} else if on.dec != s.dec {
			on = &served{}
		}
	}
	switch {
	case on == nil:
		return usagef("--adapter %s: no decoder is served", spec)
	case on.dec == nil:
		return usagef("--adapter %s: several decoders are served: want NAME=MODEL:FOLDER", spec)
	}
	return on.dec.AddAdapter(name + "=" + place)
}

// drafters opens the models that guess ahead: MODEL for the only decoder, or NAME=MODEL.
func (e *engine) drafters(a *app, cmd *cobra.Command, specs []string) (map[*served]model.Model, error) {
	guess := map[*served]model.Model{}
	for _, spec := range specs {
		var on []*served
		place := spec
		for _, s := range e.entries {
			if s.dec == nil {
				continue
			}
			if rest, ok := strings.CutPrefix(spec, s.ID+"="); ok {
				on, place = []*served{s}, rest
				break
			}
			on = append(on, s)
		}
		switch {
		case len(on) == 0:
			return nil, usagef("--draft-model %s: no decoder is served", spec)
		case len(on) > 1:
			return nil, usagef("--draft-model %s: several decoders are served: want NAME=MODEL", spec)
		case guess[on[0]] != nil:
			return nil, usagef("--draft-model %s: %s has one already", spec, on[0].ID)
		}
		path, err := a.decoderPath(cmd, place)
		if err != nil {
			return nil, fmt.Errorf("--draft-model: %w", err)
		}
		d, err := a.openDecoder(path, generate.OpenOptions{})
		if err != nil {
			return nil, fmt.Errorf("--draft-model: %w", err)
		}
		e.small = append(e.small, d)
		guess[on[0]] = d.Model
	}
	return guess, nil
}

// Close stops the generators and gives back the files.
func (e *engine) Close() {
	for _, s := range e.entries {
		if s.gen != nil && s.adapter == "" {
			s.gen.Close()
		}
	}
	for _, s := range e.entries {
		switch {
		case s.pipe != nil:
			_ = s.pipe.Close()
		case s.adapter == "":
			_ = s.dec.Close()
		}
	}
	for _, d := range e.small {
		_ = d.Close()
	}
}

func (e *engine) find(name string) *served {
	for _, s := range e.entries {
		if s.ID == name {
			return s
		}
	}
	return nil
}

func (e *engine) decoder(name string) (*served, error) {
	s := e.find(name)
	switch {
	case s == nil:
		return nil, fmt.Errorf("%w: %q", serve.ErrNoModel, name)
	case s.dec == nil:
		return nil, fmt.Errorf("%w: model %q does not write text", serve.ErrBadRequest, name)
	}
	return s, nil
}

// Models implements serve.Engine.
func (e *engine) Models() []serve.Model {
	out := make([]serve.Model, len(e.entries))
	for i, s := range e.entries {
		out[i] = s.Model
	}
	return out
}

// Prompt implements serve.Engine.
func (e *engine) Prompt(name string, messages []serve.Message, tools any) (string, error) {
	s, err := e.decoder(name)
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(messages)
	if err != nil {
		return "", err
	}
	var given json.RawMessage
	if tools != nil {
		if given, err = json.Marshal(tools); err != nil {
			return "", err
		}
	}
	text, err := s.dec.Render(raw, given, nil)
	if err != nil {
		return "", fmt.Errorf("%w: %w", serve.ErrBadRequest, err)
	}
	return text, nil
}

// Generate implements serve.Engine.
func (e *engine) Generate(ctx context.Context, q serve.Generation, emit func(serve.Piece) error) (serve.Summary, error) {
	s, err := e.decoder(q.Model)
	if err != nil {
		return serve.Summary{}, err
	}
	req := generate.Request{Prompt: s.dec.Encode(q.Prompt, q.Raw), MaxTokens: q.MaxTokens, Sample: q.Sample, Stop: q.Stop, LogProbs: q.LogProbs,
		PromptLogProbs: q.PromptLogProbs, Adapter: s.adapter}
	if q.Raw && s.dec.Plain {
		req.Stop = append(slices.Clone(q.Stop), generate.PlainStops...)
	}
	if q.Sample.DRYMultiplier > 0 {
		req.Sample.DRYBreakers = s.dec.DRYBreakers(q.DRYBreakers)
	}
	vocab := int32(s.dec.Model.Config().Vocab)
	for id := range q.Sample.Bias {
		if id < 0 || id >= vocab {
			return serve.Summary{}, fmt.Errorf("%w: logit_bias: token %d of a vocabulary of %d", serve.ErrBadRequest, id, vocab)
		}
	}
	var g *grammar.Grammar
	switch {
	case q.Grammar != "":
		g, err = grammar.Parse(q.Grammar)
	case q.Schema != nil:
		g, err = grammar.FromSchema(q.Schema)
	case q.JSON:
		g, err = grammar.FromSchema([]byte(`{"type":"object"}`))
	}
	if err != nil {
		return serve.Summary{}, fmt.Errorf("%w: %w", serve.ErrBadRequest, err)
	}
	if g != nil {
		if req.Constraint, err = s.dec.Constrain(g); err != nil {
			return serve.Summary{}, fmt.Errorf("%w: %w", serve.ErrBadRequest, err)
		}
	}
	begun := false
	asked := q.PromptLogProbs
	res, err := s.gen.Generate(ctx, req, func(p generate.Piece) error {
		if asked { // the first token has nothing before it; one that the model wants before a text is no part of it
			asked = false
			if id := req.Prompt[0]; id != s.dec.BOS() {
				first := tokenLogProb(s.dec, id, 0)
				first.First = true
				if err := emit(serve.Piece{LogProbs: []serve.TokenLogProb{first}, Prompt: true}); err != nil {
					return err
				}
			}
		}
		text := p.Text
		if !begun && q.Raw && s.dec.Plain { // the space after "Assistant:"
			text = strings.TrimLeft(text, " ")
		}
		begun = begun || text != ""
		out := serve.Piece{Text: text, Prompt: p.Prompt}
		for _, t := range p.Tokens {
			lp := tokenLogProb(s.dec, t.ID, t.Own.LP)
			for _, o := range t.Top {
				lp.Top = append(lp.Top, tokenLogProb(s.dec, o.ID, o.LP))
			}
			out.LogProbs = append(out.LogProbs, lp)
		}
		if out.Text == "" && out.LogProbs == nil {
			return nil
		}
		return emit(out)
	})
	sum := serve.Summary{PromptTokens: res.Prompt, CachedTokens: res.Cached, Tokens: res.Tokens, Finish: res.Finish}
	var mistake *generate.RequestError
	switch {
	case errors.As(err, &mistake):
		err = fmt.Errorf("%w: %w", serve.ErrBadRequest, err)
	case errors.Is(err, generate.ErrBusy):
		err = fmt.Errorf("%w: %w", serve.ErrBusy, err)
	}
	return sum, err
}

func tokenLogProb(d *generate.Decoder, id int32, lp float64) serve.TokenLogProb {
	b := d.Tokenizer.Bytes(id)
	if b == nil {
		name, _ := d.Tokenizer.Token(id)
		b = []byte(name)
	}
	return serve.TokenLogProb{Token: strings.ToValidUTF8(string(b), "\uFFFD"), Bytes: b, LogProb: lp}
}

func (e *engine) encoder(name string) (*served, error) {
	s := e.find(name)
	switch {
	case s == nil:
		return nil, fmt.Errorf("%w: %q", serve.ErrNoModel, name)
	case s.pipe == nil:
		return nil, fmt.Errorf("%w: model %q writes text: it has no embeddings, and classifies only given labels", serve.ErrBadRequest, name)
	}
	return s, nil
}

// batches runs f on texts in pieces of so many, in turn with others, and counts their tokens.
func (e *engine) batches(ctx context.Context, s *served, texts []string, piece int, f func(texts []string) error) (int, error) {
	tokens := 0
	for len(texts) > 0 {
		if err := ctx.Err(); err != nil {
			return tokens, err
		}
		n := min(len(texts), piece)
		for i, t := range texts[:n] {
			ids, _, err := s.pipe.Bundle().Encode(t, "", 0)
			if err != nil {
				return tokens, fmt.Errorf("%w: text %d: %w", serve.ErrBadRequest, i, err)
			}
			tokens += len(ids)
		}
		e.turn.Lock()
		err := f(texts[:n])
		e.turn.Unlock()
		if err != nil {
			return tokens, err
		}
		texts = texts[n:]
	}
	return tokens, nil
}

// Embed implements serve.Engine.
func (e *engine) Embed(ctx context.Context, name string, texts []string) ([][]float32, int, error) {
	s, err := e.encoder(name)
	if err != nil {
		return nil, 0, err
	}
	var out [][]float32
	tokens, err := e.batches(ctx, s, texts, encodeBatch, func(texts []string) error {
		vs, err := s.pipe.Embed(ctx, texts)
		out = append(out, vs...)
		return err
	})
	return out, tokens, err
}

// Classify implements serve.Engine: a tuned classifier's own labels, or labels to choose from without training.
func (e *engine) Classify(ctx context.Context, name string, texts, labels []string) ([]serve.Class, int, error) {
	if len(labels) > 0 {
		return e.zeroShot(ctx, name, texts, labels)
	}
	s, err := e.encoder(name)
	if err != nil {
		return nil, 0, err
	}
	if !s.own {
		return nil, 0, fmt.Errorf("%w: model %q has no classes of its own: give labels", serve.ErrBadRequest, name)
	}
	var out []serve.Class
	tokens, err := e.batches(ctx, s, texts, encodeBatch, func(texts []string) error {
		preds, err := s.pipe.Classify(ctx, texts)
		for _, p := range preds {
			c := serve.Class{Label: p.Label, Score: float64(p.Score), Scores: map[string]float64{}}
			for i, l := range s.pipe.Labels() {
				c.Scores[l] = float64(p.Scores[i])
			}
			out = append(out, c)
		}
		return err
	})
	return out, tokens, err
}

func (e *engine) zeroShot(ctx context.Context, name string, texts, labels []string) ([]serve.Class, int, error) {
	out, tokens, err := e.choose(ctx, name, texts, labels)
	var task *zeroshot.TaskError
	var request *generate.RequestError
	if errors.As(err, &task) || errors.As(err, &request) {
		err = fmt.Errorf("%w: %w", serve.ErrBadRequest, err)
	}
	return out, tokens, err
}

// choose labels texts without training.
func (e *engine) choose(ctx context.Context, name string, texts, labels []string) ([]serve.Class, int, error) {
	s := e.find(name)
	if s == nil {
		return nil, 0, fmt.Errorf("%w: %q", serve.ErrNoModel, name)
	}
	t, err := zeroshot.FromNames(labels)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: labels: %w", serve.ErrBadRequest, err)
	}
	var out []serve.Class
	run := func(c zeroshot.Classifier, texts []string) error {
		scores, err := c.Classify(ctx, texts)
		for _, p := range scores {
			one := serve.Class{Scores: map[string]float64{}}
			for l, v := range p {
				if one.Scores[t.Labels[l].Name] = v; l == 0 || v > one.Score {
					one.Label, one.Score = t.Labels[l].Name, v
				}
			}
			out = append(out, one)
		}
		return err
	}
	var c zeroshot.Classifier
	if s.dec == nil {
		piece, entails := encodeBatch, s.pipe.Config().Head == model.HeadSequence && zeroshot.Entails(s.pipe.Labels()) >= 0
		if entails { // a text is a pass for each label
			piece = max(encodeBatch/len(labels), 1)
		}
		tokens, err := e.batches(ctx, s, texts, piece, func(texts []string) error {
			var err error
			switch {
			case c != nil:
			case entails:
				c, err = zeroshot.NewEntailment(s.pipe, t)
			default:
				c, err = zeroshot.NewEmbedding(ctx, s.pipe, t, nil)
			}
			if err != nil {
				return err
			}
			return run(c, texts)
		})
		return out, tokens, err
	}
	tokens := 0
	for i := range texts { // one at a time: answers that are being written go on between
		err := s.gen.Borrow(s.adapter, func(m model.Model, k backend.Kernels) error {
			if c == nil {
				scorer, err := generate.NewScorer(m, k)
				if err != nil {
					return err
				}
				if c, err = zeroshot.NewPrompted(ctx, scorer, codec(s.dec), t, nil, limitPrompt(zeroshot.PromptOptions{}, s.dec)); err != nil {
					return err
				}
			}
			return run(c, texts[i:i+1])
		})
		if err != nil {
			return nil, tokens, err
		}
		tokens += len(s.dec.Tokenizer.AppendPlainIDs(nil, texts[i]))
	}
	return out, tokens, nil
}
