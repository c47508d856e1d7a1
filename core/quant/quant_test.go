package quant_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/quant"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/tests/fixture"
)

func openGGUF(t *testing.T, path string) *checkpoint.GGUF {
	g, err := checkpoint.OpenGGUF(path)
	require.NoError(t, err)
	t.Cleanup(func() { g.Close() })
	return g
}

// Every file that llama.cpp quantized from llama's F32 file comes out byte for byte on amd64, and with its tensor types from any source.
func TestGGUFAsLlamaCpp(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(fixture.Parity(t), "gguf", "*", "model-*.gguf"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		kind := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "model-"), ".gguf"))
		if kind == "f32" || kind == "f16" {
			continue // written by gguf-py, in another order
		}
		from, whole := filepath.Join(filepath.Dir(path), "model-F32.gguf"), true
		if _, err := os.Stat(from); err != nil {
			from, whole = filepath.Join(filepath.Dir(path), "model-F16.gguf"), false
		}
		t.Run(filepath.Base(filepath.Dir(path))+"/"+kind, func(t *testing.T) {
			m, err := openGGUF(t, from).Model()
			require.NoError(t, err)
			var got bytes.Buffer
			calls := 0
			r, err := quant.EncodeGGUF(context.Background(), &got, m, quant.Options{Type: kind, Progress: func(done, total int, _ string) {
				calls++
				assert.Equal(t, calls, done)
				assert.Equal(t, len(m.Tensors), total)
			}})
			require.NoError(t, err)
			assert.Equal(t, len(m.Tensors), calls)
			want := openGGUF(t, path)
			g, err := checkpoint.ParseGGUF("got", got.Bytes())
			require.NoError(t, err)
			assert.Equal(t, want.Names(), g.Names())
			for _, name := range want.Names() {
				a, err := want.Tensor(name)
				require.NoError(t, err)
				b, err := g.Tensor(name)
				require.NoError(t, err)
				assert.Equal(t, a.DType.String(), b.DType.String(), name)
			}
			assert.Equal(t, want.Value("general.file_type"), g.Value("general.file_type"))
			for _, x := range r.Tensors {
				if x.To == "f32" {
					assert.Zero(t, x.RMSE)
					continue
				}
				assert.Greater(t, x.Max, x.RMSE, x.Name)
				assert.Less(t, x.Relative, 0.35, x.Name)
			}
			assert.Less(t, r.After, r.Before)
			if whole && sameSums() {
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				assert.True(t, bytes.Equal(b, got.Bytes()), "bytes differ from llama.cpp's")
			}
		})
	}
}

