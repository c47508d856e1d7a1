package model

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// attention is the four products of an attention layer.
type attention struct{ q, k, v, o *Linear }

// encoderLayer is a block of the BERT kind: attention and feed-forward, each with a residual and a norm after it.
type encoderLayer struct {
	attention
	norm1    *norm
	up, down *Linear
	norm2    *norm
	// Dropout of the outputs of attention and feed-forward.
	drop1, drop2 float32
}

// run computes the block; attend is the family's attention.
func (l *encoderLayer) run(c *grad.Ctx, cfg *Config, x *grad.Value, attend func(q, k, v *grad.Value) *grad.Value) *grad.Value {
	a := attend(l.q.Apply(c, x, backend.None), l.k.Apply(c, x, backend.None), l.v.Apply(c, x, backend.None))
	x = l.norm1.apply(c, l.o.addTo(c, x, a, l.drop1))
	return l.norm2.apply(c, l.down.addTo(c, x, l.up.Apply(c, x, cfg.Act), l.drop2))
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
	if e.bias != nil {
		p.bias, p.biasAt = c.RelativeBias(e.bias, p.seqs, e.bucket)
		p.shared = append(p.shared, p.bias)
	}
	return x
}

func (e *encoder) block(c *grad.Ctx, p *pass, layer int, x *grad.Value) *grad.Value {
	cfg := p.n.cfg
	return e.blocks[layer].run(c, cfg, x, func(q, k, v *grad.Value) *grad.Value {
		return p.attend(c, layer, q, k, v, grad.AttentionSpec{Dropout: cfg.AttentionDropout, Bias: p.bias, BiasAt: p.biasAt})
	})
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
