package model

// Mistral (Jiang et al., 2023): Llama with a sliding window.
var mistralFamily = &family{
	class: "Mistral", prefix: "model.", decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.llamaKeys(r, 0)
		c.Rope = r.ropeBase(10000)
		if _, said := r.raw["sliding_window"]; !said {
			c.Window = 4096
		} else {
			c.Window = r.int("sliding_window", 0, 1, maxLength)
		}
		if r.has("layer_types") {
			c.layerTypes(r, nil)
		}
	},
	build: func(b *builder, n *net) { b.llama(n, false, false) },
}
