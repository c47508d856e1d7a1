package distill

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
)

// Weights of the losses between a student and a teacher that read the same tokens; those of zero are not computed.
type Weights struct {
	// Hidden compares the states after chosen blocks (Jiao et al., 2020, TinyBERT): mean squares, through a learnt map where widths differ.
	Hidden float64
	// Attention compares how queries, keys and values of the last chosen block relate to one another (Wang et al., 2021, MiniLMv2).
	Attention float64
	// Logits compares outputs (Hinton et al., 2015): KL at Temperature, times its square.
	Logits, Temperature float64
	// Embedding compares sentence embeddings: 1 − cosine.
	Embedding float64
}

// LayersOptions describe a run with such losses.
type LayersOptions struct {
	Student
	Kernels     backend.Kernels
	Teacher     model.Model
	TeacherName string
	Weights     Weights
	// Head of the student; the teacher's, when logits are compared.
	Head model.Head
	// Heads is the number of parts that attention relations are cut into [12, or what divides both widths].
	Heads int
	Texts []string
	Out   string

	Epochs, Batch, MaxTokens int
	LR, Warmup, WeightDecay  float64
	Seed                     uint64
	Resume                   bool
	Rates                    train.Rates
	Progress                 func(train.Progress)
}

const (
	hiddenMap    = "distill.hidden.weight"
	embeddingMap = "distill.embedding.weight"
)

// layersObjective is the sum of the losses.
type layersObjective struct {
	w       Weights
	teacher model.Model
	tokens  []int32 // of the student's ids
	layers  []int
	heads   int
	// maps from the student's width to the teacher's, or nil
	hidden, embedding *grad.Param
	mine, theirs      [3]*model.Linear // query, key, value of the compared block
	arena             grad.Arena       // the teacher's
	last              [4]float64       // losses of the last micro-batch, unweighted
}

// Micro implements train.Objective.
func (o *layersObjective) Micro(_ context.Context, s *train.Step) (float64, error) {
	b := s.Pack(s.Examples)
	b.Want = 0
	tb := *b
	if o.tokens != nil {
		tb.IDs = make([]int32, len(b.IDs))
		for i, id := range b.IDs {
			tb.IDs[i] = o.tokens[id]
		}
	}
	for _, x := range []struct {
		w    float64
		want model.Want
	}{{o.w.Hidden + o.w.Attention, model.WantHidden}, {o.w.Logits, model.WantLogits}, {o.w.Embedding, model.WantPooled}} {
		if x.w > 0 {
			b.Want |= x.want
		}
	}
	tb.Want = b.Want
	o.arena.Reset()
	tc := grad.Infer(s.K, &o.arena)
	want, err := o.teacher.Forward(tc, &tb)
	if err != nil {
		return 0, fmt.Errorf("teacher: %w", err)
	}
	c := s.Record(s.Seed)
	got, err := s.Model.Forward(c, b)
	if err != nil {
		return 0, err
	}
	total := c.Zeros(1, 1)
	add := func(i int, w float64, loss *grad.Value) {
		o.last[i] = float64(loss.Data[0])
		total = c.Add(total, c.Scale(loss, float32(w)))
	}
	if o.w.Hidden > 0 {
		for i, l := range o.layers {
			x := got.Layers[i+1]
			if o.hidden != nil {
				x = c.Linear(x, o.hidden, nil, backend.None, false)
			}
			add(0, o.w.Hidden/float64(len(o.layers)), c.MSE(x, want.Layers[l+1].Data))
		}
	}
	if o.w.Attention > 0 {
		// What the compared block reads is the state before it: its products are computed again, which leaves the network's code alone.
		x, y := got.Layers[len(o.layers)-1], want.Layers[o.layers[len(o.layers)-1]]
		for i := range o.mine {
			t := o.theirs[i].Apply(tc, y, backend.None)
			add(1, o.w.Attention/3, relations(c, o.mine[i].Apply(c, x, backend.None), t.Data, t.Cols, b.Offsets, o.heads))
		}
	}
	if o.w.Logits > 0 {
		z := want.Logits
		if o.tokens != nil && z.Cols > len(o.tokens) { // a vocabulary of its own: the teacher chooses among its pieces
			z = chosen(tc, z, o.tokens)
		}
		if z.Cols != got.Logits.Cols {
			return 0, fmt.Errorf("the teacher has %d outputs, the student %d", z.Cols, got.Logits.Cols)
		}
		f := float32(1 / o.w.Temperature)
		add(2, o.w.Logits*o.w.Temperature*o.w.Temperature, c.KL(c.Input(tc.Scale(z, f).Data, z.Rows, z.Cols, false), c.Scale(got.Logits, f)))
	}
	if o.w.Embedding > 0 {
		e := got.Pooled
		if o.embedding != nil {
			e = c.Linear(e, o.embedding, nil, backend.None, false)
		}
		t := tc.Normalize(want.Pooled, 1e-12)
		add(3, o.w.Embedding, c.Scale(c.MSE(c.Normalize(e, 1e-12), t.Data), float32(t.Cols)/2))
	}
	value := float64(total.Data[0])
	share := float64(len(s.Examples)) / s.Weight
	c.Backward(total, []float32{float32(share)})
	return value * share, nil
}

