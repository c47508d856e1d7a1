package model

// ALBERT (Lan et al., 2020): BERT with a narrow word table and blocks that share their parameters in groups.
var albertFamily = &family{
	class: "Albert", prefix: "albert.", tied: true, heads: encoderHeads,
	read: func(c *Config, r *reader) {
		c.bertKeys(r)
		c.Act = r.act("hidden_act", "gelu_new")
		c.HiddenDropout = r.drop("hidden_dropout_prob", 0)
		c.EmbeddingDropout = c.HiddenDropout
		c.AttentionDropout = r.drop("attention_probs_dropout_prob", 0)
		c.ClassifierDropout = r.drop("classifier_dropout_prob", 0.1)
		c.Embedding = r.int("embedding_size", 128, 1, maxWidth)
		c.Groups = r.int("num_hidden_groups", 1, 1, maxLayers)
		c.Inner = r.int("inner_group_num", 1, 1, maxLayers)
		if c.Groups > max(c.Layers, 1) {
			r.fail("num_hidden_groups: expected at most %d, the number of layers, got %d", c.Layers, c.Groups)
		}
	},
	build: func(b *builder, n *net) {
		cfg, body, top := b.cfg, b.body(), b.top()
		e := b.bertEmbeddings(body.sub("embeddings"))
		encoder := body.sub("encoder")
		e.project = encoder.linear("embedding_hidden_mapping_in", cfg.Embedding, cfg.Hidden, true)
		groups := make([][]*encoderLayer, cfg.Groups)
		for i := range cfg.Layers {
			g := i * cfg.Groups / cfg.Layers
			if groups[g] == nil {
				b.layer = i
				for j := range cfg.Inner {
					groups[g] = append(groups[g], b.albertLayer(encoder.at("albert_layer_groups", g).at("albert_layers", j)))
				}
			}
			e.blocks = append(e.blocks, groups[g]...)
		}
		b.layer = cfg.Layers
		n.network, n.depth = e, len(e.blocks)
		if cfg.Head == HeadNone || cfg.Head == HeadSequence {
			n.pooler = body.headLinear("pooler", cfg.Hidden, cfg.Hidden, true)
		}
		switch cfg.Head {
		case HeadSequence:
			n.head = &head{pooler: true, between: cfg.ClassifierDropout, out: top.headLinear("classifier", cfg.Hidden, len(cfg.Labels), true)}
		case HeadToken:
			n.head = b.tokenHead(cfg.ClassifierDropout)
		case HeadMasked:
			n.head = b.maskedHead("predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias", e.words, cfg.Act, true, true, true)
		}
	},
}

func (b *builder) albertLayer(l scope) *encoderLayer {
	cfg, a := b.cfg, l.sub("attention")
	return &encoderLayer{
		attention: attention{a.linear("query", cfg.Hidden, cfg.Hidden, true), a.linear("key", cfg.Hidden, cfg.Hidden, true),
			a.linear("value", cfg.Hidden, cfg.Hidden, true), a.linear("dense", cfg.Hidden, cfg.Hidden, true)},
		norm1: a.layerNorm("LayerNorm", cfg.Hidden, true),
		up:    l.linear("ffn", cfg.Hidden, cfg.Intermediate, true),
		down:  l.linear("ffn_output", cfg.Intermediate, cfg.Hidden, true),
		norm2: l.layerNorm("full_layer_layer_norm", cfg.Hidden, true),
		drop1: cfg.HiddenDropout,
	}
}
