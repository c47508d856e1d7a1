package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/quant"
	"github.com/temper-ml/temper/core/train"
)

// engine is temper on one model.
type engine struct {
	k     backend.Kernels
	m     model.Model
	arena grad.Arena
	b     *peft.Bundle
}

// open loads a model for products of type f32, bf16 or int8.
func open(dir string, threads int, head model.Head, kind string) (*engine, error) {
	k, err := kernels(threads, kind == "bf16")
	if err != nil {
		return nil, err
	}
	b, err := peft.Open(dir, peft.OpenOptions{Head: head, Labels: []string{"a", "b"}})
	if err != nil {
		return nil, err
	}
	if kind == "int8" {
		if err := quant.Int8Model(b.Model, quant.Options{Threads: threads}); err != nil {
			return nil, err
		}
	}
	return &engine{k: k, m: b.Model, b: b}, nil
}

// forward runs a packed batch and returns the mean-pooled states.
func (e *engine) forward(ids [][]int32) ([]float32, error) {
	e.arena.Reset()
	b := &model.Batch{Offsets: []int32{0}, Want: model.WantPooled}
	for _, s := range ids {
		b.IDs = append(b.IDs, s...)
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
	}
	out, err := e.m.Forward(grad.Infer(e.k, &e.arena), b)
	if err != nil {
		return nil, err
	}
	return out.Pooled.Data, nil
}

func (e *engine) timeForward(batches ...[][]int32) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		elapsed := stopwatch()
		for _, ids := range batches {
			if _, err := e.forward(ids); err != nil {
				return 0, err
			}
		}
		return elapsed(), nil
	}
}

// trainer holds what a training row repeats.
type trainer struct {
	engine
	params []*grad.Param
	opt    train.Optimizer
	obj    train.Objective
}

func newTrainer(dir string, threads int, mode string) (*trainer, error) {
	mode, half := strings.CutSuffix(mode, "_bf16")
	kind := "f32"
	if half {
		kind = "bf16"
	}
	e, err := open(dir, threads, model.HeadSequence, kind)
	if err != nil {
		return nil, err
	}
	t := &trainer{engine: *e, obj: train.Plain{}}
	switch mode {
	case "full", "fgm":
		if err := model.TrainAll(t.m); err != nil {
			return nil, err
		}
		if mode == "fgm" {
			if t.obj, err = harden.NewEmbedding("fgm"); err != nil {
				return nil, err
			}
		}
	case "lora":
		cfg, err := peft.Default(peft.LoRA)
		if err != nil {
			return nil, err
		}
		cfg.TaskType, cfg.R, cfg.Alpha, cfg.Targets = "SEQ_CLS", 8, 16, peft.Names("query", "value")
		if t.m, err = peft.Attach(t.m, cfg, 1); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("unknown training mode %s", mode)
	}
	for _, p := range t.m.Params() {
		if p.Trainable() {
			t.params = append(t.params, p)
		}
	}
	t.opt = train.NewAdamW(train.Groups(t.params, 0.01), 0.9, 0.999, 1e-8)
	return t, nil
}

func (t *trainer) step(batches ...[][]int32) func() (time.Duration, error) {
	n := uint64(0)
	return func() (time.Duration, error) {
		elapsed := stopwatch()
		for _, ids := range batches {
			n++
			ex := make([]train.Example, len(ids))
			for i, s := range ids {
				ex[i] = train.Example{IDs: s, Class: int32(i % 2)}
			}
			for _, p := range t.params {
				clear(p.Grad)
			}
			s := &train.Step{Model: t.m, K: t.k, Arena: &t.arena, Examples: ex, Weight: float64(len(ex)), Seed: n, Total: 1000, Train: true}
			if _, err := t.obj.Micro(context.Background(), s); err != nil {
				return 0, err
			}
			t.arena.Reset()
			t.opt.Step(t.k, 2e-5, train.ClipScale(train.GradNorm(t.k, t.params), 1))
		}
		return elapsed(), nil
	}
}

