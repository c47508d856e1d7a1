package checkpoint

import (
	"fmt"
	"slices"
	"strings"
)

// change is what llama.cpp does to a tensor on its way from Hugging Face's layout into a GGUF file.
type change uint8

const (
	same      change = iota
	rotated          // rows of each head reordered so that pairs to be rotated are neighbours (q and k of the Llama kin)
	rotatedKV        // the same with the number of key-value heads
	plusOne          // a norm's weight w stored as 1+w (Gemma)
	turned           // transposed (GPT-2's Conv1D holds [in, out])
	grouped          // GPT-NeoX: rows [head][q, k, v] stored as [q, k, v][head]
)

// mappedName is a tensor in both worlds. Names without ".weight" stand for the weight and, where there is one, the bias.
type mappedName struct {
	gguf, hf string
	change   change
}

// ggufFamily says how an architecture of GGUF corresponds to a model type of Hugging Face.
type ggufFamily struct {
	arch, modelType, class string
	global                 []mappedName
	layer                  []mappedName // under "blk.N." and layerPrefix+"N."
	layerPrefix            string
}

var llamaGlobal = []mappedName{{"token_embd", "model.embed_tokens", same}, {"output_norm", "model.norm", same}, {"output", "lm_head", same}}

func llamaLayer(qk, kv change) []mappedName {
	return []mappedName{
		{"attn_norm", "input_layernorm", same}, {"attn_q", "self_attn.q_proj", qk}, {"attn_k", "self_attn.k_proj", kv}, {"attn_v", "self_attn.v_proj", same},
		{"attn_output", "self_attn.o_proj", same}, {"ffn_norm", "post_attention_layernorm", same},
		{"ffn_gate", "mlp.gate_proj", same}, {"ffn_up", "mlp.up_proj", same}, {"ffn_down", "mlp.down_proj", same},
	}
}

var headNorms = []mappedName{{"attn_q_norm", "self_attn.q_norm", same}, {"attn_k_norm", "self_attn.k_norm", same}}

// withNorms makes every norm of a family plusOne.
func withNorms(names []mappedName) []mappedName {
	out := slices.Clone(names)
	for i := range out {
		if strings.HasSuffix(out[i].gguf, "norm") {
			out[i].change = plusOne
		}
	}
	return out
}

var gemma3Layer = withNorms(append([]mappedName{
	{"attn_norm", "input_layernorm", same}, {"attn_q", "self_attn.q_proj", same}, {"attn_k", "self_attn.k_proj", same}, {"attn_v", "self_attn.v_proj", same},
	{"attn_output", "self_attn.o_proj", same}, {"post_attention_norm", "post_attention_layernorm", same}, {"ffn_norm", "pre_feedforward_layernorm", same},
	{"ffn_gate", "mlp.gate_proj", same}, {"ffn_up", "mlp.up_proj", same}, {"ffn_down", "mlp.down_proj", same}, {"post_ffw_norm", "post_feedforward_layernorm", same},
}, headNorms...))

// The first family of an architecture is the one that a file without further hints belongs to.
var ggufFamilies = []ggufFamily{
	{arch: "llama", modelType: "llama", class: "LlamaForCausalLM", global: llamaGlobal, layer: llamaLayer(rotated, rotatedKV), layerPrefix: "model.layers."},
	{arch: "llama", modelType: "mistral", class: "MistralForCausalLM", global: llamaGlobal, layer: llamaLayer(rotated, rotatedKV), layerPrefix: "model.layers."},
	{arch: "qwen2", modelType: "qwen2", class: "Qwen2ForCausalLM", global: llamaGlobal, layer: llamaLayer(same, same), layerPrefix: "model.layers."},
	{arch: "qwen3", modelType: "qwen3", class: "Qwen3ForCausalLM", global: llamaGlobal, layer: append(llamaLayer(same, same), headNorms...), layerPrefix: "model.layers."},
	{arch: "smollm3", modelType: "smollm3", class: "SmolLM3ForCausalLM", global: llamaGlobal, layer: llamaLayer(rotated, rotatedKV), layerPrefix: "model.layers."},
	{arch: "gemma3", modelType: "gemma3_text", class: "Gemma3ForCausalLM", global: withNorms(llamaGlobal), layer: gemma3Layer, layerPrefix: "model.layers."},
	{arch: "phi3", modelType: "phi3", class: "Phi3ForCausalLM", global: llamaGlobal, layerPrefix: "model.layers.", layer: []mappedName{
		{"attn_norm", "input_layernorm", same}, {"attn_qkv", "self_attn.qkv_proj", same}, {"attn_output", "self_attn.o_proj", same},
		{"ffn_norm", "post_attention_layernorm", same}, {"ffn_up", "mlp.gate_up_proj", same}, {"ffn_down", "mlp.down_proj", same},
	}},
	{arch: "gpt2", modelType: "gpt2", class: "GPT2LMHeadModel", layerPrefix: "transformer.h.", global: []mappedName{
		{"token_embd", "transformer.wte", same}, {"position_embd", "transformer.wpe", same}, {"output_norm", "transformer.ln_f", same}, {"output", "lm_head", same},
	}, layer: []mappedName{
		{"attn_norm", "ln_1", same}, {"attn_qkv", "attn.c_attn", turned}, {"attn_output", "attn.c_proj", turned},
		{"ffn_norm", "ln_2", same}, {"ffn_up", "mlp.c_fc", turned}, {"ffn_down", "mlp.c_proj", turned},
	}},
	{arch: "gptneox", modelType: "gpt_neox", class: "GPTNeoXForCausalLM", layerPrefix: "gpt_neox.layers.", global: []mappedName{
		{"token_embd", "gpt_neox.embed_in", same}, {"output_norm", "gpt_neox.final_layer_norm", same}, {"output", "embed_out", same},
	}, layer: []mappedName{
		{"attn_norm", "input_layernorm", same}, {"attn_qkv", "attention.query_key_value", grouped}, {"attn_output", "attention.dense", same},
		{"ffn_norm", "post_attention_layernorm", same}, {"ffn_up", "mlp.dense_h_to_4h", same}, {"ffn_down", "mlp.dense_4h_to_h", same},
	}},
}

