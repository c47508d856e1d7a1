package serve

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/temper-ml/temper/core/sample"
)

type modelCard struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	OwnedBy string   `json:"owned_by"`
	Context int      `json:"context_length,omitempty"`
	Kinds   []string `json:"capabilities,omitempty"`
}

func card(m Model) modelCard {
	return modelCard{m.ID, "model", m.Created, "temper", m.Context, m.Kinds}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) error {
	list := []modelCard{}
	for _, m := range s.engine.Models() {
		list = append(list, card(m))
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
	return nil
}

func (s *Server) model(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("model")
	for _, m := range s.engine.Models() {
		if m.ID == id {
			writeJSON(w, http.StatusOK, card(m))
			return nil
		}
	}
	return fmt.Errorf("%w: %q", ErrNoModel, id)
}

// texts accepts a string or a list of strings.
type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return fmt.Errorf("expected a string or a list of strings")
	}
	*t = many
	return nil
}

// knobs are the sampling fields that both completion routes share; the ones beyond OpenAI's have llama.cpp's names.
type knobs struct {
	Model            string             `json:"model"`
	MaxTokens        *int               `json:"max_tokens"`
	MaxNew           *int               `json:"max_completion_tokens"`
	Temperature      *float64           `json:"temperature"`
	TopP             *float64           `json:"top_p"`
	TopK             int                `json:"top_k"`
	MinP             float64            `json:"min_p"`
	TypicalP         float64            `json:"typical_p"`
	FrequencyPenalty float64            `json:"frequency_penalty"`
	PresencePenalty  float64            `json:"presence_penalty"`
	RepeatPenalty    float64            `json:"repeat_penalty"`
	RepeatLastN      int                `json:"repeat_last_n"`
	DRYMultiplier    float64            `json:"dry_multiplier"`
	DRYBase          float64            `json:"dry_base"`
	DRYAllowed       int                `json:"dry_allowed_length"`
	DRYBreakers      []string           `json:"dry_sequence_breakers"`
	Mirostat         int                `json:"mirostat"`
	MirostatTau      float64            `json:"mirostat_tau"`
	MirostatEta      float64            `json:"mirostat_eta"`
	LogitBias        map[string]float64 `json:"logit_bias"`
	Seed             *int64             `json:"seed"`
	Stop             texts              `json:"stop"`
	N                *int               `json:"n"`
	Stream           bool               `json:"stream"`
	StreamOptions    struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Grammar string `json:"grammar"`
	Format  *struct {
		Type   string `json:"type"`
		Schema *struct {
			Name   string          `json:"name"`
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
}

// generation checks the fields; least is the smallest max_tokens.
func (k *knobs) generation(s *Server, least int) (Generation, error) {
	g := Generation{Model: k.Model, Stop: k.Stop, Grammar: k.Grammar, LogProbs: -1, DRYBreakers: k.DRYBreakers}
	if k.Model == "" {
		return g, badRequest("field model is missing")
	}
	if k.N != nil && *k.N != 1 {
		return g, badRequest("n = %d: one answer a request is given", *k.N)
	}
	if len(k.Stop) > 16 {
		return g, badRequest("stop: at most 16 texts, got %d", len(k.Stop))
	}
	for _, t := range k.Stop {
		if t == "" {
			return g, badRequest("stop: a text is empty")
		}
	}
	if k.MaxTokens != nil && k.MaxNew != nil && *k.MaxTokens != *k.MaxNew {
		return g, badRequest("max_tokens %d and max_completion_tokens %d are two names of one limit", *k.MaxTokens, *k.MaxNew)
	}
	if len(k.DRYBreakers) > 64 {
		return g, badRequest("dry_sequence_breakers: at most 64 texts, got %d", len(k.DRYBreakers))
	}
	for _, n := range []*int{k.MaxTokens, k.MaxNew} {
		if n != nil {
			if *n < least {
				return g, badRequest("max_tokens %d: want %d or more", *n, least)
			}
			g.MaxTokens = *n
		}
	}
	p := sample.Params{Temperature: 1, TopK: k.TopK, MinP: k.MinP, TypicalP: k.TypicalP, FrequencyPenalty: k.FrequencyPenalty,
		PresencePenalty: k.PresencePenalty, RepeatPenalty: k.RepeatPenalty, RepeatLastN: k.RepeatLastN, DRYMultiplier: k.DRYMultiplier,
		DRYBase: k.DRYBase, DRYAllowedLength: k.DRYAllowed, Mirostat: k.Mirostat, MirostatTau: k.MirostatTau, MirostatEta: k.MirostatEta}
	if k.Temperature != nil {
		p.Temperature = *k.Temperature
	}
	if k.TopP != nil {
		p.TopP = *k.TopP
	}
	p.Seed = uint64(s.ids.Add(1)) ^ uint64(s.start.UnixNano())
	if k.Seed != nil {
		p.Seed = uint64(*k.Seed)
	}
	for id, b := range k.LogitBias {
		n, err := strconv.ParseInt(id, 10, 32)
		if err != nil {
			return g, badRequest("logit_bias: %q is not a token id", id)
		}
		if p.Bias == nil {
			p.Bias = map[int32]float64{}
		}
		p.Bias[int32(n)] = b
	}
	if err := p.Validate(); err != nil {
		return g, badRequest("%v", err)
	}
	g.Sample = p
	if f := k.Format; f != nil {
		switch f.Type {
		case "text", "":
		case "json_object":
			g.JSON = true
		case "json_schema":
			if f.Schema == nil || len(f.Schema.Schema) == 0 {
				return g, badRequest("response_format: json_schema.schema is missing")
			}
			g.Schema = f.Schema.Schema
		default:
			return g, badRequest("response_format %q: want text, json_object or json_schema", f.Type)
		}
		if g.Grammar != "" && (g.JSON || g.Schema != nil) {
			return g, badRequest("grammar and response_format exclude each other")
		}
	}
	return g, nil
}

// content accepts a string or OpenAI's list of text parts.
type content string

func (c *content) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*c = content(one)
		return nil
	}
	var parts []struct{ Type, Text string }
	if err := json.Unmarshal(b, &parts); err != nil {
		return fmt.Errorf("content: expected a string or a list of text parts")
	}
	var sb strings.Builder
	for _, p := range parts {
		if p.Type != "text" {
			return fmt.Errorf("content: part of type %q; only text is read", p.Type)
		}
		sb.WriteString(p.Text)
	}
	*c = content(sb.String())
	return nil
}