// A folder written as GGUF and read again is the same model: every tensor, and the config.
func TestFolderToGGUF(t *testing.T) {
	for _, name := range []string{"llama-causal", "llama-tied-causal", "mistral-causal", "qwen2-causal", "qwen3-causal", "gemma3-causal", "phi3-causal",
		"gpt2-causal", "gpt_neox-causal"} {
		t.Run(name, func(t *testing.T) {
			f, err := checkpoint.OpenFolder(filepath.Join(fixture.Parity(t), "models", name))
			require.NoError(t, err)
			defer f.Close()
			m, err := f.GGUFModel()
			require.NoError(t, err)
			path := filepath.Join(t.TempDir(), "m.gguf")
			_, err = quant.GGUF(context.Background(), m, path, quant.Options{Type: "f32"})
			require.NoError(t, err)
			g := openGGUF(t, path)
			got, err := g.Source()
			require.NoError(t, err)
			want, err := f.Source()
			require.NoError(t, err)
			assert.ElementsMatch(t, want.Names(), got.Names())
			for _, n := range want.Names() {
				a, err := want.Tensor(n)
				require.NoError(t, err)
				b, err := got.Tensor(n)
				require.NoError(t, err)
				require.Equal(t, a.Shape, b.Shape, n)
				x, err := a.F32()
				require.NoError(t, err)
				y, err := b.F32()
				require.NoError(t, err)
				if strings.HasPrefix(name, "gemma3") && strings.HasSuffix(n, "q_norm.weight") {
					// This model's scores have a scale of their own, 1/sqrt(10) for heads of 12, which the norm takes on.
					x = slices.Clone(x) // the file is mapped read-only
					for i := range x {
						x[i] = (1+x[i])*float32(math.Sqrt(12.0/10)) - 1
					}
				}
				if strings.HasPrefix(name, "gemma3") && strings.HasSuffix(n, "norm.weight") {
					assert.InDeltaSlice(t, x, y, 2.5e-7, n) // 1+w rounds
					continue
				}
				assert.Equal(t, x, y, n)
			}
			config, err := f.Config()
			require.NoError(t, err)
			a, err := model.ParseConfig(config)
			require.NoError(t, err)
			back, err := g.ConfigJSON()
			require.NoError(t, err)
			b, err := model.ParseConfig(back)
			require.NoError(t, err)
			for _, pair := range [][2]any{
				{a.ModelType, b.ModelType}, {a.Head, b.Head}, {a.Vocab, b.Vocab}, {a.Hidden, b.Hidden}, {a.Layers, b.Layers}, {a.Heads, b.Heads}, {a.KVHeads, b.KVHeads},
				{a.HeadDim, b.HeadDim}, {a.Intermediate, b.Intermediate}, {a.MaxPositions, b.MaxPositions}, {a.NormEps, b.NormEps}, {a.TieWords, b.TieWords}, {a.Act, b.Act},
				{a.Window, b.Window}, {a.Full, b.Full}, {a.NoRope, b.NoRope}, {a.EmbedScale, b.EmbedScale}, {a.Parallel, b.Parallel},
				{a.AttentionBias, b.AttentionBias}, {a.OutputBias, b.OutputBias}, {a.MLPBias, b.MLPBias}, {a.BOS, b.BOS}, {a.EOS, b.EOS},
			} {
				assert.Equal(t, pair[0], pair[1])
			}
			if a.Rope != nil {
				assert.Equal(t, a.Rope.Theta, b.Rope.Theta)
				assert.Equal(t, a.Rope.Partial, b.Rope.Partial)
			}
		})
	}
}

// The tokenizer of a folder is written as llama.cpp's own converter did for the same vocabulary.
func TestTokenizerToGGUF(t *testing.T) {
	for name, family := range map[string]string{"llama": "llama-causal", "gemma3": "gemma3-causal", "qwen3": "qwen3-causal", "qwen2": "qwen2-causal"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixture.Parity(t), "gguf", name)
			base := filepath.Join(fixture.Parity(t), "models", family)
			want := openGGUF(t, filepath.Join(dir, "model-F16.gguf"))
			files := map[string][]byte{}
			for _, n := range []string{"tokenizer.json", "tokenizer_config.json"} {
				b, err := os.ReadFile(filepath.Join(dir, n))
				require.NoError(t, err)
				files[n] = b
			}
			for _, n := range []string{"config.json", "model.safetensors"} {
				b, err := os.ReadFile(filepath.Join(base, n))
				require.NoError(t, err)
				files[n] = b
			}
			var config map[string]any
			require.NoError(t, json.Unmarshal(files["config.json"], &config))
			delete(config, "vocab_size")
			var err error
			files["config.json"], err = json.Marshal(config)
			require.NoError(t, err)
			f, err := checkpoint.NewFolder("folder", files)
			require.NoError(t, err)
			m, err := f.GGUFModel()
			require.NoError(t, err)
			got := map[string]any{}
			for _, kv := range m.Metadata {
				got[kv.Key] = kv.Value
			}
			for _, key := range want.Keys() {
				if !strings.HasPrefix(key, "tokenizer.") || strings.HasSuffix(key, "scores") {
					continue
				}
				if strings.HasSuffix(key, "bos_token_id") && name[0] == 'q' {
					continue // the fixture's own choice; its tokenizer_config.json names none
				}
				assert.Equal(t, want.Value(key), got[key], key)
			}
		})
	}
}

