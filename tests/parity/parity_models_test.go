package parity

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

var _ = register("models", kind{fixture: runModel})

// runModel checks one tiny model on every level: hidden states, pooler, logits, loss, gradients, greedy decoding.
func runModel(t *testing.T, dir string) {
	onlyFiles(t, dir, "config.json", "config-v4.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "meta.json", "expected.safetensors")
	eachLevel(t, func(t *testing.T, k backend.Kernels) {
		m := loadModel(t, dir, "config.json")
		e := open(t, dir, "expected.safetensors")
		b := newBatch(e)
		checkPositions(t, e, b, m.Config())
		logits := checkOutputs(t, k, m, e, b)
		checkBatching(t, k, m, b, logits)
		if _, err := os.Stat(filepath.Join(dir, "config-v4.json")); err == nil {
			old := loadModel(t, dir, "config-v4.json")
			require.Equal(t, logits, checkOutputs(t, k, old, e, b), "config-v4.json gives another model")
		}
		if e.has("generate.0.prompt_ids") {
			checkGreedy(t, k, m, e)
		}
		checkGradients(t, k, m, e, b, false)
		checkGradients(t, k, m, e, b, true)
		e.done()
	})
}

func loadModel(t *testing.T, dir, config string) model.Model {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, config))
	require.NoError(t, err)
	cfg, err := model.ParseConfig(data)
	require.NoError(t, err)
	if cfg.Head == model.HeadNone {
		cfg.Pooling = model.PoolMean // what the fixtures pool by
	}
	src, err := checkpoint.OpenSafetensors(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, src.Close()) })
	var fresh []string
	m, err := model.New(cfg, src, model.Options{Fresh: &fresh})
	require.NoError(t, err)
	require.Empty(t, fresh, "tensors that the file should have held")
	return m
}

// batch is a padded batch of the fixtures, packed.
type batch struct {
	model.Batch
	rows, cols int
	at         []int // place of each token in the padded batch
}

func newBatch(e *expected) *batch {
	ids, mask := e.ints("input_ids"), e.ints("attention_mask")
	shape := e.tensor("input_ids").Shape
	b := &batch{rows: shape[0], cols: shape[1]}
	var types []int32
	if e.has("token_type_ids") {
		types = e.ints("token_type_ids")
	}
	b.Offsets = []int32{0}
	for r := range b.rows {
		for i := r * b.cols; i < (r+1)*b.cols; i++ {
			if mask[i] == 0 {
				continue
			}
			b.at = append(b.at, i)
			b.IDs = append(b.IDs, ids[i])
			if types != nil {
				b.Types = append(b.Types, types[i])
			}
		}
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
	}
	return b
}

// unpad keeps the rows of real tokens of a padded tensor [rows, cols, width].
func (b *batch) unpad(x []float32) []float32 {
	width := len(x) / (b.rows * b.cols)
	var out []float32
	for _, i := range b.at {
		out = append(out, x[i*width:(i+1)*width]...)
	}
	return out
}

func (b *batch) unpadInts(x []int32) []int32 {
	out := make([]int32, len(b.at))
	for i, at := range b.at {
		out[i] = x[at]
	}
	return out
}

// checkPositions makes sure that the fixture's positions are those that the model counts itself: it is not given them.
func checkPositions(t *testing.T, e *expected, b *batch, cfg *model.Config) {
	var want []int32
	for s := range b.rows {
		for i := range b.Offsets[s+1] - b.Offsets[s] {
			want = append(want, i+int32(cfg.PositionOffset))
		}
	}
	require.Equal(t, b.unpadInts(e.ints("position_ids")), want)
}

func tolerances(e *expected, h model.Head) (logits float64) {
	if h == model.HeadCausal || h == model.HeadMasked {
		return 1e-4
	}
	return 2e-5
}

// checkOutputs compares an inference run and returns its logits (or embeddings).
func checkOutputs(t *testing.T, k backend.Kernels, m model.Model, e *expected, b *batch) []float32 {
	var arena grad.Arena
	c := grad.Infer(k, &arena)
	in := b.Batch
	in.Want = model.WantHidden | model.WantPooled
	head := m.Config().Head
	if head != model.HeadNone {
		in.Want |= model.WantLogits
	}
	out, err := m.Forward(c, &in)
	require.NoError(t, err)

	layers := 0
	for ; e.has(fmt.Sprintf("hidden_states.layer_%d", layers)); layers++ {
		require.Greater(t, len(out.Layers), layers)
		want := b.unpad(e.floats(fmt.Sprintf("hidden_states.layer_%d", layers)))
		near(t, "hidden", fmt.Sprintf("hidden state %d", layers), want, out.Layers[layers].Data, 1e-4)
	}
	require.Len(t, out.Layers, layers)
	if e.has("pooler_output") {
		require.NotNil(t, out.Pooler)
		near(t, "pooler", "pooler", e.floats("pooler_output"), out.Pooler.Data, 2e-5)
	}
	if head == model.HeadNone {
		near(t, "hidden", "last hidden state", b.unpad(e.floats("last_hidden_state")), out.Last.Data, 1e-4)
		pooled := c.Normalize(out.Pooled, 1e-12)
		near(t, "logits", "mean pooled", e.floats("mean_pooled"), pooled.Data, 2e-5)
		return append([]float32(nil), pooled.Data...)
	}
	want := e.floats("logits")
	if head != model.HeadSequence {
		want = b.unpad(want)
	}
	near(t, "logits", "logits", want, out.Logits.Data, tolerances(e, head))
	return append([]float32(nil), out.Logits.Data...)
}

