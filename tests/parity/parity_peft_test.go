package parity

import (
	"encoding/json"
	"fmt"
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
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/tensor"
)

var _ = register("peft", kind{fixture: runPeft})

// runPeft checks one adapter on every level: logits, loss and gradients, logits after merging, the base restored by switching off and by
// unmerging, and a saved copy equal to the original file.
func runPeft(t *testing.T, dir string) {
	onlyFiles(t, dir, checkpoint.AdapterConfigFile, checkpoint.AdapterWeightsFile, "train_state.safetensors", "meta.json", "expected.safetensors")
	eachLevel(t, func(t *testing.T, k backend.Kernels) {
		f, err := checkpoint.OpenFolder(dir)
		require.NoError(t, err)
		defer f.Close()
		raw, err := f.File(checkpoint.AdapterConfigFile)
		require.NoError(t, err)
		cfg, err := peft.ParseConfig(raw)
		require.NoError(t, err)
		base := loadModel(t, filepath.Join(dir, filepath.FromSlash(cfg.BaseModel)), "config.json")
		e := open(t, dir, "expected.safetensors")
		b := newBatch(e)
		b.Want = model.WantLogits
		before := peftLogits(t, k, base, &b.Batch)

		m, err := peft.Load(base, f)
		require.NoError(t, err)
		tol := 2e-4
		if base.Config().ModelType == "bert" {
			tol = 5e-5
		}
		want := peftExpected(e, b, base.Config(), "logits")
		got := peftLogits(t, k, m, &b.Batch)
		near(t, "logits", "logits", want, got, tol)

		require.NoError(t, m.Enable(false))
		assert.Equal(t, before, peftLogits(t, k, m, &b.Batch), "switched off, the base is restored bit for bit")
		require.NoError(t, m.Enable(true))
		assert.Equal(t, got, peftLogits(t, k, m, &b.Batch), "switched on again")

		if e.has("logits_merged") {
			require.True(t, m.Mergeable())
			require.NoError(t, m.Merge())
			merged := peftLogits(t, k, m, &b.Batch)
			near(t, "merged", "merged logits", peftExpected(e, b, base.Config(), "logits_merged"), merged, tol)
			require.NoError(t, m.Unmerge())
			assert.Equal(t, got, peftLogits(t, k, m, &b.Batch), "unmerged")
		} else {
			require.False(t, m.Mergeable())
			require.Error(t, m.Merge())
		}

		// What is saved is what was loaded, name by name and bit for bit.
		out := filepath.Join(t.TempDir(), "adapter")
		require.NoError(t, checkpoint.WriteFolder(out, m.Save))
		sameTensors(t, filepath.Join(dir, checkpoint.AdapterWeightsFile), filepath.Join(out, checkpoint.AdapterWeightsFile))
		sameConfig(t, raw, filepath.Join(out, checkpoint.AdapterConfigFile))

		if e.has("prompt_embeddings") {
			peftPrompt(t, base.Config(), m, e)
		}
		peftGradients(t, k, dir, cfg, m, e, b)
		e.done()
	})
}

func peftLogits(t *testing.T, k backend.Kernels, m model.Model, b *model.Batch) []float32 {
	var arena grad.Arena
	out, err := m.Forward(grad.Infer(k, &arena), b)
	require.NoError(t, err)
	return slices.Clone(out.Logits.Data)
}

// peftExpected returns the reference's logits for the tokens of the text: prompt methods on decoders have rows for the prompt, too.
func peftExpected(e *expected, b *batch, cfg *model.Config, name string) []float32 {
	v := e.floats(name)
	if cfg.Head != model.HeadCausal {
		return v
	}
	shape := e.tensor(name).Shape
	extra, width := shape[1]-b.cols, shape[2]
	var out []float32
	for _, at := range b.at {
		r, c := at/b.cols, at%b.cols
		row := r*shape[1] + extra + c
		out = append(out, v[row*width:(row+1)*width]...)
	}
	return out
}

// peftPrompt compares the virtual tokens and, for prefixes, what they put in the cache: of each token's row [layers, 2, heads, head size], key
// and value of a layer as [heads, tokens, head size].
func peftPrompt(t *testing.T, cfg *model.Config, m *peft.Model, e *expected) {
	ts, err := m.Tensors()
	require.NoError(t, err)
	i := slices.IndexFunc(ts, func(x tensor.Tensor) bool { return x.Name == "prompt_embeddings" })
	require.GreaterOrEqual(t, i, 0, "the adapter has no prompt_embeddings")
	v, err := ts[i].F32()
	require.NoError(t, err)
	near(t, "logits", ts[i].Name, e.floats(ts[i].Name), v, 2e-5)
	tokens := ts[i].Shape[0]
	for layer := range cfg.Layers {
		for half, what := range []string{"key", "value"} {
			name := fmt.Sprintf("prefix.layer_%d.%s", layer, what)
			if !e.has(name) {
				continue
			}
			shape := e.tensor(name).Shape
			require.Len(t, shape, 4)
			heads, size := shape[1], shape[3]
			var got []float32
			for h := range heads {
				for tok := range tokens {
					at := ((tok*cfg.Layers+layer)*2+half)*heads*size + h*size
					got = append(got, v[at:at+size]...)
				}
			}
			near(t, "logits", name, e.floats(name), got, 2e-5)
		}
	}
}

