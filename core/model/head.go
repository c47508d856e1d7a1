package model

import (
	"math"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// head turns hidden states into logits: pooling, dropout, a dense layer with norm, dropout, the output layer; each may be missing.
type head struct {
	pool    Pooling // of sequence heads: PoolCLS, PoolLast or PoolMean; "" for one row per token
	pooler  bool    // read the pooler's output
	before  float32 // dropout
	dense   *Linear
	act     backend.Activation
	norm    *norm
	between float32 // dropout
	out     *Linear
	scale   float32 // of logits; 0 is 1
	softcap float32 // of logits
}

// finish computes the outputs that are wanted beyond hidden states.
func (n *net) finish(c *grad.Ctx, p *pass, out *Output) {
	b, x := p.b, out.Last
	h := n.head
	if n.pooler != nil && (h != nil && h.pooler && b.Want&WantLogits != 0 || b.Want&(WantHidden|WantPooled) != 0) {
		out.Pooler = n.pooler.Apply(c, c.Rows(x, p.rows(false)), n.cfg.PoolerAct)
	}
	if b.Want&WantPooled != 0 {
		out.Pooled = p.pool(c, x, n.cfg.pooling())
	}
	if h == nil || b.Want&(WantLogits|WantLastLogits|WantLoss) == 0 {
		return
	}
	switch {
	case h.pooler:
		x = out.Pooler
	case h.pool != "":
		x = p.pool(c, x, h.pool)
	case b.Want&(WantLogits|WantLoss) == 0:
		x = c.Rows(x, p.rows(true))
	case b.Rows != nil:
		x = c.Rows(x, b.Rows)
	}
	x = h.enter(c, x)
	if b.Want&WantLoss != 0 {
		out.Loss, out.LossSum = h.loss(c, x, b)
	}
	if b.Want&(WantLogits|WantLastLogits) != 0 {
		out.Logits = h.leave(c, x)
	}
}

// enter computes what comes before the output layer.
func (h *head) enter(c *grad.Ctx, x *grad.Value) *grad.Value {
	x = c.Dropout(x, h.before)
	if h.dense != nil {
		x = h.norm.apply(c, h.dense.Apply(c, x, h.act))
	}
	return c.Dropout(x, h.between)
}

// loss is the weighted cross-entropy of the output layer: without its logits where it is a plain constant.
func (h *head) loss(c *grad.Ctx, x *grad.Value, b *Batch) (*grad.Value, float64) {
	l := h.out
	if l.Adapter == nil && !l.Transposed && !l.W.Trainable() && !l.B.Trainable() {
		return c.OutputLoss(x, l.W, l.B, grad.OutputLossSpec{Targets: b.Targets, Scale: h.scale, Softcap: h.softcap, Weight: b.LossWeight})
	}
	n := 0
	for _, t := range b.Targets {
		if t >= 0 {
			n++
		}
	}
	mean := c.CrossEntropy(h.leave(c, x), b.Targets)
	return c.Scale(mean, b.LossWeight*float32(n)), float64(mean.Data[0]) * float64(n)
}

// leave computes the logits.
func (h *head) leave(c *grad.Ctx, x *grad.Value) *grad.Value {
	x = h.out.Apply(c, x, backend.None)
	if h.scale != 0 && h.scale != 1 {
		x = c.Scale(x, h.scale)
	}
	if h.softcap > 0 {
		x = c.Scale(c.Act(c.Scale(x, 1/h.softcap), backend.Tanh), h.softcap)
	}
	return x
}

// pool reduces the tokens of each sequence to one row.
func (p *pass) pool(c *grad.Ctx, x *grad.Value, how Pooling) *grad.Value {
	switch how {
	case PoolCLS:
		return c.Rows(x, p.rows(false))
	case PoolLast:
		return c.Rows(x, p.rows(true))
	case PoolMax:
		return c.MaxPool(x, p.b.Offsets)
	}
	return c.MeanPool(x, p.b.Offsets)
}

// pooling is the sentence embedding's, by default the mean for encoders and the last token for decoders.
func (c *Config) pooling() Pooling {
	switch {
	case c.Pooling != "":
		return c.Pooling
	case c.Decoder:
		return PoolLast
	}
	return PoolMean
}

func (c *Config) attentionScale() float32 {
	if c.AttentionScale != 0 {
		return c.AttentionScale
	}
	return float32(1 / math.Sqrt(float64(c.HeadDim)))
}

// tokenHead makes the head of a model that classifies tokens by one layer.
func (b *builder) tokenHead(drop float32) *head {
	return &head{between: drop, out: b.top().headLinear("classifier", b.cfg.Hidden, len(b.cfg.Labels), true)}
}

// maskedHead makes a masked-LM head: dense, activation, norm, and an output layer over the vocabulary that shares the word table when the
// config ties them. bias is where the output layer's bias is stored, seen from the top.
func (b *builder) maskedHead(dense, norm, out string, bias string, words *Embedding, act backend.Activation, denseBias, normBias, outBias bool) *head {
	cfg, top := b.cfg, b.top()
	h := &head{dense: top.headLinear(dense, cfg.Hidden, cfg.Embedding, denseBias), act: act, norm: top.makeNorm(norm, cfg.Embedding, normBias, true)}
	h.out = &Linear{Name: out, In: cfg.Embedding, Out: cfg.Vocab, W: words.W}
	if !cfg.TieWords {
		h.out.W = top.sub(out).param("weight", initNormal, true, cfg.Vocab, cfg.Embedding)
	}
	if outBias {
		if !cfg.TieWords && b.have[out+".bias"] { // not tied to the head's own bias either
			bias = out + ".bias"
		}
		h.out.B = top.param(bias, initZero, true, cfg.Vocab)
	}
	b.addLinear(h.out)
	return h
}