type chatRequest struct {
	knobs
	Messages []struct {
		Role       string  `json:"role"`
		Content    content `json:"content"`
		Name       string  `json:"name"`
		ToolCalls  any     `json:"tool_calls"`
		ToolCallID string  `json:"tool_call_id"`
	} `json:"messages"`
	Tools    any  `json:"tools"`
	LogProbs bool `json:"logprobs"`
	Top      int  `json:"top_logprobs"`
}

type usage struct {
	Prompt     int            `json:"prompt_tokens"`
	Completion int            `json:"completion_tokens"`
	Total      int            `json:"total_tokens"`
	Details    map[string]int `json:"prompt_tokens_details,omitempty"`
}

func usageOf(s Summary) *usage {
	return &usage{s.PromptTokens, s.Tokens, s.PromptTokens + s.Tokens, map[string]int{"cached_tokens": s.CachedTokens}}
}

type chatLogProbs struct {
	Content []chatLogProb `json:"content"`
}

type chatLogProb struct {
	Token   string        `json:"token"`
	LogProb float64       `json:"logprob"`
	Bytes   []int         `json:"bytes"`
	Top     []chatLogProb `json:"top_logprobs"`
}

func chatLP(ts []TokenLogProb) []chatLogProb {
	out := []chatLogProb{}
	for _, t := range ts {
		b := make([]int, len(t.Bytes))
		for i, c := range t.Bytes {
			b[i] = int(c)
		}
		out = append(out, chatLogProb{t.Token, t.LogProb, b, chatLP(t.Top)})
	}
	return out
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request) error {
	var q chatRequest
	if err := decode(r, &q); err != nil {
		return err
	}
	g, err := q.generation(s, 1)
	if err != nil {
		return err
	}
	if len(q.Messages) == 0 {
		return badRequest("messages is empty")
	}
	switch {
	case q.Top < 0 || q.Top > 20:
		return badRequest("top_logprobs %d: want 0 to 20", q.Top)
	case q.LogProbs:
		g.LogProbs = q.Top
	case q.Top > 0:
		return badRequest("top_logprobs %d needs logprobs: true", q.Top)
	}
	var turns []Message
	for _, m := range q.Messages {
		if m.Role == "" {
			return badRequest("a message has no role")
		}
		turns = append(turns, Message{m.Role, string(m.Content), m.Name, m.ToolCalls, m.ToolCallID})
	}
	if g.Prompt, err = s.engine.Prompt(q.Model, turns, q.Tools); err != nil {
		return err
	}
	g.Raw = true
	id, now := s.id("chatcmpl"), time.Now().Unix()
	type delta struct {
		Role    string `json:"role,omitempty"`
		Content string `json:"content"`
	}
	type choice struct {
		Index    int           `json:"index"`
		Delta    *delta        `json:"delta,omitempty"`
		Message  *delta        `json:"message,omitempty"`
		LogProbs *chatLogProbs `json:"logprobs"`
		Finish   *string       `json:"finish_reason"`
	}
	type answer struct {
		ID      string   `json:"id"`
		Object  string   `json:"object"`
		Created int64    `json:"created"`
		Model   string   `json:"model"`
		Choices []choice `json:"choices"`
		Usage   *usage   `json:"usage,omitempty"`
	}
	if q.Stream {
		chunk := func(c ...choice) answer { return answer{id, "chat.completion.chunk", now, q.Model, c, nil} }
		return s.stream(w, r, g, q.StreamOptions.IncludeUsage,
			func(p Piece, first bool) any {
				c := choice{Delta: &delta{Content: p.Text}}
				if first {
					c.Delta.Role = "assistant"
				}
				if p.LogProbs != nil {
					c.LogProbs = &chatLogProbs{chatLP(p.LogProbs)}
				}
				return chunk(c)
			},
			func(sum Summary) any { return chunk(choice{Delta: &delta{}, Finish: &sum.Finish}) },
			func(sum Summary) any { a := chunk(); a.Choices = []choice{}; a.Usage = usageOf(sum); return a })
	}
	text, _, lp, sum, err := s.collect(r, g)
	if err != nil {
		return err
	}
	c := choice{Message: &delta{"assistant", text}, Finish: &sum.Finish}
	if q.LogProbs {
		c.LogProbs = &chatLogProbs{chatLP(lp)}
	}
	writeJSON(w, http.StatusOK, answer{id, "chat.completion", now, q.Model, []choice{c}, usageOf(sum)})
	return nil
}

