package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
)

// Example is one encoded training example.
type Example struct {
	Text  string
	IDs   []int32
	Types []int32 // token types; nil means all 0
	// Class is the target of cross-entropy, Values those of mse and bce.
	Class  int32
	Values []float32
	// Targets, when not nil, are per token (causal and masked language models).
	Targets []int32
}

// Step is one micro-batch that an Objective turns into gradients.
type Step struct {
	Model    model.Model
	K        backend.Kernels
	Arena    *grad.Arena
	Loss     Loss
	Examples []Example
	// Weight is the denominator of the mean loss over the whole optimiser step, so that micro-batches add up.
	Weight float64
	// Seed differs for every micro-batch of a run and is the same when the run is repeated.
	Seed uint64
	// Index counts optimiser steps from 0; Total is their number.
	Index, Total int
	// Encode turns a text into ids as the training data was.
	Encode func(text string) ([]int32, error)
	// Tokens is Encode with the place of every token in the text.
	Tokens func(text string) (token.Encoding, error)
	// Train switches dropout on.
	Train bool
	// Checkpoint recomputes blocks in the backward pass to save memory.
	Checkpoint bool
	// Passes counts forward and backward passes for the record of costs: objectives add what they run beyond the first.
	Passes int
	// Extra, when not nil, is a further loss on the outputs: it adds the gradient with respect to the logits to dlogits, that of other
	// outputs to Ctx.GradOf, and returns its value. Want asks for those outputs.
	Extra func(c *grad.Ctx, out model.Output, dlogits []float32) float64
	Want  model.Want

	prefix *prefix
}

// Objective computes the loss of a micro-batch and adds its gradients to the parameters. It returns the loss and the logits' owner has no
// further use: the arena is reset afterwards.
type Objective interface {
	Micro(ctx context.Context, s *Step) (loss float64, err error)
}

// Plain is ordinary training: one forward, one backward.
type Plain struct{}

// Micro implements Objective.
func (Plain) Micro(_ context.Context, s *Step) (float64, error) {
	b := s.Pack(s.Examples)
	if s.Want&model.WantHidden == 0 {
		if err := s.prefix.enter(s.Arena, b, s.Examples); err != nil {
			return 0, err
		}
	}
	loss, _, err := s.Run(s.Record(s.Seed), b)
	return loss, err
}

// Record returns a recording context for one pass.
func (s *Step) Record(seed uint64) *grad.Ctx {
	c := grad.Record(s.K, s.Arena, s.Train, seed)
	c.Checkpoint = s.Checkpoint
	return c
}

// Pack lays examples out as one batch without padding.
func (s *Step) Pack(examples []Example) *model.Batch { return Pack(examples) }

// Pack lays examples out as one batch without padding.
func Pack(examples []Example) *model.Batch {
	b := &model.Batch{Offsets: make([]int32, 1, len(examples)+1), Want: model.WantLogits}
	types := false
	for _, e := range examples {
		b.IDs = append(b.IDs, e.IDs...)
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
		types = types || e.Types != nil
	}
	if types {
		b.Types = make([]int32, len(b.IDs))
		for i, e := range examples {
			copy(b.Types[b.Offsets[i]:b.Offsets[i+1]], e.Types)
		}
	}
	return b
}

// TargetsOf collects the targets of examples.
func TargetsOf(examples []Example) Targets {
	var t Targets
	for _, e := range examples {
		if e.Targets != nil {
			t.Classes = append(t.Classes, e.Targets...)
			continue
		}
		t.Classes = append(t.Classes, e.Class)
		t.Values = append(t.Values, e.Values...)
	}
	return t
}

