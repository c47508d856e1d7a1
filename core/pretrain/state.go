package pretrain

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/train"
)

// stateName is the checkpoint inside the output folder, written beside and renamed: what is there is always a whole state. The order of
// rows, the masks and the draws of dropout follow from the seed and the step, so the step is the position in all of them.
const stateName = "state.safetensors"

// state is what a checkpoint holds beside tensors.
type state struct {
	Fingerprint string     `json:"fingerprint"`
	Step        int        `json:"step"`
	Tokens      int64      `json:"tokens"`
	Seconds     float64    `json:"seconds"`
	Spent       train.Cost `json:"spent"`
	Log         Log        `json:"log"`
	// Sum and Count of the losses since the last point of the curve.
	Sum   float64 `json:"sum"`
	Count int     `json:"count"`
}

// Log is the course of a run.
type Log struct {
	Curve []train.Point `json:"curve"`
	Evals []Eval        `json:"evals,omitempty"`
}

// Eval is a measurement on held-out text.
type Eval struct {
	Step int `json:"step"`
	// Predicted is the number of tokens that were predicted, all of them (causal) or the hidden ones (masked).
	Predicted  int     `json:"predicted_tokens"`
	Loss       float64 `json:"loss"` // nats a token
	Perplexity float64 `json:"perplexity"`
	// BitsPerByte compares causal models whatever their tokens are.
	BitsPerByte float64 `json:"bits_per_byte,omitempty"`
}

func statePath(out string) string { return filepath.Join(out, train.CheckpointDir, stateName) }

const paramPrefix = "param."

func (s *state) save(out string, params []*grad.Param, opt train.Optimizer) error {
	if err := os.MkdirAll(filepath.Join(out, train.CheckpointDir), 0o755); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	meta, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	ts := opt.State()
	for _, p := range params {
		ts = append(ts, tensor.FromF32(paramPrefix+p.Name, p.Values(), p.T.Shape...))
	}
	return checkpoint.WriteSafetensors(statePath(out), ts, map[string]string{"state": string(meta)})
}

// load restores what save wrote; it reports false when there is nothing.
func (s *state) load(out string, params []*grad.Param, opt train.Optimizer) (bool, error) {
	path := statePath(out)
	f, err := checkpoint.OpenSafetensors(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	want := s.Fingerprint
	if err := json.Unmarshal([]byte(f.Metadata()["state"]), s); err != nil {
		return false, fmt.Errorf("%s: state: %w", path, err)
	}
	if s.Fingerprint != want {
		return false, fmt.Errorf("%s is of a run with other settings or text; give another output folder or remove it", path)
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
	for _, t := range opt.State() {
		v, err := t.F32() // a view: the optimiser's own storage
		if err != nil {
			return false, err
		}
		if err := read(t.Name, v); err != nil {
			return false, err
		}
	}
	for _, p := range params {
		if err := read(paramPrefix+p.Name, p.Values()); err != nil {
			return false, err
		}
		p.Changed()
	}
	opt.SetSteps(s.Step)
	return true, nil
}