// chosen takes some columns.
func chosen(c *grad.Ctx, z *grad.Value, cols []int32) *grad.Value {
	out := c.New(z.Rows, len(cols))
	for r := range z.Rows {
		for i, j := range cols {
			out.Data[r*len(cols)+i] = z.Data[r*z.Cols+int(j)]
		}
	}
	return out
}

// projections finds the query, key and value products of a block by the names that encoders of BERT's kind give them.
func projections(m model.Model, block int) (out [3]*model.Linear, err error) {
	names := [3][]string{{"query", "q_lin", "q"}, {"key", "k_lin", "k"}, {"value", "v_lin", "v"}}
	for _, l := range m.Linears() {
		_, n, after, ok := blockOf(l.Name)
		if !ok || n != block || !strings.Contains(after, "attention") && !strings.Contains(after, "attn") {
			continue
		}
		for i, list := range names {
			for _, name := range list {
				if strings.HasSuffix(after, "."+name) {
					out[i] = l
				}
			}
		}
	}
	if out[0] == nil || out[1] == nil || out[2] == nil || m.Config().Decoder {
		return out, fmt.Errorf("attention relations need an encoder of BERT's kind, with queries, keys and values of each block; this is %s", m.Config().ModelType)
	}
	return out, nil
}

// Layers distils with losses on hidden states, attention relations, logits and embeddings, and writes the student.
func Layers(ctx context.Context, o LayersOptions) (*Result, error) {
	r, err := runLayers(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("distill: %w", err)
	}
	return r, nil
}

func (o *LayersOptions) check() error {
	w := &o.Weights
	if w.Hidden < 0 || w.Attention < 0 || w.Logits < 0 || w.Embedding < 0 || w.Temperature < 0 {
		return fmt.Errorf("weights %+v: expected nothing negative", *w)
	}
	if w.Hidden+w.Attention+w.Logits+w.Embedding == 0 {
		return errors.New("all losses have weight 0")
	}
	if len(o.Texts) == 0 {
		return errors.New("no texts")
	}
	if w.Temperature == 0 {
		w.Temperature = 2
	}
	for p, v := range map[*int]int{&o.Epochs: 3, &o.Batch: 32, &o.MaxTokens: 64} {
		if *p == 0 {
			*p = v
		}
	}
	if o.LR == 0 {
		o.LR = 5e-4
	}
	return nil
}

