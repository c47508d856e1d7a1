// Package pretrain trains a language model from plain text: a masked one (an encoder) or a causal one (a decoder), from random weights or
// from earlier ones. Text is tokenized once to disk and read from there in a random order, so its size does not matter; a run that is
// killed goes on from its last checkpoint and ends with the same bits.
package pretrain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
)

// Options describe a run. Zero values mean the defaults in brackets.
type Options struct {
	// Config is the network's config.json, Tokenizer its tokenizer.json. The config's head decides the objective: masked or causal.
	Config, Tokenizer []byte
	Kernels           backend.Kernels
	// Text to learn from, Held to measure on. Documents of Text that repeat Held are left out.
	Text, Held Texts
	// Init, when not nil, holds weights to start from; InitName tells it apart in the fingerprint.
	Init     checkpoint.Source
	InitName string
	Masking  Masking
	// Out is the folder to write; checkpoints and tokenized text go there too.
	Out string

	Length            int     // tokens of a row [256, or what the model takes]
	Batch, Accumulate int     // rows of a micro-batch [16], micro-batches of a step [1]
	Steps             int     // 0: by Epochs
	StopAfter         int     // write the model after this many of the steps; 0: all
	Epochs            float64 // [1]
	LR                float64 // [1e-3]
	MinLR             float64 // share of LR at the end [0.1]; negative: 0
	Warmup            float64 // steps, or a share of them below 1 [0.02]
	Schedule          string  // cosine, wsd, linear, constant [cosine]
	Decay             float64 // of wsd: steps, or a share of them below 1 [0.2]
	WeightDecay       float64 // [0.1]; negative: 0
	Beta2             float64 // [0.95]
	Clip              float64 // [1]; negative: none
	// Dropout, when not negative, replaces the config's dropout of embeddings, branches and attention.
	Dropout float64
	Seed    uint64

	EvalSteps  int // steps between measurements on held-out text [a twentieth of the run]
	EvalTokens int // tokens of such a measurement [65536]; the last one takes all
	SaveSteps  int
	SaveEvery  time.Duration // [1 minute]; negative: never
	Resume     bool
	Rates      train.Rates
	// Store is the element type of the written weights: tensor.F32 [default] or tensor.BF16.
	Store tensor.DType
	// Extra describes further settings that decide the result.
	Extra    string
	Progress func(train.Progress)
	Measured func(Eval)
	// Observe is shown the rows of each step before it is done, and its learning rate.
	Observe func(lr float64, rows []train.Example)
	// More adds files to the written folder.
	More func(w *checkpoint.FolderWriter, r *Result) error

	only bool // evaluate, nothing else
}

// Result is what a run reports; the JSON names are those of `temper pretrain`.
type Result struct {
	Objective       string     `json:"objective"`
	Parameters      int        `json:"parameters"`
	Steps           int        `json:"steps"`
	Epochs          float64    `json:"epochs"`
	Text            Counts     `json:"text"`
	Loss            float64    `json:"train_loss"` // of the last point of the curve
	Held            *Eval      `json:"held,omitempty"`
	Tokens          int64      `json:"tokens"`
	Seconds         float64    `json:"seconds"`
	TokensPerSecond float64    `json:"tokens_per_second"`
	PeakRSS         int64      `json:"peak_rss_bytes"`
	Cost            train.Cost `json:"cost"`
	Log             Log        `json:"-"`
}

// Defaults fills in what o leaves open.
func (o *Options) Defaults() {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.Batch, 16)
	set(&o.Accumulate, 1)
	set(&o.EvalTokens, 1<<16)
	def := func(p *float64, v float64) {
		if *p == 0 {
			*p = v
		} else if *p < 0 {
			*p = 0
		}
	}
	def(&o.Epochs, 1)
	def(&o.LR, 1e-3)
	def(&o.MinLR, 0.1)
	def(&o.Warmup, 0.02)
	def(&o.Decay, 0.2)
	def(&o.WeightDecay, 0.1)
	def(&o.Beta2, 0.95)
	def(&o.Clip, 1)
	def(&o.Masking.Share, 0.15)
	if o.Schedule == "" {
		o.Schedule = "cosine"
	}
	if o.SaveEvery == 0 {
		o.SaveEvery = time.Minute
	}
	if o.Store == tensor.Invalid {
		o.Store = tensor.F32
	}
}

