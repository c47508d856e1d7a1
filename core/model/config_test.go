package model_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/tests/fixture"
)

const tinyBERT = `{"model_type":"bert","vocab_size":31,"hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":12,
	"max_position_embeddings":16,"architectures":["BertForSequenceClassification"],"id2label":{"1":"yes","0":"no"},"extra":{"kept":[1,2]}}`

const tinyLlama = `{"model_type":"llama","vocab_size":31,"hidden_size":8,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
	"intermediate_size":12,"max_position_embeddings":16,"architectures":["LlamaForCausalLM"],"rope_theta":500.0}`

func parse(t testing.TB, s string) *model.Config {
	t.Helper()
	c, err := model.ParseConfig([]byte(s))
	require.NoError(t, err)
	return c
}

// with returns a config with some keys set (or removed, when nil).
func with(t testing.TB, config string, keys map[string]any) string {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(config), &m))
	for k, v := range keys {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return string(b)
}

func TestParseConfig(t *testing.T) {
	c := parse(t, tinyBERT)
	assert.Equal(t, model.HeadSequence, c.Head)
	assert.Equal(t, []string{"no", "yes"}, c.Labels)
	assert.Equal(t, model.SingleLabel, c.Problem())
	assert.Equal(t, 4, c.HeadDim)
	assert.Equal(t, 2, c.KVHeads)

	c = parse(t, with(t, tinyBERT, map[string]any{"id2label": nil, "num_labels": 1}))
	assert.Equal(t, []string{"LABEL_0"}, c.Labels)
	assert.Equal(t, model.Regression, c.Problem())

	for class, head := range map[string]model.Head{
		"BertModel": model.HeadNone, "BertForMaskedLM": model.HeadMasked, "BertForPreTraining": model.HeadMasked,
		"BertForTokenClassification": model.HeadToken, "BertForQuestionAnswering": model.HeadNone,
	} {
		assert.Equal(t, head, parse(t, with(t, tinyBERT, map[string]any{"architectures": []string{class}})).Head, class)
	}
}

// What is read is written back: unknown keys too, and changes of head and labels.
func TestConfigRoundTrip(t *testing.T) {
	c := parse(t, tinyBERT)
	b, err := json.Marshal(c)
	require.NoError(t, err)
	assert.JSONEq(t, with(t, tinyBERT, map[string]any{"label2id": map[string]int{"no": 0, "yes": 1}}), string(b))

	c = c.Clone()
	c.Head, c.Labels, c.ProblemType, c.Pooling = model.HeadToken, []string{"a", "b", "c"}, model.MultiLabel, model.PoolCLS
	require.NoError(t, c.Set("more", 7))
	b, err = json.Marshal(c)
	require.NoError(t, err)
	d := parse(t, string(b))
	assert.Equal(t, model.HeadToken, d.Head)
	assert.Equal(t, c.Labels, d.Labels)
	assert.Equal(t, model.MultiLabel, d.Problem())
	assert.Equal(t, model.PoolCLS, d.Pooling)
	assert.JSONEq(t, `{"kept":[1,2]}`, string(d.Get("extra")))
	assert.JSONEq(t, `7`, string(d.Get("more")))
	assert.JSONEq(t, `["BertForTokenClassification"]`, string(d.Get("architectures")))
}

