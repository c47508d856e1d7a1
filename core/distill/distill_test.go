package distill

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/train"
)

// counts embeds a text as its letter counts, a unit vector.
type counts struct{}

func (counts) Embed(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i, t := range texts {
		v, sum := make([]float32, 26), float32(0)
		for _, c := range t {
			if c >= 'a' && c <= 'z' {
				v[c-'a']++
			}
		}
		for _, x := range v {
			sum += x * x
		}
		for j := range v {
			v[j] /= max(1, float32(math.Sqrt(float64(sum))))
		}
		out[i] = v
	}
	return out, nil
}

// A student learns a teacher that is only an interface, the run is the same when it is cut and resumed, and the folder opens.
func TestRun(t *testing.T) {
	_, _, raw, _ := teacher(t, model.HeadNone)
	o := Options{Config: smaller(t, raw), Tokenizer: raw, Kernels: backend.Generic(1), Teacher: counts{}, TeacherName: "counts", Texts: corpus[:len(corpus)-2],
		Held: corpus[len(corpus)-2:], Epochs: 12, Batch: 4, LR: 1e-2, Relation: 1, Noise: 0.3, Noiser: harden.NewCharNoise(), Seed: 2,
		Out: filepath.Join(t.TempDir(), "whole"), Cache: filepath.Join(t.TempDir(), "teacher.safetensors")}
	r, err := Run(context.Background(), o)
	require.NoError(t, err)
	require.NotEmpty(t, r.Curve)
	last := r.Curve[len(r.Curve)-1]
	assert.Equal(t, r.Steps, last.Step)
	assert.Equal(t, r.Tokens, last.Tokens)
	assert.Less(t, last.Loss, 0.7*r.Curve[0].Loss)
	assert.Greater(t, r.HeldCosine, 0.5)
	var log struct {
		Curve []train.Point `json:"curve"`
	}
	b, err := os.ReadFile(filepath.Join(o.Out, LogFile))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &log))
	assert.Equal(t, r.Curve, log.Curve)
	bundle, err := peft.Open(o.Out, peft.OpenOptions{})
	require.NoError(t, err)
	defer bundle.Close()
	assert.FileExists(t, filepath.Join(o.Out, checkpoint.ModulesFile))

	whole := o.Out
	o.Out, o.Resume = filepath.Join(t.TempDir(), "broken"), true
	ctx, cancel := context.WithCancel(context.Background())
	o.Progress = func(p train.Progress) {
		if p.Step == 7 {
			cancel()
		}
	}
	_, err = Run(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	o.Progress = nil
	_, err = Run(context.Background(), o)
	require.NoError(t, err)
	same(t, whole, o.Out)
}
