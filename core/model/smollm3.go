package model

// SmolLM3 (2025): Llama without rotation in every fourth layer.
var smollm3Family = &family{
	class: "SmolLM3", prefix: "model.", tied: true, decoder: true, heads: decoderHeads,
	read: func(c *Config, r *reader) {
		c.llamaKeys(r, 0)
		c.Rope = r.ropeBase(2000000)
		every := r.int("no_rope_layer_interval", 4, 1, maxLayers)
		var rotated []int
		if r.get("no_rope_layers", &rotated, "a list of 0 and 1") && len(rotated) != c.Layers {
			r.fail("no_rope_layers: expected %d, got %d", c.Layers, len(rotated))
			return
		}
		c.NoRope = make([]bool, c.Layers)
		for i := range c.NoRope {
			if c.NoRope[i] = (i+1)%every == 0; rotated != nil {
				c.NoRope[i] = rotated[i] == 0
			}
		}
		if r.bool("use_sliding_window", false) {
			c.Window = r.int("sliding_window", 0, 1, maxLength)
		}
		c.layerTypes(r, func(i int) bool { return c.Window == 0 || !c.NoRope[i] })
	},
	build: func(b *builder, n *net) { b.llama(n, b.cfg.AttentionBias, b.cfg.AttentionBias) },
}
