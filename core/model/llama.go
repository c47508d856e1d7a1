package model

// Llama (Touvron et al., 2023), with grouped queries and scaled rotary positions.
var llamaFamily = &family{
	class: "Llama", prefix: "model.", decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.llamaKeys(r, 0)
		c.Rope = r.ropeBase(10000)
	},
	build: func(b *builder, n *net) { b.llama(n, b.cfg.AttentionBias, b.cfg.AttentionBias) },
}

// llama builds Llama's network, which Mistral, Qwen2 and SmolLM3 share.
func (b *builder) llama(n *net, qkvBias, oBias bool) *preNorm {
	body := b.body()
	d := &preNorm{words: body.words("embed_tokens")}
	d.blocks = b.llamaBlocks(body, qkvBias, oBias)
	n.network = d
	n.final = body.rmsNorm("norm", b.cfg.Hidden, false)
	n.head = b.decoderHead(d.words)
	return d
}
