package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/train"
)

// contender is an encoder to be judged.
type contender struct {
	name string
	open func() (*checkpoint.Folder, error)
}

// folder opens a model folder; files compressed with gzip, as the built-in models have them, are unpacked.
func folder(dir string) (*checkpoint.Folder, error) {
	packed, err := filepath.Glob(filepath.Join(dir, "*.gz"))
	if err != nil || len(packed) == 0 {
		return checkpoint.OpenFolder(dir)
	}
	files := map[string][]byte{}
	err = filepath.Walk(dir, func(path string, st os.FileInfo, err error) error {
		if err != nil || st.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if plain, ok := strings.CutSuffix(name, ".gz"); ok && err == nil {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				return err
			}
			if b, err = io.ReadAll(z); err != nil {
				return err
			}
			name = plain
		}
		files[filepath.ToSlash(name)] = b
		return err
	})
	if err != nil {
		return nil, err
	}
	return checkpoint.NewFolder(dir, files)
}

// untrained is the same network and tokenizer with random weights.
func untrained(c contender, seed uint64) contender {
	return contender{c.name + ", random weights", func() (*checkpoint.Folder, error) {
		f, err := c.open()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		raw, err := f.Config()
		if err != nil {
			return nil, err
		}
		cfg, err := model.ParseConfig(raw)
		if err != nil {
			return nil, err
		}
		m, err := model.New(cfg, nil, model.Options{Head: model.HeadNone, Random: true, Seed: seed})
		if err != nil {
			return nil, err
		}
		files, err := checkpoint.MemoryFolder(func(w *checkpoint.FolderWriter) error {
			for _, name := range []string{checkpoint.ConfigFile, checkpoint.TokenizerFile, checkpoint.TokenizerConfig, checkpoint.ModulesFile, "1_Pooling/config.json"} {
				b, err := f.File(name)
				if err != nil {
					continue // not every folder has all of them
				}
				if err := w.File(name, b); err != nil {
					return err
				}
			}
			return w.Safetensors(checkpoint.WeightsFile, model.Tensors(m), nil)
		})
		if err != nil {
			return nil, err
		}
		return checkpoint.NewFolder(c.name, files)
	}}
}

// maxTokens cuts texts, as temper tune does by default.
const maxTokens = 128

// features runs the frozen encoder over texts as temper tune --method head does: pooled states, centred and of unit length.
func features(ctx context.Context, k backend.Kernels, b *peft.Bundle, texts []string) ([]float32, int, error) {
	h := b.Model.Config().Hidden
	out := make([]float32, len(texts)*h)
	ids := make([][]int32, len(texts))
	order := make([]int, len(texts))
	for i, t := range texts {
		var err error
		if ids[i], _, err = b.Encode(t, "", maxTokens); err != nil {
			return nil, 0, err
		}
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(ids[b]) - len(ids[a]) })
	var arena grad.Arena
	for from := 0; from < len(order); {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		batch := &model.Batch{Offsets: []int32{0}, Want: model.WantPooled}
		to := from
		for to < len(order) && (to == from || len(batch.IDs)+len(ids[order[to]]) <= 2048) {
			batch.IDs = append(batch.IDs, ids[order[to]]...)
			batch.Offsets = append(batch.Offsets, int32(len(batch.IDs)))
			to++
		}
		arena.Reset()
		r, err := b.Model.Forward(grad.Infer(k, &arena), batch)
		if err != nil {
			return nil, 0, err
		}
		for i := from; i < to; i++ {
			row := out[order[i]*h : (order[i]+1)*h]
			var mean, sq float64
			for j, v := range r.Pooled.Data[(i-from)*h : (i-from+1)*h] {
				row[j] = v
				mean += float64(v)
			}
			mean /= float64(h)
			for _, v := range row {
				sq += (float64(v) - mean) * (float64(v) - mean)
			}
			for j, v := range row {
				row[j] = float32((float64(v) - mean) / math.Sqrt(sq))
			}
		}
		from = to
	}
	return out, h, nil
}

// heads fits logistic regression on each draw and scores the test part.
func heads(ctx context.Context, k backend.Kernels, c contender, t *task) (few [seeds]float64, full float64, err error) {
	f, err := c.open()
	if err != nil {
		return few, 0, err
	}
	b, err := peft.OpenFolder(f, peft.OpenOptions{Head: model.HeadNone})
	if err != nil {
		return few, 0, err
	}
	defer b.Close()
	// Each row that some draw uses, once.
	need := map[int]int{}
	var texts []string
	for _, draw := range append(t.few[:], t.full) {
		for _, r := range draw {
			if _, ok := need[r]; !ok {
				need[r] = len(texts)
				texts = append(texts, t.train.Texts[r])
			}
		}
	}
	x, h, err := features(ctx, k, b, texts)
	if err != nil {
		return few, 0, err
	}
	test, _, err := features(ctx, k, b, t.test.Texts)
	if err != nil {
		return few, 0, err
	}
	fit := func(draw []int) (float64, error) {
		rows, y := make([]float32, 0, len(draw)*h), make([]int32, len(draw))
		for i, r := range draw {
			rows = append(rows, x[need[r]*h:(need[r]+1)*h]...)
			y[i] = int32(t.train.Labels[r])
		}
		l, err := train.FitLogistic(ctx, k, rows, h, y, len(t.train.LabelNames), 10, nil)
		if err != nil {
			return 0, err
		}
		predicted, truth := make([]int32, t.test.Len()), make([]int32, t.test.Len())
		for i := range predicted {
			best := math.Inf(-1)
			for c := range l.Classes {
				z := float64(l.B[c])
				for j, v := range test[i*h : (i+1)*h] {
					z += float64(v) * float64(l.W[c*h+j])
				}
				if z > best {
					best, predicted[i] = z, int32(c)
				}
			}
			truth[i] = int32(t.test.Labels[i])
		}
		return t.score(train.Score(predicted, truth, t.train.LabelNames, 0)), nil
	}
	for s := range few {
		if few[s], err = fit(t.few[s]); err != nil {
			return few, 0, err
		}
	}
	full, err = fit(t.full)
	return few, full, err
}

// tune runs temper's own tuning on some rows and scores the test part.
func tune(ctx context.Context, k backend.Kernels, c contender, t *task, rows []int, method string, freeze, epochs int) (float64, train.Cost, error) {
	f, err := c.open()
	if err != nil {
		return 0, train.Cost{}, err
	}
	part, err := t.train.Select(rows)
	if err != nil {
		return 0, train.Cost{}, err
	}
	batch := 16
	raw, err := f.Config()
	if err != nil {
		return 0, train.Cost{}, err
	}
	var shape struct {
		Hidden int `json:"hidden_size"`
	}
	if err := json.Unmarshal(raw, &shape); err != nil {
		return 0, train.Cost{}, err
	}
	lr := map[string]float64{"full": 2e-4, "lora": 1e-3}[method]
	if shape.Hidden < 300 { // small networks learn with larger steps
		lr *= 3
	}
	r, err := train.Run(ctx, train.Options{Base: c.name, Folder: f, Kernels: k, Train: part, Dev: t.test, Method: method, Freeze: freeze, Epochs: epochs, Batch: batch,
		LR: lr, MaxTokens: maxTokens, Seed: 1, EvalSteps: 1 << 30, SaveEvery: -1})
	if err != nil {
		return 0, train.Cost{}, err
	}
	defer r.Bundle.Close()
	if r.Dev == nil {
		return 0, r.Cost, fmt.Errorf("no scores")
	}
	return t.score(*r.Dev), r.Cost, nil
}
