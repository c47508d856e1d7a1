package train

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/digest"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
)

// CausalOptions describe the tuning of a decoder on sequences with targets: dialogues, say, whose assistant turns are to be learnt. The base
// stays as it is stored, quantized or not, and is frozen; an adapter is trained (QLoRA, Dettmers et al., 2023, where the base is quantized).
type CausalOptions struct {
	Model   model.Model // with a causal head and no adapter
	Base    string      // its name in adapter_config.json
	Kernels backend.Kernels
	// Train and Dev hold ids and Targets: for each token the one that follows and is to be learnt, or −1.
	Train, Dev []Example
	// Method is a peft method that changes linear layers; "qlora" is "lora". Adapter, when not nil, overrides its settings. Layers is as in Options.
	Method  string
	Adapter *peft.Config
	Layers  string
	// BaseType is how "qlora" stores a base that is not quantized yet (default q8_0).
	BaseType tensor.DType

	Epochs, Batch, Accumulate     int
	LR, WeightDecay, Clip, Warmup float64 // as in Options
	Schedule                      string
	NoDropout, Recompute          bool
	CacheBytes                    int64 // as in Options
	Seed                          uint64
	Out                           string // folder of the adapter and of checkpoints; empty writes nothing
	SaveSteps                     int
	SaveEvery                     time.Duration
	Resume                        bool
	Progress                      func(Progress)
	Rates                         Rates
}

