package parity

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/train"
)

var _ = register("train", kind{fixture: runTrain})

type curve struct {
	Base  string `json:"base"`
	Optim string `json:"optimizer"`
	Hyper struct {
		LR       float64   `json:"lr"`
		Betas    []float64 `json:"betas"`
		Eps      float64   `json:"eps"`
		Momentum float64   `json:"momentum"`
		Decay    float64   `json:"weight_decay"`
		Warmup   int       `json:"warmup_steps"`
		Schedule string    `json:"schedule"`
	} `json:"hyperparameters"`
	Clip   *float64 `json:"clip_global_norm"`
	Steps  int      `json:"steps"`
	Groups []struct {
		Decay  float64  `json:"weight_decay"`
		Params []string `json:"params"`
	} `json:"parameter_groups"`
	Curve []struct {
		LR, Loss float64
		Norm     float64 `json:"grad_norm"`
	} `json:"curve"`
	LossAfter []float64 `json:"loss_after_training_on_last_3_batches"`
	Adapter   *struct {
		R       int      `json:"r"`
		Alpha   float64  `json:"lora_alpha"`
		Targets []string `json:"target_modules"`
	} `json:"adapter"`
}

// runTrain repeats a training run step by step: rates, losses and gradient norms of every step, weights after 0, 1, 10 and 30.
func runTrain(t *testing.T, dir string) {
	onlyFiles(t, dir, "initial.safetensors", "step_01.safetensors", "step_10.safetensors", "final.safetensors", "batches.safetensors", "curve.json")
	eachLevel(t, func(t *testing.T, k backend.Kernels) {
		raw, err := os.ReadFile(filepath.Join(dir, "curve.json"))
		require.NoError(t, err)
		var c curve
		require.NoError(t, json.Unmarshal(raw, &c))

		m, named := trainModel(t, dir, c)
		batches := open(t, dir, "batches.safetensors")
		count := 0
		for ; batches.has(fmt.Sprintf("batch_%02d.input_ids", count)); count++ {
		}
		require.NotZero(t, count)

		var groups []train.Group
		grouped := 0
		for _, g := range c.Groups {
			grouped += len(g.Params)
		}
		params := m.Params()
		require.Len(t, params, grouped)
		groups = train.Groups(params, c.Hyper.Decay)
		if c.Hyper.Decay != 0 { // the split that temper makes is the reference's
			decay := map[*grad.Param]float64{}
			for _, g := range groups {
				for _, p := range g.Params {
					decay[p] = g.WeightDecay
				}
			}
			for _, g := range c.Groups {
				for _, name := range g.Params {
					assert.Equal(t, g.Decay, decay[named[name]], name)
				}
			}
		}
		var opt train.Optimizer
		if c.Optim == "sgd" {
			opt = train.NewSGD(groups, c.Hyper.Momentum)
		} else {
			opt = train.NewAdamW(groups, c.Hyper.Betas[0], c.Hyper.Betas[1], c.Hyper.Eps)
		}
		sched := train.Schedule{Kind: "constant", Warmup: c.Hyper.Warmup, Total: c.Steps}
		switch {
		case strings.Contains(c.Hyper.Schedule, "cosine"):
			sched.Kind = "cosine"
		case strings.Contains(c.Hyper.Schedule, "linear decay"):
			sched.Kind = "linear"
		}
		var clip float64
		if c.Clip != nil {
			clip = *c.Clip
		}
		var arena grad.Arena
		for s := range c.Steps {
			checkWeights(t, dir, s, c.Steps, named)
			want := c.Curve[s]
			lr := c.Hyper.LR * sched.At(s)
			assert.InDelta(t, want.LR, lr, 1e-12, "learning rate of step %d", s)
			for _, p := range params {
				clear(p.Grad)
			}
			step := trainStep(t, k, &arena, m, batches, s%count)
			l, _, err := step.Run(step.Record(0), step.Batch)
			require.NoError(t, err)
			arena.Reset()
			norm := train.GradNorm(k, params)
			results.add(t, "loss", math.Abs(l-want.Loss))
			assert.InDelta(t, want.Loss, l, 1e-4, "loss of step %d", s)
			assert.InEpsilon(t, want.Norm, norm, 1e-3, "gradient norm of step %d", s)
			opt.Step(k, lr, train.ClipScale(norm, clip))
		}
		checkWeights(t, dir, c.Steps, c.Steps, named)
		for i, want := range c.LossAfter {
			step := trainStep(t, k, &arena, m, batches, count-len(c.LossAfter)+i)
			l, _, err := step.Run(step.Record(0), step.Batch)
			require.NoError(t, err)
			arena.Reset()
			assert.InDelta(t, want, l, 1e-4, "loss after training, batch %d", i)
		}
	})
}

