package peft

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// embedding is LoRA on a table of vectors: E[id] + s·A[:, id]ᵀ·Bᵀ with A [r, rows], B [width, r]. A starts at zero.
type embedding struct {
	e     *model.Embedding
	a, b  *grad.Param
	r     int
	scale float32
	base  tensor.Tensor // while merged
}

func newEmbedding(cfg *Config, e *model.Embedding, r *rand.Rand) (*embedding, error) {
	lin := &model.Linear{Name: e.Name, In: e.W.T.Rows(), Out: e.W.T.Cols()}
	lo, err := newLoRA(cfg, lin, r)
	if err != nil {
		return nil, err
	}
	if cfg.DoRA {
		return nil, fmt.Errorf("dora on embeddings is not supported")
	}
	name := "base_model.model." + e.Name
	o := &embedding{e: e, r: lo.r, scale: lo.scale,
		a: newParam(name+".lora_embedding_A", lo.r, e.W.T.Rows()), b: newParam(name+".lora_embedding_B", e.W.T.Cols(), lo.r)}
	normal(o.b, 1, r)
	return o, nil
}

// Lookup implements model.EmbeddingAdapter.
func (o *embedding) Lookup(c *grad.Ctx, e *model.Embedding, ids []int32) *grad.Value {
	y := e.Base(c, ids)
	rows, width, r := len(ids), e.W.T.Cols(), o.r
	s := o.scale
	if e.Scale != 0 {
		s *= e.Scale
	}
	h := c.Scratch(rows * r)
	a, n := o.a.Values(), e.W.T.Rows()
	for i, id := range ids {
		for j := range r {
			h[i*r+j] = a[j*n+int(id)]
		}
	}
	out := c.New(rows, width)
	copy(out.Data, y.Data)
	c.K.MatMul(backend.MatMulArgs{M: rows, N: width, K: r, A: h, LDA: r, B: o.b.Values(), LDB: r, TransB: true, C: out.Data, LDC: width,
		Accumulate: true, Alpha: s})
	return c.OpParam(out, func() {
		dy := out.Grad
		if g := c.GradOf(y); g != nil {
			c.K.Add(g, g, dy)
		}
		if o.b.Trainable() {
			c.K.MatMul(backend.MatMulArgs{M: width, N: r, K: rows, A: dy, LDA: width, TransA: true, B: h, LDB: r, C: o.b.Grad, LDC: r,
				Accumulate: true, Alpha: s})
		}
		if o.a.Trainable() {
			dh := c.Scratch(rows * r)
			c.K.MatMul(backend.MatMulArgs{M: rows, N: r, K: width, A: dy, LDA: width, B: o.b.Values(), LDB: r, C: dh, LDC: r, Alpha: s})
			for i, id := range ids {
				for j := range r {
					o.a.Grad[j*n+int(id)] += dh[i*r+j]
				}
			}
		}
	}, o.a.Trainable() || o.b.Trainable(), y)
}

func (o *embedding) baseName() string { return "base_model.model." + o.e.Name + ".base_layer.weight" }

// setBase takes over the table that was saved with an adapter, where it is not the base's own.
func (o *embedding) setBase(t tensor.Tensor) error {
	if t.Data == nil {
		return nil
	}
	if !slices.Equal(t.Shape, o.e.W.T.Shape) {
		return fmt.Errorf("%s: expected shape %v, got %v", o.baseName(), o.e.W.T.Shape, t.Shape)
	}
	v, err := t.F32()
	if err != nil {
		return err
	}
	if !slices.Equal(v, o.e.W.Values()) {
		o.e.W.Replace(tensor.FromF32(o.e.W.Name, slices.Clone(v), t.Shape...))
	}
	return nil
}

func (o *embedding) merge() error {
	o.base = o.e.W.T
	v, err := backend.Dequantize(o.base)
	if err != nil {
		return err
	}
	n, width := o.e.W.T.Rows(), o.e.W.T.Cols()
	w := make([]float32, len(v))
	copy(w, v)
	a, b := o.a.Values(), o.b.Values()
	for i := range n {
		for k := range width {
			var s float64
			for j := range o.r {
				s += float64(b[k*o.r+j]) * float64(a[j*n+i])
			}
			w[i*width+k] += float32(float64(o.scale) * s)
		}
	}
	o.e.W.Replace(tensor.FromF32(o.base.Name, w, o.base.Shape...))
	o.e.Adapter = nil
	return nil
}

func (o *embedding) unmerge() {
	o.e.W.Replace(o.base)
	o.e.Adapter = o
}
