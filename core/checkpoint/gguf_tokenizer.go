package checkpoint

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Token types of GGUF.
const (
	tokenNormal  = int32(1)
	tokenUnknown = int32(2)
	tokenControl = int32(3)
	tokenUser    = int32(4)
	tokenUnused  = int32(5)
	tokenByte    = int32(6)
)

// maxVocab bounds token ids, so that a lying id cannot ask for more memory than a vocabulary takes.
const maxVocab = 1 << 22

// tokenizerJSON is the part of tokenizer.json that a GGUF file can hold.
type tokenizerJSON struct {
	Added []struct {
		ID      int    `json:"id"`
		Content string `json:"content"`
		Special bool   `json:"special"`
	} `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Model         struct {
		Type         string            `json:"type"`
		Unknown      string            `json:"unk_token"`
		ByteFallback bool              `json:"byte_fallback"`
		Vocab        map[string]int    `json:"vocab"`
		Merges       []json.RawMessage `json:"merges"`
	} `json:"model"`
}

// Pre-tokenizers of byte-level vocabularies by the pattern that tokenizer.json splits with, under llama.cpp's names.
var ggufPreTokenizers = map[string]string{
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`: "llama-bpe",
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:      "qwen2",
}

// ggufTokenizer writes the tokenizer of a folder as GGUF metadata.
func (f *Folder) ggufTokenizer(c *hfConfig) ([]KV, error) {
	b, err := f.File(TokenizerFile)
	if err != nil {
		return nil, err
	}
	var t tokenizerJSON
	// The vocabulary of other models than BPE is no object; its type is what the error should name.
	if err := json.Unmarshal(b, &t); err != nil && (t.Model.Type == "BPE" || t.Model.Type == "") {
		return nil, fmt.Errorf("%s: bad JSON: %w", TokenizerFile, err)
	}
	if t.Model.Type != "BPE" {
		return nil, fmt.Errorf("%s: a %s tokenizer cannot be written as GGUF (BPE can)", TokenizerFile, t.Model.Type)
	}
	size := 0
	for tok, id := range t.Model.Vocab {
		if id < 0 || id > maxVocab {
			return nil, fmt.Errorf("%s: token %q has the id %d", TokenizerFile, tok, id)
		}
		size = max(size, id+1)
	}
	for _, a := range t.Added {
		if a.ID < 0 || a.ID > maxVocab {
			return nil, fmt.Errorf("%s: token %q has the id %d", TokenizerFile, a.Content, a.ID)
		}
		size = max(size, a.ID+1)
	}
	if v, ok := c.float("vocab_size"); ok && v <= maxVocab {
		size = max(size, int(v)) // tables are padded to round sizes; every row needs a token
	}
	tokens, types := make([]string, size), make([]int32, size)
	ids := make(map[string]int, size)
	for i := range tokens {
		tokens[i], types[i] = fmt.Sprintf("[PAD%d]", i), tokenUnused
	}
	for tok, id := range t.Model.Vocab {
		tokens[id], types[id], ids[tok] = tok, tokenNormal, id
	}
	for _, a := range t.Added {
		tokens[a.ID], types[a.ID], ids[a.Content] = a.Content, tokenUser, a.ID
		if a.Special {
			types[a.ID] = tokenControl
		}
	}
	kv := []KV{}
	put := func(key string, v any) { kv = append(kv, KV{"tokenizer.ggml." + key, v}) }
	if t.Model.ByteFallback {
		for i, tok := range tokens {
			if len(tok) == 6 && strings.HasPrefix(tok, "<0x") && tok[5] == '>' {
				types[i] = tokenByte
			}
		}
		for i, typ := range types {
			if typ == tokenUser { // matched in the text before spaces are marked
				tokens[i] = strings.ReplaceAll(tokens[i], "▁", " ")
			}
		}
		if id, ok := ids[t.Model.Unknown]; ok && t.Model.Unknown != "" {
			types[id] = tokenUnknown
		}
		scores, err := t.scores(tokens, ids)
		if err != nil {
			return nil, err
		}
		put("model", "llama")
		put("pre", "default")
		put("tokens", tokens)
		put("scores", scores)
		put("token_type", types)
		put("add_space_prefix", strings.Contains(string(t.Normalizer), `"Prepend"`) || strings.Contains(string(t.PreTokenizer), `"Metaspace"`))
	} else {
		pre, err := t.preTokenizer()
		if err != nil {
			return nil, err
		}
		put("model", "gpt2")
		put("pre", pre)
		put("tokens", tokens)
		put("token_type", types)
		merges := make([]string, len(t.Model.Merges))
		for i, m := range t.Model.Merges {
			left, right, err := mergePair(m)
			if err != nil {
				return nil, err
			}
			merges[i] = left + " " + right
		}
		put("merges", merges)
	}
	special, template, err := f.tokenizerConfig()
	if err != nil {
		return nil, err
	}
	if special["unk"] == "" {
		special["unk"] = t.Model.Unknown
	}
	for _, s := range [][2]string{{"bos", "bos_token_id"}, {"eos", "eos_token_id"}, {"unk", "unknown_token_id"}, {"pad", "padding_token_id"}} {
		if id, ok := ids[special[s[0]]]; ok && special[s[0]] != "" {
			put(s[1], uint32(id))
		} else if v, ok := c.float(s[0] + "_token_id"); ok && v >= 0 && int(v) < size {
			put(s[1], uint32(v))
		}
	}
	bos, eos := t.template()
	put("add_bos_token", bos)
	put("add_eos_token", eos)
	if template != "" {
		kv = append(kv, KV{"tokenizer.chat_template", template})
	}
	return kv, nil
}

