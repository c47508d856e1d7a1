package model

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/tensor"
)

// FromGGUF reads the config of a decoder in a GGUF file and gives its tensors Hugging Face's names and layout. Quantized blocks stay as
// they are in the file; only what llama.cpp stores in another order or with another offset is copied: rows of Llama's queries and keys,
// norms of Gemma.
func FromGGUF(g *checkpoint.GGUF) (*Config, checkpoint.Source, error) {
	arch := g.String("general.architecture")
	a, ok := ggufArchitectures[arch]
	if !ok {
		names := make([]string, 0, len(ggufArchitectures))
		for name := range ggufArchitectures {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, nil, fmt.Errorf("%s: architecture %q is not supported (supported: %s)", g.Path(), arch, strings.Join(names, ", "))
	}
	src := &ggufSource{file: g, names: map[string]string{}}
	r := &ggufReader{g: g, arch: arch}
	keys, err := r.config(a)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", g.Path(), err)
	}
	data, err := json.Marshal(keys)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", g.Path(), err)
	}
	cfg, err := ParseConfig(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", g.Path(), err)
	}
	src.cfg, src.paired, src.minusOne = cfg, a.paired, a.minusOne
	for _, name := range g.Names() {
		if hf, ok := a.rename(name); ok {
			src.names[hf] = name
			src.order = append(src.order, hf)
		}
	}
	return cfg, src, nil
}

// ggufArchitecture says how llama.cpp's form of a family differs from Hugging Face's.
type ggufArchitecture struct {
	family, class string
	layers        map[string]string // names within a block, beyond the common ones
	paired        bool              // rotary dimensions are neighbours rather than halves: rows of queries and keys are permuted
	minusOne      bool              // norms are stored with 1 added
}

