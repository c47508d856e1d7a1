package peft

import (
	"fmt"

	"github.com/temper-ml/temper/core/model"
)

// names of a family's projections: where adapters go when the config does not say, as in peft's tables.
type names struct{ query, key, value, output, up, down string }

var families = map[string]names{
	"bert":       {"query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"},
	"distilbert": {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"},
	"albert":     {"query", "key", "value", "attention.dense", "ffn", "ffn_output"},
	"mpnet":      {"q", "k", "v", "o", "intermediate.dense", "output.dense"},
	"modernbert": {"Wqkv", "", "", "attn.Wo", "Wi", "mlp.Wo"},
	"deberta-v2": {"query_proj", "key_proj", "value_proj", "attention.output.dense", "intermediate.dense", "output.dense"},
	"gpt2":       {"c_attn", "", "", "attn.c_proj", "c_fc", "mlp.c_proj"},
	"gpt_neox":   {"query_key_value", "", "", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"},
	"phi3":       {"qkv_proj", "", "", "o_proj", "gate_up_proj", "down_proj"},
	"llama":      {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"},
}

func familyNames(modelType string) names {
	switch modelType {
	case "roberta", "xlm-roberta", "electra", "camembert":
		modelType = "bert"
	}
	if n, ok := families[modelType]; ok {
		return n
	}
	return families["llama"]
}

// complete fills in what the config leaves to the model: targets, the layers of the head that are trained whole, sizes of prompts.
func (c *Config) complete(m model.Model) error {
	mc := m.Config()
	n := familyNames(mc.ModelType)
	list := func(s ...string) Targets {
		var t Targets
		for _, x := range s {
			if x != "" {
				t.Names = append(t.Names, x)
			}
		}
		return t
	}
	if c.Targets.Empty() {
		switch c.Type {
		case LoRA, AdaLoRA, VeRA, OFT, BOFT:
			c.Targets = list(n.query, n.value)
			if c.Type == VeRA {
				c.Targets = list(n.query) // one pair of shared matrices serves all layers best when shapes agree
			}
		case IA3:
			c.Targets = list(n.key, n.value, n.down)
			if n.key == "" {
				c.Targets = list(n.query, n.down)
			}
			c.FeedForward = list(n.down)
		case Bottleneck:
			c.Targets = list(n.output, n.down)
		case LNTuning:
			c.Targets = normNames(m)
		}
	}
	if c.TaskType == "" {
		switch mc.Head {
		case model.HeadSequence:
			c.TaskType = "SEQ_CLS"
		case model.HeadToken:
			c.TaskType = "TOKEN_CLS"
		case model.HeadCausal:
			c.TaskType = "CAUSAL_LM"
		case model.HeadNone:
			c.TaskType = "FEATURE_EXTRACTION"
		}
	}
	if c.ModulesToSave == nil && (mc.Head == model.HeadSequence || mc.Head == model.HeadToken) {
		c.ModulesToSave = []string{"classifier", "score"}
	}
	switch c.Type {
	case PrefixTuning, PromptTuning, PTuning:
		c.NumLayers, c.NumHeads, c.TokenDim = mc.Layers, mc.Heads, mc.Hidden
		if c.Type == PrefixTuning && mc.KVHeads != mc.Heads {
			c.TokenDim, c.NumHeads = mc.HeadDim*mc.KVHeads, mc.KVHeads
		}
		if c.EncoderHidden == 0 {
			c.EncoderHidden = c.TokenDim
		}
	}
	if c.Targets.Empty() && c.Type != BitFit && c.Type != PrefixTuning && c.Type != PromptTuning && c.Type != PTuning {
		return fmt.Errorf("%s: target_modules: expected names of layers, got none", c.Type)
	}
	return nil
}

// normNames are the last parts of the names of a model's norms.
func normNames(m model.Model) Targets {
	seen := map[string]bool{}
	var t Targets
	for _, p := range m.Params() {
		if last, ok := normOf(p.Name); ok && !seen[last] {
			seen[last] = true
			t.Names = append(t.Names, last)
		}
	}
	return t
}
