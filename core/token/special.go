package token

import (
	"encoding/json"
	"fmt"
	"math"
)

// Special holds the ids of tokens with a role; -1 where the tokenizer has none.
type Special struct{ BOS, EOS, UNK, SEP, PAD, CLS, MASK int32 }

// Special returns the ids of the tokens with a role.
func (t *Tokenizer) Special() Special { return t.special }

// MaxLength is the greatest number of tokens that the model behind the tokenizer takes, 0 if it is not known.
func (t *Tokenizer) MaxLength() int { return t.maxLength }

// finish fills in what follows from the rest: the roles of tokens with the usual names.
func (t *Tokenizer) finish() {
	t.before, t.after = t.around()
	t.fast = t.fastWay()
	for _, p := range t.pre {
		if m, ok := p.(metaspace); ok && m.when == first && t.normalizer != nil {
			t.aligns = true
		}
	}
	find := func(names ...string) int32 {
		for _, n := range names {
			if id, ok := t.ID(n); ok {
				return id
			}
		}
		return -1
	}
	t.special = Special{
		BOS:  find("<s>", "<bos>", "<|begin_of_text|>"),
		EOS:  find("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
		UNK:  find("[UNK]", "<unk>"),
		SEP:  find("[SEP]"),
		PAD:  find("[PAD]", "<pad>"),
		CLS:  find("[CLS]"),
		MASK: find("[MASK]", "<mask>"),
	}
}

// ApplyConfig takes over what a tokenizer_config.json says: the roles of tokens and model_max_length. Settings of slow Python tokenizers, such as do_lower_case, override
// those of a BERT normalizer.
func (t *Tokenizer) ApplyConfig(data []byte) error {
	var f map[string]json.RawMessage
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("token: tokenizer_config.json: %w", err)
	}
	for name, to := range map[string]*int32{
		"bos_token": &t.special.BOS, "eos_token": &t.special.EOS, "unk_token": &t.special.UNK, "sep_token": &t.special.SEP,
		"pad_token": &t.special.PAD, "cls_token": &t.special.CLS, "mask_token": &t.special.MASK,
	} {
		raw := f[name]
		if isNull(raw) {
			continue
		}
		var s string
		if json.Unmarshal(raw, &s) != nil {
			var o struct {
				Content string `json:"content"`
			}
			if err := json.Unmarshal(raw, &o); err != nil {
				return fmt.Errorf("token: tokenizer_config.json: %s: expected a string or an object: %w", name, err)
			}
			s = o.Content
		}
		if id, ok := t.ID(s); ok {
			*to = id
		}
	}
	if raw := f["model_max_length"]; !isNull(raw) {
		var n float64
		if err := json.Unmarshal(raw, &n); err != nil {
			return fmt.Errorf("token: tokenizer_config.json: model_max_length: %w", err)
		}
		// Python writes 1e30 for "no limit".
		if n >= 1 && n <= math.MaxInt32 {
			t.maxLength = int(n)
		}
	}
	if b, ok := t.normalizer.(*bertNormalizer); ok {
		n := *b
		var lower, chinese, strip *bool
		for name, to := range map[string]**bool{"do_lower_case": &lower, "tokenize_chinese_chars": &chinese, "strip_accents": &strip} {
			if raw := f[name]; !isNull(raw) {
				if err := json.Unmarshal(raw, to); err != nil {
					return fmt.Errorf("token: tokenizer_config.json: %s: %w", name, err)
				}
			}
		}
		if lower != nil && *lower != n.lower {
			n.lower, n.strip = *lower, *lower
		}
		if chinese != nil {
			n.chinese = *chinese
		}
		if strip != nil {
			n.strip = *strip
		}
		if n != *b {
			t.normalizer = &n
			t.indexAdded()
		}
	}
	return nil
}
