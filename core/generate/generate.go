// Package generate runs decoders: prompts in, text out. One loop serves all requests of a model: their prompts are read in chunks and
// their next tokens computed together, keys and values of a shared beginning are reused, and guessed continuations are checked in one pass.
package generate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/sample"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
)

// Options of a Generator. Zero values mean the defaults in brackets.
type Options struct {
	// Parallel is the number of sequences computed together [4]; Waiting bounds those in the queue [256].
	Parallel, Waiting int
	// Context is the largest number of tokens of a sequence [what the model was made for].
	Context int
	// Chunk is the number of prompt tokens read in one step [512].
	Chunk int
	// Cache is the type that keys and values are stored in: "f32", "f16" or "q8_0" [f16 where the kernels meet it as it is, otherwise f32]. In f32 a text is
	// what the parity fixtures say to the bit; f16 is llama.cpp's default; q8_0 takes half of that.
	Cache string
	// Draft is the number of tokens guessed ahead by look-up in the text [0: none]. The output does not change.
	Draft int
	// DraftModel, when not nil, guesses instead of the look-up: a smaller decoder with the same vocabulary. Draft is then [4] tokens.
	DraftModel model.Model
	// Adapters can be chosen by name in a request; all are switched off.
	Adapters []Adapter
	// Turn, when not nil, is held while the kernels are in use: for several models over the same ones.
	Turn sync.Locker
}

// Generator continues texts with one decoder. Its methods may be called from several goroutines.
type Generator struct {
	m     model.Model
	tok   *token.Tokenizer
	k     backend.Kernels
	opt   Options
	eos   []int32
	arena grad.Arena
	cache *slots
	draft *drafter
	on    int        // the adapter that is switched on; -1 for none
	use   sync.Mutex // held while the model is in use

	mu      sync.Mutex
	queue   []*job
	active  []*job
	wake    chan struct{}
	done    chan struct{}
	closing bool
}

// ErrBusy is returned when too many requests wait; ErrClosed after Close.
var (
	ErrBusy   = errors.New("too many requests are waiting")
	ErrClosed = errors.New("the generator is closed")
)

// RequestError is a mistake in a request: the caller can mend it.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

func wrong(format string, args ...any) error { return &RequestError{fmt.Errorf(format, args...)} }

// New starts a generator over a causal model. eos are the tokens that end a text. Close stops it; it does not close the model.
func New(m model.Model, tok *token.Tokenizer, k backend.Kernels, eos []int32, o Options) (*Generator, error) {
	cfg := m.Config()
	if cfg.Head != model.HeadCausal {
		return nil, fmt.Errorf("generate: the model's head is %q: a causal language model is needed", cfg.Head)
	}
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Waiting <= 0 {
		o.Waiting = 256
	}
	if most := cfg.MaxPositions; o.Context <= 0 || most > 0 && o.Context > most {
		o.Context = most
	}
	if o.Context <= 0 {
		o.Context = 4096
	}
	if o.Chunk <= 0 {
		o.Chunk = 512
	}
	typ, err := cacheType(o.Cache, cfg, k)
	if err != nil {
		return nil, fmt.Errorf("generate: %w", err)
	}
	var d *drafter
	if small := o.DraftModel; small != nil {
		if c := small.Config(); c.Head != model.HeadCausal || c.Vocab != cfg.Vocab {
			return nil, fmt.Errorf("generate: the draft model has the head %q and a vocabulary of %d: expected a causal language model with the %d tokens of the model", c.Head, c.Vocab, cfg.Vocab)
		}
		if o.Draft == 0 {
			o.Draft = 4
		}
		d = newDrafter(small, k, o.Parallel)
	}
	g := &Generator{m: m, tok: tok, k: k, opt: o, eos: eos, cache: newSlots(cfg, typ, o.Parallel, o.Context), on: -1, draft: d,
		wake: make(chan struct{}, 1), done: make(chan struct{})}
	go g.loop()
	return g, nil
}

// cacheType reads Options.Cache.
func cacheType(name string, cfg *model.Config, k backend.Kernels) (tensor.DType, error) {
	typ := tensor.F32
	if name == "" {
		if s, ok := k.(backend.StoredAttention); ok && s.MeetsStored(tensor.F16) {
			typ = tensor.F16
		}
		return typ, nil
	}
	typ, err := tensor.ParseDType(name)
	if err != nil {
		return typ, fmt.Errorf("cache type: %w", err)
	}
	return typ, backend.CanStore(typ, cfg.HeadDim)
}

