package peft

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// virtual is prompt tuning (Lester et al., 2021), P-tuning (Liu et al., 2021) and prefix tuning (Li & Liang, 2021): a table of virtual
// tokens, [tokens, width], which a small network may produce while it is trained. Prompts are embeddings before the text; prefixes are
// keys and values before those of every layer.
type virtual struct {
	prefix  bool
	encoder encoder // nil: the table itself
	table   *grad.Param
}

// encoder is the network that makes the virtual tokens of P-tuning and projected prefixes.
type encoder interface {
	params() []*grad.Param
	apply(c *grad.Ctx, x *grad.Value) *grad.Value
}

const promptName = "prompt_embeddings" // in the adapter file

func newPrompt(m *Model, seed uint64) (prompt, error) {
	cfg := &m.cfg
	v := &virtual{prefix: cfg.Type == PrefixTuning}
	width, rows := cfg.TokenDim, cfg.VirtualTokens
	if v.prefix {
		width = cfg.NumLayers * 2 * cfg.TokenDim
	}
	r := rng(seed, promptName)
	encoded := cfg.Type == PTuning || v.prefix && cfg.PrefixProjection
	if !encoded || m.file != nil { // what is loaded is the encoder's output; the encoder itself is not saved
		v.table = newParam(promptName, rows, width)
		if cfg.Type == PromptTuning && m.file == nil {
			v.fromVocabulary(m, r)
		} else {
			normal(v.table, 1, r)
			if v.prefix {
				normal(v.table, 0.02, r) // a unit normal would drown the text's own keys
			}
		}
		return v, nil
	}
	v.table = newParam("prompt_encoder.embedding.weight", rows, cfg.TokenDim)
	normal(v.table, 1, r)
	const p = "prompt_encoder."
	switch {
	case v.prefix:
		v.encoder = mlp{backend.Tanh, []dense{newDense(p+"transform.0", cfg.TokenDim, cfg.EncoderHidden, r), newDense(p+"transform.2", cfg.EncoderHidden, width, r)}}
	case cfg.Reparametrise == "LSTM":
		if cfg.EncoderLayers < 1 || cfg.EncoderLayers > 16 {
			return nil, fmt.Errorf("encoder_num_layers: expected 1 to 16, got %d", cfg.EncoderLayers)
		}
		v.encoder = newLSTM(p, cfg.TokenDim, cfg.EncoderHidden, cfg.EncoderLayers, r)
	case cfg.Reparametrise == "MLP" || cfg.Reparametrise == "":
		h := cfg.EncoderHidden
		v.encoder = mlp{backend.ReLU, []dense{newDense(p+"mlp_head.0", cfg.TokenDim, h, r), newDense(p+"mlp_head.2", h, h, r), newDense(p+"mlp_head.4", h, width, r)}}
	default:
		return nil, fmt.Errorf("encoder_reparameterization_type: expected MLP or LSTM, got %q", cfg.Reparametrise)
	}
	return v, nil
}

// fromVocabulary starts the prompt from random words of the model, which works better than noise (Lester et al., section 3.2).
func (v *virtual) fromVocabulary(m *Model, r *rand.Rand) {
	dst := v.table.Values()
	es := m.base.Embeddings()
	if len(es) == 0 || es[0].W.T.Cols() != v.table.T.Cols() {
		normal(v.table, 0.02, r)
		return
	}
	words, cols := es[0].W.Values(), v.table.T.Cols()
	for i := 0; i < len(dst); i += cols {
		at := r.IntN(es[0].W.T.Rows()) * cols
		copy(dst[i:i+cols], words[at:at+cols])
	}
}

func (v *virtual) params() []*grad.Param {
	out := []*grad.Param{v.table}
	if v.encoder != nil {
		out = append(out, v.encoder.params()...)
	}
	return out
}

func (v *virtual) value(c *grad.Ctx) *grad.Value {
	x := c.Param(v.table)
	if v.encoder != nil {
		x = v.encoder.apply(c, x)
	}
	return x
}

