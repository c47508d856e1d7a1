package pretrain

import (
	"encoding/json"
	"fmt"

	"github.com/temper-ml/temper/core/token"
)

// Shape is an architecture in a few numbers.
type Shape struct {
	// Family is "bert" (masked) or "llama" (causal).
	Family                                       string
	Hidden, Layers, Heads, KVHeads, FFN, Context int
	// Untied gives the output layer weights of its own.
	Untied bool
}

// Families are those that Config writes. Any other that temper knows can be trained from a config.json.
var Families = []string{"bert", "llama"}

// Config is the config.json of a network of this shape over t's vocabulary.
func (s Shape) Config(t *token.Tokenizer) ([]byte, error) {
	sp := t.Special()
	c := map[string]any{
		"vocab_size": t.MaxID() + 1, "hidden_size": s.Hidden, "num_hidden_layers": s.Layers, "num_attention_heads": s.Heads, "intermediate_size": s.FFN,
		"max_position_embeddings": s.Context, "initializer_range": 0.02, "tie_word_embeddings": !s.Untied,
	}
	id := func(key string, v int32) {
		if v >= 0 {
			c[key] = v
		}
	}
	id("pad_token_id", sp.PAD)
	switch s.Family {
	case "bert":
		c["model_type"], c["architectures"], c["type_vocab_size"], c["hidden_act"], c["layer_norm_eps"] = "bert", []string{"BertForMaskedLM"}, 2, "gelu", 1e-12
		c["hidden_dropout_prob"], c["attention_probs_dropout_prob"] = 0.1, 0.1
	case "llama":
		c["model_type"], c["architectures"], c["hidden_act"], c["rms_norm_eps"] = "llama", []string{"LlamaForCausalLM"}, "silu", 1e-5
		c["num_key_value_heads"] = s.Heads
		if s.KVHeads > 0 {
			c["num_key_value_heads"] = s.KVHeads
		}
		c["rope_theta"], c["attention_bias"], c["mlp_bias"], c["attention_dropout"] = 10000.0, false, false, 0.0
		id("bos_token_id", endOf(t)) // documents are told apart by one token: a text begins after it
		id("eos_token_id", endOf(t))
	default:
		return nil, fmt.Errorf("family %q: expected one of %v, or a config.json", s.Family, Families)
	}
	return json.MarshalIndent(c, "", "  ")
}
