package parity

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/train"
)

var _ = register("adversarial", kind{top: runAdversarial})

// runAdversarial repeats each algorithm on the fixture's batch: its losses, its perturbations, and the gradients that it leaves.
func runAdversarial(t *testing.T, dir string, files []string) {
	raw, err := os.ReadFile(filepath.Join(dir, "adversarial.json"))
	require.NoError(t, err)
	var doc struct {
		Model      string `json:"model"`
		Algorithms map[string]struct {
			Hyper map[string]float64 `json:"hyperparameters"`
		} `json:"algorithms"`
	}
	require.NoError(t, json.Unmarshal(raw, &doc))
	for _, f := range files {
		name, tensors := strings.CutSuffix(f, ".safetensors")
		if !tensors || name == "batch" {
			require.Contains(t, []string{"adversarial.json", "batch.safetensors"}, f, "a file that no runner looks at")
			continue
		}
		hyper, ok := doc.Algorithms[name]
		require.True(t, ok, name)
		t.Run(name, func(t *testing.T) {
			eachLevel(t, func(t *testing.T, k backend.Kernels) {
				runAlgorithm(t, k, dir, filepath.Join(dir, doc.Model), name, hyper.Hyper)
			})
		})
	}
}

// observed is what an algorithm showed of one of its passes.
type observed struct {
	loss  float64
	delta []float32
}

func runAlgorithm(t *testing.T, k backend.Kernels, dir, base, name string, h map[string]float64) {
	m := loadModel(t, base, "config.json")
	require.NoError(t, model.TrainAll(m))
	for _, p := range m.Params() {
		clear(p.Grad)
	}
	in, want := open(t, dir, "batch.safetensors"), open(t, dir, name+".safetensors")
	b := newBatch(in)
	draws := func(key string, scale float64) func(int, int) []float32 {
		return func(tokens, cols int) []float32 {
			v := slices.Clone(b.unpad(in.floats(key)))
			require.Len(t, v, tokens*cols)
			for i := range v {
				v[i] *= float32(scale)
			}
			return v
		}
	}
	seen := map[string][]observed{}
	observe := func(pass string, loss float64, delta []float32) {
		seen[pass] = append(seen[pass], observed{loss, slices.Clone(delta)})
	}
	var objective train.Objective
	factor := 1.0
	if name == "smart" {
		o, err := harden.NewSmooth(name)
		require.NoError(t, err)
		o.NoiseStd, o.StepSize, o.Radius, o.Weight = h["noise_std"], h["step_size"], h["radius"], h["weight"]
		o.Start, o.Observe = draws("smart_normal", 1), observe
		objective, factor = o, 10
	} else {
		o, err := harden.NewEmbedding(name)
		require.NoError(t, err)
		o.Relative = false // the fixtures' lengths are absolute
		set := func(p *float64, key string) {
			if v, ok := h[key]; ok {
				*p = v
			}
		}
		set(&o.Epsilon, "epsilon")
		set(&o.StepSize, "step_size")
		set(&o.Radius, "radius")
		set(&o.InitMagnitude, "init_magnitude")
		o.Steps, o.Observe = int(h["steps"]), observe
		switch name {
		case "freelb":
			o.Start = draws("freelb_uniform", 1)
		case "pgd-linf":
			o.Start = draws("pgd_linf_start", 1)
		}
		objective = o
	}
	var arena grad.Arena
	s := &train.Step{Model: m, K: k, Arena: &arena}
	for q, y := range in.ints("labels") {
		lo, hi := b.Offsets[q], b.Offsets[q+1]
		s.Examples = append(s.Examples, train.Example{IDs: b.IDs[lo:hi], Types: b.Types[lo:hi], Class: y})
	}
	s.Weight = float64(len(s.Examples))
	total, err := objective.Micro(context.Background(), s)
	require.NoError(t, err)

	checked := map[string]bool{}
	number := func(key string, got float64) {
		checked[key] = true
		near(t, "loss", key, want.floats(key), []float32{float32(got)}, factor*2e-5*math.Max(1, math.Abs(got)))
	}
	delta := func(key string, got []float32) {
		checked[key] = true
		near(t, "delta", key, b.unpad(want.floats(key)), got, factor*2e-5)
	}
	switch name {
	case "fgm", "fgsm":
		number("loss_clean", seen["clean"][0].loss)
		number("loss_adversarial", seen["adversarial"][0].loss)
		delta("delta", seen["adversarial"][0].delta)
		if want.has("embedding_gradient") {
			delta("embedding_gradient", seen["gradient"][0].delta)
		}
	case "fgm-matrix":
		number("loss_clean", seen["clean"][0].loss)
		number("loss_adversarial", seen["adversarial"][0].loss)
		checked["table_perturbation"] = true
		near(t, "delta", "table_perturbation", want.floats("table_perturbation"), seen["clean"][0].delta, 2e-5)
	case "pgd", "pgd-linf":
		number("loss_clean", total)
		number("loss_adversarial", seen["adversarial"][0].loss)
		delta("delta", seen["adversarial"][0].delta)
		delta("delta_3", seen["adversarial"][0].delta)
		fallthrough
	case "freelb":
		for i, key := range []string{"0", "1", "2"} {
			number("loss_"+key, seen[key][0].loss)
			if i > 0 || want.has("delta_0") {
				delta("delta_"+key, seen[key][0].delta)
			}
		}
	case "smart":
		number("loss_clean", seen["clean"][0].loss)
		number("inner_divergence", seen["inner"][0].loss)
		number("regulariser", seen["regulariser"][0].loss)
		number("loss_total", total)
		delta("noise_gradient", seen["inner"][0].delta)
		delta("noise_0", seen["noise"][0].delta)
		delta("noise_1", seen["noise"][1].delta)
	}
	grads := 0
	for _, p := range m.Params() {
		key := "grad." + p.Name
		if !want.has(key) {
			t.Errorf("the reference has no %s", key)
			continue
		}
		checked[key] = true
		grads++
		if name == "smart" { // ten times the tolerance: the divergence is a difference of nearly equal numbers
			top := 0.0
			for _, v := range want.floats(key) {
				top = math.Max(top, math.Abs(float64(v)))
			}
			near(t, "smart grad", key, want.floats(key), p.Grad, 10*(1e-4*top+1e-6))
			continue
		}
		nearGradient(t, key, want.floats(key), p.Grad)
	}
	require.NotZero(t, grads)
	for _, n := range want.src.Names() {
		if !checked[n] && !strings.HasPrefix(n, "logits_") {
			t.Errorf("%s was not compared", n)
		}
	}
}
