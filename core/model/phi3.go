package model

// Phi-3 (Abdin et al., 2024): Llama with queries, keys and values in one product, and gate and up in another.
var phi3Family = &family{
	class: "Phi3", prefix: "model.", decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.llamaKeys(r, 0)
		c.HiddenDropout = r.drop("resid_pdrop", 0)
		c.EmbeddingDropout = r.drop("embd_pdrop", 0)
		c.Window = r.int("sliding_window", 0, 1, maxLength)
		c.Rope = r.ropeBase(10000)
		if c.Rope != nil && c.Rope.Kind == "yarn" { // what early checkpoints call it
			c.Rope.Kind = "longrope"
		}
	},
	build: func(b *builder, n *net) {
		cfg, body := b.cfg, b.body()
		d := &preNorm{words: body.words("embed_tokens"), blocks: make([]*preNormLayer, cfg.Layers)}
		for i := range d.blocks {
			b.layer = i
			l := body.at("layers", i)
			a, m := l.sub("self_attn"), l.sub("mlp")
			d.blocks[i] = &preNormLayer{
				norm1:     l.rmsNorm("input_layernorm", cfg.Hidden, false),
				qkv:       a.linear("qkv_proj", cfg.Hidden, (cfg.Heads+2*cfg.KVHeads)*cfg.HeadDim, false),
				attention: attention{o: a.linear("o_proj", cfg.Heads*cfg.HeadDim, cfg.Hidden, false)},
				norm2:     l.rmsNorm("post_attention_layernorm", cfg.Hidden, false),
				gateUp:    m.linear("gate_up_proj", cfg.Hidden, 2*cfg.Intermediate, false),
				down:      m.linear("down_proj", cfg.Intermediate, cfg.Hidden, false),
				rope:      cfg.Rope, window: cfg.windowOf(i),
			}
		}
		b.layer = cfg.Layers
		n.network = d
		n.final = body.rmsNorm("norm", cfg.Hidden, false)
		n.head = b.decoderHead(d.words)
	},
}
