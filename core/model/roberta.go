package model

import "github.com/temper-ml/temper/backend"

// robertaFamily is RoBERTa (Liu et al., 2019) or XLM-RoBERTa (Conneau et al., 2020): BERT with positions counted from the pad id + 1 and
// heads of its own.
func robertaFamily(class string) *family {
	return &family{
		class: class, prefix: "roberta.", tied: true, heads: encoderHeads,
		read: func(c *Config, r *reader) {
			c.bertKeys(r)
			c.countFromPad(1)
		},
		build: func(b *builder, n *net) {
			cfg, body := b.cfg, b.body()
			e := b.bertEmbeddings(body.sub("embeddings"))
			e.blocks = b.bertBlocks(body.sub("encoder"), "query", "key", "value")
			n.network = e
			switch cfg.Head {
			case HeadNone:
				n.pooler = body.sub("pooler").headLinear("dense", cfg.Hidden, cfg.Hidden, true)
			case HeadSequence:
				n.head = b.robertaHead(backend.Tanh)
			case HeadToken:
				n.head = b.tokenHead(cfg.ClassifierDropout)
			case HeadMasked:
				n.head = b.maskedHead("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", e.words, backend.GELU, true, true, true)
			}
		},
	}
}

// countFromPad makes positions begin after the pad id.
func (c *Config) countFromPad(def int) {
	if c.PadID < 0 {
		c.PadID = def
	}
	c.PositionOffset = c.PadID + 1
}

// robertaHead classifies the first token by a dense layer and an output layer.
func (b *builder) robertaHead(act backend.Activation) *head {
	cfg, s := b.cfg, b.top().sub("classifier")
	return &head{pool: PoolCLS, before: cfg.ClassifierDropout, dense: s.headLinear("dense", cfg.Hidden, cfg.Hidden, true), act: act,
		between: cfg.ClassifierDropout, out: s.headLinear("out_proj", cfg.Hidden, len(cfg.Labels), true)}
}