// plan lists the rows for one thread count. Each row makes its engine when it first runs.
func plan(p *peers, dir, dataDir string, threads int) ([]row, error) {
	probe, err := open(dir, threads, model.HeadNone, "f32")
	if err != nil {
		return nil, err
	}
	vocab := probe.m.Config().Vocab
	if err := check(probe, p, vocab); err != nil {
		return nil, err
	}
	rows, err := inferRows(p, probe, dir, dataDir, threads)
	if err != nil {
		return nil, err
	}
	modes := []trainMode{{"full", [2]float64{1.2, 1.2}}, {"lora", [2]float64{1.3, 1.5}}, {"fgm", [2]float64{1.2, 1.2}}}
	if offersBF16() {
		modes = append(modes, trainMode{"full_bf16", [2]float64{1.1, 1.1}}, trainMode{"lora_bf16", [2]float64{1.3, 1.5}})
	}
	for _, mode := range modes {
		name, half := strings.CutSuffix(mode.name, "_bf16")
		kind := "f32"
		if half {
			kind = "bf16"
		}
		for i, s := range [][2]int{{16, 64}, {32, 128}} {
			ids := randomIDs(s[0], s[1], vocab, 7)
			rows = append(rows, trainRow(fmt.Sprintf("train %s %s %dx%d", name, kind, s[0], s[1]), mode.name, dir, threads, mode.target[i], p, ids))
		}
	}
	if mixed, err := mixedBatches(probe, dataDir); err == nil {
		for _, mode := range []string{"full", "lora"} {
			rows = append(rows, trainRow("train "+mode+" f32 mr, mixed lengths", mode, dir, threads, 2, p, mixed...))
		}
	}
	if r, err := headRow(p, probe, dir, dataDir, threads); err == nil {
		rows = append(rows, r)
	}
	rows = append(append(rows, ownRows(dir, threads, vocab)...), memoryRows(dir, p, threads, vocab)...)
	return append(rows, processRows(dir, p, threads)...), nil
}

type trainMode struct {
	name   string
	target [2]float64 // of 16x64 and 32x128
}

func trainRow(name, mode, dir string, threads int, target float64, p *peers, batches ...[][]int32) row {
	var step func() (time.Duration, error)
	r := row{Name: name, Threads: threads, Target: target, Slow: true,
		Temper: func() (time.Duration, error) {
			if step == nil {
				t, err := newTrainer(dir, threads, mode)
				if err != nil {
					return 0, err
				}
				step = t.step(batches...)
			}
			return step()
		}}
	if p != nil {
		r.Peers = map[string]work{"torch_" + mode: p.time1(map[string]any{"op": "train", "mode": mode, "batches": batches, "repeat": 1})}
	}
	return r
}

// check makes sure that both sides do the same work before any time counts.
func check(e *engine, p *peers, vocab int) error {
	ids := randomIDs(2, 9, vocab, 3)
	got, err := e.forward(ids)
	if err != nil {
		return err
	}
	var want struct{ Hidden [][]float64 }
	if err := p.call(map[string]any{"op": "embed", "ids": ids}, &want); err != nil {
		return err
	}
	flat := slices.Concat(want.Hidden...)
	if len(flat) != len(got) {
		return fmt.Errorf("temper gives %d values, PyTorch %d", len(got), len(flat))
	}
	worst := 0.0
	for i, v := range flat {
		worst = max(worst, math.Abs(v-float64(got[i])))
	}
	fmt.Printf("same work: mean-pooled states differ from PyTorch's by at most %.1e\n", worst)
	if !(worst < 1e-4) {
		return fmt.Errorf("temper and PyTorch disagree by %g", worst)
	}
	return nil
}

// encode gives the ids of texts, cut at limit tokens.
func encode(e *engine, texts []string, limit int) [][]int32 {
	out := make([][]int32, len(texts))
	for i, t := range texts {
		ids := e.b.Tokenizer.AppendIDs(nil, t, true)
		if len(ids) > limit {
			last := ids[len(ids)-1]
			ids = append(ids[:limit-1], last)
		}
		out[i] = ids
	}
	return out
}

func batchesOf(ids [][]int32, n int) [][][]int32 {
	var out [][][]int32
	for c := range slices.Chunk(ids, n) {
		out = append(out, c)
	}
	return out
}

// realTexts are the sst2 test sentences in batches of 32, in order of arrival and sorted by length.
func realTexts(e *engine, dataDir string) (arrival, sorted [][][]int32, err error) {
	t, err := texts(dataDir, "sst2/test.tsv", "")
	if err != nil {
		return nil, nil, err
	}
	ids := encode(e, t, 128)
	byLength := slices.Clone(ids)
	slices.SortStableFunc(byLength, func(a, b []int32) int { return len(a) - len(b) })
	return batchesOf(ids, 32), batchesOf(byLength, 32), nil
}

// mixedBatches are the first rows of mr as they come.
func mixedBatches(e *engine, dataDir string) ([][][]int32, error) {
	t, err := texts(dataDir, "mr/train.tsv", "mr-train-3000.txt")
	if err != nil {
		return nil, err
	}
	return batchesOf(encode(e, t[:128], 64), 32), nil
}
