package train

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/digest"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
)

// Options describe a tuning run. Zero values mean the defaults of the method (see Defaults).
type Options struct {
	// Base is the folder to start from; Folder the same already opened (Base is then only its name in what is written).
	Base   string
	Folder *checkpoint.Folder
	// Tokenizer, when not nil, is a tokenizer.json over the base's ids that takes the place of the base's own, in training and in what is written.
	Tokenizer []byte
	// Out is the folder to write; empty writes nothing, and Result.Bundle holds the tuned model.
	Out     string
	Kernels backend.Kernels

	Train, Dev *data.Dataset
	// Method is "full", "head", or a peft method: "lora", "rslora", "dora", …; see Methods.
	Method string
	// Adapter, when not nil, overrides the settings of the peft method.
	Adapter *peft.Config
	// Layers chooses the blocks that get an adapter, as peft.Blocks reads it; "" is what the adapter's settings say.
	Layers string
	// BaseType is how "qlora" stores the frozen base (default q8_0).
	BaseType tensor.DType
	// Freeze, for full tuning, keeps the embeddings and the first Freeze-1 blocks as they are: 1 freezes the embeddings alone.
	Freeze int

	Epochs, Batch, Accumulate int
	LR                        float64
	WeightDecay               float64 // negative: none
	Clip                      float64 // negative: none
	Warmup                    float64 // a share of the steps when below 1, else steps; negative: none
	Schedule                  string
	Optimizer                 string // "adamw" or "sgd"
	Momentum                  float64
	MaxTokens                 int
	NoDropout                 bool
	// Recompute saves memory by computing blocks twice.
	Recompute bool
	// CacheBytes bounds the memory for states of frozen layers, which are computed once per example where dropout is off (NoDropout, or a model
	// without): 0 is DefaultCacheBytes, negative none.
	CacheBytes int64
	Seed       uint64
	Loss       Loss
	// Balance weighs classes by the inverse of their frequency.
	Balance bool
	// C is the inverse regularisation of "head", as in scikit-learn.
	C float64
	// Objective, when not nil, takes the place of ordinary training.
	Objective Objective

	EvalSteps, Patience int
	SaveSteps           int
	SaveEvery           time.Duration // 0: each minute; negative: never
	Resume              bool
	Progress            func(Progress)
	Rates               Rates
	// Extra describes further settings that decide the result, for the checkpoint's fingerprint.
	Extra string
	// More adds files to the written folder.
	More func(*checkpoint.FolderWriter) error
}