// Run does one forward and backward over b, whose sequences are s.Examples. The logits stay valid until the arena is reset.
func (s *Step) Run(c *grad.Ctx, b *model.Batch) (float64, *grad.Value, error) {
	w := *b
	w.Want |= s.Want
	out, err := s.Model.Forward(c, &w)
	if err != nil {
		return 0, nil, err
	}
	z := out.Logits
	dz := s.Arena.Alloc(len(z.Data))
	clear(dz)
	loss := s.Loss.Sum(z.Data, z.Rows, z.Cols, TargetsOf(s.Examples), s.Weight, dz)
	if s.Extra != nil {
		loss += s.Extra(c, out, dz)
	}
	c.Backward(z, dz)
	return loss, z, nil
}

// Infer returns the logits [examples, cols] without a tape, dropout off. They live in the arena.
func (s *Step) Infer(examples []Example) (logits []float32, cols int, err error) {
	out, err := s.Model.Forward(grad.Infer(s.K, s.Arena), Pack(examples))
	if err != nil {
		return nil, 0, err
	}
	return out.Logits.Data, out.Logits.Cols, nil
}

// Trainer is the loop over a model that is ready to train. Run drives it for the common case.
type Trainer struct {
	Model  model.Model
	K      backend.Kernels
	Params []*grad.Param
	Opt    Optimizer
	LR     float64
	Sched  Schedule
	Clip   float64
	Loss   Loss
	// Objective is Plain when nil.
	Objective Objective
	Encode    func(text string) ([]int32, error)
	Tokens    func(text string) (token.Encoding, error)

	Train, Dev []Example
	Labels     []string
	// Batch is the number of examples per micro-batch, Accumulate the number of micro-batches per optimiser step.
	Batch, Accumulate, Epochs int
	Seed                      uint64
	Dropout, Checkpoint       bool
	// CacheBytes bounds the states of frozen layers below the first trained one that are kept from epoch to epoch, where dropout leaves them
	// as they are; 0 keeps none. Results are the same to the bit.
	CacheBytes int64

	// EvalSteps is the number of steps between evaluations on Dev, 0: at the end of each epoch. Patience is the number of evaluations
	// without improvement after which training stops (0: never); with it the best parameters are kept.
	EvalSteps, Patience int
	// Out, when not empty, receives checkpoints every SaveSteps steps (0: never by count) and SaveEvery (0: never by time).
	Out         string
	SaveSteps   int
	SaveEvery   time.Duration
	Resume      bool
	Fingerprint string
	Progress    func(Progress)
	// Regularise, when not nil, adds the gradient of a further loss of the parameters and returns it, once per optimiser step.
	Regularise func() float64
	// After, when not nil, runs after each optimiser step (AdaLoRA's budget); Extra are tensors that it keeps, for checkpoints.
	After func(step int) error
	Extra []tensor.Tensor
	// FLOPs estimates one training step over n tokens in sequences of the given lengths.
	FLOPs func(lengths []int) float64

	arena   grad.Arena
	prefix  *prefix
	batches [][]int // of epoch
	epoch   int
}

// Progress is what a run reports after each step.
type Progress struct {
	Step, Steps     int
	Epoch           float64
	Loss            float64 // of this step
	LR              float64
	TokensPerSecond float64
	Elapsed, ETA    time.Duration
	Dev             *Scores // after an evaluation
}

// Outcome is what the loop has done.
type Outcome struct {
	Steps   int
	Loss    float64 // mean of the last epoch
	Best    *Scores
	Last    *Scores
	Stopped bool // early
	Tokens  int64
	Seconds float64
	Spent   Cost
	// Curve is the training loss over the run, in some four hundred points.
	Curve []Point
}

// Point of a learning curve: the mean training loss of the steps since the point before.
type Point struct {
	Step   int     `json:"step"`
	Tokens int64   `json:"tokens"`
	Loss   float64 `json:"loss"`
	LR     float64 `json:"lr"`
}

// curvePoints is about how many points a learning curve gets.
const curvePoints = 400

// Steps is the number of optimiser steps of the whole run.
func (t *Trainer) Steps() int { return t.perEpoch() * t.Epochs }