func (v *virtual) file(m *Model) ([]tensor.Tensor, error) {
	if v.encoder == nil {
		t := v.table.T
		t.Name = promptName
		return []tensor.Tensor{t}, nil
	}
	k := backend.Generic(1)
	defer k.Close()
	var arena grad.Arena
	x := v.value(grad.Infer(k, &arena))
	return []tensor.Tensor{tensor.FromF32(promptName, slices.Clone(x.Data), x.Rows, x.Cols)}, nil
}

func (v *virtual) load(_ *Model, src checkpoint.Source) ([]string, error) {
	t, err := src.Tensor(promptName)
	if err != nil {
		return nil, err
	}
	if v.encoder != nil || !slices.Equal(t.Shape, v.table.T.Shape) {
		return nil, fmt.Errorf("%s: expected shape %v, got %v", promptName, v.table.T.Shape, t.Shape)
	}
	x, err := t.F32()
	if err != nil {
		return nil, err
	}
	copy(v.table.Values(), x)
	v.table.Changed()
	return []string{promptName}, nil
}

func (v *virtual) forward(m *Model, c *grad.Ctx, b *model.Batch) (model.Output, error) {
	if b.Prefix != nil || b.Embeds != nil {
		return model.Output{}, fmt.Errorf("%s: the batch brings embeddings or a prefix of its own", m.cfg.Type)
	}
	n := *b
	if v.prefix {
		x := v.value(c)
		d := m.cfg.TokenDim
		for i := range m.cfg.NumLayers {
			n.Prefix = append(n.Prefix, model.KeyValue{K: c.Columns(x, 1, 2*i*d, d), V: c.Columns(x, 1, (2*i+1)*d, d)})
		}
		return m.base.Forward(c, &n)
	}
	if b.Cache != nil && b.Cache.Len(0) > 0 { // the prompt is in there
		return m.base.Forward(c, b)
	}
	if len(b.Offsets) < 2 || int(b.Offsets[len(b.Offsets)-1]) != len(b.IDs) {
		return model.Output{}, fmt.Errorf("offsets must run to %d tokens", len(b.IDs))
	}
	vocab := m.base.Config().Vocab
	for i, id := range b.IDs {
		if id < 0 || int(id) >= vocab {
			return model.Output{}, fmt.Errorf("token %d: id %d is outside the vocabulary of %d", i, id, vocab)
		}
	}
	e := m.base.Embeddings()[0].Lookup(c, b.IDs)
	if b.Perturb != nil {
		e = b.Perturb(c, e)
		n.Perturb = nil
	}
	p := v.value(c)
	n.Embeds = c.Prefix(p, e, b.Offsets)
	n.IDs, n.Types, n.Positions = make([]int32, 0, n.Embeds.Rows), nil, nil
	n.Offsets = make([]int32, 1, len(b.Offsets))
	text := make([]int32, 0, len(b.IDs)) // rows of the text's own tokens
	for s := range b.Sequences() {
		lo, hi := b.Offsets[s], b.Offsets[s+1]
		n.IDs = append(n.IDs, make([]int32, p.Rows)...)
		for i := lo; i < hi; i++ {
			text = append(text, int32(len(n.IDs)))
			n.IDs = append(n.IDs, b.IDs[i])
		}
		if b.Types != nil {
			n.Types = append(append(n.Types, make([]int32, p.Rows)...), b.Types[lo:hi]...)
		}
		n.Offsets = append(n.Offsets, int32(len(n.IDs)))
	}
	if h := m.base.Config().Head; h == model.HeadToken || h == model.HeadMasked || h == model.HeadCausal {
		if !m.keepPrompt {
			n.Rows = text // callers count the tokens that they gave
		}
		if b.Rows != nil {
			n.Rows = make([]int32, len(b.Rows))
			for i, r := range b.Rows {
				if r < 0 || int(r) >= len(text) {
					return model.Output{}, fmt.Errorf("row %d: token %d of %d", i, r, len(text))
				}
				n.Rows[i] = text[r]
			}
		}
	}
	out, err := m.base.Forward(c, &n)
	if err != nil {
		return out, err
	}
	if m.keepPrompt {
		return out, nil
	}
	out.Last = c.Rows(out.Last, text)
	for i, l := range out.Layers {
		out.Layers[i] = c.Rows(l, text)
	}
	return out, nil
}

