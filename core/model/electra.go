package model

import "github.com/temper-ml/temper/backend"

// ELECTRA (Clark et al., 2020): BERT whose word table may be narrower than the network.
var electraFamily = &family{
	class: "Electra", prefix: "electra.", tied: true, heads: encoderHeads,
	read: func(c *Config, r *reader) {
		c.bertKeys(r)
		c.Embedding = r.int("embedding_size", 128, 1, maxWidth)
		var archs []string
		if r.get("architectures", &archs, "a list of class names"); len(archs) > 0 && archs[0] == "ElectraForPreTraining" {
			c.Head = HeadNone // the discriminator's head tells replaced tokens, it is no language model
		}
	},
	build: func(b *builder, n *net) {
		cfg, body := b.cfg, b.body()
		e := b.bertEmbeddings(body.sub("embeddings"))
		if cfg.Embedding != cfg.Hidden {
			e.project = body.linear("embeddings_project", cfg.Embedding, cfg.Hidden, true)
		}
		e.blocks = b.bertBlocks(body.sub("encoder"), "query", "key", "value")
		n.network = e
		switch cfg.Head {
		case HeadSequence:
			n.head = b.robertaHead(backend.GELU)
		case HeadToken:
			n.head = b.tokenHead(cfg.ClassifierDropout)
		case HeadMasked:
			n.head = b.maskedHead("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head", "generator_lm_head.bias",
				e.words, backend.GELU, true, true, true)
		}
	},
}