// CacheBytes is the memory of keys and values. It is for tests and reports: between requests only.
func (g *Generator) CacheBytes() int {
	g.use.Lock()
	defer g.use.Unlock()
	return g.cache.bytes()
}

// Context is the largest number of tokens of a prompt and its continuation.
func (g *Generator) Context() int { return g.opt.Context }

// Request is one text to continue.
type Request struct {
	Prompt    []int32 // token ids, beginning token included where the model wants one
	MaxTokens int     // 0: to the end of the context
	Sample    sample.Params
	Stop      []string
	// Ignore lets the text go on after an end token.
	IgnoreEnd bool
	// LogProbs is −1 for none, otherwise the number of alternatives beside each token's own.
	LogProbs int
	// PromptLogProbs asks for those of the prompt's tokens too, from the second on, in pieces before the text. Nothing that is cached is used for it.
	PromptLogProbs bool
	// Adapter names the one to use; "" is the model as it is.
	Adapter string
	// Constraint restricts the output; nil is free.
	Constraint sample.Constraint
}

// Piece is a bit of text, whole runes, and the tokens behind it.
type Piece struct {
	Text   string
	Tokens []Token
	// Prompt is true where Tokens are the prompt's.
	Prompt bool
}

// Token is a chosen token with its log-probability and the likeliest alternatives, when asked for.
type Token struct {
	ID  int32
	Own sample.LogProb
	Top []sample.LogProb
}

// Reasons for an end.
const (
	FinishStop   = "stop"   // an end token, a stop string, or a constraint that is met
	FinishLength = "length" // MaxTokens or the context
)

// Result sums a generation up.
type Result struct {
	Prompt, Cached, Tokens      int
	Finish                      string
	PromptSeconds, TokenSeconds float64
	// Drafted tokens were guessed, Accepted were right.
	Drafted, Accepted int
}

type job struct {
	ctx     context.Context
	req     Request
	sampler *sample.Sampler
	stream  *token.Stream
	stop    stopper
	adapter int
	slot    int
	text    []int32 // prompt and what was generated
	pending int     // tokens of text that are not in the cache yet
	guess   []int32
	begun   time.Time
	first   time.Time
	res     Result
	out     chan Piece
	err     error
	ended   chan struct{}
}

// Generate continues a prompt and calls emit for each piece of text, in order, on the caller's goroutine. An error of emit, or the end of
// ctx, ends the generation.
func (g *Generator) Generate(ctx context.Context, req Request, emit func(Piece) error) (Result, error) {
	if len(req.Prompt) == 0 {
		return Result{}, wrong("the prompt is empty")
	}
	if len(req.Prompt) >= g.opt.Context {
		return Result{}, wrong("the prompt has %d tokens: the context of %d leaves no room for an answer", len(req.Prompt), g.opt.Context)
	}
	vocab := int32(g.m.Config().Vocab)
	for i, id := range req.Prompt {
		if id < 0 || id >= vocab {
			return Result{}, wrong("token %d of the prompt is %d: the vocabulary has %d", i, id, vocab)
		}
	}
	if req.MaxTokens < 0 {
		return Result{}, wrong("max tokens %d: want 0 (no limit) or more", req.MaxTokens)
	}
	adapter := slices.IndexFunc(g.opt.Adapters, func(a Adapter) bool { return a.Name == req.Adapter })
	if adapter < 0 && req.Adapter != "" {
		return Result{}, wrong("no adapter is called %q", req.Adapter)
	}
	s, err := sample.New(req.Sample)
	if err != nil {
		return Result{}, &RequestError{err}
	}
	s.Accept(req.Prompt...)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j := &job{ctx: ctx, req: req, sampler: s, stream: g.tok.Stream(true), stop: stopper{stops: req.Stop}, adapter: adapter, slot: -1,
		text: slices.Clone(req.Prompt), out: make(chan Piece, g.most(req)+4+g.echoPieces(req)), ended: make(chan struct{})}
	j.res.Prompt = len(req.Prompt)
	g.mu.Lock()
	switch {
	case g.closing:
		err = ErrClosed
	case len(g.queue) >= g.opt.Waiting:
		err = fmt.Errorf("%w (%d)", ErrBusy, g.opt.Waiting)
	default:
		g.queue = append(g.queue, j)
	}
	g.mu.Unlock()
	if err != nil {
		return Result{}, err
	}
	g.poke()
	var failed error
	for p := range j.out {
		if failed == nil {
			if failed = emit(p); failed != nil {
				cancel()
			}
		}
	}
	<-j.ended
	if failed != nil {
		return j.res, failed
	}
	return j.res, j.err
}