// ggufArchitectures lists what can be mapped, for errors.
func ggufArchitectures() string {
	var names []string
	for _, f := range ggufFamilies {
		if !slices.Contains(names, f.arch) {
			names = append(names, f.arch)
		}
	}
	return strings.Join(names, ", ")
}

// family finds the family of a file; a sliding window tells Mistral from Llama.
func (g *GGUF) family() (*ggufFamily, error) {
	arch := g.String("general.architecture")
	if arch == "" {
		return nil, fmt.Errorf("%s: general.architecture is missing", g.path)
	}
	want := ""
	if _, ok := g.Int(arch + ".attention.sliding_window"); ok && arch == "llama" {
		want = "mistral"
	}
	for i, f := range ggufFamilies {
		if f.arch == arch && (want == "" || f.modelType == want) {
			return &ggufFamilies[i], nil
		}
	}
	return nil, fmt.Errorf("%s: architecture %q is not supported (supported: %s)", g.path, arch, ggufArchitectures())
}

// familyOfType finds the family of a Hugging Face model type.
func familyOfType(modelType string) (*ggufFamily, error) {
	for i, f := range ggufFamilies {
		if f.modelType == modelType {
			return &ggufFamilies[i], nil
		}
	}
	return nil, fmt.Errorf("model type %q cannot be written as GGUF (supported architectures: %s)", modelType, ggufArchitectures())
}

// splitParameter divides "blk.0.attn_q.weight" into the module and ".weight" or ".bias".
func splitParameter(name string) (module, parameter string) {
	for _, p := range []string{".weight", ".bias"} {
		if m, ok := strings.CutSuffix(name, p); ok {
			return m, p
		}
	}
	return name, ""
}

// cutLayer takes "12." off "12.attn_q".
func cutLayer(s string) (layer, rest string, ok bool) {
	layer, rest, ok = strings.Cut(s, ".")
	if !ok || layer == "" || len(layer) > 5 || strings.Trim(layer, "0123456789") != "" {
		return "", "", false
	}
	return layer, rest, true
}

// toHF translates a GGUF name; ok is false where there is no counterpart.
func (f *ggufFamily) toHF(name string) (hf string, c change, ok bool) {
	module, parameter := splitParameter(name)
	table, prefix := f.global, ""
	if rest, isLayer := strings.CutPrefix(module, "blk."); isLayer {
		n, m, ok := cutLayer(rest)
		if !ok {
			return "", same, false
		}
		table, prefix, module = f.layer, f.layerPrefix+n+".", m
	}
	for _, m := range table {
		if m.gguf == module && parameter != "" {
			return prefix + m.hf + parameter, m.forParameter(parameter), true
		}
	}
	return "", same, false
}

// toGGUF translates a Hugging Face name; ok is false where there is no counterpart.
func (f *ggufFamily) toGGUF(name string) (gguf string, c change, ok bool) {
	module, parameter := splitParameter(name)
	table, prefix := f.global, ""
	if rest, isLayer := strings.CutPrefix(module, f.layerPrefix); isLayer {
		n, m, ok := cutLayer(rest)
		if !ok {
			return "", same, false
		}
		table, prefix, module = f.layer, "blk."+n+".", m
	}
	for _, m := range table {
		if m.hf == module && parameter != "" {
			return prefix + m.gguf + parameter, m.forParameter(parameter), true
		}
	}
	return "", same, false
}

// forParameter is the change of a weight or a bias: a bias has no columns to transpose.
func (m mappedName) forParameter(parameter string) change {
	if parameter == ".bias" && (m.change == turned || m.change == plusOne) {
		return same
	}
	return m.change
}