type completeRequest struct {
	knobs
	Prompt   texts `json:"prompt"`
	LogProbs *int  `json:"logprobs"`
	Echo     bool  `json:"echo"` // with logprobs, those of the prompt come first; max_tokens may then be 0
	// PromptLogProbs asks for the prompt's own, with so many alternatives, beside the answer's.
	PromptLogProbs *int `json:"prompt_logprobs"`
}

type completeLogProbs struct {
	Tokens  []string             `json:"tokens"`
	Values  []*float64           `json:"token_logprobs"`
	Top     []map[string]float64 `json:"top_logprobs"`
	Offsets []int                `json:"text_offset"`
}

func completeLP(ts []TokenLogProb, at *int) *completeLogProbs {
	lp := &completeLogProbs{[]string{}, []*float64{}, []map[string]float64{}, []int{}}
	for _, t := range ts {
		var own *float64
		var top map[string]float64
		if !t.First {
			own, top = &t.LogProb, map[string]float64{}
		}
		for _, a := range t.Top {
			top[a.Token] = a.LogProb
		}
		lp.Tokens, lp.Values, lp.Top, lp.Offsets = append(lp.Tokens, t.Token), append(lp.Values, own), append(lp.Top, top), append(lp.Offsets, *at)
		*at += len([]rune(t.Token))
	}
	return lp
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request) error {
	var q completeRequest
	if err := decode(r, &q); err != nil {
		return err
	}
	least := 1
	if q.Echo { // to learn how likely a text is
		least = 0
	}
	g, err := q.generation(s, least)
	if err != nil {
		return err
	}
	silent := q.MaxTokens != nil && *q.MaxTokens == 0 || q.MaxNew != nil && *q.MaxNew == 0
	if silent {
		g.MaxTokens = 1 // which is not shown
	}
	if len(q.Prompt) != 1 {
		return badRequest("prompt: one text a request, got %d", len(q.Prompt))
	}
	if q.LogProbs != nil {
		if *q.LogProbs < 0 || *q.LogProbs > 20 {
			return badRequest("logprobs %d: want 0 to 20", *q.LogProbs)
		}
		g.LogProbs = *q.LogProbs
		g.PromptLogProbs = q.Echo
	}
	if q.PromptLogProbs != nil {
		switch n := *q.PromptLogProbs; {
		case n < 0 || n > 20:
			return badRequest("prompt_logprobs %d: want 0 to 20", n)
		case q.Stream:
			return badRequest("prompt_logprobs cannot be streamed: use echo and logprobs")
		case q.LogProbs != nil && n != *q.LogProbs:
			return badRequest("prompt_logprobs %d and logprobs %d: want the same number of alternatives", n, *q.LogProbs)
		}
		g.PromptLogProbs, g.LogProbs = true, *q.PromptLogProbs
	}
	g.Prompt = q.Prompt[0]
	id, now, at := s.id("cmpl"), time.Now().Unix(), 0
	type choice struct {
		Index    int               `json:"index"`
		Text     string            `json:"text"`
		LogProbs *completeLogProbs `json:"logprobs"`
		Finish   *string           `json:"finish_reason"`
		Prompt   *completeLogProbs `json:"prompt_logprobs,omitempty"`
	}
	type answer struct {
		ID      string   `json:"id"`
		Object  string   `json:"object"`
		Created int64    `json:"created"`
		Model   string   `json:"model"`
		Choices []choice `json:"choices"`
		Usage   *usage   `json:"usage,omitempty"`
	}
	prefix := ""
	if q.Echo {
		prefix = g.Prompt
	}
	if q.Stream {
		chunk := func(c ...choice) answer { return answer{id, "text_completion", now, q.Model, c, nil} }
		return s.stream(w, r, g, q.StreamOptions.IncludeUsage,
			func(p Piece, first bool) any {
				c := choice{Text: p.Text}
				if silent && !p.Prompt {
					c.Text, p.LogProbs = "", nil
				}
				if first {
					c.Text = prefix + c.Text
				}
				if p.LogProbs != nil {
					c.LogProbs = completeLP(p.LogProbs, &at)
				}
				return chunk(c)
			},
			func(sum Summary) any { return chunk(choice{Finish: &sum.Finish}) },
			func(sum Summary) any { a := chunk(); a.Choices = []choice{}; a.Usage = usageOf(sum); return a })
	}
	text, asked, lp, sum, err := s.collect(r, g)
	if err != nil {
		return err
	}
	if silent {
		text, lp, sum.Tokens, sum.Finish = "", nil, 0, "length"
	}
	c := choice{Text: prefix + text, Finish: &sum.Finish}
	if q.PromptLogProbs != nil {
		from := 0
		c.Prompt = completeLP(asked, &from)
	}
	if q.LogProbs != nil {
		if !q.Echo {
			asked = nil
		}
		c.LogProbs = completeLP(append(asked, lp...), &at)
	}
	writeJSON(w, http.StatusOK, answer{id, "text_completion", now, q.Model, []choice{c}, usageOf(sum)})
	return nil
}