func (t *Trainer) perEpoch() int {
	n := t.Batch * max(1, t.Accumulate)
	return (len(t.Train) + n - 1) / n
}

// Fit trains. When ctx is done it writes a checkpoint and returns the context's error.
func (t *Trainer) Fit(ctx context.Context) (Outcome, error) {
	if t.Objective == nil {
		t.Objective = Plain{}
	}
	if len(t.Train) == 0 || len(t.Params) == 0 {
		return Outcome{}, fmt.Errorf("train: %d examples and %d trainable parameters: expected some of both", len(t.Train), len(t.Params))
	}
	var err error
	if t.prefix, err = newPrefix(t.K, t.Model, t.Dropout, t.CacheBytes, t.Train); err != nil {
		return Outcome{}, err
	}
	defer func() { t.prefix = nil }() // its memory
	var st state
	var best [][]float32
	st.Fingerprint = t.Fingerprint
	if t.Resume {
		s, b, err := loadState(t.Out, t.Fingerprint, t.Params, t.Opt, t.Extra)
		switch {
		case errors.Is(err, errNoState):
		case err != nil:
			return Outcome{}, err
		default:
			st, best = s, b
			if o, ok := t.Objective.(Stateful); ok {
				if err := o.Restore(st.Objective); err != nil {
					return Outcome{}, fmt.Errorf("%s: %w", statePath(t.Out), err)
				}
			}
		}
	}
	total, per := t.Steps(), t.perEpoch()
	every := max(1, total/curvePoints)
	began, before := time.Now(), st.Seconds
	cpu0, _ := usage()
	spent0 := st.Spent
	tokens0, saved := st.Tokens, time.Now()
	var last *Scores
	record := func() {
		cpu, _ := usage()
		st.Spent.CPUSeconds = spent0.CPUSeconds + cpu - cpu0
		st.Spent.Tokens = st.Tokens
		st.Seconds = before + time.Since(began).Seconds()
	}
	save := func() error {
		if t.Out == "" {
			return nil
		}
		record()
		if o, ok := t.Objective.(Stateful); ok {
			st.Objective = o.State()
		}
		saved = time.Now()
		return st.save(t.Out, t.Params, t.Opt, t.Extra, best)
	}
	for !st.Stopped && st.Step < total {
		if err := ctx.Err(); err != nil {
			return t.outcome(&st, last), errors.Join(err, save())
		}
		if st.Step%per == 0 {
			st.LossSum, st.LossCount = 0, 0
		}
		lr := t.LR * t.Sched.At(st.Step)
		loss, tokens, err := t.step(ctx, &st, lr)
		if err != nil {
			if ctx.Err() != nil { // a step that was cut short has changed no parameter
				return t.outcome(&st, last), errors.Join(ctx.Err(), save())
			}
			return t.outcome(&st, last), err
		}
		st.Step++
		st.LossSum += loss
		st.LossCount++
		st.Tokens += int64(tokens)
		st.PointSum, st.PointCount = st.PointSum+loss, st.PointCount+1
		if st.Step%every == 0 || st.Step == total {
			st.Curve = append(st.Curve, Point{st.Step, st.Tokens, st.PointSum / float64(st.PointCount), lr})
			st.PointSum, st.PointCount = 0, 0
		}
		var dev *Scores
		if len(t.Dev) > 0 && (t.EvalSteps > 0 && st.Step%t.EvalSteps == 0 || t.EvalSteps == 0 && st.Step%per == 0 || st.Step == total) {
			s, err := t.Evaluate(ctx, t.Dev)
			if err != nil {
				if ctx.Err() != nil {
					// The evaluation belongs to this step: without it the state would not be that of an unbroken run, so the last
					// checkpoint stays.
					return t.outcome(&st, last), ctx.Err()
				}
				return t.outcome(&st, last), err
			}
			dev, last = &s, &s
			if better(s, st.Best) {
				st.Best, st.BestStep, st.Stale = &s, st.Step, 0
				if t.Patience > 0 {
					best = snapshot(best, t.Params)
				}
			} else {
				st.Stale++
				st.Stopped = t.Patience > 0 && st.Stale >= t.Patience
			}
		}
		if t.Progress != nil {
			el := time.Since(began)
			done, left := float64(st.Tokens-tokens0), float64(total-st.Step)
			p := Progress{Step: st.Step, Steps: total, Epoch: float64(st.Step) / float64(per), Loss: loss, LR: lr,
				Elapsed: el + time.Duration(before*float64(time.Second)), Dev: dev}
			if sec := el.Seconds(); sec > 0 {
				p.TokensPerSecond = done / sec
				if steps := st.Tokens - tokens0; steps > 0 && st.Step > 0 {
					p.ETA = time.Duration(left * float64(st.Tokens) / float64(st.Step) / p.TokensPerSecond * float64(time.Second))
				}
			}
			t.Progress(p)
		}
		if st.Step < total && (t.SaveSteps > 0 && st.Step%t.SaveSteps == 0 || t.SaveEvery > 0 && time.Since(saved) >= t.SaveEvery) {
			if err := save(); err != nil {
				return t.outcome(&st, last), err
			}
		}
	}
	record()
	if best != nil {
		for i, p := range t.Params {
			copy(p.Values(), best[i])
			p.Changed()
		}
	}
	return t.outcome(&st, last), nil
}

