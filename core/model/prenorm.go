package model

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// preNormLayer is a block with norms before attention and feed-forward: all decoders, and ModernBERT. What a family lacks is nil.
type preNormLayer struct {
	norm1, norm2 *norm
	post1, post2 *norm // norms of the outputs of attention and feed-forward (Gemma)

	attention         // separate products, or
	qkv       *Linear // one product: queries, keys and values side by side, or head by head when interleaved
	qNorm     *norm   // of each head's queries
	kNorm     *norm

	gate, up, down *Linear
	gateUp         *Linear // one product: gate, then up

	rope        *Rope
	window      int
	scale       float32 // of scores; 0 is the config's
	interleaved bool

	attentionDrop float32 // dropout of the attention's output, where the config's HiddenDropout is not it
}

// preNorm is a network of such blocks.
type preNorm struct {
	words     *Embedding
	positions *grad.Param // or nil
	norm      *norm       // of the embeddings, or nil
	blocks    []*preNormLayer
}

func (n *preNorm) embed(c *grad.Ctx, p *pass) *grad.Value {
	x := p.words(c, n.words)
	if n.positions != nil {
		x = c.Add(x, c.Embedding(n.positions, p.pos))
	}
	return c.Dropout(n.norm.apply(c, x), p.n.cfg.EmbeddingDropout)
}

func (n *preNorm) block(c *grad.Ctx, p *pass, layer int, x *grad.Value) *grad.Value {
	l, drop := n.blocks[layer], p.n.cfg.HiddenDropout
	a := l.attend(c, p, layer, l.norm1.apply(c, x))
	if p.n.cfg.Parallel {
		f := l.feed(c, p.n.cfg, l.norm2.apply(c, x))
		return l.down.addTo(c, l.o.addTo(c, x, a, drop), f, drop)
	}
	x = join(c, l.o, l.post1, x, a, max(drop, l.attentionDrop))
	return join(c, l.down, l.post2, x, l.feed(c, p.n.cfg, l.norm2.apply(c, x)), drop)
}

// join adds the output layer of a branch to the residual stream, through its norm where it has one.
func join(c *grad.Ctx, out *Linear, post *norm, x, branch *grad.Value, drop float32) *grad.Value {
	if post == nil {
		return out.addTo(c, x, branch, drop)
	}
	return c.Add(c.Dropout(post.apply(c, out.Apply(c, branch, backend.None)), drop), x)
}

// attend computes attention before its output layer.
func (l *preNormLayer) attend(c *grad.Ctx, p *pass, layer int, x *grad.Value) *grad.Value {
	cfg := p.n.cfg
	wide, narrow := cfg.Heads*cfg.HeadDim, cfg.KVHeads*cfg.HeadDim
	s := grad.AttentionSpec{Scale: l.scale, Causal: cfg.Decoder, Window: l.window, Softcap: cfg.Softcap, Dropout: cfg.AttentionDropout}
	var q, k, v *grad.Value
	switch {
	case l.qkv == nil:
		q, k, v = l.q.Apply(c, x, backend.None), l.k.Apply(c, x, backend.None), l.v.Apply(c, x, backend.None)
	case l.interleaved:
		y := l.qkv.Apply(c, x, backend.None)
		q, k, v = c.Columns(y, cfg.Heads, 0, cfg.HeadDim), c.Columns(y, cfg.Heads, cfg.HeadDim, cfg.HeadDim), c.Columns(y, cfg.Heads, 2*cfg.HeadDim, cfg.HeadDim)
	default:
		q = l.qkv.Apply(c, x, backend.None)
		k, v = q, q
		s.KAt, s.VAt = wide, wide+narrow
	}
	q = l.qNorm.apply(c, q)
	k = l.kNorm.apply(c, k)
	if l.rope != nil {
		q = p.rotate(c, q, l.rope, 0, cfg.Heads)
		k = p.rotate(c, k, l.rope, s.KAt, cfg.KVHeads)
	}
	return p.attend(c, layer, q, k, v, s)
}

// feed computes the feed-forward part before its output layer.
func (l *preNormLayer) feed(c *grad.Ctx, cfg *Config, x *grad.Value) *grad.Value {
	switch {
	case l.gateUp != nil:
		y := l.gateUp.Apply(c, x, backend.None)
		x = c.GLU(c.Columns(y, 1, 0, y.Cols/2), c.Columns(y, 1, y.Cols/2, y.Cols/2), cfg.Act)
	case l.gate != nil:
		x = c.GLU(l.gate.Apply(c, x, backend.None), l.up.Apply(c, x, backend.None), cfg.Act)
	default:
		x = l.up.Apply(c, x, cfg.Act)
	}
	return c.Dropout(x, cfg.InnerDropout)
}