// Int8 rows change logits a little and no more; the folder is complete, and mapped.
func TestInt8Folder(t *testing.T) {
	for _, name := range []string{"bert-seqcls", "distilbert-seqcls", "roberta-seqcls", "deberta-v2-seqcls", "modernbert-seqcls", "albert-seqcls", "bert-mlm", "llama-causal", "gemma3-causal"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixture.Parity(t), "models", name)
			f, err := checkpoint.OpenFolder(dir)
			require.NoError(t, err)
			defer f.Close()
			out := filepath.Join(t.TempDir(), "int8")
			r, err := quant.Int8Folder(context.Background(), f, out, quant.Options{})
			require.NoError(t, err)
			assert.Less(t, float64(r.After), 0.55*float64(r.Before))
			q, err := checkpoint.OpenFolder(out)
			require.NoError(t, err)
			defer q.Close()
			for _, n := range []string{"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} {
				assert.True(t, q.Has(n), n)
			}
			a, b := logits(t, f, dir), logits(t, q, dir)
			require.Len(t, b, len(a))
			var diff, ref float64
			for i := range a {
				diff += math.Pow(float64(a[i]-b[i]), 2)
				ref += float64(a[i]) * float64(a[i])
			}
			assert.Less(t, math.Sqrt(diff/ref), 0.08)
			assert.Positive(t, diff)
		})
	}
}

func logits(t *testing.T, f *checkpoint.Folder, dir string) []float32 {
	config, err := f.Config()
	require.NoError(t, err)
	cfg, err := model.ParseConfig(config)
	require.NoError(t, err)
	src, err := f.Source()
	require.NoError(t, err)
	m, err := model.New(cfg, src, model.Options{})
	require.NoError(t, err)
	e, err := checkpoint.OpenSafetensors(filepath.Join(dir, "expected.safetensors"))
	require.NoError(t, err)
	defer e.Close()
	x, err := e.Tensor("input_ids")
	require.NoError(t, err)
	ids, ok := tensor.View[int64](x.Data)
	require.True(t, ok)
	b := &model.Batch{Offsets: []int32{0, 6}, Want: model.WantLogits}
	for _, id := range ids[:6] {
		b.IDs = append(b.IDs, int32(id))
	}
	var arena grad.Arena
	res, err := m.Forward(grad.Infer(backend.GenericF32(1), &arena), b)
	require.NoError(t, err)
	return append([]float32(nil), res.Logits.Data...)
}

func TestRefuses(t *testing.T) {
	_, err := quant.EncodeGGUF(context.Background(), &bytes.Buffer{}, &checkpoint.GGUFModel{}, quant.Options{Type: "q9"})
	require.ErrorContains(t, err, `unknown type "q9", expected one of int8, bf16`)

	dir := filepath.Join(fixture.Parity(t), "gguf", "qwen2")
	m, err := openGGUF(t, filepath.Join(dir, "model-Q4_K_M.gguf")).Model()
	require.NoError(t, err)
	_, err = quant.EncodeGGUF(context.Background(), &bytes.Buffer{}, m, quant.Options{Type: "q8_0"})
	require.ErrorContains(t, err, "already")
	_, err = quant.EncodeGGUF(context.Background(), &bytes.Buffer{}, m, quant.Options{Type: "f16"})
	require.NoError(t, err, "numbers of floating point add no loss of their own")
	_, err = quant.EncodeGGUF(context.Background(), &bytes.Buffer{}, m, quant.Options{Type: "q8_0", Requantize: true})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = quant.EncodeGGUF(ctx, &bytes.Buffer{}, m, quant.Options{Type: "q8_0", Requantize: true})
	require.ErrorIs(t, err, context.Canceled)

	bad := tensor.FromF32("blk.0.attn_q.weight", make([]float32, 64), 2, 32)
	v, _ := bad.F32()
	v[5] = float32(math.NaN())
	_, err = quant.EncodeGGUF(context.Background(), &bytes.Buffer{}, &checkpoint.GGUFModel{Tensors: []checkpoint.GGUFItem{{Name: bad.Name, DType: bad.DType, Shape: bad.Shape,
		Load: func() (tensor.Tensor, error) { return bad, nil }}}}, quant.Options{Type: "q8_0"})
	require.ErrorContains(t, err, `tensor "blk.0.attn_q.weight": value 5 is NaN`)

	f, err := checkpoint.OpenFolder(filepath.Join(fixture.Parity(t), "models", "bert-mlm"))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.GGUFModel()
	require.ErrorContains(t, err, `model type "bert" cannot be written as GGUF`)
	smol, err := checkpoint.OpenFolder(filepath.Join(fixture.Parity(t), "models", "smollm3-causal"))
	require.NoError(t, err)
	defer smol.Close()
	_, err = smol.GGUFModel()
	require.ErrorContains(t, err, "every fourth layer")
}
