package generate_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/sample"
	"github.com/temper-ml/temper/tests/fixture"
)

// With a draft model, good or bad, the text is that of the model alone; the model itself as its draft is always right when greedy.
func TestDraftModel(t *testing.T) {
	load := func(name string) *generate.Decoder {
		d, err := generate.Open(filepath.Join(fixture.Parity(t), "models", name), generate.OpenOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, d.Close()) })
		return d
	}
	d, same := load("llama-causal"), load("llama-causal")
	other, err := model.New(d.Model.Config(), nil, model.Options{Random: true, Seed: 7})
	require.NoError(t, err)
	k := backend.Generic(1)
	t.Cleanup(k.Close)
	write := func(draft model.Model, temperature float64) outcome {
		g, err := d.Start(k, generate.Options{Parallel: 2, DraftModel: draft})
		require.NoError(t, err)
		defer g.Close()
		r := req([]int32{5, 9, 14}, 40)
		r.IgnoreEnd, r.Sample = true, sample.Params{Temperature: temperature, Seed: 3}
		return run(t, g, r)
	}
	for _, temperature := range []float64{0, 0.9} {
		plain := write(nil, temperature)
		for _, draft := range []model.Model{same.Model, other} {
			got := write(draft, temperature)
			require.Equal(t, plain.ids, got.ids)
			require.Positive(t, got.res.Drafted)
			if temperature == 0 && draft == same.Model {
				require.Equal(t, got.res.Drafted, got.res.Accepted)
			}
		}
	}
	_, err = d.Start(k, generate.Options{DraftModel: load("gpt2-causal").Model})
	require.ErrorContains(t, err, "vocabulary")
}