var ggufArchitectures = map[string]ggufArchitecture{
	"llama":   {family: "llama", class: "LlamaForCausalLM", paired: true},
	"qwen2":   {family: "qwen2", class: "Qwen2ForCausalLM"},
	"qwen3":   {family: "qwen3", class: "Qwen3ForCausalLM"},
	"smollm3": {family: "smollm3", class: "SmolLM3ForCausalLM", paired: true},
	"phi3":    {family: "phi3", class: "Phi3ForCausalLM", layers: map[string]string{"ffn_up": "mlp.gate_up_proj"}},
	"gemma3": {family: "gemma3_text", class: "Gemma3ForCausalLM", minusOne: true, layers: map[string]string{
		"ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}},
}

var ggufLayerNames = map[string]string{
	"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
	"attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
	"ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}

// rename turns "blk.3.attn_q.weight" into "model.layers.3.self_attn.q_proj.weight".
func (a ggufArchitecture) rename(name string) (string, bool) {
	switch name {
	case "token_embd.weight":
		return "model.embed_tokens.weight", true
	case "output_norm.weight":
		return "model.norm.weight", true
	case "output.weight":
		return "lm_head.weight", true
	}
	parts := strings.Split(name, ".")
	if len(parts) != 4 || parts[0] != "blk" {
		return "", false
	}
	module, ok := a.layers[parts[2]]
	if !ok {
		module, ok = ggufLayerNames[parts[2]]
	}
	return "model.layers." + parts[1] + "." + module + "." + parts[3], ok
}

// ggufReader reads metadata under an architecture's prefix.
type ggufReader struct {
	g    *checkpoint.GGUF
	arch string
}

func (r *ggufReader) int(key string) (int, bool)       { return r.g.Int(r.arch + "." + key) }
func (r *ggufReader) float(key string) (float64, bool) { return r.g.Float(r.arch + "." + key) }

// config writes what the metadata says as the keys of a config.json.
func (r *ggufReader) config(a ggufArchitecture) (map[string]any, error) {
	keys := map[string]any{"model_type": a.family, "architectures": []string{a.class}}
	for key, from := range map[string]string{
		"hidden_size": "embedding_length", "num_hidden_layers": "block_count", "intermediate_size": "feed_forward_length",
		"num_attention_heads": "attention.head_count", "max_position_embeddings": "context_length",
	} {
		v, ok := r.int(from)
		if !ok {
			return nil, fmt.Errorf("metadata %s.%s: expected a whole number", r.arch, from)
		}
		keys[key] = v
	}
	heads, width := keys["num_attention_heads"].(int), keys["hidden_size"].(int)
	if heads < 1 {
		return nil, fmt.Errorf("metadata %s.attention.head_count: expected at least 1, got %d", r.arch, heads)
	}
	keys["num_key_value_heads"] = heads
	if n, ok := r.int("attention.head_count_kv"); ok {
		keys["num_key_value_heads"] = n
	} else if r.g.Value(r.arch+".attention.head_count_kv") != nil {
		return nil, fmt.Errorf("metadata %s.attention.head_count_kv: one number for all blocks is supported", r.arch)
	}
	size := width / heads
	if n, ok := r.int("attention.key_length"); ok {
		size = n
	}
	if v, ok := r.int("attention.value_length"); ok && v != size {
		return nil, fmt.Errorf("metadata %s.attention.value_length: expected the key length %d, got %d", r.arch, size, v)
	}
	keys["head_dim"] = size
	if eps, ok := r.float("attention.layer_norm_rms_epsilon"); ok {
		keys["rms_norm_eps"] = eps
	}
	words, err := r.g.Tensor("token_embd.weight")
	if err != nil {
		return nil, err
	}
	keys["vocab_size"] = words.Rows()
	_, err = r.g.Tensor("output.weight")
	keys["tie_word_embeddings"] = err != nil
	_, err = r.g.Tensor("blk.0.attn_output.bias")
	keys["attention_bias"] = err == nil
	for key, from := range map[string]string{"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"} {
		if id, ok := r.g.Int("tokenizer.ggml." + from); ok {
			keys[key] = id
		}
	}
	if w, ok := r.int("attention.sliding_window"); ok && w > 0 {
		keys["sliding_window"] = w
	}
	rope, err := r.rope(size, keys)
	if err != nil {
		return nil, err
	}
	keys["rope_parameters"] = rope
	if a.family == "gemma3_text" {
		r.gemma(keys, rope, width, heads, size)
	}
	return keys, nil
}

// rope writes the rotary embedding.
func (r *ggufReader) rope(size int, keys map[string]any) (map[string]any, error) {
	rope := map[string]any{"rope_type": "default", "rope_theta": 10000.0}
	if theta, ok := r.float("rope.freq_base"); ok {
		rope["rope_theta"] = theta
	}
	if n, ok := r.int("rope.dimension_count"); ok && n != size && size > 0 {
		rope["partial_rotary_factor"] = float64(n) / float64(size)
	}
	if n, ok := r.int("rope.scaling.original_context_length"); ok {
		rope["original_max_position_embeddings"] = n
	}
	factor, scaled := r.float("rope.scaling.factor")
	switch kind := r.g.String(r.arch + ".rope.scaling.type"); kind {
	case "linear", "yarn":
		rope["rope_type"], rope["factor"] = kind, factor
	case "", "none":
		if scaled && factor > 1 {
			rope["rope_type"], rope["factor"] = "linear", factor
		}
	case "longrope":
	default:
		return nil, fmt.Errorf("metadata %s.rope.scaling.type: unknown type %q", r.arch, kind)
	}
	// Divisors of each frequency: Llama 3 has one set, Phi-3 one for short and one for long texts.
	for _, names := range [][2]string{{"rope_freqs.weight", "rope_freqs.weight"}, {"rope_factors_short.weight", "rope_factors_long.weight"}} {
		var sets [2][]float32
		for i, name := range names {
			t, err := r.g.Tensor(name)
			if err != nil {
				break
			}
			if sets[i], err = t.F32(); err != nil {
				return nil, err
			}
		}
		if sets[1] == nil {
			continue
		}
		rope["rope_type"], rope["short_factor"], rope["long_factor"] = "longrope", sets[0], sets[1]
		if m, ok := r.float("rope.scaling.attn_factor"); ok {
			rope["attention_factor"] = m
		} else if names[0] == names[1] {
			rope["attention_factor"] = 1.0
		}
		if _, ok := rope["original_max_position_embeddings"]; !ok {
			rope["original_max_position_embeddings"] = keys["max_position_embeddings"]
		}
	}
	return rope, nil
}

// gemma adds what is Gemma 3's own. Where the metadata does not say, llama.cpp's constants stand.
func (r *ggufReader) gemma(keys, rope map[string]any, width, heads, size int) {
	local := 10000.0
	if v, ok := r.float("rope.freq_base_swa"); ok {
		local = v
	}
	keys["rope_parameters"] = map[string]any{"full_attention": rope, "sliding_attention": map[string]any{"rope_type": "default", "rope_theta": local}}
	keys["query_pre_attn_scalar"] = size
	if layers := keys["num_hidden_layers"].(int); layers == 62 { // the 27B model
		keys["query_pre_attn_scalar"] = width / heads
	}
	if v, ok := r.float("final_logit_softcapping"); ok {
		keys["final_logit_softcapping"] = v
	}
	switch pattern := r.g.Value(r.arch + ".attention.sliding_window_pattern").(type) {
	case []bool:
		types := make([]string, len(pattern))
		for i, slides := range pattern {
			if types[i] = "full_attention"; slides {
				types[i] = "sliding_attention"
			}
		}
		keys["layer_types"] = types
	case nil:
	default:
		if n, ok := r.int("attention.sliding_window_pattern"); ok {
			keys["sliding_window_pattern"] = n
		}
	}
}

// ggufSource gives the tensors of a GGUF file Hugging Face's names and layout.
type ggufSource struct {
	file             *checkpoint.GGUF
	cfg              *Config
	names            map[string]string // Hugging Face's to GGUF's
	order            []string
	paired, minusOne bool
}

func (s *ggufSource) Names() []string { return slices.Clone(s.order) }

func (s *ggufSource) Tensor(name string) (tensor.Tensor, error) {
	from, ok := s.names[name]
	if !ok {
		return tensor.Tensor{}, fmt.Errorf("%s: tensor %q: %w", s.file.Path(), name, checkpoint.ErrNoTensor)
	}
	t, err := s.file.Tensor(from)
	if err != nil {
		return t, err
	}
	t.Name = name
	switch {
	case s.paired && (strings.Contains(name, ".q_proj.") || strings.Contains(name, ".k_proj.")):
		return s.unpair(t, strings.Contains(name, ".q_proj."))
	case s.minusOne && strings.HasSuffix(name, "norm.weight"):
		v, err := t.F32()
		if err != nil {
			return t, fmt.Errorf("%s: %w", s.file.Path(), err)
		}
		w := make([]float32, len(v))
		for i := range v {
			w[i] = v[i] - 1
		}
		return tensor.FromF32(name, w, t.Shape...), nil
	}
	return t, nil
}

// unpair puts the rows of each head in Hugging Face's order: llama.cpp's row 2j+s of a head is row s·half+j.
func (s *ggufSource) unpair(t tensor.Tensor, queries bool) (tensor.Tensor, error) {
	heads, size := s.cfg.KVHeads, s.cfg.HeadDim
	if queries {
		heads = s.cfg.Heads
	}
	if len(t.Shape) == 0 || t.Shape[0] != heads*size || size%2 != 0 {
		return t, fmt.Errorf("%s: tensor %q: expected %d heads of %d rows, found shape %v", s.file.Path(), t.Name, heads, size, t.Shape)
	}
	stride := len(t.Data) / t.Shape[0]
	out := make([]byte, len(t.Data))
	for h := range heads {
		for j := range size / 2 {
			for half := range 2 {
				to, from := h*size+half*size/2+j, h*size+2*j+half
				copy(out[to*stride:(to+1)*stride], t.Data[from*stride:(from+1)*stride])
			}
		}
	}
	t.Data = out
	return t, nil
}
