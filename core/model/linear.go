package model

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// Linear is y = x·Wᵀ + b with W [Out, In]. Adapters wrap it.
type Linear struct {
	Name    string // module name, without ".weight"
	W, B    *grad.Param
	In, Out int
	// Transposed weights are stored [In, Out] (GPT-2's Conv1D).
	Transposed bool
	// Adapter, when not nil, replaces Apply; it may call Base.
	Adapter Adapter
}

// Adapter changes a linear layer (LoRA and kin).
type Adapter interface {
	// Apply computes the adapted layer's output, activation included.
	Apply(c *grad.Ctx, l *Linear, x *grad.Value, act backend.Activation) *grad.Value
}

// Apply computes act(x·Wᵀ + b), through the adapter when there is one.
func (l *Linear) Apply(c *grad.Ctx, x *grad.Value, act backend.Activation) *grad.Value {
	if l.Adapter != nil {
		return l.Adapter.Apply(c, l, x, act)
	}
	return l.Base(c, x, act)
}

// Base computes the layer without its adapter.
func (l *Linear) Base(c *grad.Ctx, x *grad.Value, act backend.Activation) *grad.Value {
	return c.Linear(x, l.W, l.B, act, l.Transposed)
}

// addTo computes residual + dropout(x·Wᵀ + b), in one value where no adapter stands between.
func (l *Linear) addTo(c *grad.Ctx, residual, x *grad.Value, drop float32) *grad.Value {
	if l.Adapter != nil {
		return c.Add(c.Dropout(l.Apply(c, x, backend.None), drop), residual)
	}
	return c.LinearAdd(x, l.W, l.B, l.Transposed, drop, residual)
}

// Embedding is a table of vectors, one row per id. Adapters wrap it.
type Embedding struct {
	Name string // module name, without ".weight"
	W    *grad.Param
	// Scale multiplies what is looked up (Gemma); 0 is 1.
	Scale float32
	// Adapter, when not nil, replaces Lookup; it may call Base.
	Adapter EmbeddingAdapter
}

// EmbeddingAdapter changes an embedding (LoRA).
type EmbeddingAdapter interface {
	Lookup(c *grad.Ctx, e *Embedding, ids []int32) *grad.Value
}

// Lookup returns the rows of ids [len(ids), width], through the adapter when there is one.
func (e *Embedding) Lookup(c *grad.Ctx, ids []int32) *grad.Value {
	if e.Adapter != nil {
		return e.Adapter.Lookup(c, e, ids)
	}
	return e.Base(c, ids)
}

// Base looks up without the adapter, scale included.
func (e *Embedding) Base(c *grad.Ctx, ids []int32) *grad.Value {
	x := c.Embedding(e.W, ids)
	if e.Scale != 0 && e.Scale != 1 {
		x = c.Scale(x, e.Scale)
	}
	return x
}

// norm is a LayerNorm or an RMSNorm with its parameters.
type norm struct {
	w, b    *grad.Param
	eps     float32
	rms     bool
	onePlus bool
}

// apply normalises rows; a nil norm does nothing.
func (n *norm) apply(c *grad.Ctx, x *grad.Value) *grad.Value {
	switch {
	case n == nil:
		return x
	case n.rms:
		return c.RMSNorm(x, n.w, n.eps, n.onePlus)
	}
	return c.LayerNorm(x, n.w, n.b, n.eps)
}
