package model

// GPT-2 (Radford et al., 2019): learned positions, LayerNorm, weights stored [in, out].
var gpt2Family = &family{
	class: "GPT2", prefix: "transformer.", tied: true, decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.Hidden = r.int("n_embd", required, 1, maxWidth)
		c.Layers = r.int("n_layer", required, 0, maxLayers)
		c.Heads = r.int("n_head", required, 1, maxHeads)
		c.Intermediate = r.int("n_inner", 4*c.Hidden, 1, maxWidth)
		c.MaxPositions = r.int("n_positions", r.int("n_ctx", 1024, 1, maxLength), 1, maxLength)
		c.AbsolutePositions = true
		c.Act = r.act("activation_function", "gelu_new")
		c.NormEps = r.eps("layer_norm_epsilon", 1e-5)
		c.HiddenDropout = r.drop("resid_pdrop", 0.1)
		c.EmbeddingDropout = r.drop("embd_pdrop", 0.1)
		c.AttentionDropout = r.drop("attn_pdrop", 0.1)
		c.ClassifierDropout = r.drop("classifier_dropout", r.float("hidden_dropout", 0.1, 0, 1))
		c.InverseLayer = r.bool("scale_attn_by_inverse_layer_idx", false)
		if !r.bool("scale_attn_weights", true) {
			c.AttentionScale = 1
		}
	},
	build: func(b *builder, n *net) {
		cfg, body := b.cfg, b.body()
		d := &preNorm{words: body.words("wte"), positions: body.table("wpe", cfg.MaxPositions, cfg.Hidden), blocks: make([]*preNormLayer, cfg.Layers)}
		for i := range d.blocks {
			b.layer = i
			l := body.at("h", i)
			d.blocks[i] = &preNormLayer{
				norm1:     l.layerNorm("ln_1", cfg.Hidden, true),
				qkv:       l.sub("attn").conv1D("c_attn", cfg.Hidden, 3*cfg.Hidden),
				attention: attention{o: l.sub("attn").conv1D("c_proj", cfg.Hidden, cfg.Hidden)},
				norm2:     l.layerNorm("ln_2", cfg.Hidden, true),
				up:        l.sub("mlp").conv1D("c_fc", cfg.Hidden, cfg.Intermediate),
				down:      l.sub("mlp").conv1D("c_proj", cfg.Intermediate, cfg.Hidden),
			}
			if cfg.InverseLayer {
				d.blocks[i].scale = cfg.attentionScale() / float32(i+1)
			}
		}
		b.layer = cfg.Layers
		n.network = d
		n.final = body.layerNorm("ln_f", cfg.Hidden, true)
		if cfg.Head == HeadToken {
			n.head = b.tokenHead(cfg.ClassifierDropout)
		} else {
			n.head = b.decoderHead(d.words)
		}
	},
}