// run is a run under way.
type run struct {
	*Options
	cfg         *model.Config
	tok         *token.Tokenizer
	m           model.Model
	params      []*grad.Param
	opt         train.Optimizer
	sched       train.Schedule
	text, held  *Corpus
	rows        *Sampler
	mask        *masker
	arena       grad.Arena
	st          state
	steps       int
	body, heads float64 // weights of the products, those of the head apart
}

// Run trains and writes the model.
func Run(ctx context.Context, o Options) (*Result, error) {
	o.Defaults()
	r, err := prepare(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("pretrain: %w", err)
	}
	defer r.close()
	res, err := r.fit(ctx)
	if err != nil {
		return res, fmt.Errorf("pretrain: %w", err)
	}
	return res, nil
}

func (r *run) close() {
	for _, c := range []*Corpus{r.text, r.held} {
		if c != nil {
			c.Close()
		}
	}
}

// place is a share of n below 1, else a number of steps.
func place(v float64, n int) int {
	if v < 1 {
		return int(math.Ceil(v * float64(n)))
	}
	return int(v)
}

func prepare(ctx context.Context, o *Options) (_ *run, err error) {
	if o.Kernels == nil {
		return nil, errors.New("no kernels given")
	}
	if o.Batch < 0 || o.Accumulate < 0 || o.Steps < 0 || o.StopAfter < 0 || o.EvalSteps < 0 || o.EvalTokens < 0 || o.SaveSteps < 0 || o.Length < 0 {
		return nil, errors.New("batch, accumulate, steps, length: expected nothing negative")
	}
	if o.Masking.Share > 0.9 || o.Beta2 >= 1 || o.MinLR > 1 || o.Dropout >= 1 {
		return nil, fmt.Errorf("masked share %g, beta2 %g, last share of the rate %g, dropout %g: expected at most 0.9, below 1, at most 1, below 1",
			o.Masking.Share, o.Beta2, o.MinLR, o.Dropout)
	}
	r := &run{Options: o}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.tok, err = token.Load(o.Tokenizer); err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if r.cfg, err = model.ParseConfig(o.Config); err != nil {
		return nil, err
	}
	switch {
	case r.cfg.Head == model.HeadNone && !r.cfg.Decoder:
		r.cfg.Head = model.HeadMasked
	case r.cfg.Head != model.HeadMasked && r.cfg.Head != model.HeadCausal:
		return nil, fmt.Errorf("the config's head is %q: expected a masked or a causal language model", r.cfg.Head)
	}
	if int(r.tok.MaxID()) >= r.cfg.Vocab {
		return nil, fmt.Errorf("the tokenizer has ids up to %d, the config a vocabulary of %d", r.tok.MaxID(), r.cfg.Vocab)
	}
	if o.Dropout >= 0 {
		d := float32(o.Dropout)
		r.cfg.HiddenDropout, r.cfg.AttentionDropout, r.cfg.EmbeddingDropout = d, d, d
	}
	most := r.cfg.MaxPositions - r.cfg.PositionOffset
	if o.Length == 0 {
		o.Length = 256
		if most > 0 {
			o.Length = min(o.Length, most)
		}
	}
	if o.Length < 8 || most > 0 && o.Length > most {
		return nil, fmt.Errorf("rows of %d tokens: expected 8 to %d", o.Length, most)
	}
	if r.m, err = model.New(r.cfg, o.Init, model.Options{Random: o.Init == nil, Seed: o.Seed}); err != nil {
		return nil, err
	}
	if r.cfg.Head == model.HeadMasked {
		if r.mask, err = newMasker(r.tok, r.cfg.Vocab, o.Masking); err != nil {
			return nil, err
		}
	}
	if err = r.readText(ctx); err != nil {
		return nil, err
	}
	if o.only {
		return r, nil
	}
	if err = model.TrainAll(r.m); err != nil {
		return nil, err
	}
	r.params = r.m.Params()
	for i, l := range r.m.Linears() {
		if i >= len(r.m.Linears())-1 {
			r.heads += float64(l.In) * float64(l.Out)
		} else {
			r.body += float64(l.In) * float64(l.Out)
		}
	}
	if r.steps = o.Steps; r.steps == 0 {
		r.steps = max(1, int(o.Epochs*float64(r.rows.Rows())/float64(o.Batch*o.Accumulate)))
	}
	if o.EvalSteps == 0 {
		o.EvalSteps = max(1, r.steps/20)
	}
	r.opt = train.NewAdamW(train.Groups(r.params, o.WeightDecay), 0.9, o.Beta2, 1e-8)
	r.sched = train.Schedule{Kind: o.Schedule, Total: r.steps, Warmup: place(o.Warmup, r.steps), Decay: max(1, place(o.Decay, r.steps)), MinRatio: o.MinLR}
	if err = r.sched.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// readText tokenizes to files in the checkpoint folder; without an output folder, to a temporary one.
func (r *run) readText(ctx context.Context) (err error) {
	dir := filepath.Join(r.Out, train.CheckpointDir)
	if r.Out == "" {
		if dir, err = os.MkdirTemp("", "temper-pretrain-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir) // open files stay readable; where they cannot be removed, the system's cleaning does it
	}
	end := endOf(r.tok)
	var seen overlap
	heldKey := ""
	if len(r.Held.Files)+len(r.Held.Rows) > 0 {
		if r.held, err = tokenize(ctx, filepath.Join(dir, "held.ids"), r.Held, r.tok, r.Tokenizer, end, nil, ""); err != nil {
			return fmt.Errorf("held-out text: %w", err)
		}
		if r.held.Tokens < 2 {
			return errors.New("held-out text: no text")
		}
		heldKey = r.held.Key
		seen = overlap{}
		for p, err := range r.Held.All() {
			if err != nil {
				return err
			}
			seen.add(p.Text)
		}
	}
	if r.only {
		return nil
	}
	if r.text, err = tokenize(ctx, filepath.Join(dir, "text.ids"), r.Text, r.tok, r.Tokenizer, end, seen, heldKey); err != nil {
		return err
	}
	r.rows, err = newSampler(r.text, r.Length, r.Seed, r.mask)
	return err
}

// fit is the loop.
func (r *run) fit(ctx context.Context) (*Result, error) {
	r.st.Fingerprint = r.fingerprint()
	if r.Resume && r.Out != "" {
		if _, err := r.st.load(r.Out, r.params, r.opt); err != nil {
			return nil, err
		}
	}
	st := &r.st
	began, before, tokens0 := time.Now(), st.Seconds, st.Tokens
	cpu0, _ := train.Usage()
	spent0, saved := st.Spent, time.Now()
	save := func() error {
		if r.Out == "" {
			return nil
		}
		cpu, _ := train.Usage()
		st.Spent.CPUSeconds, st.Spent.Tokens = spent0.CPUSeconds+cpu-cpu0, st.Tokens
		st.Seconds, saved = before+time.Since(began).Seconds(), time.Now()
		return st.save(r.Out, r.params, r.opt)
	}
	every := max(1, r.steps/400)
	last := r.steps
	if r.StopAfter > 0 {
		last = min(last, r.StopAfter)
	}
	for st.Step < last {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(err, save())
		}
		lr := r.LR * r.sched.At(st.Step)
		loss, tokens, err := r.step(lr)
		if err != nil {
			return nil, err
		}
		st.Step++
		st.Tokens += int64(tokens)
		st.Sum, st.Count = st.Sum+loss, st.Count+1
		if st.Step%every == 0 || st.Step == last {
			st.Log.Curve = append(st.Log.Curve, train.Point{Step: st.Step, Tokens: st.Tokens, Loss: st.Sum / float64(st.Count), LR: lr})
			st.Sum, st.Count = 0, 0
		}
		if r.Progress != nil {
			el := time.Since(began)
			p := train.Progress{Step: st.Step, Steps: last, Epoch: float64(st.Step*r.Batch*r.Accumulate) / float64(r.rows.Rows()), Loss: loss, LR: lr,
				Elapsed: el + time.Duration(before*float64(time.Second))}
			if sec := el.Seconds(); sec > 0 {
				p.TokensPerSecond = float64(st.Tokens-tokens0) / sec
				p.ETA = time.Duration(float64(last-st.Step) * float64(st.Tokens) / float64(st.Step) / p.TokensPerSecond * float64(time.Second))
			}
			r.Progress(p)
		}
		if r.held != nil && st.Step%r.EvalSteps == 0 && st.Step < last {
			e, err := r.evaluate(ctx, false)
			if err != nil {
				return nil, err // the last checkpoint stays: a state without this measurement would not be that of an unbroken run
			}
			r.measured(e)
		}
		if st.Step < last && (r.SaveSteps > 0 && st.Step%r.SaveSteps == 0 || r.SaveEvery > 0 && time.Since(saved) >= r.SaveEvery) {
			if err := save(); err != nil {
				return nil, err
			}
		}
	}
	if err := save(); err != nil { // the last measurement may take long
		return nil, err
	}
	res := &Result{Objective: "causal", Steps: st.Step, Epochs: float64(st.Step*r.Batch*r.Accumulate) / float64(r.rows.Rows()), Text: r.text.Counts, Tokens: st.Tokens}
	if r.mask != nil {
		res.Objective = "masked"
	}
	if r.held != nil {
		e, err := r.evaluate(ctx, true)
		if err != nil {
			return nil, err
		}
		r.measured(e)
		res.Held = &e
	}
	for _, p := range r.params {
		res.Parameters += p.T.Len()
		p.Freeze()
	}
	if n := len(st.Log.Curve); n > 0 {
		res.Loss = st.Log.Curve[n-1].Loss
	}
	cpu, peak := train.Usage()
	st.Spent.CPUSeconds, st.Spent.Tokens = spent0.CPUSeconds+cpu-cpu0, st.Tokens
	res.PeakRSS, res.Seconds, res.Cost, res.Log = peak, before+time.Since(began).Seconds(), r.Rates.Fill(st.Spent), st.Log
	if res.Seconds > 0 {
		res.TokensPerSecond = float64(res.Tokens) / res.Seconds
	}
	if r.Out == "" {
		return res, nil
	}
	if err := r.write(res); err != nil {
		return res, err
	}
	r.close()
	r.text, r.held = nil, nil
	if err := os.RemoveAll(filepath.Join(r.Out, train.CheckpointDir)); err != nil {
		return res, fmt.Errorf("checkpoint: %w", err)
	}
	return res, nil
}

func (r *run) measured(e Eval) {
	r.st.Log.Evals = append(r.st.Log.Evals, e)
	if r.Measured != nil {
		r.Measured(e)
	}
}

// step does one optimiser step: micro-batches whose gradients add up to that of the mean over all their targets.
func (r *run) step(lr float64) (loss float64, tokens int, err error) {
	examples := make([]train.Example, r.Batch*r.Accumulate)
	targets := 0
	for i := range examples {
		if examples[i], err = r.rows.Row(int64(r.st.Step)*int64(len(examples)) + int64(i)); err != nil {
			return 0, 0, err
		}
		for _, t := range examples[i].Targets {
			if t >= 0 {
				targets++
			}
		}
	}
	if r.Observe != nil {
		r.Observe(lr, examples)
	}
	for _, p := range r.params {
		clear(p.Grad)
	}
	for micro := range r.Accumulate {
		chunk := examples[micro*r.Batch : (micro+1)*r.Batch]
		b, wanted := pack(chunk, r.mask != nil)
		c := grad.Record(r.Kernels, &r.arena, true, mix(r.Seed, uint64(r.st.Step), uint64(micro)))
		out, err := r.m.Forward(c, b)
		if err != nil {
			return 0, 0, err
		}
		z := out.Logits
		dz := r.arena.Alloc(len(z.Data))
		loss += r.Kernels.CrossEntropy(z.Data, wanted, z.Rows, z.Cols, dz, float32(1/float64(targets))) / float64(targets)
		c.Backward(z, dz)
		r.arena.Reset()
		tokens += len(b.IDs)
		attention := float64(len(b.IDs)) * float64(r.Length) * float64(r.cfg.Heads*r.cfg.HeadDim*r.cfg.Layers)
		r.st.Spent.FLOPs += 6*(float64(len(b.IDs))*r.body+float64(z.Rows)*r.heads) + 12*attention
	}
	norm := train.GradNorm(r.Kernels, r.params)
	if math.IsNaN(norm) || math.IsInf(norm, 0) || math.IsNaN(loss) || math.IsInf(loss, 0) {
		return 0, 0, fmt.Errorf("step %d: loss %g and gradient norm %g are not finite; lower the learning rate", r.st.Step, loss, norm)
	}
	r.opt.Step(r.Kernels, lr, train.ClipScale(norm, r.Clip))
	return loss, tokens, nil
}

// pack lays rows out as one batch. Masked models compute logits of the hidden tokens only.
func pack(rows []train.Example, masked bool) (*model.Batch, []int32) {
	b := train.Pack(rows)
	var wanted []int32
	for i, e := range rows {
		if !masked {
			wanted = append(wanted, e.Targets...)
			continue
		}
		for k, t := range e.Targets {
			if t >= 0 {
				b.Rows = append(b.Rows, b.Offsets[i]+int32(k))
				wanted = append(wanted, t)
			}
		}
	}
	return b, wanted
}

// fingerprint hashes everything that decides the result.
func (r *run) fingerprint() string {
	h := sha256.New()
	o := r.Options
	fmt.Fprintln(h, string(o.Config), string(o.Tokenizer), o.InitName, o.Masking, o.Length, o.Batch, o.Accumulate, r.steps, o.LR, o.MinLR, o.Warmup, o.Schedule,
		o.Decay, o.WeightDecay, o.Beta2, o.Clip, o.Dropout, o.Seed, o.EvalSteps, o.EvalTokens, o.Extra, o.Kernels.Level(), r.text.Sum)
	if r.held != nil {
		fmt.Fprintln(h, r.held.Sum)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// write saves a Hugging Face folder.
func (r *run) write(res *Result) error {
	config, err := r.cfg.MarshalJSON()
	if err != nil {
		return err
	}
	return checkpoint.WriteFolder(r.Out, func(w *checkpoint.FolderWriter) error {
		if err := w.File(checkpoint.ConfigFile, append(config, '\n')); err != nil {
			return err
		}
		if err := w.File(checkpoint.TokenizerFile, r.Tokenizer); err != nil {
			return err
		}
		raw, err := tokenizerConfig(r.tok, r.cfg)
		if err != nil {
			return err
		}
		if err := w.File(checkpoint.TokenizerConfig, raw); err != nil {
			return err
		}
		ts := model.Tensors(r.m)
		if r.Store == tensor.BF16 {
			for i := range ts {
				v, err := ts[i].F32()
				if err != nil {
					return err
				}
				ts[i] = halved(ts[i], v)
			}
		}
		if err := w.Stream(checkpoint.WeightsFile, func(out io.Writer) error {
			return checkpoint.EncodeSafetensors(out, ts, map[string]string{"format": "pt"})
		}); err != nil {
			return err
		}
		if r.More != nil {
			return r.More(w, res)
		}
		return nil
	})
}
