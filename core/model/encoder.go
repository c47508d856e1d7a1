package model

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// attention is the four products of an attention layer.
type attention struct{ q, k, v, o *Linear }

// project computes queries, keys and values: one product side by side where all three are plain constants, otherwise three.
func (l *encoderLayer) project(c *grad.Ctx, x *grad.Value) (q, k, v *grad.Value, s grad.AttentionSpec) {
	if l.joined != nil && l.q.Adapter == nil && l.k.Adapter == nil && l.v.Adapter == nil {
		if y := c.Stacked(x, l.joined); y != nil {
			s.KAt, s.VAt = l.q.Out, l.q.Out+l.k.Out
			return y, y, y, s
		}
	}
	return l.q.Apply(c, x, backend.None), l.k.Apply(c, x, backend.None), l.v.Apply(c, x, backend.None), s
}

// join3 lets the three products of each block run as one.
func join3(blocks []*encoderLayer) {
	for _, l := range blocks {
		if !l.q.Transposed {
			l.joined = grad.NewStack([]*grad.Param{l.q.W, l.k.W, l.v.W}, []*grad.Param{l.q.B, l.k.B, l.v.B})
		}
	}
}

// encoderLayer is a block of the BERT kind: attention and feed-forward, each with a residual and a norm after it.
type encoderLayer struct {
	attention
	norm1    *norm
	up, down *Linear
	norm2    *norm
	joined   *grad.Stack // q, k and v as one product, or nil
	// Dropout of the outputs of attention and feed-forward.
	drop1, drop2 float32
}

// finish computes the block from its input and the attention over it.
func (l *encoderLayer) finish(c *grad.Ctx, cfg *Config, x, a *grad.Value) *grad.Value {
	x = l.norm1.apply(c, l.o.addTo(c, x, a, l.drop1))
	if l.up.Adapter == nil && l.down.Adapter == nil && l.up.Transposed == l.down.Transposed {
		x = c.FeedForward(x, l.up.W, l.up.B, l.down.W, l.down.B, l.up.Transposed, cfg.Act, l.drop2)
	} else {
		x = l.down.addTo(c, x, l.up.Apply(c, x, cfg.Act), l.drop2)
	}
	return l.norm2.apply(c, x)
}

// encoder is a network of such blocks with plain attention: BERT and most of its kin.
type encoder struct {
	words     *Embedding
	positions *grad.Param // or nil
	types     *grad.Param // or nil
	norm      *norm
	project   *Linear // from the table's width to the network's, or nil
	blocks    []*encoderLayer
	bias      *grad.Param // relative attention bias [buckets, heads], or nil
	bucket    func(distance int) int
}

func (e *encoder) embed(c *grad.Ctx, p *pass) *grad.Value {
	cfg := p.n.cfg
	x := c.Compact(func() *grad.Value {
		x := p.words(c, e.words)
		if e.types != nil {
			x = c.Add(x, c.Embedding(e.types, p.types()))
		}
		if e.positions != nil {
			x = c.Add(x, c.Embedding(e.positions, p.pos))
		}
		x = c.Dropout(e.norm.apply(c, x), cfg.EmbeddingDropout)
		if e.project != nil {
			x = e.project.Apply(c, x, backend.None)
		}
		return x
	})
	if e.bias != nil {
		p.bias, p.biasAt = c.RelativeBias(e.bias, p.seqs, e.bucket)
		p.shared = append(p.shared, p.bias)
	}
	return x
}

func (e *encoder) block(c *grad.Ctx, p *pass, layer int, x *grad.Value) *grad.Value {
	cfg, l := p.n.cfg, e.blocks[layer]
	q, k, v, s := l.project(c, x)
	s.Dropout, s.Bias, s.BiasAt = cfg.AttentionDropout, p.bias, p.biasAt
	return l.finish(c, cfg, x, p.attend(c, layer, q, k, v, s))
}

// bertBlocks makes blocks with BERT's names.
func (b *builder) bertBlocks(s scope, q, k, v string) []*encoderLayer {
	cfg := b.cfg
	blocks := make([]*encoderLayer, cfg.Layers)
	inner := cfg.Heads * cfg.HeadDim
	for i := range blocks {
		b.layer = i
		l := s.at("layer", i)
		self := l.sub("attention.self")
		blocks[i] = &encoderLayer{
			attention: attention{self.linear(q, cfg.Hidden, inner, true), self.linear(k, cfg.Hidden, inner, true),
				self.linear(v, cfg.Hidden, inner, true), l.sub("attention.output").linear("dense", inner, cfg.Hidden, true)},
			norm1: l.sub("attention.output").layerNorm("LayerNorm", cfg.Hidden, true),
			up:    l.sub("intermediate").linear("dense", cfg.Hidden, cfg.Intermediate, true),
			down:  l.sub("output").linear("dense", cfg.Intermediate, cfg.Hidden, true),
			norm2: l.sub("output").layerNorm("LayerNorm", cfg.Hidden, true),
			drop1: cfg.HiddenDropout, drop2: cfg.HiddenDropout,
		}
	}
	b.layer = cfg.Layers
	return blocks
}

// bertEmbeddings makes the tables with BERT's names.
func (b *builder) bertEmbeddings(s scope) *encoder {
	cfg := b.cfg
	e := &encoder{words: s.words("word_embeddings")}
	if cfg.AbsolutePositions {
		e.positions = s.table("position_embeddings", cfg.MaxPositions, cfg.Embedding)
	}
	if cfg.Types > 0 {
		e.types = s.table("token_type_embeddings", cfg.Types, cfg.Embedding)
	}
	e.norm = s.layerNorm("LayerNorm", cfg.Embedding, true)
	return e
}

// bertKeys reads the keys that BERT and most encoders share.
func (c *Config) bertKeys(r *reader) {
	c.Hidden = r.int("hidden_size", required, 1, maxWidth)
	c.Layers = r.int("num_hidden_layers", required, 0, maxLayers)
	c.Heads = r.int("num_attention_heads", required, 1, maxHeads)
	c.Intermediate = r.int("intermediate_size", required, 1, maxWidth)
	c.MaxPositions = r.int("max_position_embeddings", 512, 1, maxLength)
	c.AbsolutePositions = true
	c.Types = r.int("type_vocab_size", 2, 0, maxVocab)
	c.Act = r.act("hidden_act", "gelu")
	c.NormEps = r.eps("layer_norm_eps", 1e-12)
	c.HiddenDropout = r.drop("hidden_dropout_prob", 0.1)
	c.AttentionDropout = r.drop("attention_probs_dropout_prob", 0.1)
	c.EmbeddingDropout = c.HiddenDropout
	c.ClassifierDropout = r.drop("classifier_dropout", float64(c.HiddenDropout))
	c.PoolerAct = backend.Tanh
	if t := r.string("position_embedding_type", "absolute"); t != "absolute" {
		r.fail("position_embedding_type: only absolute is supported, got %q", t)
	}
}
