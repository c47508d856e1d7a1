package model

import "math"

// Gemma 3, text (2025): norms with weight + 1 before and after each half of a block, norms of queries and keys, scaled embeddings, five
// sliding layers for each full one, each kind with a rotation of its own. With use_bidirectional_attention it is an encoder.
var gemma3Family = &family{
	class: "Gemma3", prefix: "model.", others: []string{"language_model.model.", "model.language_model."}, tied: true, decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.llamaKeys(r, 256)
		c.Act = r.act("hidden_activation", "gelu_pytorch_tanh")
		c.MLPBias = false
		c.EmbedScale = float32(math.Sqrt(float64(c.Hidden)))
		c.AttentionScale = float32(1 / math.Sqrt(r.float("query_pre_attn_scalar", 256, 1e-6, 1e9)))
		// attn_logit_softcapping is left over from Gemma 2: transformers does not apply it, norms of queries and keys have taken its place.
		c.LogitSoftcap = float32(r.float("final_logit_softcapping", 0, 0, 1e9))
		c.Window = r.int("sliding_window", 4096, 1, maxLength)
		if r.bool("use_bidirectional_attention", false) {
			c.Decoder, c.Window = false, max(c.Window/2, 1)
			if c.Pooling == "" {
				c.Pooling = PoolMean
			}
		}
		every := r.int("_sliding_window_pattern", r.int("sliding_window_pattern", 6, 1, maxLayers), 1, maxLayers)
		c.layerTypes(r, func(i int) bool { return (i+1)%every == 0 })
		c.Rope, c.LocalRope = r.ropePair("rope_theta", 1000000, "rope_local_base_freq", 10000)
	},
	build: func(b *builder, n *net) {
		cfg, body := b.cfg, b.body()
		wide, narrow := cfg.Heads*cfg.HeadDim, cfg.KVHeads*cfg.HeadDim
		d := &preNorm{words: body.words("embed_tokens"), blocks: make([]*preNormLayer, cfg.Layers)}
		for i := range d.blocks {
			b.layer = i
			l := body.at("layers", i)
			a, m, bias := l.sub("self_attn"), l.sub("mlp"), cfg.AttentionBias
			d.blocks[i] = &preNormLayer{
				norm1: l.rmsNorm("input_layernorm", cfg.Hidden, true),
				attention: attention{a.linear("q_proj", cfg.Hidden, wide, bias), a.linear("k_proj", cfg.Hidden, narrow, bias),
					a.linear("v_proj", cfg.Hidden, narrow, bias), a.linear("o_proj", wide, cfg.Hidden, bias)},
				qNorm: a.rmsNorm("q_norm", cfg.HeadDim, true),
				kNorm: a.rmsNorm("k_norm", cfg.HeadDim, true),
				post1: l.rmsNorm("post_attention_layernorm", cfg.Hidden, true),
				norm2: l.rmsNorm("pre_feedforward_layernorm", cfg.Hidden, true),
				gate:  m.linear("gate_proj", cfg.Hidden, cfg.Intermediate, false),
				up:    m.linear("up_proj", cfg.Hidden, cfg.Intermediate, false),
				down:  m.linear("down_proj", cfg.Intermediate, cfg.Hidden, false),
				post2: l.rmsNorm("post_feedforward_layernorm", cfg.Hidden, true),
				rope:  cfg.LocalRope, window: cfg.windowOf(i),
			}
			if cfg.Full[i] {
				d.blocks[i].rope = cfg.Rope
			}
		}
		b.layer = cfg.Layers
		n.network = d
		n.final = body.rmsNorm("norm", cfg.Hidden, true)
		n.head = b.decoderHead(d.words)
	},
}
