package train_test

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/train"
	"github.com/temper-ml/temper/tests/fixture"
)

func quantizedDecoder(t *testing.T) model.Model {
	g, err := checkpoint.OpenGGUF(filepath.Join(fixture.Parity(t), "gguf", "llama", "model-Q4_0.gguf"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	cfg, src, err := model.FromGGUF(g)
	require.NoError(t, err)
	m, err := model.New(cfg, src, model.Options{})
	require.NoError(t, err)
	return m
}

// talk is a sequence whose second half is to be learnt.
func talk(from int32) train.Example {
	e := train.Example{}
	for i := range int32(12) {
		e.IDs = append(e.IDs, 5+(from+7*i)%40)
		e.Targets = append(e.Targets, -1)
	}
	for i := 5; i < 11; i++ {
		e.Targets[i] = e.IDs[i+1]
	}
	return e
}

func TestTuneCausal(t *testing.T) {
	k := backend.Generic(1)
	t.Cleanup(k.Close)
	ctx := context.Background()
	var set, held []train.Example
	for i := range int32(16) {
		set = append(set, talk(i))
	}
	held = append(held, talk(17), talk(20))
	m := quantizedDecoder(t)
	stored := m.Linears()[0].W.T.Data
	before := append([]byte{}, stored...)
	out := filepath.Join(t.TempDir(), "adapter")
	r, err := train.TuneCausal(ctx, train.CausalOptions{Model: m, Base: "base.gguf", Kernels: k, Train: set, Dev: held, Method: "qlora", Epochs: 4, Batch: 4, LR: 5e-3, Seed: 3, Out: out})
	require.NoError(t, err)
	require.Equal(t, 16, r.Steps)
	require.Equal(t, 12, r.Dev.Tokens)
	require.Less(t, r.Dev.After, 0.5*r.Dev.Before)
	require.Equal(t, before, append([]byte{}, stored...), "the base stays as it was")
	require.True(t, m.Linears()[0].W.T.DType.Quantized())

	// What was written does the same over a fresh base.
	f, err := checkpoint.OpenFolder(out)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	a, err := peft.Load(quantizedDecoder(t), f)
	require.NoError(t, err)
	require.Equal(t, "CAUSAL_LM", a.Adapter().TaskType)
	again, _, err := train.TargetPerplexity(ctx, k, a, held)
	require.NoError(t, err)
	require.InDelta(t, r.Dev.After, again, 1e-6)

	// The perplexity is that of the targets alone.
	var arena grad.Arena
	z, err := a.Forward(grad.Infer(k, &arena), &model.Batch{IDs: held[0].IDs, Offsets: []int32{0, 12}, Want: model.WantLogits})
	require.NoError(t, err)
	sum := k.CrossEntropy(z.Logits.Data, held[0].Targets, 12, z.Logits.Cols, nil, 1)
	one, n, err := train.TargetPerplexity(ctx, k, a, held[:1])
	require.NoError(t, err)
	require.Equal(t, 6, n)
	require.InDelta(t, sum/6, math.Log(one), 1e-5)

	for says, o := range map[string]train.CausalOptions{
		"no kernels":           {Model: m},
		"nothing negative":     {Model: m, Kernels: k, Epochs: -1},
		"no training":          {Model: m, Kernels: k},
		"12 tokens, 0":         {Model: m, Kernels: k, Train: []train.Example{{IDs: set[0].IDs}}},
		"change layers":        {Model: m, Kernels: k, Train: set, Method: "prefix"},
		"unknown method":       {Model: m, Kernels: k, Train: set, Method: "magic"},
		"has one already":      {Model: m, Kernels: k, Train: set, Method: "lora"},
		"no tokens to predict": {Model: m, Kernels: k, Train: set, Dev: []train.Example{{IDs: []int32{5, 6}, Targets: []int32{-1, -1}}}},
	} {
		_, err := train.TuneCausal(ctx, o)
		require.ErrorContains(t, err, says)
	}
}

// Stopped and resumed, a run ends with the bits of an unbroken one.
func TestTuneCausalResumes(t *testing.T) {
	k := backend.Generic(1)
	t.Cleanup(k.Close)
	set := []train.Example{talk(0), talk(3), talk(8), talk(11), talk(2)}
	o := func(out string) train.CausalOptions {
		return train.CausalOptions{Model: quantizedDecoder(t), Base: "b", Kernels: k, Train: set, Method: "lora", Epochs: 3, Batch: 2, LR: 1e-3, Seed: 9, Out: out}
	}
	whole, err := train.TuneCausal(context.Background(), o(""))
	require.NoError(t, err)
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(context.Background())
	half := o(out)
	half.Progress = func(p train.Progress) {
		if p.Step == 4 {
			cancel()
		}
	}
	_, err = train.TuneCausal(ctx, half)
	require.ErrorIs(t, err, context.Canceled)
	rest := o(out)
	rest.Resume = true
	got, err := train.TuneCausal(context.Background(), rest)
	require.NoError(t, err)
	want, err := whole.Adapter.Tensors()
	require.NoError(t, err)
	have, err := got.Adapter.Tensors()
	require.NoError(t, err)
	require.Equal(t, len(want), len(have))
	for i := range want {
		require.Equal(t, want[i].Data, have[i].Data, want[i].Name)
	}
}
