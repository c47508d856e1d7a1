package model

// ModernBERT (Warner et al., 2024): an encoder with norms before, rotary positions, gated feed-forward, and windows in two of three layers.
var modernbertFamily = &family{
	class: "ModernBert", prefix: "model.", tied: true, heads: encoderHeads,
	read: func(c *Config, r *reader) {
		c.Hidden = r.int("hidden_size", required, 1, maxWidth)
		c.Layers = r.int("num_hidden_layers", required, 0, maxLayers)
		c.Heads = r.int("num_attention_heads", required, 1, maxHeads)
		c.Intermediate = r.int("intermediate_size", required, 1, maxWidth)
		c.MaxPositions = r.int("max_position_embeddings", 8192, 1, maxLength)
		c.Act = r.act("hidden_activation", "gelu")
		c.NormEps = r.eps("norm_eps", 1e-5)
		c.NormBias = r.bool("norm_bias", false)
		c.AttentionBias = r.bool("attention_bias", false)
		c.MLPBias = r.bool("mlp_bias", false)
		c.AttentionDropout = r.drop("attention_dropout", 0)
		c.EmbeddingDropout = r.drop("embedding_dropout", 0)
		c.InnerDropout = r.drop("mlp_dropout", 0)
		c.ClassifierDropout = r.drop("classifier_dropout", 0)
		c.ClassifyBias = r.bool("classifier_bias", false)
		c.ClassifyAct = r.act("classifier_activation", "gelu")
		c.DecoderBias = r.bool("decoder_bias", true)
		switch c.ClassifyPool = Pooling(r.string("classifier_pooling", "cls")); c.ClassifyPool {
		case PoolCLS, PoolMean:
		default:
			r.fail("classifier_pooling: expected cls or mean, got %q", c.ClassifyPool)
		}
		c.Window = r.int("local_attention", 128, 2, maxLength) / 2
		every := r.int("global_attn_every_n_layers", 3, 1, maxLayers)
		c.layerTypes(r, func(i int) bool { return i%every == 0 })
		c.Rope, c.LocalRope = r.ropePair("global_rope_theta", 160000, "local_rope_theta", 10000)
	},
	build: func(b *builder, n *net) {
		cfg, body, top := b.cfg, b.body(), b.top()
		e := &preNorm{words: body.sub("embeddings").words("tok_embeddings"), blocks: make([]*preNormLayer, cfg.Layers)}
		e.norm = body.sub("embeddings").layerNorm("norm", cfg.Hidden, cfg.NormBias)
		for i := range e.blocks {
			b.layer = i
			l := body.at("layers", i)
			a, m := l.sub("attn"), l.sub("mlp")
			block := &preNormLayer{
				qkv:       a.linear("Wqkv", cfg.Hidden, 3*cfg.Hidden, cfg.AttentionBias),
				attention: attention{o: a.linear("Wo", cfg.Hidden, cfg.Hidden, cfg.AttentionBias)},
				norm2:     l.layerNorm("mlp_norm", cfg.Hidden, cfg.NormBias),
				gateUp:    m.linear("Wi", cfg.Hidden, 2*cfg.Intermediate, cfg.MLPBias),
				down:      m.linear("Wo", cfg.Intermediate, cfg.Hidden, cfg.MLPBias),
				rope:      cfg.LocalRope, window: cfg.windowOf(i), attentionDrop: cfg.AttentionDropout,
			}
			if i > 0 { // the first block reads what the embeddings' norm has normalised
				block.norm1 = l.layerNorm("attn_norm", cfg.Hidden, cfg.NormBias)
			}
			if cfg.Full[i] {
				block.rope = cfg.Rope
			}
			e.blocks[i] = block
		}
		b.layer = cfg.Layers
		n.network = e
		n.final = body.layerNorm("final_norm", cfg.Hidden, cfg.NormBias)
		switch cfg.Head {
		case HeadNone:
			return
		case HeadMasked:
			n.head = b.maskedHead("head.dense", "head.norm", "decoder", "decoder.bias", e.words, cfg.ClassifyAct, cfg.ClassifyBias, cfg.NormBias, cfg.DecoderBias)
			return
		}
		n.head = &head{dense: top.sub("head").headLinear("dense", cfg.Hidden, cfg.Hidden, cfg.ClassifyBias), act: cfg.ClassifyAct,
			norm: top.sub("head").makeNorm("norm", cfg.Hidden, cfg.NormBias, true), between: cfg.ClassifierDropout,
			out: top.headLinear("classifier", cfg.Hidden, len(cfg.Labels), true)}
		if cfg.Head == HeadSequence {
			n.head.pool = cfg.ClassifyPool
		}
	},
}