// Result is what a run reports; the JSON names are those of `temper tune`.
type Result struct {
	Method          string  `json:"method"`
	Trainable       int     `json:"trainable_parameters"`
	Total           int     `json:"total_parameters"`
	Steps           int     `json:"steps"`
	Loss            float64 `json:"train_loss"`
	Dev             *Scores `json:"dev,omitempty"`
	Seconds         float64 `json:"seconds"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	PeakRSS         int64   `json:"peak_rss_bytes"`
	Cost            Cost    `json:"cost"`
	Stopped         bool    `json:"stopped_early,omitempty"`

	// Bundle is the tuned model, adapter attached. The caller closes it.
	Bundle *peft.Bundle `json:"-"`
}

// Methods are the names that Options.Method takes.
func Methods() []string {
	return append([]string{"full", "head", "qlora"}, peft.MethodNames()...)
}

// Defaults fills in what o leaves open, by method.
func (o *Options) Defaults() {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if o.Method == "" {
		o.Method = "full"
	}
	set(&o.Epochs, 3)
	set(&o.Batch, 32)
	set(&o.Accumulate, 1)
	set(&o.MaxTokens, 128)
	if o.LR == 0 {
		o.LR = peft.LearningRate(o.Method) // 2e-5 for full tuning
	}
	def := func(p *float64, v float64) {
		switch {
		case *p == 0:
			*p = v
		case *p < 0:
			*p = 0
		}
	}
	def(&o.WeightDecay, 0.01)
	def(&o.Clip, 1)
	def(&o.Warmup, 0.1)
	def(&o.C, 10)
	def(&o.Momentum, 0.9)
	if o.Schedule == "" {
		o.Schedule = "linear"
	}
	if o.Optimizer == "" {
		o.Optimizer = "adamw"
	}
	switch {
	case o.SaveEvery == 0:
		o.SaveEvery = time.Minute
	case o.SaveEvery < 0:
		o.SaveEvery = 0
	}
}

// Run tunes a classifier (or a regression, when the data holds numbers) and writes it.
func Run(ctx context.Context, o Options) (*Result, error) {
	o.Defaults()
	if o.Kernels == nil {
		return nil, errors.New("train: no kernels given")
	}
	if o.Train == nil || o.Train.Len() == 0 {
		return nil, errors.New("train: no training examples")
	}
	if o.Epochs < 0 || o.Batch < 0 || o.Accumulate < 0 || o.LR < 0 || o.MaxTokens < 0 {
		return nil, fmt.Errorf("train: epochs %d, batch %d, accumulate %d, learning rate %g, tokens %d: expected nothing negative",
			o.Epochs, o.Batch, o.Accumulate, o.LR, o.MaxTokens)
	}
	b, err := o.open()
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	r, err := o.run(ctx, b)
	if err != nil {
		if r == nil || r.Bundle == nil {
			b.Close()
		}
		return r, fmt.Errorf("train: %w", err)
	}
	return r, nil
}

// open loads the base with a head for the labels of the training data.
func (o *Options) open() (*peft.Bundle, error) {
	po := peft.OpenOptions{Head: model.HeadSequence, Seed: o.Seed}
	if o.Train.Values != nil {
		po.Labels, po.Problem = []string{"LABEL_0"}, model.Regression
		o.Loss.Kind = "mse"
	} else {
		if err := o.Train.RequireClasses(); err != nil {
			return nil, err
		}
		po.Labels, po.Problem = o.Train.LabelNames, model.SingleLabel
	}
	f := o.Folder
	if f == nil {
		var err error
		if f, err = checkpoint.OpenFolder(o.Base); err != nil {
			return nil, err
		}
	}
	// A classifier that knows these labels already goes on with its head and their order.
	if raw, err := f.Config(); err == nil && o.Train.Values == nil {
		if c, err := model.ParseConfig(raw); err == nil && c.Head == model.HeadSequence && sameSet(c.Labels, o.Train.LabelNames) {
			t := *o.Train
			if err := t.MapLabels(c.Labels); err != nil {
				return nil, err
			}
			o.Train, po.Labels = &t, c.Labels
		}
	}
	b, err := peft.OpenFolder(f, po)
	if err != nil || o.Tokenizer == nil {
		return b, err
	}
	if err := b.SetTokenizer(o.Tokenizer); err != nil {
		if o.Folder == nil {
			err = errors.Join(err, b.Close())
		}
		return nil, err
	}
	return b, nil
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func (o *Options) run(ctx context.Context, b *peft.Bundle) (*Result, error) {
	labels := b.Model.Config().Labels
	if o.Dev != nil && o.Dev.Len() > 0 && o.Dev.Labels != nil {
		d := *o.Dev
		if err := d.MapLabels(labels); err != nil {
			return nil, err
		}
		o.Dev = &d
	}
	trainSet, err := EncodeAll(b, o.Train, o.MaxTokens)
	if err != nil {
		return nil, err
	}
	devSet, err := EncodeAll(b, o.Dev, o.MaxTokens)
	if err != nil {
		return nil, err
	}
	if o.Balance && o.Train.Labels != nil {
		o.Loss.ClassWeights = balanced(o.Train.Counts())
	}
	if err := o.Loss.Validate(len(labels)); err != nil {
		return nil, err
	}
	if o.Method == "head" {
		return o.head(ctx, b, trainSet, devSet)
	}
	params, err := o.prepare(b)
	if err != nil {
		return nil, err
	}
	groups := Groups(params, o.WeightDecay)
	var opt Optimizer
	switch o.Optimizer {
	case "adamw":
		opt = NewAdamW(groups, 0.9, 0.999, 1e-8)
	case "sgd":
		opt = NewSGD(groups, o.Momentum)
	default:
		return nil, fmt.Errorf("optimizer %q: expected adamw or sgd", o.Optimizer)
	}
	t := &Trainer{
		Model: b.Model, K: o.Kernels, Params: params, Opt: opt, LR: o.LR, Clip: o.Clip, Loss: o.Loss, Objective: o.Objective,
		Train: trainSet, Dev: devSet, Labels: labels, Batch: o.Batch, Accumulate: o.Accumulate, Epochs: o.Epochs, Seed: o.Seed,
		Dropout: !o.NoDropout, Checkpoint: o.Recompute, CacheBytes: cacheBytes(o.CacheBytes), EvalSteps: o.EvalSteps, Patience: o.Patience, Out: o.Out, SaveSteps: o.SaveSteps,
		SaveEvery: o.SaveEvery, Resume: o.Resume, Progress: o.Progress,
		Encode: func(text string) ([]int32, error) {
			ids, _, err := b.Encode(text, "", o.MaxTokens)
			return ids, err
		},
		Tokens: func(text string) (token.Encoding, error) { return b.Tokens(text, o.MaxTokens) },
	}
	steps := t.Steps()
	t.Sched = Schedule{Kind: o.Schedule, Total: steps, Warmup: warmup(o.Warmup, steps)}
	if err := t.Sched.Validate(); err != nil {
		return nil, err
	}
	t.FLOPs = flops(b, params)
	t.Fingerprint = o.fingerprint(b, trainSet, devSet)
	if b.Adapter != nil {
		t.After, t.Extra = b.Adapter.Budget(steps)
		t.Regularise = b.Adapter.Regularise
	}
	out, err := t.Fit(ctx)
	r := o.result(b, params, out)
	if err != nil {
		return r, err
	}
	r.Bundle = b
	r.Dev = out.Last
	if o.Patience > 0 && out.Best != nil {
		r.Dev = out.Best
	}
	for _, p := range params {
		p.Freeze()
	}
	return r, o.write(b)
}

func cacheBytes(n int64) int64 {
	switch {
	case n == 0:
		return DefaultCacheBytes
	case n < 0:
		return 0
	}
	return n
}

func (o *Options) write(b *peft.Bundle) error {
	if o.Out == "" {
		return nil
	}
	if err := b.SaveFolder(o.Out, o.More); err != nil {
		return err
	}
	return clearState(o.Out)
}

func (o *Options) result(b *peft.Bundle, params []*grad.Param, out Outcome) *Result {
	r := &Result{Method: o.Method, Steps: out.Steps, Loss: out.Loss, Seconds: out.Seconds, Cost: o.Rates.Fill(out.Spent), Stopped: out.Stopped}
	for _, p := range params {
		r.Trainable += p.T.Len()
	}
	r.Total = total(b)
	if out.Seconds > 0 {
		r.TokensPerSecond = float64(out.Tokens) / out.Seconds
	}
	_, r.PeakRSS = usage()
	return r
}

// total counts the parameters of the base and the adapter's own.
func total(b *peft.Bundle) int {
	n := 0
	seen := map[*grad.Param]bool{}
	base := b.Model
	if b.Adapter != nil {
		base = b.Adapter.Base()
	}
	for _, list := range [][]*grad.Param{base.Params(), b.Model.Params()} {
		for _, p := range list {
			if !seen[p] {
				seen[p] = true
				n += p.T.Len()
			}
		}
	}
	return n
}

// prepare makes the parameters of the method trainable.
func (o *Options) prepare(b *peft.Bundle) ([]*grad.Param, error) {
	if o.Method == "full" {
		if b.Adapter != nil {
			return nil, fmt.Errorf("%s is an adapter: merge it before full tuning", b.Dir)
		}
		if err := model.TrainAll(b.Model); err != nil {
			return nil, err
		}
		if o.Freeze > 0 {
			if err := model.FreezeLayers(b.Model, o.Freeze-1); err != nil {
				return nil, err
			}
		}
		var out []*grad.Param
		for _, p := range b.Model.Params() {
			if p.Trainable() {
				out = append(out, p)
			}
		}
		return out, nil
	}
	name := o.Method
	if name == "qlora" {
		if b.Adapter != nil {
			return nil, fmt.Errorf("%s is an adapter: merge it before qlora", b.Dir)
		}
		if o.BaseType == tensor.Invalid {
			o.BaseType = tensor.Q8_0
		}
		if _, err := quantizeBase(b.Model, o.BaseType); err != nil {
			return nil, fmt.Errorf("qlora: %w", err)
		}
		name = "lora"
	}
	cfg, err := peft.Method(name)
	if err != nil {
		return nil, fmt.Errorf("method: %w, full, head or qlora", err)
	}
	if o.Adapter != nil {
		cfg = *o.Adapter
	}
	if err := cfg.ChooseLayers(o.Layers, b.Model.Config().Layers); err != nil {
		return nil, err
	}
	if cfg.BaseModel == "" {
		cfg.BaseModel = o.Base
	}
	if b.Adapter == nil {
		if b.Adapter, err = peft.Attach(b.Model, cfg, o.Seed); err != nil {
			return nil, err
		}
		b.Model = b.Adapter
	}
	return b.Model.Params(), nil
}

// warmup turns a share or a number of steps into steps, rounding up as transformers does.
func warmup(w float64, steps int) int {
	if w < 1 {
		return int(math.Ceil(w * float64(steps)))
	}
	return int(w)
}

func balanced(counts []int) []float64 {
	n, used := 0, 0
	for _, c := range counts {
		n += c
		if c > 0 {
			used++
		}
	}
	w := make([]float64, len(counts))
	for i, c := range counts {
		if c > 0 {
			w[i] = float64(n) / float64(used*c)
		}
	}
	return w
}

// EncodeAll tokenizes a data set. Its labels must be the model's already.
func EncodeAll(b *peft.Bundle, d *data.Dataset, limit int) ([]Example, error) {
	if d == nil {
		return nil, nil
	}
	out := make([]Example, d.Len())
	for i, text := range d.Texts {
		e := Example{Text: text}
		pair := ""
		if d.Pairs != nil {
			pair = d.Pairs[i]
		}
		var err error
		if e.IDs, e.Types, err = b.Encode(text, pair, limit); err != nil {
			return nil, fmt.Errorf("%s: row %d: %w", d.Name, d.Rows[i], err)
		}
		if d.Labels != nil {
			e.Class = int32(d.Labels[i])
		}
		if d.Values != nil {
			e.Values = []float32{d.Values[i]}
		}
		out[i] = e
	}
	return out, nil
}

// fingerprint hashes everything that decides the result, so that a checkpoint is not resumed into another run.
func (o *Options) fingerprint(b *peft.Bundle, sets ...[]Example) string {
	h := digest.New()
	adapter := peft.Config{}
	if b.Adapter != nil {
		adapter = b.Adapter.Adapter()
	}
	cfg, _ := json.Marshal(b.Model.Config()) // strings and numbers: cannot fail
	ad, _ := adapter.Encode()
	fmt.Fprintln(h, o.Method, o.Epochs, o.Batch, o.Accumulate, o.LR, o.WeightDecay, o.Clip, o.Warmup, o.Schedule, o.Optimizer, o.Momentum,
		o.MaxTokens, o.NoDropout, o.Seed, o.Loss, o.Freeze, o.BaseType, o.EvalSteps, o.Patience, o.Extra, string(cfg), string(ad))
	fmt.Fprintf(h, "%T %s\n", o.Objective, o.Kernels.Level())
	for _, set := range sets {
		for _, e := range set {
			fmt.Fprintln(h, e.IDs, e.Types, e.Class, e.Values)
		}
		fmt.Fprintln(h, "--")
	}
	for _, p := range b.Model.Params() { // a few values of every matrix tell base models apart
		if strings.HasSuffix(p.Name, "weight") && p.T.Len() > 0 {
			v := p.Values()
			fmt.Fprintln(h, p.Name, p.T.Shape, v[0], v[len(v)/2], v[len(v)-1])
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// flops counts the products of a training step: forward, gradients of activations, gradients of the trained matrices; 2 per
// multiply-add, attention included.
func flops(b *peft.Bundle, params []*grad.Param) func(lengths []int) float64 {
	cfg := b.Model.Config()
	trained := map[*grad.Param]bool{}
	var adapter, linear, weights float64
	for _, p := range params {
		trained[p] = true
	}
	for _, l := range b.Model.Linears() {
		n := float64(l.In) * float64(l.Out)
		linear += n
		if trained[l.W] {
			weights += n
			delete(trained, l.W)
		}
	}
	for p := range trained {
		if len(p.T.Shape) == 2 && p.T.Rows() != cfg.Vocab && p.T.Rows() != cfg.MaxPositions {
			adapter += float64(p.T.Len())
		}
	}
	return func(lengths []int) float64 {
		var f float64
		for _, n := range lengths {
			attention := 4 * float64(n) * float64(n) * float64(cfg.Hidden) * float64(cfg.Layers)
			f += 2*float64(n)*(2*linear+weights+3*adapter) + 3*attention
		}
		return f
	}
}