func (g *Generator) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Close ends running requests with ErrClosed and waits for the loop.
func (g *Generator) Close() {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	g.poke()
	<-g.done
}

func (g *Generator) loop() {
	defer close(g.done)
	for {
		g.mu.Lock()
		closing := g.closing
		for !closing && len(g.queue) > 0 && len(g.active) < g.opt.Parallel {
			j := g.queue[0]
			g.queue = slices.Delete(g.queue, 0, 1) // which forgets it: a request holds room for all its answers
			known := j.text
			if j.req.PromptLogProbs {
				known = known[:1] // all of it runs
			}
			slot, keep := g.cache.take(known, j.adapter)
			j.slot, j.pending, j.res.Cached, j.begun = slot, len(j.text)-keep, keep, time.Now()
			g.active = append(g.active, j)
		}
		waiting := g.queue
		if closing {
			g.queue = nil
		}
		g.mu.Unlock()
		if closing {
			for _, j := range append(g.active, waiting...) {
				g.end(j, ErrClosed)
			}
			g.active = nil
			_ = g.exclusive(-1, func() error { return nil }) // switching an adapter off cannot fail once it was on
			return
		}
		if len(g.active) == 0 {
			<-g.wake
			continue
		}
		g.step()
	}
}

// end gives the slot back and tells the caller.
func (g *Generator) end(j *job, err error) {
	if j.slot >= 0 {
		g.cache.release(j.slot)
	}
	if err == nil {
		if rest := j.stream.Flush(); rest != "" {
			text, _ := j.stop.push(rest)
			j.send(Piece{Text: text})
		}
		if rest := j.stop.rest(); rest != "" {
			j.send(Piece{Text: rest})
		}
	}
	if !j.first.IsZero() {
		j.res.PromptSeconds = j.first.Sub(j.begun).Seconds()
		j.res.TokenSeconds = time.Since(j.first).Seconds()
	}
	j.err = err
	close(j.out)
	close(j.ended)
}

// send hands a piece over. The channel has room for all that a request may give, so that a slow caller does not hold up the others.
func (j *job) send(p Piece) {
	if p.Text != "" || p.Tokens != nil {
		j.out <- p
	}
}

// most is the largest number of tokens that a request can give.
func (g *Generator) most(r Request) int {
	n := g.opt.Context - len(r.Prompt)
	if r.MaxTokens > 0 {
		n = min(n, r.MaxTokens)
	}
	return n
}

// echoRows is how many tokens of a prompt are read at once when their logits are wanted.
func (g *Generator) echoRows() int { return min(max(logitBytes/4/g.m.Config().Vocab, 16), g.opt.Chunk) }

// echoPieces bounds the pieces that hold a prompt's log-probabilities.
func (g *Generator) echoPieces(r Request) int {
	if !r.PromptLogProbs {
		return 0
	}
	return len(r.Prompt) // a chunk may be shared with others, down to a token
}

// step runs one batch: a chunk of the prompt of each new sequence, the latest token (and a guess) of each running one.
func (g *Generator) step() {
	live := g.active[:0]
	for _, j := range g.active {
		if err := j.ctx.Err(); err != nil {
			g.end(j, err)
			continue
		}
		live = append(live, j)
	}
	clear(g.active[len(live):])
	// Sequences of one adapter run together.
	slices.SortStableFunc(live, func(a, b *job) int { return a.adapter - b.adapter })
	g.active = make([]*job, 0, len(live))
	for len(live) > 0 {
		n := 1
		for n < len(live) && live[n].adapter == live[0].adapter {
			n++
		}
		g.active = append(g.active, g.run(live[:n])...)
		live = live[n:]
	}
}

// switchTo turns one adapter on and the others off.
func (g *Generator) switchTo(adapter int) error {
	if g.on == adapter {
		return nil
	}
	if g.on >= 0 {
		if err := g.opt.Adapters[g.on].Model.Enable(false); err != nil {
			return err
		}
	}
	g.on = -1
	if adapter >= 0 {
		if err := g.opt.Adapters[adapter].Model.Enable(true); err != nil {
			return err
		}
		g.on = adapter
	}
	return nil
}

