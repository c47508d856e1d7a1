package model

import "github.com/temper-ml/temper/backend"

// DistilBERT (Sanh et al., 2019): BERT without token types and pooler.
var distilbertFamily = &family{
	class: "DistilBert", prefix: "distilbert.", tied: true, heads: encoderHeads,
	read: func(c *Config, r *reader) {
		c.Hidden = r.int("dim", required, 1, maxWidth)
		c.Layers = r.int("n_layers", required, 0, maxLayers)
		c.Heads = r.int("n_heads", required, 1, maxHeads)
		c.Intermediate = r.int("hidden_dim", required, 1, maxWidth)
		c.MaxPositions = r.int("max_position_embeddings", 512, 1, maxLength)
		c.AbsolutePositions = true
		c.Act = r.act("activation", "gelu")
		c.NormEps = 1e-12
		c.HiddenDropout = r.drop("dropout", 0.1)
		c.EmbeddingDropout = c.HiddenDropout
		c.AttentionDropout = r.drop("attention_dropout", 0.1)
		c.ClassifierDropout = r.drop("seq_classif_dropout", 0.2)
	},
	build: func(b *builder, n *net) {
		cfg, body, top := b.cfg, b.body(), b.top()
		e := b.bertEmbeddings(body.sub("embeddings"))
		e.blocks = make([]*encoderLayer, cfg.Layers)
		for i := range e.blocks {
			b.layer = i
			l := body.at("transformer.layer", i)
			a := l.sub("attention")
			e.blocks[i] = &encoderLayer{
				attention: attention{a.linear("q_lin", cfg.Hidden, cfg.Hidden, true), a.linear("k_lin", cfg.Hidden, cfg.Hidden, true),
					a.linear("v_lin", cfg.Hidden, cfg.Hidden, true), a.linear("out_lin", cfg.Hidden, cfg.Hidden, true)},
				norm1: l.layerNorm("sa_layer_norm", cfg.Hidden, true),
				up:    l.sub("ffn").linear("lin1", cfg.Hidden, cfg.Intermediate, true),
				down:  l.sub("ffn").linear("lin2", cfg.Intermediate, cfg.Hidden, true),
				norm2: l.layerNorm("output_layer_norm", cfg.Hidden, true),
				drop2: cfg.HiddenDropout,
			}
		}
		b.layer = cfg.Layers
		n.network = e
		switch cfg.Head {
		case HeadSequence:
			n.head = &head{pool: PoolCLS, dense: top.headLinear("pre_classifier", cfg.Hidden, cfg.Hidden, true), act: backend.ReLU,
				between: cfg.ClassifierDropout, out: top.headLinear("classifier", cfg.Hidden, len(cfg.Labels), true)}
		case HeadToken:
			n.head = b.tokenHead(cfg.HiddenDropout)
		case HeadMasked:
			n.head = b.maskedHead("vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias", e.words, cfg.Act, true, true, true)
		}
	},
}