func TestParseConfigErrors(t *testing.T) {
	for _, tc := range []struct {
		base string
		keys map[string]any
		want string
	}{
		{tinyBERT, map[string]any{"model_type": "t5"}, `model_type "t5" is not supported (supported: albert, `},
		{tinyBERT, map[string]any{"model_type": 3}, "model_type: expected a string, got 3"},
		{tinyBERT, map[string]any{"hidden_size": nil}, "hidden_size: missing"},
		{tinyBERT, map[string]any{"hidden_size": 7}, "hidden size 7 is not a multiple of 2"},
		{tinyBERT, map[string]any{"hidden_size": -8}, "hidden_size: expected a whole number from 1"},
		{tinyBERT, map[string]any{"hidden_size": 8.5}, "hidden_size: expected a whole number"},
		{tinyBERT, map[string]any{"hidden_size": 1e300}, "hidden_size: expected a whole number"},
		{tinyBERT, map[string]any{"num_attention_heads": 0}, "num_attention_heads: expected"},
		{tinyBERT, map[string]any{"num_hidden_layers": 1 << 30}, "num_hidden_layers: expected"},
		{tinyBERT, map[string]any{"vocab_size": "many"}, `vocab_size: expected a whole number, got "many"`},
		{tinyBERT, map[string]any{"hidden_act": "wavelet"}, `unknown activation "wavelet"`},
		{tinyBERT, map[string]any{"hidden_dropout_prob": 1.5}, "hidden_dropout_prob: expected a number from 0 to 1"},
		{tinyBERT, map[string]any{"id2label": map[string]string{"0": "a", "2": "b"}}, "id2label: expected ids 0 to 1"},
		{tinyBERT, map[string]any{"id2label": map[string]string{"0": "a", "00": "b"}}, "id2label: expected ids 0 to 1"},
		{tinyBERT, map[string]any{"id2label": map[string]string{}}, "id2label: expected 1 to"},
		{tinyBERT, map[string]any{"problem_type": "guess"}, "problem_type: expected"},
		{tinyBERT, map[string]any{"architectures": []string{"BertForCausalLM"}}, `bert has no head "causal"`},
		{tinyBERT, map[string]any{"position_embedding_type": "relative_key"}, "only absolute is supported"},
		{tinyLlama, map[string]any{"num_key_value_heads": 3}, "4 attention heads are not a multiple of 3"},
		{tinyLlama, map[string]any{"head_dim": 3}, "expected an even number"},
		{tinyLlama, map[string]any{"rope_scaling": map[string]any{"type": "spiral"}}, `unknown rope_type "spiral"`},
		{tinyLlama, map[string]any{"rope_scaling": map[string]any{"type": "linear"}}, "expected a factor of at least 1"},
		{tinyLlama, map[string]any{"rope_scaling": map[string]any{"type": "longrope", "short_factor": []int{1}}}, "longrope: expected 1 short and long factors, got 0"},
		{tinyLlama, map[string]any{"rope_parameters": 3}, "rope_parameters: expected an object"},
		{tinyLlama, map[string]any{"eos_token_id": "end"}, "eos_token_id"},
		{tinyLlama, map[string]any{"model_type": "qwen2", "layer_types": []string{"full_attention"}}, "layer_types: expected 2, got 1"},
		{tinyLlama, map[string]any{"model_type": "qwen2", "layer_types": []string{"full_attention", "odd"}}, `unknown type "odd"`},
		{tinyLlama, map[string]any{"model_type": "smollm3", "no_rope_layers": []int{1}}, "no_rope_layers: expected 2, got 1"},
	} {
		_, err := model.ParseConfig([]byte(with(t, tc.base, tc.keys)))
		require.ErrorContains(t, err, tc.want, "%v", tc.keys)
		assert.True(t, strings.HasPrefix(err.Error(), "config: "), err)
	}
	for _, s := range []string{"", "null", "[]", "3", `{"model_type":`} {
		_, err := model.ParseConfig([]byte(s))
		require.Error(t, err, s)
	}
}

func TestParsePooling(t *testing.T) {
	p, err := model.ParsePooling([]byte(`{"word_embedding_dimension":384,"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":false}`))
	require.NoError(t, err)
	assert.Equal(t, model.PoolMean, p)
	p, err = model.ParsePooling([]byte(`{"pooling_mode":"lasttoken"}`))
	require.NoError(t, err)
	assert.Equal(t, model.PoolLast, p)
	for _, s := range []string{`{}`, `[]`, `{"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":true}`, `{"pooling_mode":"sum"}`, `{"pooling_mode_weightedmean_tokens":true}`} {
		_, err := model.ParsePooling([]byte(s))
		require.Error(t, err, s)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(tinyBERT))
	f.Add([]byte(tinyLlama))
	for _, family := range model.Families() {
		f.Add([]byte(with(f, tinyLlama, map[string]any{"model_type": family, "n_embd": 8, "n_layer": 1, "n_head": 2, "dim": 8, "n_layers": 1, "n_heads": 2,
			"hidden_dim": 8, "architectures": nil, "rope_scaling": map[string]any{"type": "yarn", "factor": 4}})))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c *model.Config
		var err error
		fixture.Bounded(t, len(data), 512, 1<<18, func() { c, err = model.ParseConfig(data) })
		if err != nil {
			return
		}
		b, err := json.Marshal(c)
		require.NoError(t, err)
		d, err := model.ParseConfig(b)
		require.NoError(t, err, "%s", b)
		require.Equal(t, c.Head, d.Head)
		require.Equal(t, c.Layers, d.Layers)
	})
}