func peftGradients(t *testing.T, k backend.Kernels, dir string, cfg peft.Config, m *peft.Model, e *expected, b *batch) {
	if _, err := os.Stat(filepath.Join(dir, "train_state.safetensors")); err == nil {
		// The encoder of virtual tokens is not in the adapter: train from its own file, and compare what it produces.
		m = peftEncoder(t, dir, cfg, open(t, dir, "train_state.safetensors"), open(t, dir, checkpoint.AdapterWeightsFile))
		near(t, "logits", "logits from the encoder", peftExpected(e, b, m.Config(), "logits"), peftLogits(t, k, m, &b.Batch), 2e-4)
		ts, err := m.Tensors()
		require.NoError(t, err)
		for _, x := range ts {
			if x.Name == "prompt_embeddings" {
				v, err := x.F32()
				require.NoError(t, err)
				near(t, "logits", x.Name, e.floats(x.Name), v, 2e-5)
			}
		}
	}
	for _, p := range m.Params() {
		clear(p.Grad)
	}
	var arena grad.Arena
	c := grad.Record(k, &arena, false, 0)
	m.KeepPrompt(true)
	out, err := m.Forward(c, &b.Batch)
	m.KeepPrompt(false)
	require.NoError(t, err)
	var l *grad.Value
	if n := m.VirtualTokens(); n > 0 && m.Config().Head == model.HeadCausal {
		// The last virtual token predicts the first of the text.
		labels := b.unpadInts(e.ints("labels"))
		var targets []int32
		for s := range b.rows {
			lo, hi := b.Offsets[s], b.Offsets[s+1]
			for range n - 1 {
				targets = append(targets, -100)
			}
			targets = append(append(targets, labels[lo:hi]...), -100)
		}
		l = c.CrossEntropy(out.Logits, targets)
	} else {
		l = loss(t, c, m, e, b, out)
	}
	total := l.Data[0]
	if name := "loss_without_orthogonal_term"; e.has(name) {
		near(t, "loss", name, e.floats(name), []float32{total}, 2e-5*max(1, float64(total)))
	}
	c.Backward(l, nil)
	total += float32(m.Regularise())
	near(t, "loss", "loss", e.floats("loss"), []float32{total}, 2e-5*max(1, float64(total)))

	ours := map[string][]float32{}
	ts, err := m.Tensors()
	require.NoError(t, err)
	trained := 0
	for _, p := range m.Params() {
		ours[p.Name] = p.Grad
		for _, prefix := range []string{"base_model.", "base_model.model."} {
			ours[prefix+p.Name] = p.Grad
		}
		trained++
	}
	for _, x := range ts { // names in the file of parameters of the base: norms, biases
		if _, ok := ours[x.Name]; !ok {
			plain := strings.NewReplacer(".ln_tuning_layers", "", ".base_layer", "", "base_model.model.", "").Replace(x.Name)
			if g, ok := ours[plain]; ok {
				ours[x.Name] = g
			}
		}
	}
	seen := 0
	for _, n := range e.src.Names() {
		name, ok := strings.CutPrefix(n, "grad.")
		if !ok {
			continue
		}
		require.Contains(t, ours, name)
		nearGradient(t, n, e.floats(n), ours[name])
		seen++
	}
	require.Equal(t, trained, seen, "every trained parameter is compared")
}

// peftEncoder attaches a fresh prompt encoder and fills it from the reference's training state.
func peftEncoder(t *testing.T, dir string, cfg peft.Config, state, adapter *expected) *peft.Model {
	base := loadModel(t, filepath.Join(dir, filepath.FromSlash(cfg.BaseModel)), "config.json")
	m, err := peft.Attach(base, cfg, 1)
	require.NoError(t, err)
	filled := 0
	for _, p := range m.Params() {
		src, name := adapter, "base_model."+p.Name
		if state.has(p.Name) {
			src, name = state, p.Name
			filled++
		}
		require.Equal(t, src.tensor(name).Shape, p.T.Shape, name)
		copy(p.Values(), src.floats(name))
		p.Changed()
	}
	require.Len(t, state.src.Names(), filled)
	return m
}

func sameTensors(t *testing.T, want, got string) {
	a, err := checkpoint.OpenSafetensors(want)
	require.NoError(t, err)
	defer a.Close()
	b, err := checkpoint.OpenSafetensors(got)
	require.NoError(t, err)
	defer b.Close()
	require.Equal(t, a.Names(), b.Names())
	for _, n := range a.Names() {
		x, err := a.Tensor(n)
		require.NoError(t, err)
		y, err := b.Tensor(n)
		require.NoError(t, err)
		require.Equal(t, x.Shape, y.Shape, n)
		require.Equal(t, x.Data, y.Data, n)
	}
}

// sameConfig compares a written adapter_config.json with the reference's; lists of names have no order, and a name is not repeated.
func sameConfig(t *testing.T, want []byte, path string) {
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	var a, b map[string]any
	require.NoError(t, json.Unmarshal(want, &a))
	require.NoError(t, json.Unmarshal(got, &b))
	for _, m := range []map[string]any{a, b} {
		for k, v := range m {
			if list, ok := v.([]any); ok {
				names := []string{}
				for _, x := range list {
					if s, ok := x.(string); ok && !slices.Contains(names, s) {
						names = append(names, s)
					}
				}
				slices.Sort(names)
				m[k] = names
			}
		}
	}
	require.Equal(t, a, b)
}