// CausalResult is what such a run reports.
type CausalResult struct {
	Method          string  `json:"method"`
	Trainable       int     `json:"trainable_parameters"`
	Total           int     `json:"total_parameters"`
	Steps           int     `json:"steps"`
	Loss            float64 `json:"train_loss"`
	Dev             *Gain   `json:"dev,omitempty"`
	Seconds         float64 `json:"seconds"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	PeakRSS         int64   `json:"peak_rss_bytes"`
	Cost            Cost    `json:"cost"`

	Adapter *peft.Model `json:"-"`
}

// Gain is the perplexity of the targets before and after.
type Gain struct {
	Tokens int     `json:"tokens"`
	Before float64 `json:"perplexity_before"`
	After  float64 `json:"perplexity"`
}

// causal computes the loss of the tokens that have targets only, without holding their logits: over a large vocabulary they would be most of
// the memory.
type causal struct{}

// Micro implements Objective.
func (causal) Micro(_ context.Context, s *Step) (float64, error) {
	b, targets := packCausal(s.Examples)
	if len(b.Rows) == 0 {
		return 0, nil
	}
	if err := s.prefix.enter(s.Arena, b, s.Examples); err != nil {
		return 0, err
	}
	c := s.Record(s.Seed)
	b.Want, b.Targets, b.LossWeight = model.WantLoss, targets, float32(1/s.Weight)
	out, err := s.Model.Forward(c, b)
	if err != nil {
		return 0, err
	}
	c.Backward(out.Loss, nil)
	return out.LossSum / s.Weight, nil
}

func packCausal(examples []Example) (*model.Batch, []int32) {
	b := Pack(examples)
	b.Rows = []int32{}
	var targets []int32
	for i, e := range examples {
		for k, t := range e.Targets {
			if t >= 0 {
				b.Rows = append(b.Rows, b.Offsets[i]+int32(k))
				targets = append(targets, t)
			}
		}
	}
	return b, targets
}

// TargetPerplexity is exp of the mean negative log-probability of the targets, and their number.
func TargetPerplexity(ctx context.Context, k backend.Kernels, m model.Model, examples []Example) (float64, int, error) {
	var arena grad.Arena
	sum, n := 0.0, 0
	for _, e := range examples {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		b, targets := packCausal([]Example{e})
		if len(targets) == 0 {
			continue
		}
		arena.Reset()
		b.Want, b.Targets, b.LossWeight = model.WantLoss, targets, 1
		out, err := m.Forward(grad.Infer(k, &arena), b)
		if err != nil {
			return 0, 0, err
		}
		sum += out.LossSum
		n += len(targets)
	}
	if n == 0 {
		return 0, 0, errors.New("no tokens to predict")
	}
	return math.Exp(sum / float64(n)), n, nil
}

// TuneCausal trains an adapter over a decoder and writes it as a PEFT folder. The adapter stays attached.
func TuneCausal(ctx context.Context, c CausalOptions) (*CausalResult, error) {
	r, err := tuneCausal(ctx, &c)
	if err != nil {
		return r, fmt.Errorf("train: %w", err)
	}
	return r, nil
}

func tuneCausal(ctx context.Context, c *CausalOptions) (*CausalResult, error) {
	if c.Kernels == nil {
		return nil, errors.New("no kernels given")
	}
	if c.Model.Config().Head != model.HeadCausal {
		return nil, fmt.Errorf("the model's head is %q: a causal language model is needed", c.Model.Config().Head)
	}
	if c.Epochs < 0 || c.Batch < 0 || c.Accumulate < 0 || c.LR < 0 {
		return nil, fmt.Errorf("epochs %d, batch %d, accumulate %d, learning rate %g: expected nothing negative", c.Epochs, c.Batch, c.Accumulate, c.LR)
	}
	learnt := 0
	for i, e := range c.Train {
		if len(e.Targets) != len(e.IDs) {
			return nil, fmt.Errorf("example %d: %d tokens, %d targets", i, len(e.IDs), len(e.Targets))
		}
		for _, t := range e.Targets {
			if t >= 0 {
				learnt++
			}
		}
	}
	if learnt == 0 {
		return nil, errors.New("no training examples with tokens to learn")
	}
	name := c.Method
	if name == "qlora" || name == "" {
		name = "lora"
	}
	o := Options{Method: name, Epochs: c.Epochs, Batch: c.Batch, Accumulate: c.Accumulate, LR: c.LR, WeightDecay: c.WeightDecay, Clip: c.Clip, Warmup: c.Warmup,
		Schedule: c.Schedule, SaveEvery: c.SaveEvery}
	if o.Batch == 0 {
		o.Batch = 4
	}
	o.Defaults()
	if c.LR == 0 && name == "lora" {
		o.LR = 2e-4 // what Dettmers et al. use for models of up to 13 billion parameters
	}
	cfg, err := peft.Method(name)
	if err != nil {
		return nil, fmt.Errorf("%w, or qlora", err)
	}
	switch cfg.Type {
	case peft.PrefixTuning, peft.PromptTuning, peft.PTuning:
		return nil, fmt.Errorf("method %s: dialogues are learnt by methods that change layers, such as lora", name)
	}
	if c.Adapter != nil {
		cfg = *c.Adapter
	}
	if err := cfg.ChooseLayers(c.Layers, c.Model.Config().Layers); err != nil {
		return nil, err
	}
	cfg.TaskType = "CAUSAL_LM"
	if cfg.BaseModel == "" {
		cfg.BaseModel = c.Base
	}
	quantized := slices.ContainsFunc(c.Model.Linears(), func(l *model.Linear) bool { return l.W.T.DType.Quantized() })
	if c.Method == "qlora" && !quantized {
		if c.BaseType == tensor.Invalid {
			c.BaseType = tensor.Q8_0
		}
		if _, err := quantizeBase(c.Model, c.BaseType); err != nil {
			return nil, fmt.Errorf("qlora: %w", err)
		}
	}
	r := &CausalResult{Method: c.Method}
	if len(c.Dev) > 0 {
		r.Dev = &Gain{}
		if r.Dev.Before, r.Dev.Tokens, err = TargetPerplexity(ctx, c.Kernels, c.Model, c.Dev); err != nil {
			return nil, fmt.Errorf("held-out dialogues: %w", err)
		}
	}
	a, err := peft.Attach(c.Model, cfg, c.Seed)
	if err != nil {
		return nil, err
	}
	r.Adapter = a
	b := &peft.Bundle{Model: a, Adapter: a}
	params := a.Params()
	t := &Trainer{Model: a, K: c.Kernels, Params: params, Opt: NewAdamW(Groups(params, o.WeightDecay), 0.9, 0.999, 1e-8), LR: o.LR, Clip: o.Clip,
		Objective: causal{}, Train: c.Train, Batch: o.Batch, Accumulate: o.Accumulate, Epochs: o.Epochs, Seed: c.Seed, Dropout: !c.NoDropout,
		Checkpoint: c.Recompute, CacheBytes: cacheBytes(c.CacheBytes), Out: c.Out, SaveSteps: c.SaveSteps, SaveEvery: o.SaveEvery, Resume: c.Resume, Progress: c.Progress}
	t.Sched = Schedule{Kind: o.Schedule, Total: t.Steps(), Warmup: warmup(o.Warmup, t.Steps())}
	if err := t.Sched.Validate(); err != nil {
		return nil, err
	}
	t.FLOPs, t.Fingerprint = flops(b, params), c.fingerprint(&o, cfg)
	t.After, t.Extra = a.Budget(t.Steps())
	t.Regularise = a.Regularise
	out, err := t.Fit(ctx)
	r.Steps, r.Loss, r.Seconds, r.Cost = out.Steps, out.Loss, out.Seconds, c.Rates.Fill(out.Spent)
	for _, p := range params {
		r.Trainable += p.T.Len()
	}
	r.Total = total(b)
	if out.Seconds > 0 {
		r.TokensPerSecond = float64(out.Tokens) / out.Seconds
	}
	if err != nil {
		return r, err
	}
	a.Freeze()
	if len(c.Dev) > 0 {
		if r.Dev.After, _, err = TargetPerplexity(ctx, c.Kernels, a, c.Dev); err != nil {
			return r, fmt.Errorf("held-out dialogues: %w", err)
		}
	}
	_, r.PeakRSS = usage()
	if c.Out == "" {
		return r, nil
	}
	if err := checkpoint.WriteFolder(c.Out, a.Save); err != nil {
		return r, err
	}
	return r, clearState(c.Out)
}

// fingerprint tells runs apart, so that a checkpoint is not resumed into another one.
func (c *CausalOptions) fingerprint(o *Options, cfg peft.Config) string {
	h := digest.New()
	ad, _ := cfg.Encode()
	fmt.Fprintln(h, "causal", c.Method, c.BaseType, o.Epochs, o.Batch, o.Accumulate, o.LR, o.WeightDecay, o.Clip, o.Warmup, o.Schedule, c.NoDropout, c.Seed, string(ad), c.Kernels.Level())
	for _, e := range c.Train {
		fmt.Fprintln(h, e.IDs, e.Targets)
	}
	names := []string{}
	for _, p := range c.Model.Params() {
		if data := p.T.Data; len(data) > 64 { // a few bytes of every tensor tell bases apart
			names = append(names, fmt.Sprintf("%s %s %v %x %x", p.Name, p.T.DType, p.T.Shape, data[:16], data[len(data)/2:len(data)/2+16]))
		}
	}
	slices.Sort(names)
	fmt.Fprintln(h, names)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
