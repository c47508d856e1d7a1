package model

import (
	"math"

	"github.com/temper-ml/temper/backend"
)

// MPNet (Song et al., 2020): RoBERTa with T5's relative attention bias, one table for all layers.
var mpnetFamily = &family{
	class: "MPNet", prefix: "mpnet.", tied: true, heads: encoderHeads,
	read: func(c *Config, r *reader) {
		c.bertKeys(r)
		c.Types = 0
		c.ClassifierDropout = c.HiddenDropout
		c.Buckets = r.int("relative_attention_num_buckets", mpnetBuckets, mpnetBuckets, maxVocab)
		c.countFromPad(1)
	},
	build: func(b *builder, n *net) {
		cfg, body := b.cfg, b.body()
		e := b.bertEmbeddings(body.sub("embeddings"))
		encoder := body.sub("encoder")
		e.bias, e.bucket = encoder.table("relative_attention_bias", cfg.Buckets, cfg.Heads), mpnetBucket
		e.blocks = make([]*encoderLayer, cfg.Layers)
		for i := range e.blocks {
			b.layer = i
			l := encoder.at("layer", i)
			a := l.sub("attention.attn")
			e.blocks[i] = &encoderLayer{
				attention: attention{a.linear("q", cfg.Hidden, cfg.Hidden, true), a.linear("k", cfg.Hidden, cfg.Hidden, true),
					a.linear("v", cfg.Hidden, cfg.Hidden, true), a.linear("o", cfg.Hidden, cfg.Hidden, true)},
				norm1: l.sub("attention").layerNorm("LayerNorm", cfg.Hidden, true),
				up:    l.sub("intermediate").linear("dense", cfg.Hidden, cfg.Intermediate, true),
				down:  l.sub("output").linear("dense", cfg.Intermediate, cfg.Hidden, true),
				norm2: l.sub("output").layerNorm("LayerNorm", cfg.Hidden, true),
				drop1: cfg.HiddenDropout, drop2: cfg.HiddenDropout,
			}
		}
		b.layer = cfg.Layers
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

const (
	// transformers divides distances into 32 buckets whatever the table's size is.
	mpnetBuckets  = 32
	mpnetDistance = 128
)

// mpnetBucket is T5's bucket of a distance, key − query: half of the buckets for each direction, exact ones for near distances,
// logarithmic ones up to 128 (Raffel et al., 2020).
func mpnetBucket(distance int) int {
	const half, exact = mpnetBuckets / 2, mpnetBuckets / 4
	n, from := -distance, 0
	if n < 0 {
		n, from = -n, half
	}
	if n < exact {
		return from + n
	}
	// In float32, as in torch: at the borders the rounding decides.
	far := exact + int(float32(math.Log(float64(float32(n)/exact)))/float32(math.Log(float64(mpnetDistance)/exact))*float32(half-exact))
	return from + min(far, half-1)
}
