package model

// BERT (Devlin et al., 2019).
var bertFamily = &family{
	class: "Bert", prefix: "bert.", tied: true, heads: encoderHeads,
	read: func(c *Config, r *reader) {
		c.bertKeys(r)
	},
	build: func(b *builder, n *net) {
		cfg, body, top := b.cfg, b.body(), b.top()
		e := b.bertEmbeddings(body.sub("embeddings"))
		e.blocks = b.bertBlocks(body.sub("encoder"), "query", "key", "value")
		n.network = e
		if cfg.Head == HeadNone || cfg.Head == HeadSequence {
			n.pooler = body.sub("pooler").headLinear("dense", cfg.Hidden, cfg.Hidden, true)
		}
		switch cfg.Head {
		case HeadSequence:
			n.head = &head{pooler: true, between: cfg.ClassifierDropout, out: top.headLinear("classifier", cfg.Hidden, len(cfg.Labels), true)}
		case HeadToken:
			n.head = b.tokenHead(cfg.ClassifierDropout)
		case HeadMasked:
			n.head = b.maskedHead("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder",
				"cls.predictions.bias", e.words, cfg.Act, true, true, true)
		}
	},
}
