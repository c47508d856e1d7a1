package checkpoint

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/tensor"
)

// GGUFModel is what a GGUF file says of a model, before element types are chosen: metadata and tensors in llama.cpp's layout.
type GGUFModel struct {
	Architecture string
	Layers       int
	Metadata     []KV
	Tensors      []GGUFItem
}

// GGUFItem is a tensor of a GGUFModel. Load reads it from its source, in llama.cpp's layout.
type GGUFItem struct {
	Name  string
	DType tensor.DType // in the source
	Shape []int
	Load  func() (tensor.Tensor, error)
}

// Model describes an open file as it is.
func (g *GGUF) Model() (*GGUFModel, error) {
	m := &GGUFModel{Architecture: g.String("general.architecture")}
	m.Layers, _ = g.Int(m.Architecture + ".block_count")
	for _, k := range g.keys {
		m.Metadata = append(m.Metadata, KV{k, g.values[k]})
	}
	for _, name := range g.names {
		t, err := g.Tensor(name)
		if err != nil {
			return nil, err
		}
		m.Tensors = append(m.Tensors, GGUFItem{Name: name, DType: t.DType, Shape: t.Shape, Load: func() (tensor.Tensor, error) { return t, nil }})
	}
	return m, nil
}

// GGUFModel describes the decoder of a Hugging Face folder as a GGUF file, tokenizer and chat template included.
func (f *Folder) GGUFModel() (*GGUFModel, error) {
	config, err := f.Config()
	if err != nil {
		return nil, err
	}
	src, err := f.Source()
	if err != nil {
		return nil, err
	}
	var c hfConfig
	if err := json.Unmarshal(config, &c.keys); err != nil {
		return nil, fmt.Errorf("%s: %s: bad JSON: %w", f.dir, ConfigFile, err)
	}
	m, err := c.ggufModel(src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.dir, err)
	}
	tokenizer, err := f.ggufTokenizer(&c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.dir, err)
	}
	m.Metadata = append(m.Metadata, tokenizer...)
	return m, nil
}

// hfConfig reads config.json as transformers 4 or 5 writes it.
type hfConfig struct {
	keys map[string]any
	err  error
}

func (c *hfConfig) float(keys ...string) (float64, bool) {
	for _, k := range keys {
		if v, ok := c.keys[k].(float64); ok {
			return v, true
		}
	}
	return 0, false
}

// count reads a required positive whole number under the first of the keys that is there.
func (c *hfConfig) count(keys ...string) int {
	v, ok := c.float(keys...)
	if (!ok || v < 1 || v > 1<<30 || v != math.Trunc(v)) && c.err == nil {
		c.err = fmt.Errorf("%s: %s: expected a whole number above 0, got %v", ConfigFile, keys[0], c.keys[keys[0]])
	}
	return int(v)
}

// rope returns the settings of the rotary embedding, from rope_parameters (transformers 5) or rope_theta and rope_scaling (4).
func (c *hfConfig) rope(kind string) map[string]any {
	if p, ok := c.keys["rope_parameters"].(map[string]any); ok {
		if sub, ok := p[kind].(map[string]any); ok {
			return sub
		}
		return p
	}
	out := map[string]any{"rope_theta": c.keys["rope_theta"]}
	if kind == "sliding_attention" {
		out["rope_theta"] = c.keys["rope_local_base_freq"]
		return out
	}
	if s, ok := c.keys["rope_scaling"].(map[string]any); ok {
		for k, v := range s {
			out[k] = v
		}
	}
	return out
}