type fixedStep struct {
	train.Step
	Batch *model.Batch
}

func trainStep(t *testing.T, k backend.Kernels, arena *grad.Arena, m model.Model, batches *expected, i int) *fixedStep {
	var ts []tensor.Tensor
	prefix := fmt.Sprintf("batch_%02d.", i)
	for _, n := range batches.src.Names() {
		if rest, ok := strings.CutPrefix(n, prefix); ok {
			x := batches.tensor(n)
			x.Name = rest
			ts = append(ts, x)
		}
	}
	src, err := checkpoint.FromTensors(ts)
	require.NoError(t, err)
	e := &expected{t: t, src: src, have: map[string]bool{}}
	for _, n := range src.Names() {
		e.have[n] = true
	}
	b := newBatch(e)
	b.Want = model.WantLogits
	labels := e.ints("labels")
	s := &fixedStep{Batch: &b.Batch}
	s.Step = train.Step{Model: m, K: k, Arena: arena}
	if m.Config().Head == model.HeadCausal { // shifted by one, the last of each sequence ignored
		flat := b.unpadInts(labels)
		for q := range b.rows {
			lo, hi := b.Offsets[q], b.Offsets[q+1]
			x := train.Example{IDs: b.IDs[lo:hi], Targets: append([]int32{}, flat[lo+1:hi]...)}
			x.Targets = append(x.Targets, -100)
			s.Examples = append(s.Examples, x)
		}
	} else {
		for q, y := range labels {
			s.Examples = append(s.Examples, train.Example{IDs: b.IDs[b.Offsets[q]:b.Offsets[q+1]], Class: y})
		}
	}
	s.Weight = s.Loss.Weight(train.TargetsOf(s.Examples))
	return s
}

// trainModel loads the base of a run, with the adapter where it has one, at step 0; it returns the trainable parameters by the
// fixture's names.
func trainModel(t *testing.T, dir string, c curve) (model.Model, map[string]*grad.Param) {
	folder := filepath.Dir(c.Base)
	if c.Adapter != nil { // named in words there
		folder = "../../models/bert-seqcls"
	}
	base := loadModel(t, filepath.Join(dir, folder), "config.json")
	initial := open(t, dir, "initial.safetensors")
	named := map[string]*grad.Param{}
	var m model.Model = base
	lora := c.Adapter != nil
	if lora {
		cfg, err := peft.Default(peft.LoRA)
		require.NoError(t, err)
		cfg.R, cfg.Alpha, cfg.Targets = c.Adapter.R, c.Adapter.Alpha, peft.Names(c.Adapter.Targets...)
		a, err := peft.Attach(base, cfg, 1)
		require.NoError(t, err)
		require.NoError(t, a.SetTensors(initial.src))
		m = a
	} else {
		require.NoError(t, model.TrainAll(base))
		for _, p := range base.Params() {
			copy(p.Values(), initial.floats(p.Name))
			p.Changed()
		}
	}
	for _, p := range m.Params() {
		name := p.Name
		if lora && !strings.HasPrefix(name, "base_model.") {
			name = "base_model.model." + name
		}
		named[name] = p
	}
	return m, named
}

func checkWeights(t *testing.T, dir string, step, steps int, named map[string]*grad.Param) {
	file, ok := map[int]string{0: "initial", 1: "step_01", 10: "step_10", steps: "final"}[step]
	if !ok {
		return
	}
	want := open(t, dir, file+".safetensors")
	require.Len(t, want.src.Names(), len(named))
	for _, name := range want.src.Names() {
		require.Contains(t, named, name)
		if strings.HasSuffix(name, "key.bias") { // zero gradients: Adam turns their rounding noise into whole steps
			continue
		}
		near(t, "weights", fmt.Sprintf("%s after %d steps", name, step), want.floats(name), named[name].Values(), 2e-4)
	}
}
