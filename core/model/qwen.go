package model

// Qwen2 (Yang et al., 2024): Llama with biases of queries, keys and values.
var qwen2Family = &family{
	class: "Qwen2", prefix: "model.", decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.llamaKeys(r, 0)
		c.MLPBias = false
		c.qwenKeys(r)
	},
	build: func(b *builder, n *net) { b.llama(n, true, false) },
}

// Qwen3 (2025): no biases by default, and an RMSNorm of each head's queries and keys.
var qwen3Family = &family{
	class: "Qwen3", prefix: "model.", decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.llamaKeys(r, 128)
		c.MLPBias = false
		c.qwenKeys(r)
	},
	build: func(b *builder, n *net) {
		cfg := b.cfg
		d := b.llama(n, cfg.AttentionBias, cfg.AttentionBias)
		b.headNorms(d.blocks, false)
	},
}

// headNorms gives blocks norms of queries and keys, per head.
func (b *builder) headNorms(blocks []*preNormLayer, onePlus bool) {
	for i, l := range blocks {
		b.layer = i
		a := b.body().at("layers", i).sub("self_attn")
		l.qNorm, l.kNorm = a.rmsNorm("q_norm", b.cfg.HeadDim, onePlus), a.rmsNorm("k_norm", b.cfg.HeadDim, onePlus)
	}
	b.layer = b.cfg.Layers
}

// qwenKeys reads rotation and windows: the upper layers slide when the config asks for it.
func (c *Config) qwenKeys(r *reader) {
	c.Rope = r.ropeBase(10000)
	from := r.int("max_window_layers", 28, 0, maxLength)
	if r.bool("use_sliding_window", false) {
		c.Window = r.int("sliding_window", 4096, 1, maxLength)
	}
	c.layerTypes(r, func(i int) bool { return c.Window == 0 || i < from })
}
