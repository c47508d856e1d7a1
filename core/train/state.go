package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
)

// A run can be killed at any moment: everything that it needs to go on is one file, written beside and renamed, so that what is there
// is always a whole state. The order of the data and the draws of dropout are functions of the seed and the step, so the step number is
// the position in both.

// CheckpointDir is the folder of the state inside the output folder.
const CheckpointDir = "checkpoint"

const stateFile = "state.safetensors"

// state is what a checkpoint holds beside tensors.
type state struct {
	// Fingerprint is that of the settings and the data that decide the result.
	Fingerprint string `json:"fingerprint"`
	// Step is the number of optimiser steps done, Optimizer its own count.
	Step      int `json:"step"`
	Optimizer int `json:"optimizer_steps"`
	// LossSum and LossCount make up the mean training loss since the last epoch began.
	LossSum   float64 `json:"loss_sum"`
	LossCount int     `json:"loss_count"`
	// PointSum and PointCount are the same since the last point of Curve.
	PointSum   float64 `json:"point_sum"`
	PointCount int     `json:"point_count"`
	Curve      []Point `json:"curve,omitempty"`
	// Best is the best evaluation so far; Stale the number of evaluations since.
	Best     *Scores `json:"best,omitempty"`
	BestStep int     `json:"best_step,omitempty"`
	Stale    int     `json:"stale,omitempty"`
	Stopped  bool    `json:"stopped,omitempty"`
	Spent    Cost    `json:"spent"`
	Seconds  float64 `json:"seconds"`
	Tokens   int64   `json:"trained_tokens"`
	// Objective is whatever an adversarial objective carries from step to step.
	Objective json.RawMessage `json:"objective,omitempty"`
}

const (
	paramPrefix = "param."
	bestPrefix  = "best."
)

func statePath(out string) string { return filepath.Join(out, CheckpointDir, stateFile) }

// save writes the state, the parameters, the moments and the best parameters so far.
func (s *state) save(out string, params []*grad.Param, opt Optimizer, extra []tensor.Tensor, best [][]float32) error {
	if err := os.MkdirAll(filepath.Join(out, CheckpointDir), 0o755); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	s.Optimizer = opt.Steps()
	meta, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	ts := slices.Concat(opt.State(), extra)
	for i, p := range params {
		ts = append(ts, tensor.FromF32(paramPrefix+p.Name, p.Values(), p.T.Shape...))
		if best != nil {
			ts = append(ts, tensor.FromF32(bestPrefix+p.Name, best[i], p.T.Shape...))
		}
	}
	return checkpoint.WriteSafetensors(statePath(out), ts, map[string]string{"state": string(meta)})
}

// errNoState is returned by loadState when there is nothing to resume.
var errNoState = errors.New("no checkpoint")

// loadState restores what save wrote into params, the optimiser and extra; best is nil when there is none yet.
func loadState(out, fingerprint string, params []*grad.Param, opt Optimizer, extra []tensor.Tensor) (s state, best [][]float32, err error) {
	path := statePath(out)
	f, err := checkpoint.OpenSafetensors(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil, errNoState
	}
	if err != nil {
		return s, nil, err
	}
	defer f.Close()
	if err := json.Unmarshal([]byte(f.Metadata()["state"]), &s); err != nil {
		return s, nil, fmt.Errorf("%s: state: %w", path, err)
	}
	if s.Fingerprint != fingerprint {
		return s, nil, fmt.Errorf("%s is of a run with other settings, data or base model; give another output folder or remove it", path)
	}
	read := func(name string, dst []float32) error {
		t, err := f.Tensor(name)
		if err != nil {
			return err
		}
		v, err := t.F32()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if len(v) != len(dst) {
			return fmt.Errorf("%s: %s: expected %d values, got %d", path, name, len(dst), len(v))
		}
		copy(dst, v)
		return nil
	}
	for _, t := range slices.Concat(opt.State(), extra) {
		v, err := t.F32() // a view: the optimiser's own storage
		if err != nil {
			return s, nil, err
		}
		if err := read(t.Name, v); err != nil {
			return s, nil, err
		}
	}
	for _, p := range params {
		if err := read(paramPrefix+p.Name, p.Values()); err != nil {
			return s, nil, err
		}
		p.Changed()
	}
	if s.Best != nil && slices.Contains(f.Names(), bestPrefix+params[0].Name) {
		for _, p := range params {
			b := make([]float32, len(p.Values()))
			if err := read(bestPrefix+p.Name, b); err != nil {
				return s, nil, err
			}
			best = append(best, b)
		}
	}
	opt.SetSteps(s.Optimizer)
	return s, best, nil
}

// clearState removes the checkpoint of a finished run.
func clearState(out string) error {
	if err := os.RemoveAll(filepath.Join(out, CheckpointDir)); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}