// Stateful objectives carry something from step to step that a checkpoint must hold.
type Stateful interface {
	State() []byte
	Restore(b []byte) error
}

func (t *Trainer) outcome(st *state, last *Scores) Outcome {
	o := Outcome{Steps: st.Step, Best: st.Best, Last: last, Stopped: st.Stopped, Tokens: st.Tokens, Seconds: st.Seconds, Spent: st.Spent, Curve: st.Curve}
	if st.LossCount > 0 {
		o.Loss = st.LossSum / float64(st.LossCount)
	}
	return o
}

// step does one optimiser step.
func (t *Trainer) step(ctx context.Context, st *state, lr float64) (loss float64, tokens int, err error) {
	per := t.perEpoch()
	epoch, at := st.Step/per, st.Step%per
	pick := t.plan(epoch)[at]
	examples := make([]Example, len(pick))
	for i, j := range pick {
		examples[i] = t.Train[j]
	}
	for _, p := range t.Params {
		clear(p.Grad)
	}
	weight := t.Loss.Weight(TargetsOf(examples))
	micro := 0
	for chunk := range slices.Chunk(examples, t.Batch) {
		s := &Step{
			Model: t.Model, K: t.K, Arena: &t.arena, Loss: t.Loss, Examples: chunk, Weight: weight, Encode: t.Encode, Tokens: t.Tokens,
			Seed: mix(t.Seed, uint64(st.Step), uint64(micro)), Index: st.Step, Total: t.Steps(), Train: t.Dropout, Checkpoint: t.Checkpoint,
			Passes: 1, prefix: t.prefix,
		}
		l, err := t.Objective.Micro(ctx, s)
		t.arena.Reset()
		if err != nil {
			return 0, 0, err
		}
		loss += l
		micro++
		lengths := make([]int, len(chunk))
		for i, e := range chunk {
			lengths[i] = len(e.IDs)
			tokens += len(e.IDs)
		}
		if t.FLOPs != nil {
			st.Spent.FLOPs += t.FLOPs(lengths) * float64(s.Passes)
		}
	}
	if t.Regularise != nil {
		loss += t.Regularise()
	}
	norm := GradNorm(t.K, t.Params)
	if err := checkFinite(norm, loss, st.Step); err != nil {
		return 0, 0, err
	}
	t.Opt.Step(t.K, lr, ClipScale(norm, t.Clip))
	if t.After != nil {
		if err := t.After(st.Step); err != nil {
			return 0, 0, err
		}
	}
	return loss, tokens, nil
}

