// Package distill trains a small encoder to say what a large one says: sentence embeddings, and how alike a batch's sentences are. The
// teacher runs once over the texts; its outputs are kept on disk.
package distill

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/chart"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
)

// Teacher embeds texts as unit vectors.
type Teacher interface {
	Embed(ctx context.Context, texts []string) ([][]float32, error)
}

// Options describe a run.
type Options struct {
	// Config is the student's config.json, Tokenizer its tokenizer.json.
	Config, Tokenizer []byte
	Kernels           backend.Kernels
	Teacher           Teacher
	// TeacherName identifies the teacher in the cache of its outputs.
	TeacherName string
	// Texts to learn from, Held to measure on: the mean cosine between student and teacher.
	Texts, Held []string
	// Cache is the file of the teacher's outputs; empty keeps them in memory only.
	Cache string
	// Out is the folder to write; checkpoints go there too.
	Out string
	// Init, when not nil, holds weights to start from (an earlier run); shapes must fit.
	Init checkpoint.Source

	Epochs, Batch, MaxTokens int
	LR, Warmup, WeightDecay  float64
	// Relation weighs the loss on pairwise similarities against that on the embeddings themselves [1].
	Relation float64
	// Noise is the share of texts that the student reads misspelt, while the teacher read them as they are [0].
	Noise  float64
	Noiser attack.Perturber
	Seed   uint64
	Resume bool
	Rates  train.Rates
	// Progress is told after each step; Teaching while the teacher runs.
	Progress func(train.Progress)
	Teaching func(done, total int)
}

// Result of a run.
type Result struct {
	Texts      int     `json:"texts"`
	Parameters int     `json:"parameters"`
	Steps      int     `json:"steps"`
	Loss       float64 `json:"train_loss"`
	HeldCosine float64 `json:"held_cosine,omitempty"`
	// Losses are those of the last batch, by name and without their weights, where several were compared.
	Losses  map[string]float64 `json:"losses,omitempty"`
	Seconds float64            `json:"seconds"`
	Tokens  int64              `json:"tokens"`
	Cost    train.Cost         `json:"cost"`
	// Curve is the training loss over the run.
	Curve []train.Point `json:"-"`
}

// projection is the name of the student's map into the teacher's space; it is not part of the written model.
const projection = "distill.projection.weight"

// objective compares pooled student states with the teacher's embeddings (Example.Values).
type objective struct {
	proj     *grad.Param
	relation float64
	noise    float64
	noiser   attack.Perturber
}

// Micro implements train.Objective: mean(1 − cos(P·s, t)) + relation · mean((s·s' − t·t')²)·dim-free scale, s the unit pooled state.
func (o *objective) Micro(ctx context.Context, s *train.Step) (float64, error) {
	ex := s.Examples
	if o.noise > 0 {
		var err error
		if ex, err = o.misspell(ctx, s); err != nil {
			return 0, err
		}
	}
	b := s.Pack(ex)
	b.Want = model.WantPooled
	c := s.Record(s.Seed)
	out, err := s.Model.Forward(c, b)
	if err != nil {
		return 0, err
	}
	n, dim := len(ex), o.proj.T.Shape[0]
	target := c.Scratch(n * dim)
	for i, e := range ex {
		copy(target[i*dim:], e.Values)
	}
	t := c.Input(target, n, dim, false)
	// |e − t|² = 2 − 2cos for unit vectors: the mean of squares over all elements times dim/2 is the mean of 1 − cos.
	e := c.Normalize(c.Linear(out.Pooled, o.proj, nil, backend.None, false), 1e-12)
	loss := c.Scale(c.MSE(e, t.Data), float32(dim)/2)
	if o.relation > 0 && n > 1 {
		u := c.Normalize(out.Pooled, 1e-12)
		same := c.MatMul(u, u, false, true)
		want := c.MatMul(t, t, false, true)
		loss = c.Add(loss, c.Scale(c.MSE(same, want.Data), float32(o.relation)*float32(n)/float32(n-1)))
	}
	value := float64(loss.Data[0])
	c.Backward(loss, []float32{float32(float64(n) / s.Weight)})
	return value * float64(n) / s.Weight, nil
}

// misspell replaces a share of the texts; the choice and the noise follow the step's seed.
func (o *objective) misspell(ctx context.Context, s *train.Step) ([]train.Example, error) {
	rng := rand.New(rand.NewPCG(s.Seed, 0xd15711))
	out := slices.Clone(s.Examples)
	var reqs []attack.Request
	var at []int
	for i, e := range out {
		if rng.Float64() >= o.noise {
			continue
		}
		words := attack.Words(e.Text)
		may := make([]int, len(words))
		for j := range may {
			may[j] = j
		}
		reqs = append(reqs, attack.Request{Text: e.Text, Words: words, May: may, Max: 1, Seed: rng.Uint64()})
		at = append(at, i)
	}
	noisy, err := o.noiser.Perturb(ctx, reqs, nil)
	if err != nil {
		return nil, err
	}
	for k, i := range at {
		if len(noisy[k]) == 0 {
			continue
		}
		ids, err := s.Encode(noisy[k][0])
		if err != nil {
			return nil, err
		}
		out[i].IDs = ids
	}
	return out, nil
}

