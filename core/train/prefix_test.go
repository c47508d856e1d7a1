package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

func prefixModel(t *testing.T, frozen int) model.Model {
	c, err := model.ParseConfig([]byte(`{"model_type":"bert","architectures":["BertForSequenceClassification"],"vocab_size":30,"hidden_size":16,"num_hidden_layers":3,
		"num_attention_heads":2,"intermediate_size":16,"max_position_embeddings":16,"type_vocab_size":2,"id2label":{"0":"a","1":"b"},"label2id":{"a":0,"b":1}}`))
	require.NoError(t, err)
	m, err := model.New(c, nil, model.Options{Random: true, Seed: 7})
	require.NoError(t, err)
	require.NoError(t, model.TrainAll(m))
	require.NoError(t, model.FreezeLayers(m, frozen))
	return m
}

// The prefix ends where training begins, and is not used where dropout changes it.
func TestPrefixBegins(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	for frozen, want := range map[int]int{-1: 0, 0: 0, 1: 1, 2: 2, 3: 3} {
		from, err := model.FirstTrained(k, prefixModel(t, frozen))
		require.NoError(t, err)
		require.Equal(t, want, from, "%d frozen", frozen)
	}
	p, err := newPrefix(k, prefixModel(t, 2), true, 1<<20, nil)
	require.NoError(t, err)
	require.Nil(t, p, "dropout")
	p, err = newPrefix(k, prefixModel(t, 2), false, 0, nil)
	require.NoError(t, err)
	require.Nil(t, p, "no room")
	p, err = newPrefix(k, prefixModel(t, 0), false, 1<<20, nil)
	require.NoError(t, err)
	require.Nil(t, p, "nothing frozen")
	require.NoError(t, p.enter(nil, nil, nil), "nil does nothing")
}

// States are computed once where there is room, each time where there is none, and not kept for examples from elsewhere.
func TestPrefixHolds(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	m := prefixModel(t, 2)
	set := []Example{{IDs: []int32{3, 4, 5}}, {IDs: []int32{6, 7}}, {IDs: []int32{8, 9, 10, 11}}}
	p, err := newPrefix(k, m, false, 5*16*4, set) // of 3 and 2 tokens
	require.NoError(t, err)
	var arena grad.Arena
	run := func(examples ...Example) []float32 {
		arena.Reset()
		b := Pack(examples)
		require.NoError(t, p.enter(&arena, b, examples))
		require.Equal(t, 2, b.From)
		out, err := m.Forward(grad.Infer(k, &arena), b)
		require.NoError(t, err)
		return append([]float32(nil), out.Logits.Data...)
	}
	whole := func(examples ...Example) []float32 {
		arena.Reset()
		out, err := m.Forward(grad.Infer(k, &arena), Pack(examples))
		require.NoError(t, err)
		return append([]float32(nil), out.Logits.Data...)
	}
	want := whole(set...)
	require.Equal(t, want, run(set...))
	require.Equal(t, [2]int{3, 0}, [2]int{p.computed, p.reused})
	require.Equal(t, want, run(set...))
	require.Equal(t, [2]int{4, 2}, [2]int{p.computed, p.reused}, "the third does not fit")
	other := Example{IDs: []int32{3, 4}}
	p.room = 1 << 20
	require.Equal(t, whole(other, set[1]), run(other, set[1]))
	require.Equal(t, whole(other, set[1]), run(other, set[1]))
	require.Equal(t, [2]int{6, 4}, [2]int{p.computed, p.reused}, "an example from elsewhere is not kept")
}

func TestEnterErrors(t *testing.T) {
	k := backend.Generic(1)
	defer k.Close()
	m := prefixModel(t, 2)
	var arena grad.Arena
	c := grad.Infer(k, &arena)
	for says, b := range map[string]model.Batch{
		"the model has 3":      {Until: 4},
		"from block 2 until 0": {From: 2},
		"states of 2x16":       {Enter: c.Zeros(3, 16)},
		"nothing to run":       {Enter: c.Zeros(2, 16), From: 3, Until: 2},
		"no prefix, embed":     {Enter: c.Zeros(2, 16), From: 1, Want: model.WantHidden},
	} {
		b.IDs, b.Offsets = []int32{3, 4}, []int32{0, 2}
		_, err := m.Forward(c, &b)
		require.ErrorContains(t, err, says)
	}
}