// collect gathers a whole answer: its text, the log-probabilities of the prompt's tokens and its own.
func (s *Server) collect(r *http.Request, g Generation) (text string, asked, own []TokenLogProb, sum Summary, err error) {
	var b strings.Builder
	sum, err = s.engine.Generate(r.Context(), g, func(p Piece) error {
		b.WriteString(p.Text)
		if p.Prompt {
			asked = append(asked, p.LogProbs...)
		} else {
			own = append(own, p.LogProbs...)
		}
		return nil
	})
	s.count(sum)
	return b.String(), asked, own, sum, err
}

func (s *Server) count(sum Summary) {
	s.metrics.GetOrCreateCounter("temper_prompt_tokens_total").Add(sum.PromptTokens)
	s.metrics.GetOrCreateCounter("temper_cached_tokens_total").Add(sum.CachedTokens)
	s.metrics.GetOrCreateCounter("temper_generated_tokens_total").Add(sum.Tokens)
}

// stream sends server-sent events; an error before the first piece is an ordinary answer, later it is an event.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, g Generation, withUsage bool, piece func(Piece, bool) any, end, total func(Summary) any) error {
	flush := http.NewResponseController(w)
	begun := false
	event := func(v any) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Cache-Control", "no-cache")
			w.Header().Set("X-Accel-Buffering", "no")
			w.WriteHeader(http.StatusOK)
		}
		var b bytes.Buffer
		b.WriteString("data: ")
		if text, ok := v.(string); ok {
			b.WriteString(text + "\n")
		} else {
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(v); err != nil {
				return err
			}
		}
		b.WriteString("\n")
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
		return flush.Flush()
	}
	first := true
	sum, err := s.engine.Generate(r.Context(), g, func(p Piece) error {
		v := piece(p, first)
		first = false
		return event(v)
	})
	s.count(sum)
	if err != nil {
		if !begun {
			return err
		}
		e := classifyError(err)
		return event(map[string]any{"error": map[string]any{"message": e.message, "type": e.kind, "code": e.code}})
	}
	if err := event(end(sum)); err != nil {
		return err
	}
	if withUsage {
		if err := event(total(sum)); err != nil {
			return err
		}
	}
	return event("[DONE]")
}