// Run distils and writes the student.
func Run(ctx context.Context, o Options) (*Result, error) {
	if len(o.Texts) == 0 {
		return nil, errors.New("distill: no texts")
	}
	if o.Noise > 0 && o.Noiser == nil {
		return nil, errors.New("distill: noise needs a perturber")
	}
	if o.Relation < 0 || o.Noise < 0 || o.Noise > 1 {
		return nil, fmt.Errorf("distill: relation %g, noise %g: expected 0 or more, and a share", o.Relation, o.Noise)
	}
	for p, v := range map[*int]int{&o.Epochs: 3, &o.Batch: 64, &o.MaxTokens: 64} {
		if *p == 0 {
			*p = v
		}
	}
	if o.LR == 0 {
		o.LR = 1e-3
	}
	tok, err := token.Load(o.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("distill: tokenizer: %w", err)
	}
	cfg, err := model.ParseConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("distill: student: %w", err)
	}
	m, err := model.New(cfg, o.Init, model.Options{Head: model.HeadNone, Random: o.Init == nil, Seed: o.Seed})
	if err != nil {
		return nil, fmt.Errorf("distill: student: %w", err)
	}
	if int(tok.MaxID()) >= cfg.Vocab {
		return nil, fmt.Errorf("distill: the tokenizer has ids up to %d, the student %d rows", tok.MaxID(), cfg.Vocab)
	}
	all := slices.Concat(o.Texts, o.Held)
	lessons, err := o.lessons(ctx, all)
	if err != nil {
		return nil, fmt.Errorf("distill: teacher: %w", err)
	}
	dim := len(lessons) / len(all)
	encode := func(text string) ([]int32, error) { return clip(tok.AppendIDs(nil, text, true), o.MaxTokens), nil }
	examples := make([]train.Example, len(all))
	for i, t := range all {
		ids, err := encode(t)
		if err != nil {
			return nil, err
		}
		examples[i] = train.Example{Text: t, IDs: ids, Values: lessons[i*dim : (i+1)*dim]}
	}
	proj := grad.NewParam(tensor.FromF32(projection, normals(dim*cfg.Hidden, 1/math.Sqrt(float64(cfg.Hidden)), o.Seed), dim, cfg.Hidden))
	if err := model.TrainAll(m); err != nil {
		return nil, err
	}
	if err := proj.Train(); err != nil {
		return nil, err
	}
	params := []*grad.Param{proj}
	for _, p := range m.Params() {
		if p.Trainable() {
			params = append(params, p)
		}
	}
	weights := 0
	for _, l := range m.Linears() {
		weights += l.In * l.Out
	}
	tr := &train.Trainer{
		Model: m, K: o.Kernels, Params: params, Opt: train.NewAdamW(train.Groups(params, o.WeightDecay), 0.9, 0.98, 1e-6), LR: o.LR, Clip: 1,
		Objective: &objective{proj, o.Relation, o.Noise, o.Noiser}, Encode: encode, Train: examples[:len(o.Texts)], Batch: o.Batch, Epochs: o.Epochs,
		Seed: o.Seed, Dropout: true, Out: o.Out, SaveSteps: 500, Resume: o.Resume, Progress: o.Progress,
		FLOPs: func(lengths []int) float64 {
			f := 0.0
			for _, n := range lengths {
				f += 6*float64(weights)*float64(n) + 12*float64(n*n*cfg.Hidden*cfg.Layers)
			}
			return f
		},
	}
	steps := tr.Steps()
	tr.Sched = train.Schedule{Kind: "cosine", Total: steps, Warmup: int(math.Ceil(max(o.Warmup, 0.02) * float64(steps)))}
	if err := tr.Sched.Validate(); err != nil {
		return nil, err
	}
	tr.Fingerprint = o.fingerprint()
	done, err := tr.Fit(ctx)
	if err != nil {
		return nil, err
	}
	r := &Result{Texts: len(o.Texts), Steps: done.Steps, Loss: done.Loss, Seconds: done.Seconds, Tokens: done.Tokens, Cost: o.Rates.Fill(done.Spent), Curve: done.Curve}
	for _, p := range m.Params() {
		r.Parameters += p.T.Len()
		p.Freeze()
	}
	proj.Freeze()
	if r.HeldCosine, err = held(o.Kernels, m, proj, examples[len(o.Texts):]); err != nil {
		return nil, err
	}
	if o.Out == "" {
		return r, nil
	}
	return r, o.write(m, r)
}

func clip(ids []int32, limit int) []int32 {
	if len(ids) <= limit {
		return ids
	}
	ids[limit-1] = ids[len(ids)-1]
	return ids[:limit]
}

func normals(n int, std float64, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 0x70726f6a))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64() * std)
	}
	return out
}