// plan is the order of an epoch, a function of the seed and the epoch alone.
func (t *Trainer) plan(epoch int) [][]int {
	if t.batches == nil || t.epoch != epoch {
		lengths := make([]int, len(t.Train))
		for i, e := range t.Train {
			lengths[i] = len(e.IDs)
		}
		t.batches = data.PlanBatches(lengths, data.BatchOptions{MaxExamples: t.Batch * max(1, t.Accumulate), Shuffle: true, Seed: t.Seed, Epoch: epoch})
		t.epoch = epoch
	}
	return t.batches
}

// mix makes one seed of three numbers (SplitMix64).
func mix(a, b, c uint64) uint64 {
	z := a
	for _, v := range [...]uint64{b, c} {
		z += 0x9e3779b97f4a7c15 * (v + 1)
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
	}
	return z
}

func better(s Scores, best *Scores) bool {
	if best == nil {
		return true
	}
	if s.Accuracy != best.Accuracy {
		return s.Accuracy > best.Accuracy
	}
	return s.Loss < best.Loss
}

func snapshot(to [][]float32, params []*grad.Param) [][]float32 {
	if to == nil {
		for _, p := range params {
			to = append(to, make([]float32, len(p.Values())))
		}
	}
	for i, p := range params {
		copy(to[i], p.Values())
	}
	return to
}

// Evaluate scores the model on examples, longest first in batches of bounded size, with dropout off.
func (t *Trainer) Evaluate(ctx context.Context, examples []Example) (Scores, error) {
	return Evaluate(ctx, t.K, &t.arena, t.Model, t.Loss, examples, t.Labels)
}

// evalTokens bounds the tokens of one evaluation batch.
const evalTokens = 4096

// Evaluate scores m on examples: classes by the largest logit. For mse and bce only the loss is meant.
func Evaluate(ctx context.Context, k backend.Kernels, arena *grad.Arena, m model.Model, loss Loss, examples []Example, labels []string) (Scores, error) {
	order := make([]int, len(examples))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(examples[b].IDs) - len(examples[a].IDs) })
	predicted, truth := make([]int32, len(examples)), make([]int32, len(examples))
	var total, weight float64
	for from := 0; from < len(order); {
		if err := ctx.Err(); err != nil {
			return Scores{}, err
		}
		to, tokens := from, 0
		var chunk []Example
		for to < len(order) && (to == from || tokens+len(examples[order[to]].IDs) <= evalTokens) {
			e := examples[order[to]]
			chunk = append(chunk, e)
			tokens += len(e.IDs)
			to++
		}
		arena.Reset()
		out, err := m.Forward(grad.Infer(k, arena), Pack(chunk))
		if err != nil {
			return Scores{}, err
		}
		z := out.Logits
		t := TargetsOf(chunk)
		w := loss.Weight(t)
		total += loss.Sum(z.Data, z.Rows, z.Cols, t, w, nil) * w
		weight += w
		if z.Rows == len(chunk) {
			for i := range chunk {
				predicted[order[from+i]] = int32(argmax(z.Data[i*z.Cols : (i+1)*z.Cols]))
				truth[order[from+i]] = chunk[i].Class
			}
		}
		from = to
	}
	arena.Reset()
	if weight > 0 {
		total /= weight
	}
	if math.IsNaN(total) {
		return Scores{}, errors.New("the model's outputs are not numbers: are its weights?")
	}
	return Score(predicted, truth, labels, total), nil
}

func argmax(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

// EvaluateBundle scores an opened classifier on examples encoded by EncodeAll.
func EvaluateBundle(ctx context.Context, k backend.Kernels, b *peft.Bundle, examples []Example) (Scores, error) {
	loss := Loss{}
	if b.Model.Config().Problem() == model.Regression {
		loss.Kind = "mse"
	}
	var arena grad.Arena
	return Evaluate(ctx, k, &arena, b.Model, loss, examples, b.Model.Config().Labels)
}