type embedRequest struct {
	Model      string `json:"model"`
	Input      texts  `json:"input"`
	Format     string `json:"encoding_format"`
	Dimensions *int   `json:"dimensions"`
}

func (s *Server) checkTexts(model string, in texts) error {
	switch {
	case model == "":
		return badRequest("field model is missing")
	case len(in) == 0:
		return badRequest("input is empty")
	case len(in) > s.opt.MaxTexts:
		return badRequest("input: at most %d texts, got %d", s.opt.MaxTexts, len(in))
	}
	return nil
}

func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) error {
	var q embedRequest
	if err := decode(r, &q); err != nil {
		return err
	}
	if err := s.checkTexts(q.Model, q.Input); err != nil {
		return err
	}
	if q.Format != "" && q.Format != "float" && q.Format != "base64" {
		return badRequest("encoding_format %q: want float or base64", q.Format)
	}
	vs, tokens, err := s.engine.Embed(r.Context(), q.Model, q.Input)
	if err != nil {
		return err
	}
	type item struct {
		Object    string `json:"object"`
		Index     int    `json:"index"`
		Embedding any    `json:"embedding"`
	}
	list := make([]item, len(vs))
	for i, v := range vs {
		if q.Dimensions != nil {
			if *q.Dimensions < 1 || *q.Dimensions > len(v) {
				return badRequest("dimensions %d: want 1 to %d", *q.Dimensions, len(v))
			}
			v = renormalise(v[:*q.Dimensions])
		}
		list[i] = item{"embedding", i, v}
		if q.Format == "base64" {
			b := make([]byte, 0, 4*len(v))
			for _, x := range v {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
			}
			list[i].Embedding = base64.StdEncoding.EncodeToString(b)
		}
	}
	s.metrics.GetOrCreateCounter("temper_prompt_tokens_total").Add(tokens)
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list, "model": q.Model,
		"usage": map[string]int{"prompt_tokens": tokens, "total_tokens": tokens}})
	return nil
}

func renormalise(v []float32) []float32 {
	var s float64
	for _, x := range v {
		s += float64(x) * float64(x)
	}
	out := make([]float32, len(v))
	if s > 0 {
		f := float32(1 / math.Sqrt(s))
		for i, x := range v {
			out[i] = x * f
		}
	}
	return out
}

type classifyRequest struct {
	Model  string   `json:"model"`
	Input  texts    `json:"input"`
	Labels []string `json:"labels"`
}

func (s *Server) classify(w http.ResponseWriter, r *http.Request) error {
	var q classifyRequest
	if err := decode(r, &q); err != nil {
		return err
	}
	if err := s.checkTexts(q.Model, q.Input); err != nil {
		return err
	}
	if len(q.Labels) > s.opt.MaxTexts {
		return badRequest("labels: at most %d, got %d", s.opt.MaxTexts, len(q.Labels))
	}
	cs, tokens, err := s.engine.Classify(r.Context(), q.Model, q.Input, q.Labels)
	if err != nil {
		return err
	}
	type item struct {
		Index int `json:"index"`
		Class
	}
	list := make([]item, len(cs))
	for i, c := range cs {
		list[i] = item{i, c}
	}
	s.metrics.GetOrCreateCounter("temper_prompt_tokens_total").Add(tokens)
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list, "model": q.Model,
		"usage": map[string]int{"prompt_tokens": tokens, "total_tokens": tokens}})
	return nil
}