// held is the mean cosine between projected student and teacher.
func held(k backend.Kernels, m model.Model, proj *grad.Param, ex []train.Example) (float64, error) {
	if len(ex) == 0 {
		return 0, nil
	}
	var arena grad.Arena
	sum := 0.0
	for chunk := range slices.Chunk(ex, 64) {
		arena.Reset()
		c := grad.Infer(k, &arena)
		b := train.Pack(chunk)
		b.Want = model.WantPooled
		out, err := m.Forward(c, b)
		if err != nil {
			return 0, err
		}
		e := c.Normalize(c.Linear(out.Pooled, proj, nil, backend.None, false), 1e-12)
		for i, x := range chunk {
			for j, v := range x.Values {
				sum += float64(v) * float64(e.Data[i*e.Cols+j])
			}
		}
	}
	return sum / float64(len(ex)), nil
}

// lessons returns the teacher's embeddings of texts, row by row, from the cache where it holds them.
func (o *Options) lessons(ctx context.Context, texts []string) ([]float32, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", o.TeacherName)
	for _, t := range texts {
		fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	key := hex.EncodeToString(h.Sum(nil))
	if o.Cache != "" {
		if s, err := checkpoint.OpenSafetensors(o.Cache); err == nil {
			defer s.Close()
			if t, err := s.Tensor(key); err == nil {
				v, err := t.F32()
				return slices.Clone(v), err
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	var out []float32
	const batch = 512
	for at := 0; at < len(texts); at += batch {
		v, err := o.Teacher.Embed(ctx, texts[at:min(at+batch, len(texts))])
		if err != nil {
			return nil, err
		}
		for _, e := range v {
			out = append(out, e...)
		}
		if o.Teaching != nil {
			o.Teaching(min(at+batch, len(texts)), len(texts))
		}
	}
	if o.Cache != "" {
		if err := os.MkdirAll(filepath.Dir(o.Cache), 0o755); err != nil {
			return nil, err
		}
		t := tensor.FromF32(key, out, len(texts), len(out)/len(texts))
		if err := checkpoint.WriteSafetensors(o.Cache, []tensor.Tensor{t}, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (o *Options) fingerprint() string {
	h := sha256.New()
	noiser := ""
	if o.Noiser != nil {
		noiser = o.Noiser.Name()
	}
	fmt.Fprintln(h, string(o.Config), string(o.Tokenizer), o.TeacherName, len(o.Texts), len(o.Held), o.Epochs, o.Batch, o.MaxTokens, o.LR, o.Warmup,
		o.WeightDecay, o.Relation, o.Noise, noiser, o.Seed, o.Init != nil)
	for _, t := range o.Texts {
		fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Files in a folder that distil wrote: the course of the run, and a picture of it.
const (
	LogFile  = "training_log.json"
	PlotFile = "loss.svg"
)

// plot draws the learning curve.
func (r *Result) plot() ([]byte, error) {
	s := chart.Series{Name: "training"}
	for _, p := range r.Curve {
		s.X, s.Y = append(s.X, float64(p.Tokens)), append(s.Y, p.Loss)
	}
	c := chart.Chart{Title: fmt.Sprintf("distillation, %d parameters", r.Parameters), XLabel: "tokens", YLabel: "loss", Series: []chart.Series{s}}
	return c.SVG()
}

// write saves a sentence-transformers folder: mean pooling, then unit length.
func (o *Options) write(m model.Model, r *Result) error {
	cfg, err := json.MarshalIndent(m.Config(), "", "  ")
	if err != nil {
		return err
	}
	log, err := json.MarshalIndent(struct {
		Curve      []train.Point `json:"curve"`
		HeldCosine float64       `json:"held_cosine,omitempty"`
	}{r.Curve, r.HeldCosine}, "", " ")
	if err != nil {
		return err
	}
	plot, err := r.plot()
	if err != nil {
		return err
	}
	return checkpoint.WriteFolder(o.Out, func(w *checkpoint.FolderWriter) error {
		files := map[string][]byte{checkpoint.ConfigFile: append(cfg, '\n'), checkpoint.TokenizerFile: o.Tokenizer, LogFile: append(log, '\n'), PlotFile: plot}
		if m.Config().ModelType == "bert" {
			files[checkpoint.TokenizerConfig] = []byte(fmt.Sprintf(tokenizerConfig, o.MaxTokens))
		}
		if m.Config().Head == model.HeadNone && !m.Config().Decoder {
			files[checkpoint.ModulesFile] = []byte(modules)
			files["1_Pooling/config.json"] = []byte(fmt.Sprintf(pooling, m.Config().Hidden, m.Config().Pooling == model.PoolCLS, m.Config().Pooling != model.PoolCLS))
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if err := w.File(name, files[name]); err != nil {
				return err
			}
		}
		return w.Safetensors(checkpoint.WeightsFile, model.Tensors(m), map[string]string{"format": "pt"})
	})
}

const (
	modules = `[
  {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
  {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
  {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
]
`
	pooling         = `{"word_embedding_dimension": %d, "pooling_mode_cls_token": %v, "pooling_mode_mean_tokens": %v, "pooling_mode_max_tokens": false, "pooling_mode_mean_sqrt_len_tokens": false}` + "\n"
	tokenizerConfig = `{"tokenizer_class": "BertTokenizer", "model_max_length": %d, "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}` + "\n"
)