// llamaBlocks makes blocks with Llama's names. qkvBias and oBias say which products have a bias.
func (b *builder) llamaBlocks(s scope, qkvBias, oBias bool) []*preNormLayer {
	cfg := b.cfg
	wide, narrow := cfg.Heads*cfg.HeadDim, cfg.KVHeads*cfg.HeadDim
	blocks := make([]*preNormLayer, cfg.Layers)
	for i := range blocks {
		b.layer = i
		l := s.at("layers", i)
		a, m := l.sub("self_attn"), l.sub("mlp")
		blocks[i] = &preNormLayer{
			norm1: l.rmsNorm("input_layernorm", cfg.Hidden, false),
			attention: attention{a.linear("q_proj", cfg.Hidden, wide, qkvBias), a.linear("k_proj", cfg.Hidden, narrow, qkvBias),
				a.linear("v_proj", cfg.Hidden, narrow, qkvBias), a.linear("o_proj", wide, cfg.Hidden, oBias)},
			norm2: l.rmsNorm("post_attention_layernorm", cfg.Hidden, false),
			gate:  m.linear("gate_proj", cfg.Hidden, cfg.Intermediate, cfg.MLPBias),
			up:    m.linear("up_proj", cfg.Hidden, cfg.Intermediate, cfg.MLPBias),
			down:  m.linear("down_proj", cfg.Intermediate, cfg.Hidden, cfg.MLPBias),
			rope:  cfg.Rope, window: cfg.windowOf(i),
		}
		if cfg.NoRope != nil && cfg.NoRope[i] {
			blocks[i].rope = nil
		}
	}
	b.layer = cfg.Layers
	return blocks
}

// windowOf is how far layer i sees; 0 is everything.
func (c *Config) windowOf(i int) int {
	if c.Full != nil && c.Full[i] {
		return 0
	}
	return c.Window
}

// decoderHead makes the heads of Llama and its kin.
func (b *builder) decoderHead(words *Embedding) *head {
	cfg, top := b.cfg, b.top()
	switch cfg.Head {
	case HeadSequence:
		return &head{pool: PoolLast, out: top.headLinear("score", cfg.Hidden, len(cfg.Labels), false)}
	case HeadToken:
		return &head{between: cfg.ClassifierDropout, out: top.headLinear("score", cfg.Hidden, len(cfg.Labels), true)}
	case HeadCausal:
		return b.causalHead("lm_head", words)
	}
	return nil
}

// causalHead makes the output layer over the vocabulary: the word table where they are tied, or where the file has no other.
func (b *builder) causalHead(name string, words *Embedding) *head {
	cfg, top := b.cfg, b.top()
	l := &Linear{Name: name, In: cfg.Hidden, Out: cfg.Vocab, W: words.W}
	if !cfg.TieWords && !b.opt.Random && !b.have[name+".weight"] {
		cfg.TieWords = true
	}
	if !cfg.TieWords {
		l.W = top.sub(name).param("weight", initNormal, true, cfg.Vocab, cfg.Hidden)
	}
	return &head{out: b.addLinear(l), scale: cfg.LogitScale, softcap: cfg.LogitSoftcap}
}

// llamaKeys reads the keys that Llama and its kin share. theta is the default base of the rotary embedding.
func (c *Config) llamaKeys(r *reader, headDim int) {
	c.Hidden = r.int("hidden_size", required, 1, maxWidth)
	c.Layers = r.int("num_hidden_layers", required, 0, maxLayers)
	c.Heads = r.int("num_attention_heads", required, 1, maxHeads)
	c.KVHeads = r.int("num_key_value_heads", c.Heads, 1, maxHeads)
	c.HeadDim = r.int("head_dim", headDim, 0, maxWidth)
	c.Intermediate = r.int("intermediate_size", required, 1, maxWidth)
	c.MaxPositions = r.int("max_position_embeddings", 2048, 1, maxLength)
	c.Act = r.act("hidden_act", "silu")
	c.NormEps = r.eps("rms_norm_eps", 1e-6)
	c.AttentionDropout = r.drop("attention_dropout", 0)
	c.AttentionBias = r.bool("attention_bias", false)
	c.MLPBias = r.bool("mlp_bias", false)
	c.ClassifierDropout = r.drop("classifier_dropout", 0.1)
}

// layerTypes reads which layers see everything; def tells for a config that does not say.
func (c *Config) layerTypes(r *reader, def func(i int) bool) {
	var types []string
	if r.get("layer_types", &types, "a list of layer types") && len(types) != c.Layers {
		r.fail("layer_types: expected %d, got %d", c.Layers, len(types))
		return
	}
	c.Full = make([]bool, c.Layers)
	for i := range c.Full {
		if types == nil {
			c.Full[i] = def(i)
			continue
		}
		switch types[i] {
		case "full_attention":
			c.Full[i] = true
		case "sliding_attention":
		default:
			r.fail("layer_types: unknown type %q", types[i])
		}
	}
}

// ropePair reads the rotary embeddings of full and of sliding layers, in transformers 5's form or in the older one.
func (r *reader) ropePair(globalKey string, global float64, localKey string, local float64) (full, sliding *Rope) {
	if !r.has("rope_parameters") {
		g, l := &reader{}, &reader{}
		if r.has("rope_scaling") {
			g = r.object("rope_scaling")
		}
		return g.rope(r, r.float(globalKey, global, 1, 1e18)), l.rope(r, r.float(localKey, local, 1, 1e18))
	}
	both := r.object("rope_parameters")
	if both == nil {
		return nil, nil
	}
	of := func(key string, theta float64) *Rope {
		if !both.has(key) {
			return (&reader{}).rope(r, theta)
		}
		e := both.object(key).rope(r, theta)
		if both.err != nil {
			r.fail("rope_parameters: %w", both.err)
		}
		return e
	}
	return of("full_attention", global), of("sliding_attention", local)
}
