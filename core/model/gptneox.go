package model

// GPT-NeoX (Black et al., 2022): attention and feed-forward side by side, rotation of a part of each head, queries, keys and values
// stored head by head.
var neoxFamily = &family{
	class: "GPTNeoX", prefix: "gpt_neox.", decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.Hidden = r.int("hidden_size", required, 1, maxWidth)
		c.Layers = r.int("num_hidden_layers", required, 0, maxLayers)
		c.Heads = r.int("num_attention_heads", required, 1, maxHeads)
		c.Intermediate = r.int("intermediate_size", required, 1, maxWidth)
		c.MaxPositions = r.int("max_position_embeddings", 2048, 1, maxLength)
		c.Act = r.act("hidden_act", "gelu")
		c.NormEps = r.eps("layer_norm_eps", 1e-5)
		c.HiddenDropout = r.drop("hidden_dropout", 0)
		c.EmbeddingDropout = c.HiddenDropout
		c.AttentionDropout = r.drop("attention_dropout", 0)
		c.ClassifierDropout = r.drop("classifier_dropout", 0.1)
		c.AttentionBias = r.bool("attention_bias", true)
		c.Parallel = r.bool("use_parallel_residual", true)
		share := r.float("partial_rotary_factor", r.float("rotary_pct", 0.25, 0, 1), 0, 1)
		if c.Rope = r.ropeBase(r.float("rotary_emb_base", 10000, 1, 1e18)); c.Rope != nil && c.Rope.Partial == 1 {
			if sub := r.object("rope_parameters"); sub == nil || !sub.has("partial_rotary_factor") {
				c.Rope.Partial = share
			}
		}
	},
	build: func(b *builder, n *net) {
		cfg, body := b.cfg, b.body()
		d := &preNorm{words: body.words("embed_in"), blocks: make([]*preNormLayer, cfg.Layers)}
		for i := range d.blocks {
			b.layer = i
			l := body.at("layers", i)
			a, m := l.sub("attention"), l.sub("mlp")
			d.blocks[i] = &preNormLayer{
				norm1:       l.layerNorm("input_layernorm", cfg.Hidden, true),
				qkv:         a.linear("query_key_value", cfg.Hidden, 3*cfg.Hidden, cfg.AttentionBias),
				interleaved: true,
				attention:   attention{o: a.linear("dense", cfg.Hidden, cfg.Hidden, cfg.AttentionBias)},
				norm2:       l.layerNorm("post_attention_layernorm", cfg.Hidden, true),
				up:          m.linear("dense_h_to_4h", cfg.Hidden, cfg.Intermediate, true),
				down:        m.linear("dense_4h_to_h", cfg.Intermediate, cfg.Hidden, true),
				rope:        cfg.Rope,
			}
		}
		b.layer = cfg.Layers
		n.network = d
		n.final = body.layerNorm("final_layer_norm", cfg.Hidden, true)
		switch cfg.Head {
		case HeadToken:
			n.head = b.tokenHead(cfg.ClassifierDropout)
		case HeadCausal:
			n.head = b.causalHead("embed_out", d.words)
		default:
			n.head = b.decoderHead(d.words)
		}
	},
}
