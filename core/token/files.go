package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// HasFiles reports whether FromFiles finds a tokenizer of a model family among the files of a folder.
func HasFiles(has func(name string) bool, family string) bool {
	switch family {
	case "bert", "distilbert", "electra":
		return has("tokenizer.json") || has("vocab.txt")
	case "gpt2", "roberta":
		return has("tokenizer.json") || has("vocab.json") && has("merges.txt")
	}
	return has("tokenizer.json")
}

// FromFiles reads the tokenizer of a model folder: tokenizer.json, or what older checkpoints of some families have in its place: vocab.txt (BERT,
// DistilBERT, ELECTRA), vocab.json with merges.txt (GPT-2, RoBERTa). tokenizer_config.json adds its settings. family is the model_type; read gives
// a file's content, or an error that wraps fs.ErrNotExist.
func FromFiles(read func(name string) ([]byte, error), family string) (*Tokenizer, error) {
	config, err := read("tokenizer_config.json")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	t, err := fromFiles(read, family, config)
	if err != nil || config == nil {
		return t, err
	}
	return t, t.ApplyConfig(config)
}

func fromFiles(read func(name string) ([]byte, error), family string, config []byte) (*Tokenizer, error) {
	raw, missing := read("tokenizer.json")
	if missing == nil {
		return Load(raw)
	}
	if !errors.Is(missing, fs.ErrNotExist) {
		return nil, missing
	}
	var vocab, merges []byte
	var err error
	switch family {
	case "bert", "distilbert", "electra":
		if vocab, err = read("vocab.txt"); err != nil {
			break
		}
		set := struct {
			Lower *bool `json:"do_lower_case"`
		}{}
		if config != nil {
			if err := json.Unmarshal(config, &set); err != nil {
				return nil, fmt.Errorf("token: tokenizer_config.json: %w", err)
			}
		}
		return FromVocabTxt(vocab, set.Lower == nil || *set.Lower)
	case "gpt2", "roberta":
		if vocab, err = read("vocab.json"); err != nil {
			break
		}
		if merges, err = read("merges.txt"); err != nil {
			break
		}
		return FromGPT2(vocab, merges)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, missing
}

// FromVocabTxt makes a BERT tokenizer of a vocab.txt: one token a line, the line number is the id.
func FromVocabTxt(vocab []byte, lowercase bool) (*Tokenizer, error) {
	lines := strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(vocab), "\r\n", "\n"), "\n"), "\n")
	ids := make(map[string]int, len(lines))
	for i, s := range lines {
		ids[s] = i
	}
	if _, ok := ids["[UNK]"]; !ok {
		return nil, fmt.Errorf("token: vocab.txt: expected a line [UNK] among %d, found none", len(lines))
	}
	var added []any
	for _, s := range []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} {
		if id, ok := ids[s]; ok {
			added = append(added, addedJSON(id, s, true))
		}
	}
	file := fileJSON(added)
	file["normalizer"] = object{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": nil, "lowercase": lowercase}
	file["pre_tokenizer"] = object{"type": "BertPreTokenizer"}
	if cls, ok := ids["[CLS]"]; ok {
		if sep, ok := ids["[SEP]"]; ok {
			file["post_processor"] = bertTemplate(cls, sep)
		}
	}
	file["decoder"] = object{"type": "WordPiece", "prefix": "##", "cleanup": true}
	file["model"] = object{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids}
	return build(file)
}

// FromGPT2 makes a byte-level BPE tokenizer of a vocab.json and a merges.txt. Vocabularies with <s> and </s> get RoBERTa's template.
func FromGPT2(vocab, merges []byte) (*Tokenizer, error) {
	ids := map[string]int{}
	if err := json.Unmarshal(vocab, &ids); err != nil {
		return nil, fmt.Errorf("token: vocab.json: %w", err)
	}
	pairs, err := parseMerges(strings.Split(strings.TrimRight(strings.ReplaceAll(string(merges), "\r\n", "\n"), "\n"), "\n"))
	if err != nil {
		return nil, fmt.Errorf("token: merges.txt: %w", err)
	}
	var added []any
	for _, s := range []string{"<|endoftext|>", "<s>", "<pad>", "</s>", "<unk>"} {
		if id, ok := ids[s]; ok {
			added = append(added, addedJSON(id, s, true))
		}
	}
	if id, ok := ids["<mask>"]; ok {
		mask := addedJSON(id, "<mask>", true)
		mask["lstrip"] = true
		added = append(added, mask)
	}
	file := fileJSON(added)
	file["pre_tokenizer"] = object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	file["decoder"] = file["pre_tokenizer"]
	file["post_processor"] = object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}
	if cls, ok := ids["<s>"]; ok {
		if sep, ok := ids["</s>"]; ok {
			file["post_processor"] = object{"type": "RobertaProcessing", "sep": []any{"</s>", sep}, "cls": []any{"<s>", cls}, "trim_offsets": true, "add_prefix_space": false}
		}
	}
	file["model"] = bpeJSON(ids, pairs)
	return build(file)
}

type object map[string]any

func fileJSON(added []any) object {
	if added == nil {
		added = []any{}
	}
	return object{"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added, "normalizer": nil, "pre_tokenizer": nil, "post_processor": nil, "decoder": nil}
}

func addedJSON(id int, content string, special bool) object {
	return object{"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": !special, "special": special}
}

func bpeJSON(ids map[string]int, merges [][2]string) object {
	if merges == nil {
		merges = [][2]string{}
	}
	return object{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
		"vocab": ids, "merges": merges}
}

func bertTemplate(cls, sep int) object {
	special := func(name string, typeID int) object {
		return object{"SpecialToken": object{"id": name, "type_id": typeID}}
	}
	text := func(name string, typeID int) object { return object{"Sequence": object{"id": name, "type_id": typeID}} }
	return object{
		"type":   "TemplateProcessing",
		"single": []any{special("[CLS]", 0), text("A", 0), special("[SEP]", 0)},
		"pair":   []any{special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", 1), special("[SEP]", 1)},
		"special_tokens": object{
			"[CLS]": object{"id": "[CLS]", "ids": []int{cls}, "tokens": []string{"[CLS]"}},
			"[SEP]": object{"id": "[SEP]", "ids": []int{sep}, "tokens": []string{"[SEP]"}},
		},
	}
}

// build writes a tokenizer.json and loads it, so that whatever is made here can be saved.
func build(file object) (*Tokenizer, error) {
	data, err := marshal(file)
	if err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: %w", err)
	}
	return Load(data)
}

// marshal is json.Marshal without HTML escapes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