// run is a step for sequences that share an adapter. It returns those that go on.
func (g *Generator) run(live []*job) []*job {
	b := &model.Batch{Offsets: make([]int32, 1, len(live)+1), Want: model.WantLogits, Rows: []int32{}}
	v := &view{s: g.cache}
	room := g.opt.Chunk
	type part struct {
		ids, row int
		echo     int // first row of the prompt's logits, −1 for none
	}
	parts := make([]part, len(live))
	for i, j := range live {
		ids := j.text[len(j.text)-j.pending:]
		j.guess = j.guess[:0]
		if len(ids) > 1 {
			ids = ids[:min(len(ids), max(room, 1))]
			if j.req.PromptLogProbs {
				ids = ids[:min(len(ids), max(room*g.echoRows()/g.opt.Chunk, 1))]
			}
			room -= len(ids)
		} else if n := g.guesses(j); n > 0 && g.draft == nil {
			j.guess = draft(j.guess, j.text, n)
		} else if n > 0 {
			var err error
			if j.guess, err = g.ahead(j.guess, j, n); err != nil {
				return g.fail(live, err)
			}
		}
		b.IDs = append(b.IDs, ids...)
		b.IDs = append(b.IDs, j.guess...)
		parts[i] = part{len(ids), -1, -1}
		if from := len(j.text) - j.pending; j.req.PromptLogProbs && from < j.res.Prompt-1 {
			parts[i].echo = len(b.Rows)
			for r := range min(len(ids), j.res.Prompt-1-from) {
				b.Rows = append(b.Rows, int32(len(b.IDs)-len(ids)-len(j.guess)+r))
			}
		}
		if len(ids) == j.pending { // the text is complete: logits of its last token, and of the guesses
			parts[i].row = len(b.Rows)
			for r := len(b.IDs) - len(j.guess) - 1; r < len(b.IDs); r++ {
				b.Rows = append(b.Rows, int32(r))
			}
		}
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
		v.at = append(v.at, j.slot)
	}
	b.Cache = v
	g.arena.Reset()
	out, err := g.forward(b, live[0].adapter)
	if err != nil {
		return g.fail(live, err)
	}
	over, errs := make([]bool, len(live)), make([]error, len(live))
	g.each(len(live), func(i int) {
		j, at := live[i], &g.cache.all[live[i].slot]
		ids := b.IDs[b.Offsets[i]:b.Offsets[i+1]]
		if parts[i].echo >= 0 {
			j.echo(out.Logits, parts[i].echo, len(at.held), parts[i].ids)
		}
		at.held = append(at.held, ids[:parts[i].ids]...)
		j.pending -= parts[i].ids
		if row := parts[i].row; row >= 0 {
			over[i], errs[i] = g.choose(j, out.Logits, row)
		}
	})
	kept := live[:0]
	for i, j := range live {
		if over[i] || errs[i] != nil {
			g.end(j, errs[i])
			continue
		}
		kept = append(kept, j)
	}
	return kept
}

// each calls f for each of n sequences, as many at a time as the kernels have threads: choosing from a large vocabulary takes its time, and each
// sequence chooses for itself.
func (g *Generator) each(n int, f func(i int)) {
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; int(i) < n; i = next.Add(1) - 1 {
			f(int(i))
		}
	}
	var wg sync.WaitGroup
	for range min(g.k.Threads(), n) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// echo sends the log-probabilities of the prompt's tokens that follow n tokens from position at; their logits begin at a row.
func (j *job) echo(logits *grad.Value, row, at, n int) {
	p := Piece{Prompt: true}
	for i := 0; i < n && at+i+1 < j.res.Prompt; i++ {
		t := Token{ID: j.text[at+i+1]}
		t.Own, t.Top = sample.LogProbs(logits.Data[(row+i)*logits.Cols:(row+i+1)*logits.Cols], t.ID, max(j.req.LogProbs, 0))
		p.Tokens = append(p.Tokens, t)
	}
	j.send(p)
}

func (g *Generator) forward(b *model.Batch, adapter int) (out model.Output, err error) {
	err = g.exclusive(adapter, func() error {
		out, err = g.m.Forward(grad.Infer(g.k, &g.arena), b)
		return err
	})
	return out, err
}

// exclusive runs f with one adapter on and nobody else at the model or the kernels.
func (g *Generator) exclusive(adapter int, f func() error) error {
	g.use.Lock()
	defer g.use.Unlock()
	if g.opt.Turn != nil {
		g.opt.Turn.Lock()
		defer g.opt.Turn.Unlock()
	}
	if err := g.switchTo(adapter); err != nil {
		return err
	}
	return f()
}

