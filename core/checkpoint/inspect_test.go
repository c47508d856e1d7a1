package checkpoint_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/tests/fixture"
)

func TestInspect(t *testing.T) {
	parity := fixture.Parity(t)
	for _, c := range []struct {
		path, kind, model, arch string
		types                   []string
	}{
		{"models/bert-seqcls", "model folder", "bert", "BertForSequenceClassification", []string{"f32"}},
		{"models/bert-seqcls/model.safetensors", "safetensors", "", "", []string{"f32"}},
		{"peft/lora-bert", "adapter folder", "LORA", "", []string{"f32"}},
		{"gguf/llama/model-Q4_K_M.gguf", "gguf", "llama", "llama", []string{"q4_k", "q6_k", "f32"}},
	} {
		i, err := checkpoint.Inspect(filepath.Join(parity, filepath.FromSlash(c.path)))
		require.NoError(t, err, c.path)
		assert.Equal(t, c.kind, i.Kind)
		assert.Equal(t, c.model, i.ModelType)
		assert.Equal(t, c.arch, i.Architecture)
		var params, bytes int64
		for _, x := range i.Tensors {
			params += int64(tensor.Elements(x.Shape))
			bytes += int64(x.Bytes)
		}
		assert.Equal(t, params, i.Parameters)
		assert.Equal(t, bytes, i.Bytes)
		assert.Len(t, i.Types, len(c.types))
		for _, typ := range c.types {
			assert.Positive(t, i.Types[typ].Tensors, "%s %s", c.path, typ)
		}
		_, err = json.Marshal(i)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	_, err := checkpoint.Inspect(filepath.Join(dir, "no"))
	require.ErrorIs(t, err, os.ErrNotExist)
	pickle := filepath.Join(dir, "pytorch_model.bin")
	require.NoError(t, os.WriteFile(pickle, []byte("PK"), 0o644))
	_, err = checkpoint.Inspect(pickle)
	require.ErrorContains(t, err, "pickle files are not read")
	q8 := filepath.Join(dir, "q.safetensors")
	require.NoError(t, checkpoint.WriteSafetensors(q8, []tensor.Tensor{{Name: "w", DType: tensor.Q8Row, Shape: []int{2, 3}, Data: make([]byte, 6), Scales: make([]float32, 2)}}, nil))
	i, err := checkpoint.Inspect(q8)
	require.NoError(t, err)
	assert.Equal(t, checkpoint.TypeInfo{Tensors: 1, Parameters: 6, Bytes: 14}, i.Types["q8_row"])
}