func (c *hfConfig) ggufModel(src Source) (*GGUFModel, error) {
	kind, _ := c.keys["model_type"].(string)
	f, err := familyOfType(kind)
	if err != nil {
		return nil, err
	}
	heads, layers, hidden := c.count("num_attention_heads", "n_head"), c.count("num_hidden_layers", "n_layer"), c.count("hidden_size", "n_embd")
	context := c.count("max_position_embeddings", "n_positions")
	inner := 4 * hidden
	if kind != "gpt2" || c.keys["n_inner"] != nil {
		inner = c.count("intermediate_size", "n_inner")
	}
	if c.err != nil {
		return nil, c.err
	}
	kv := heads
	if v, ok := c.float("num_key_value_heads"); ok && v >= 1 {
		kv = int(v)
	}
	m := &GGUFModel{Architecture: f.arch, Layers: layers}
	name := "model"
	if v, ok := c.keys["_name_or_path"].(string); ok && v != "" {
		name = v[strings.LastIndexAny(v, `/\`)+1:]
	}
	put := func(key string, v any) { m.Metadata = append(m.Metadata, KV{key, v}) }
	own := func(key string, v any) { put(f.arch+"."+key, v) }
	put("general.architecture", f.arch)
	put("general.type", "model")
	put("general.name", name)
	own("context_length", uint32(context))
	own("embedding_length", uint32(hidden))
	own("block_count", uint32(layers))
	own("feed_forward_length", uint32(inner))
	own("attention.head_count", uint32(heads))
	own("attention.head_count_kv", uint32(kv))
	headDim := hidden / heads
	if v, ok := c.float("head_dim"); ok && v >= 1 {
		headDim = int(v)
		own("attention.key_length", uint32(headDim))
		own("attention.value_length", uint32(headDim))
	}
	if eps, ok := c.float("rms_norm_eps"); ok {
		own("attention.layer_norm_rms_epsilon", float32(eps))
	} else if eps, ok := c.float("layer_norm_epsilon", "layer_norm_eps"); ok {
		own("attention.layer_norm_epsilon", float32(eps))
	}
	if v, ok := c.float("sliding_window"); ok && v >= 1 && c.keys["use_sliding_window"] != false {
		own("attention.sliding_window", uint32(v))
	}
	if kind == "gpt_neox" {
		parallel, given := c.keys["use_parallel_residual"].(bool)
		own("use_parallel_residual", parallel || !given)
	}
	for _, key := range []string{"attn_logit_softcapping", "final_logit_softcapping"} {
		if v, ok := c.float(key); ok && v > 0 {
			own(key, float32(v))
		}
	}
	queryScale := float32(1)
	if kind == "gemma3_text" {
		own("attention.sliding_window_pattern", c.slides(layers))
		if v, ok := c.rope("sliding_attention")["rope_theta"].(float64); ok {
			own("rope.freq_base_swa", float32(v))
		}
		// llama.cpp knows no other scale of the scores than that of the heads (but for the 27B model): what remains goes into the norm of the queries.
		if v, ok := c.float("query_pre_attn_scalar"); ok && v > 0 && layers != 62 {
			queryScale = float32(math.Sqrt(float64(headDim) / v))
		}
	}
	if kind == "smollm3" && !c.everyFourth(layers) {
		return nil, fmt.Errorf("%s: no_rope_layers: llama.cpp knows only models whose every fourth layer has no rotation", ConfigFile)
	}
	if kind != "gpt2" {
		extra, err := c.ropeMetadata(headDim, context, own)
		if err != nil {
			return nil, err
		}
		m.Tensors = append(m.Tensors, extra...)
	}
	for _, hf := range src.Names() {
		gguf, ch, ok := f.toGGUF(hf)
		if !ok {
			if skippedOnExport(hf) {
				continue
			}
			return nil, fmt.Errorf("tensor %q has no place in a GGUF file of architecture %s", hf, f.arch)
		}
		t, err := src.Tensor(hf)
		if err != nil {
			return nil, err
		}
		if gguf == "output.weight" && c.keys["tie_word_embeddings"] == true {
			continue
		}
		if gguf == "token_embd.weight" {
			own("vocab_size", uint32(t.Rows()))
		}
		shape := t.Shape
		if ch == turned && len(shape) == 2 {
			shape = []int{shape[1], shape[0]}
		}
		m.Tensors = append(m.Tensors, GGUFItem{Name: gguf, DType: t.DType, Shape: shape, Load: func() (tensor.Tensor, error) {
			t, err := src.Tensor(hf)
			if err != nil {
				return t, err
			}
			if t, err = ch.do(t, heads, kv); err != nil {
				return t, fmt.Errorf("tensor %q: %w", hf, err)
			}
			t.Name = gguf
			if queryScale != 1 && strings.HasSuffix(gguf, "attn_q_norm.weight") {
				return scaled(t, queryScale)
			}
			return t, nil
		}})
	}
	if !slices.ContainsFunc(m.Tensors, func(i GGUFItem) bool { return i.Name == "token_embd.weight" }) {
		return nil, fmt.Errorf("the word table is missing: expected a tensor for token_embd.weight")
	}
	return m, nil
}

func scaled(t tensor.Tensor, by float32) (tensor.Tensor, error) {
	x, err := t.F32()
	if err != nil {
		return t, err
	}
	y := make([]float32, len(x))
	for i := range x {
		y[i] = x[i] * by
	}
	return tensor.FromF32(t.Name, y, t.Shape...), nil
}

// skippedOnExport names buffers that old checkpoints hold beside the weights.
func skippedOnExport(name string) bool {
	for _, suffix := range []string{".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// slides says which layers see a window only.
func (c *hfConfig) slides(layers int) []bool {
	out := make([]bool, layers)
	types, _ := c.keys["layer_types"].([]any)
	every := 6
	if v, ok := c.float("sliding_window_pattern", "_sliding_window_pattern"); ok && v >= 1 {
		every = int(v)
	}
	for i := range out {
		out[i] = (i+1)%every != 0
		if len(types) == layers {
			out[i] = types[i] == "sliding_attention"
		}
	}
	return out
}

func (c *hfConfig) everyFourth(layers int) bool {
	list, ok := c.keys["no_rope_layers"].([]any)
	if !ok {
		return true
	}
	for i, v := range list {
		if (v == 0.0) != ((i+1)%4 == 0) {
			return false
		}
	}
	return len(list) == layers
}

// ropeMetadata writes the rotary embedding's keys and returns the tensors that carry its frequencies, where it has some.
func (c *hfConfig) ropeMetadata(headDim, context int, own func(string, any)) ([]GGUFItem, error) {
	r := c.rope("full_attention")
	num := func(key string, def float64) float64 {
		if v, ok := r[key].(float64); ok {
			return v
		}
		if v, ok := c.keys[key].(float64); ok {
			return v
		}
		return def
	}
	theta := num("rope_theta", 10000)
	own("rope.freq_base", float32(theta))
	dims := int(float64(headDim) * num("partial_rotary_factor", num("rotary_pct", 1)))
	own("rope.dimension_count", uint32(dims))
	kind, _ := r["rope_type"].(string)
	if kind == "" {
		kind, _ = r["type"].(string)
	}
	original := num("original_max_position_embeddings", float64(context))
	factors := func(name string, v []float32) GGUFItem {
		t := tensor.FromF32(name, v, len(v))
		return GGUFItem{Name: name, DType: tensor.F32, Shape: t.Shape, Load: func() (tensor.Tensor, error) { return t, nil }}
	}
	switch kind {
	case "", "default":
	case "linear":
		own("rope.scaling.type", "linear")
		own("rope.scaling.factor", float32(num("factor", 1)))
	case "yarn":
		own("rope.scaling.type", "yarn")
		own("rope.scaling.factor", float32(num("factor", 1)))
		own("rope.scaling.original_context_length", uint32(original))
	case "llama3":
		// Stored as one divisor per pair (the rule of transformers' _compute_llama3_parameters).
		factor, low, high := num("factor", 8), num("low_freq_factor", 1), num("high_freq_factor", 4)
		v := make([]float32, dims/2)
		for i := range v {
			wave := 2 * math.Pi * math.Pow(theta, float64(2*i)/float64(dims))
			switch {
			case wave < original/high:
				v[i] = 1
			case wave > original/low:
				v[i] = float32(factor)
			default:
				s := (original/wave - low) / (high - low)
				v[i] = float32(1 / ((1-s)/factor + s))
			}
		}
		return []GGUFItem{factors("rope_freqs.weight", v)}, nil
	case "longrope", "su":
		own("rope.scaling.original_context_length", uint32(original))
		scale := num("factor", float64(context)/original)
		attention := 1.0
		if scale > 1 && original > 1 {
			attention = math.Sqrt(1 + math.Log(scale)/math.Log(original))
		}
		own("rope.scaling.attn_factor", float32(num("attention_factor", attention)))
		var out []GGUFItem
		for _, name := range []string{"long", "short"} {
			list, _ := r[name+"_factor"].([]any)
			v := make([]float32, len(list))
			for i, x := range list {
				f, ok := x.(float64)
				if !ok {
					return nil, fmt.Errorf("%s: %s_factor: expected numbers, got %v", ConfigFile, name, x)
				}
				v[i] = float32(f)
			}
			if len(v) != dims/2 {
				return nil, fmt.Errorf("%s: %s_factor: expected %d numbers, got %d", ConfigFile, name, dims/2, len(v))
			}
			out = append(out, factors("rope_factors_"+name+".weight", v))
		}
		return out, nil
	default:
		return nil, fmt.Errorf("%s: rope scaling %q cannot be written as GGUF", ConfigFile, kind)
	}
	return nil, nil
}