// Borrow runs f, which may use the model and the kernels, between two steps of the generator; the named adapter is on ("" for none).
func (g *Generator) Borrow(adapter string, f func(m model.Model, k backend.Kernels) error) error {
	at := slices.IndexFunc(g.opt.Adapters, func(a Adapter) bool { return a.Name == adapter })
	if at < 0 && adapter != "" {
		return wrong("no adapter is called %q", adapter)
	}
	return g.exclusive(at, func() error { return f(g.m, g.k) })
}

// fail ends sequences with an error. What their slots hold is not to be trusted.
func (g *Generator) fail(live []*job, err error) []*job {
	for _, j := range live {
		g.cache.forget(j.slot)
		g.end(j, err)
	}
	return nil
}

// guesses is how many tokens may be guessed for j now.
func (g *Generator) guesses(j *job) int {
	if g.opt.Draft == 0 || j.req.Constraint != nil {
		return 0
	}
	n := min(g.opt.Draft, g.opt.Context-len(j.text)-1)
	if j.req.MaxTokens > 0 {
		n = min(n, j.req.MaxTokens-j.res.Tokens-1)
	}
	return max(n, 0)
}

// choose draws the next token from each row of logits in turn, as long as the guesses are right: the tokens, and the draws, are those
// that one row at a time would have given.
func (g *Generator) choose(j *job, logits *grad.Value, row int) (over bool, err error) {
	if j.first.IsZero() {
		j.first = time.Now()
	}
	j.res.Drafted += len(j.guess)
	for i := 0; i <= len(j.guess); i++ {
		z := logits.Data[(row+i)*logits.Cols : (row+i+1)*logits.Cols]
		var t Token
		raw := z
		if j.req.LogProbs >= 0 {
			raw = slices.Clone(z)
		}
		if j.req.Constraint != nil {
			if err := g.allow(j, z); err != nil {
				return true, &RequestError{err}
			}
		}
		id, err := j.sampler.Next(z)
		if err != nil {
			if j.req.Constraint != nil || len(j.req.Sample.Bias) > 0 {
				err = wrong("%w, by the grammar or the biases", err)
			}
			return true, err
		}
		t.ID = id
		if j.req.LogProbs >= 0 {
			t.Own, t.Top = sample.LogProbs(raw, id, j.req.LogProbs)
			if math.IsNaN(t.Own.LP) {
				return true, errors.New("the model's logits are not numbers")
			}
		}
		if over, err := g.accept(j, t); over || err != nil {
			return over, err
		}
		if i == len(j.guess) || j.guess[i] != id {
			break
		}
		// The guess is in the cache already.
		j.res.Accepted++
		at := &g.cache.all[j.slot]
		at.held = append(at.held, id)
		j.pending--
	}
	return false, nil
}

// ahead lets the draft model guess.
func (g *Generator) ahead(dst []int32, j *job, n int) ([]int32, error) {
	err := g.exclusive(j.adapter, func() (err error) {
		dst, err = g.draft.guess(dst, j.slot, j.text, n)
		return err
	})
	return dst, err
}

// bounded is a constraint that can see to it that a text is complete before its tokens run out.
type bounded interface {
	AllowWithin(logits []float32, tokens int) error
	Complete() bool
}

func (g *Generator) allow(j *job, z []float32) error {
	b, ok := j.req.Constraint.(bounded)
	if !ok {
		return j.req.Constraint.Allow(z)
	}
	return b.AllowWithin(z, g.most(j.req)-j.res.Tokens)
}

// accept adds a token to the text and sends what has become certain.
func (g *Generator) accept(j *job, t Token) (over bool, err error) {
	if j.req.Constraint != nil {
		if err := j.req.Constraint.Accept(t.ID); err != nil {
			return true, err
		}
	}
	if slices.Contains(g.eos, t.ID) && !j.req.IgnoreEnd {
		j.res.Finish = FinishStop
		return true, nil
	}
	j.sampler.Accept(t.ID)
	j.text = append(j.text, t.ID)
	j.pending++
	j.res.Tokens++
	text, stopped := j.stop.push(j.stream.Next(t.ID))
	p := Piece{Text: text}
	if j.req.LogProbs >= 0 {
		p.Tokens = []Token{t}
	}
	j.send(p)
	switch {
	case stopped:
		j.res.Finish = FinishStop
		j.stream.Flush()
		return true, nil
	case j.req.MaxTokens > 0 && j.res.Tokens >= j.req.MaxTokens, len(j.text) >= g.opt.Context:
		j.res.Finish = FinishLength
		if b, ok := j.req.Constraint.(bounded); ok && b.Complete() {
			j.res.Finish = FinishStop
		}
		return true, nil
	}
	return false, nil
}