// checkBatching runs each sequence by itself: the bits must not depend on the neighbours. Without the other outputs, too.
func checkBatching(t *testing.T, k backend.Kernels, m model.Model, b *batch, logits []float32) {
	if m.Config().Head == model.HeadNone {
		return
	}
	var arena grad.Arena
	var got []float32
	for s := range b.rows {
		lo, hi := b.Offsets[s], b.Offsets[s+1]
		one := model.Batch{IDs: b.IDs[lo:hi], Offsets: []int32{0, hi - lo}, Want: model.WantLogits}
		if b.Types != nil {
			one.Types = b.Types[lo:hi]
		}
		arena.Reset()
		out, err := m.Forward(grad.Infer(k, &arena), &one)
		require.NoError(t, err)
		got = append(got, out.Logits.Data...)
	}
	require.Equal(t, logits, got, "a text alone differs from the same in a batch")
}

// loss computes the fixture's loss.
func loss(t *testing.T, c *grad.Ctx, m model.Model, e *expected, b *batch, out model.Output) *grad.Value {
	switch m.Config().Head {
	case model.HeadNone:
		probe := e.floats("probe")
		l := c.Dot(c.Normalize(out.Pooled, 1e-12), probe)
		if e.has("pooler_output") {
			l = c.Add(l, c.Dot(out.Pooler, probe))
		}
		return l
	case model.HeadSequence:
		switch m.Config().Problem() {
		case model.Regression:
			return c.MSE(out.Logits, e.floats("labels"))
		case model.MultiLabel:
			return c.BCEWithLogits(out.Logits, e.floats("labels"))
		}
		return c.CrossEntropy(out.Logits, e.ints("labels"))
	case model.HeadCausal:
		labels := b.unpadInts(e.ints("labels"))
		targets := make([]int32, len(labels))
		for s := range b.rows {
			lo, hi := b.Offsets[s], b.Offsets[s+1]
			copy(targets[lo:hi], labels[lo+1:hi])
			targets[hi-1] = -100
		}
		return c.CrossEntropy(out.Logits, targets)
	}
	return c.CrossEntropy(out.Logits, b.unpadInts(e.ints("labels")))
}

// checkGradients compares loss and the gradient of every parameter; with recompute, through checkpointed blocks.
func checkGradients(t *testing.T, k backend.Kernels, m model.Model, e *expected, b *batch, recompute bool) {
	require.NoError(t, model.TrainAll(m))
	defer model.FreezeAll(m)
	for _, p := range m.Params() {
		clear(p.Grad)
	}
	var arena grad.Arena
	c := grad.Record(k, &arena, false, 0)
	c.Checkpoint = recompute
	in := b.Batch
	in.Want = model.WantLogits
	if m.Config().Head == model.HeadNone {
		in.Want = model.WantPooled
	}
	out, err := m.Forward(c, &in)
	require.NoError(t, err)
	l := loss(t, c, m, e, b, out)
	near(t, "loss", "loss", e.floats("loss"), l.Data, 2e-5*max(1, math.Abs(float64(l.Data[0]))))
	c.Backward(l, nil)

	largest := 0.0
	for _, name := range e.src.Names() {
		if strings.HasPrefix(name, "grad.") {
			largest = max(largest, absMax(e.floats(name)))
		}
	}
	tied := map[*grad.Param]string{} // other names of shared matrices
	for _, l := range m.Linears() {
		tied[l.W] = l.Name + ".weight"
	}
	seen := map[string]bool{}
	for _, p := range m.Params() {
		name := "grad." + p.Name
		if !e.has(name) {
			name = "grad." + tied[p]
		}
		seen[name] = true
		require.True(t, e.has(name), "the reference has no gradient of %s", p.Name)
		nearGradientAmong(t, "gradient of "+p.Name, e.floats(name), p.Grad, largest)
	}
	for _, name := range e.src.Names() {
		if strings.HasPrefix(name, "grad.") {
			require.True(t, seen[name], "no parameter for %s", name)
		}
	}
}

// checkGreedy decodes with a cache.
func checkGreedy(t *testing.T, k backend.Kernels, m model.Model, e *expected) {
	for g := 0; e.has(fmt.Sprintf("generate.%d.prompt_ids", g)); g++ {
		at := fmt.Sprintf("generate.%d.", g)
		ids, want := e.ints(at+"prompt_ids"), e.ints(at+"output_ids")
		steps := e.floats(at + "step_logits")
		vocab := len(steps) / len(want)
		cache := model.NewCache(m.Config(), 1, 4) // small: it must grow
		var arena grad.Arena
		for i, w := range want {
			arena.Reset()
			in := model.Batch{IDs: ids, Offsets: []int32{0, int32(len(ids))}, Cache: cache, Want: model.WantLastLogits}
			out, err := m.Forward(grad.Infer(k, &arena), &in)
			require.NoError(t, err)
			near(t, "steps", fmt.Sprintf("logits of step %d", i), steps[i*vocab:(i+1)*vocab], out.Logits.Data, 1e-4)
			best := int32(0)
			for j, v := range out.Logits.Data {
				if v > out.Logits.Data[best] {
					best = int32(j)
				}
			}
			require.Equal(t, w, best, "token %d of %s", i, at)
			ids = []int32{best}
		}
	}
}