// scores gives each token minus the rank of the first merge that makes it, which has llama.cpp's merging by score take the order of the merges.
func (t *tokenizerJSON) scores(tokens []string, ids map[string]int) ([]float32, error) {
	scores := make([]float32, len(tokens))
	seen := make([]bool, len(tokens))
	for rank, m := range t.Model.Merges {
		left, right, err := mergePair(m)
		if err != nil {
			return nil, err
		}
		if id, ok := ids[left+right]; ok && !seen[id] {
			scores[id], seen[id] = -float32(rank), true
		}
	}
	return scores, nil
}

// mergePair reads a merge, written as "a b" or ["a", "b"].
func mergePair(raw json.RawMessage) (left, right string, err error) {
	var pair []string
	if json.Unmarshal(raw, &pair) == nil && len(pair) == 2 {
		return pair[0], pair[1], nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if left, right, ok := strings.Cut(s, " "); ok {
			return left, right, nil
		}
	}
	return "", "", fmt.Errorf("%s: expected a merge of two tokens, got %.60s", TokenizerFile, raw)
}

// preTokenizer finds llama.cpp's name for how a byte-level vocabulary splits text.
func (t *tokenizerJSON) preTokenizer() (string, error) {
	type step struct {
		Type    string `json:"type"`
		Pattern struct {
			Regex string `json:"Regex"`
		} `json:"pattern"`
		UseRegex   *bool  `json:"use_regex"`
		Individual bool   `json:"individual_digits"`
		Steps      []step `json:"pretokenizers"`
	}
	var s step
	if err := json.Unmarshal(t.PreTokenizer, &s); err != nil {
		return "", fmt.Errorf("%s: pre_tokenizer: bad JSON: %w", TokenizerFile, err)
	}
	steps := s.Steps
	if s.Type != "Sequence" {
		steps = []step{s}
	}
	byteLevel := func(s step, regex bool) bool {
		return s.Type == "ByteLevel" && (s.UseRegex == nil || *s.UseRegex) == regex
	}
	switch {
	case len(steps) == 1 && byteLevel(steps[0], true):
		return "gpt-2", nil
	case len(steps) == 2 && steps[0].Type == "Digits" && steps[0].Individual && byteLevel(steps[1], true):
		return "smollm", nil
	case len(steps) == 2 && steps[0].Type == "Split" && byteLevel(steps[1], false):
		if name, ok := ggufPreTokenizers[steps[0].Pattern.Regex]; ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s: llama.cpp has no name for this pre-tokenizer: %.200s", TokenizerFile, t.PreTokenizer)
}

// template reports whether a text gets a token in front and one behind.
func (t *tokenizerJSON) template() (front, behind bool) {
	type part struct {
		Special *struct{} `json:"SpecialToken"`
	}
	type processor struct {
		Type   string      `json:"type"`
		Single []part      `json:"single"`
		Steps  []processor `json:"processors"`
	}
	var p processor
	if json.Unmarshal(t.PostProcessor, &p) != nil { // null or of another kind: nothing is added
		return false, false
	}
	for _, q := range append(p.Steps, p) {
		if n := len(q.Single); n > 0 {
			front = front || q.Single[0].Special != nil
			behind = behind || q.Single[n-1].Special != nil
		}
	}
	return front, behind
}

// tokenizerConfig reads the special tokens ("bos", "eos", "unk", "pad") and the chat template of a folder.
func (f *Folder) tokenizerConfig() (special map[string]string, template string, err error) {
	special = map[string]string{}
	if f.Has(TokenizerConfig) {
		var raw map[string]json.RawMessage
		if err := f.readJSON(TokenizerConfig, &raw); err != nil {
			return nil, "", err
		}
		for _, k := range []string{"bos", "eos", "unk", "pad"} {
			var s string
			var o struct {
				Content string `json:"content"`
			}
			if json.Unmarshal(raw[k+"_token"], &s) == nil {
				special[k] = s
			} else if json.Unmarshal(raw[k+"_token"], &o) == nil {
				special[k] = o.Content
			}
		}
		_ = json.Unmarshal(raw["chat_template"], &template) // a list of named templates has no place in the file
	}
	if f.Has("chat_template.jinja") {
		b, err := f.File("chat_template.jinja")
		if err != nil {
			return nil, "", err
		}
		template = string(b)
	}
	return special, template, nil
}