func runLayers(ctx context.Context, o *LayersOptions) (*Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	tok, err := token.Load(o.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	cfg, err := model.ParseConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("student: %w", err)
	}
	tcfg := o.Teacher.Config()
	cfg.Pooling = tcfg.Pooling
	opt := model.Options{Head: o.Head, Random: o.Init == nil, Seed: o.Seed}
	if o.Head == model.HeadAuto {
		opt.Head = model.HeadNone
	}
	if o.Weights.Logits > 0 {
		opt.Head = tcfg.Head
		if opt.Head == model.HeadSequence || opt.Head == model.HeadToken {
			opt.Labels = tcfg.Labels
		}
		if opt.Head == model.HeadNone {
			return nil, errors.New("the teacher has no head: there are no logits to compare")
		}
	}
	m, err := model.New(cfg, o.Init, opt)
	if err != nil {
		return nil, fmt.Errorf("student: %w", err)
	}
	cfg = m.Config()
	obj := &layersObjective{w: o.Weights, teacher: o.Teacher, tokens: o.Tokens, layers: o.Layers, heads: o.Heads}
	if len(obj.layers) == 0 { // spread evenly, the last with the last
		for i := range cfg.Layers {
			obj.layers = append(obj.layers, (i+1)*tcfg.Layers/cfg.Layers-1)
		}
	}
	if len(obj.layers) != cfg.Layers {
		return nil, fmt.Errorf("the student has %d blocks, %d of the teacher's are given", cfg.Layers, len(obj.layers))
	}
	for _, l := range obj.layers {
		if l < 0 || l >= tcfg.Layers {
			return nil, fmt.Errorf("block %d: the teacher has blocks 0 to %d", l, tcfg.Layers-1)
		}
	}
	if o.Weights.Attention > 0 {
		if obj.mine, err = projections(m, cfg.Layers-1); err != nil {
			return nil, err
		}
		if obj.theirs, err = projections(o.Teacher, obj.layers[len(obj.layers)-1]); err != nil {
			return nil, err
		}
		a, b := cfg.Heads*cfg.HeadDim, tcfg.Heads*tcfg.HeadDim
		if obj.heads == 0 {
			for obj.heads = 12; a%obj.heads != 0 || b%obj.heads != 0; obj.heads-- {
			}
		}
		if obj.heads < 0 || a%obj.heads != 0 || b%obj.heads != 0 {
			return nil, fmt.Errorf("%d relation heads do not divide the widths %d and %d", obj.heads, a, b)
		}
	}
	if err := model.TrainAll(m); err != nil {
		return nil, err
	}
	var params []*grad.Param
	learn := func(name string) (*grad.Param, error) {
		p := grad.NewParam(tensor.FromF32(name, normals(tcfg.Hidden*cfg.Hidden, 1/math.Sqrt(float64(cfg.Hidden)), o.Seed), tcfg.Hidden, cfg.Hidden))
		params = append(params, p)
		return p, p.Train()
	}
	if cfg.Hidden != tcfg.Hidden {
		if o.Weights.Hidden > 0 {
			if obj.hidden, err = learn(hiddenMap); err != nil {
				return nil, err
			}
		}
		if o.Weights.Embedding > 0 {
			if obj.embedding, err = learn(embeddingMap); err != nil {
				return nil, err
			}
		}
	}
	weights := 0
	for _, l := range m.Linears() {
		weights += l.In * l.Out
	}
	theirs := 0
	for _, l := range o.Teacher.Linears() {
		theirs += l.In * l.Out
	}
	params = append(params, m.Params()...)
	examples := make([]train.Example, len(o.Texts))
	for i, t := range o.Texts {
		examples[i] = train.Example{Text: t, IDs: clip(tok.AppendIDs(nil, t, true), o.MaxTokens)}
		if len(examples[i].IDs) == 0 {
			return nil, fmt.Errorf("text %d has no tokens", i+1)
		}
	}
	tr := &train.Trainer{
		Model: m, K: o.Kernels, Params: params, Opt: train.NewAdamW(train.Groups(params, o.WeightDecay), 0.9, 0.98, 1e-6), LR: o.LR, Clip: 1,
		Objective: obj, Train: examples, Batch: o.Batch, Epochs: o.Epochs, Seed: o.Seed, Dropout: true, Out: o.Out, SaveSteps: 200, Resume: o.Resume, Progress: o.Progress,
		FLOPs: func(lengths []int) float64 {
			f := 0.0
			for _, n := range lengths {
				f += (6*float64(weights)+2*float64(theirs))*float64(n) + float64(n*n)*float64(12*cfg.Hidden*cfg.Layers+4*tcfg.Hidden*tcfg.Layers)
			}
			return f
		},
	}
	steps := tr.Steps()
	tr.Sched = train.Schedule{Kind: "cosine", Total: steps, Warmup: int(math.Ceil(max(o.Warmup, 0.02) * float64(steps)))}
	tr.Fingerprint = o.fingerprint()
	done, err := tr.Fit(ctx)
	if err != nil {
		return nil, err
	}
	r := &Result{Texts: len(o.Texts), Steps: done.Steps, Loss: done.Loss, Seconds: done.Seconds, Tokens: done.Tokens, Cost: o.Rates.Fill(done.Spent),
		Curve: done.Curve, Losses: map[string]float64{}}
	for i, name := range []string{"hidden", "attention", "logits", "embedding"} {
		if w := []float64{o.Weights.Hidden, o.Weights.Attention, o.Weights.Logits, o.Weights.Embedding}[i]; w > 0 {
			r.Losses[name] = obj.last[i]
		}
	}
	for _, p := range params {
		p.Freeze()
	}
	for _, p := range m.Params() {
		r.Parameters += p.T.Len()
	}
	if o.Out == "" {
		return r, nil
	}
	return r, (&Options{Tokenizer: o.Tokenizer, Out: o.Out, MaxTokens: o.MaxTokens}).write(m, r)
}

func (o *LayersOptions) fingerprint() string {
	h := sha256.New()
	fmt.Fprintln(h, "layers", string(o.Config), string(o.Tokenizer), o.TeacherName, o.Weights, o.Head, o.Heads, o.Layers, o.Epochs, o.Batch, o.MaxTokens, o.LR, o.Warmup,
		o.WeightDecay, o.Seed, o.Init != nil, o.Kernels.Level())
	for _, t := range o.Texts {
		fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil))
}
