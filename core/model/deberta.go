package model

import (
	"encoding/json"
	"math"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// DeBERTa v2 and v3 (He et al., 2021): attention scores have terms for content and relative position in both directions.
var debertaFamily = &family{
	class: "DebertaV2", prefix: "deberta.", tied: true, heads: encoderHeads,
	read: func(c *Config, r *reader) {
		c.bertKeys(r)
		c.Types = r.int("type_vocab_size", 0, 0, maxVocab)
		c.NormEps = r.eps("layer_norm_eps", 1e-7)
		c.AbsolutePositions = r.bool("position_biased_input", true)
		c.Embedding = r.int("embedding_size", c.Hidden, 1, maxWidth)
		c.ClassifierDropout = r.drop("cls_dropout", float64(c.HiddenDropout))
		c.PoolerDropout = r.drop("pooler_dropout", 0)
		c.PoolerAct = r.act("pooler_hidden_act", "gelu")
		if n := r.int("pooler_hidden_size", c.Hidden, 1, maxWidth); n != c.Hidden {
			r.fail("pooler_hidden_size: expected the hidden size %d, got %d", c.Hidden, n)
		}
		if r.int("conv_kernel_size", 0, 0, maxWidth) > 0 {
			r.fail("conv_kernel_size: the convolution of DeBERTa v2 xlarge is not supported")
		}
		c.Relative = r.bool("relative_attention", false)
		c.ShareKeys = r.bool("share_att_key", false)
		for _, s := range strings.Split(r.string("norm_rel_ebd", "none"), "|") {
			c.NormRel = c.NormRel || strings.TrimSpace(strings.ToLower(s)) == "layer_norm"
		}
		for _, s := range r.words("pos_att_type") {
			switch s {
			case "c2p":
				c.ContextToPosition = true
			case "p2c":
				c.PositionToC = true
			default:
				r.fail("pos_att_type: expected c2p and p2c, got %q", s)
			}
		}
		c.Buckets = r.int("position_buckets", -1, -1, maxWidth)
		if c.MaxRelative = r.int("max_relative_positions", -1, -1, maxWidth); c.MaxRelative < 1 {
			c.MaxRelative = c.MaxPositions
		}
		if c.Relative && c.Buckets > 0 && (c.Buckets < 4 || c.MaxRelative-1 <= c.Buckets/2) {
			r.fail("position_buckets: expected 4 or more, and half of them below max_relative_positions − 1 = %d, got %d", c.MaxRelative-1, c.Buckets)
		}
	},
	build: func(b *builder, n *net) {
		cfg, body, top := b.cfg, b.body(), b.top()
		emb, encoder := body.sub("embeddings"), body.sub("encoder")
		d := &deberta{words: emb.words("word_embeddings")}
		if cfg.AbsolutePositions {
			d.positions = emb.table("position_embeddings", cfg.MaxPositions, cfg.Embedding)
		}
		if cfg.Types > 0 {
			d.types = emb.table("token_type_embeddings", cfg.Types, cfg.Embedding)
		}
		if cfg.Embedding != cfg.Hidden {
			d.project = emb.linear("embed_proj", cfg.Embedding, cfg.Hidden, false)
		}
		d.norm = emb.layerNorm("LayerNorm", cfg.Hidden, true)
		if cfg.Relative {
			d.relative = encoder.table("rel_embeddings", 2*cfg.span(), cfg.Hidden)
		}
		if cfg.NormRel {
			d.relativeNorm = encoder.layerNorm("LayerNorm", cfg.Hidden, true)
		}
		d.blocks = b.bertBlocks(encoder, "query_proj", "key_proj", "value_proj")
		if cfg.Relative && !cfg.ShareKeys {
			d.posKeys, d.posQueries = make([]*Linear, cfg.Layers), make([]*Linear, cfg.Layers)
			for i := range cfg.Layers {
				b.layer = i
				self := encoder.at("layer", i).sub("attention.self")
				if cfg.ContextToPosition {
					d.posKeys[i] = self.linear("pos_key_proj", cfg.Hidden, cfg.Hidden, true)
				}
				if cfg.PositionToC {
					d.posQueries[i] = self.linear("pos_query_proj", cfg.Hidden, cfg.Hidden, true)
				}
			}
			b.layer = cfg.Layers
		}
		n.network, n.together = d, true
		switch cfg.Head {
		case HeadSequence:
			n.head = &head{pool: PoolCLS, before: cfg.PoolerDropout, dense: top.sub("pooler").headLinear("dense", cfg.Hidden, cfg.Hidden, true),
				act: cfg.PoolerAct, between: cfg.ClassifierDropout, out: top.headLinear("classifier", cfg.Hidden, len(cfg.Labels), true)}
		case HeadToken:
			n.head = b.tokenHead(cfg.HiddenDropout)
		case HeadMasked:
			if legacy := cfg.raw["legacy"]; string(legacy) == "false" {
				n.head = b.maskedHead("lm_predictions.lm_head.dense", "lm_predictions.lm_head.LayerNorm", "lm_predictions.lm_head.decoder",
					"lm_predictions.lm_head.bias", d.words, cfg.Act, true, true, true)
				return
			}
			n.head = b.maskedHead("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder",
				"cls.predictions.bias", d.words, cfg.Act, true, true, true)
		}
	},
}

// words reads a list of words, or one string with bars between them.
func (r *reader) words(key string) []string {
	if !r.has(key) {
		return nil
	}
	var list []string
	if json.Unmarshal(r.raw[key], &list) != nil {
		list = strings.Split(r.string(key, ""), "|")
	}
	for i := range list {
		list[i] = strings.ToLower(strings.TrimSpace(list[i]))
	}
	return list
}

type deberta struct {
	words               *Embedding
	positions, types    *grad.Param
	project             *Linear
	norm                *norm
	relative            *grad.Param // [2·span, Hidden]
	relativeNorm        *norm
	blocks              []*encoderLayer
	posKeys, posQueries []*Linear // per layer, where keys are not shared
}

func (d *deberta) embed(c *grad.Ctx, p *pass) *grad.Value {
	cfg := p.n.cfg
	x := p.words(c, d.words)
	if d.positions != nil {
		x = c.Add(x, c.Embedding(d.positions, p.pos))
	}
	if d.types != nil {
		x = c.Add(x, c.Embedding(d.types, p.types()))
	}
	if d.project != nil {
		x = d.project.Apply(c, x, backend.None)
	}
	x = c.Dropout(d.norm.apply(c, x), cfg.EmbeddingDropout)
	if d.relative != nil {
		p.relative = d.relativeNorm.apply(c, c.Param(d.relative))
		p.shared = append(p.shared, p.relative)
	}
	return x
}

func (d *deberta) block(c *grad.Ctx, p *pass, layer int, x *grad.Value) *grad.Value {
	cfg, l := p.n.cfg, d.blocks[layer]
	terms := 1
	if cfg.ContextToPosition {
		terms++
	}
	if cfg.PositionToC {
		terms++
	}
	scale := float32(1 / math.Sqrt(float64(cfg.HeadDim*terms)))
	q, k, v, _ := l.project(c, x)
	s := grad.AttentionSpec{Scale: scale, Dropout: cfg.AttentionDropout}
	if d.relative != nil && terms > 1 {
		rel := c.Dropout(p.relative, cfg.HiddenDropout)
		var pk, pq *grad.Value
		keys, queries := l.k, l.q
		if !cfg.ShareKeys {
			keys, queries = d.posKeys[layer], d.posQueries[layer]
		}
		if cfg.ContextToPosition {
			pk = keys.Apply(c, rel, backend.None)
		}
		if cfg.PositionToC {
			pq = queries.Apply(c, rel, backend.None)
		}
		s.Bias, s.BiasAt = c.DisentangledBias(q, k, pk, pq, p.seqs, cfg.Heads, scale, cfg.bucket)
	}
	return l.finish(c, cfg, x, p.attend(c, layer, q, k, v, s))
}

// span is half the number of relative positions.
func (c *Config) span() int {
	if c.Buckets > 0 {
		return c.Buckets
	}
	return c.MaxRelative
}

// bucket is the row of the relative embeddings for a distance, query − key: exact for near ones, logarithmic beyond.
func (c *Config) bucket(distance int) int {
	span := c.span()
	if mid := c.Buckets / 2; c.Buckets > 0 {
		far, sign := distance, 1
		if far < 0 {
			far, sign = -far, -1
		}
		if far > mid {
			// In float32, as in torch: at the borders of buckets the rounding decides.
			l := float32(math.Log(float64(float32(far)/float32(mid)))) / float32(math.Log(float64(float32(c.MaxRelative-1)/float32(mid))))
			distance = sign * (int(math.Ceil(float64(l*float32(mid-1)))) + mid)
		}
	}
	return min(max(distance+span, 0), 2*span-1)
}