// dense is a linear layer of an encoder.
type dense struct{ w, b *grad.Param }

func newDense(name string, in, out int, r *rand.Rand) dense {
	d := dense{newParam(name+".weight", out, in), newParam(name+".bias", out)}
	kaiming(d.w, in, r)
	kaiming(d.b, in, r)
	return d
}

// mlp is layers with an activation between them.
type mlp struct {
	act    backend.Activation
	layers []dense
}

func (m mlp) params() []*grad.Param {
	var out []*grad.Param
	for _, l := range m.layers {
		out = append(out, l.w, l.b)
	}
	return out
}

func (m mlp) apply(c *grad.Ctx, x *grad.Value) *grad.Value {
	for i, l := range m.layers {
		act := m.act
		if i == len(m.layers)-1 {
			act = backend.None
		}
		x = c.Linear(x, l.w, l.b, act, false)
	}
	return x
}

// lstm is torch's bidirectional LSTM followed by a two-layer network.
type lstm struct {
	cells [][2]cell // per layer: forwards, backwards
	head  mlp
	width int
}

type cell struct{ in, state dense }

func newLSTM(prefix string, in, hidden, layers int, r *rand.Rand) *lstm {
	l := &lstm{width: hidden}
	for i := range layers {
		var pair [2]cell
		for j, suffix := range []string{"", "_reverse"} {
			at := fmt.Sprintf("_l%d%s", i, suffix)
			mk := func(kind string, cols int) dense {
				d := dense{newParam(prefix+"lstm_head.weight_"+kind+at, 4*hidden, cols), newParam(prefix+"lstm_head.bias_"+kind+at, 4*hidden)}
				kaiming(d.w, hidden, r)
				kaiming(d.b, hidden, r)
				return d
			}
			pair[j] = cell{mk("ih", in), mk("hh", hidden)}
		}
		l.cells = append(l.cells, pair)
		in = 2 * hidden
	}
	l.head = mlp{backend.ReLU, []dense{newDense(prefix+"mlp_head.0", 2*hidden, 2*hidden, r), newDense(prefix+"mlp_head.2", 2*hidden, l.cells[0][0].in.w.T.Cols(), r)}}
	return l
}

func (l *lstm) params() []*grad.Param {
	var out []*grad.Param
	for _, pair := range l.cells {
		for _, c := range pair {
			out = append(out, c.in.w, c.in.b, c.state.w, c.state.b)
		}
	}
	return append(out, l.head.params()...)
}

func (l *lstm) apply(c *grad.Ctx, x *grad.Value) *grad.Value {
	for _, pair := range l.cells {
		x = c.ConcatColumns(l.run(c, pair[0], x, false), l.run(c, pair[1], x, true))
	}
	return l.head.apply(c, x)
}

func (l *lstm) run(c *grad.Ctx, k cell, x *grad.Value, reverse bool) *grad.Value {
	h, s := c.Zeros(1, l.width), c.Zeros(1, l.width)
	out := make([]*grad.Value, x.Rows)
	for i := range out {
		t := i
		if reverse {
			t = len(out) - 1 - i
		}
		z := c.Add(c.Linear(c.SliceRows(x, t, t+1), k.in.w, k.in.b, backend.None, false), c.Linear(h, k.state.w, k.state.b, backend.None, false))
		gate := func(n int, act backend.Activation) *grad.Value {
			return c.Act(c.Columns(z, 1, n*l.width, l.width), act)
		}
		in, forget, cand, expose := gate(0, backend.Sigmoid), gate(1, backend.Sigmoid), gate(2, backend.Tanh), gate(3, backend.Sigmoid)
		s = c.Add(c.Mul(forget, s), c.Mul(in, cand))
		h = c.Mul(expose, c.Act(s, backend.Tanh))
		out[t] = h
	}
	return c.ConcatRows(out...)
}

func normal(p *grad.Param, std float64, r *rand.Rand) {
	for i, v := 0, p.Values(); i < len(v); i++ {
		v[i] = float32(r.NormFloat64() * std)
	}
}
