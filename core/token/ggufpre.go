package token

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// preTokenization is how llama.cpp cuts text for a byte-level vocabulary: patterns applied one after the other.
type preTokenization struct {
	patterns     []string
	ignoreMerges bool
	addBOS       bool
}

const (
	patternDefault0 = "[\\p{P}\\$\\+<=>\\^~\\|]+"
	patternFalcon0  = "[\\p{P}\\$\\+<=>\\^~\\|`]+"
	patternSpaced   = " ?[^(\\s|.,!?…。，、।۔،)]+"
	patternTekken   = "[^\\r\\n\\p{L}\\p{N}]?((?=[\\p{L}])([^a-z]))*((?=[\\p{L}])([^A-Z]))+|[^\\r\\n\\p{L}\\p{N}]?((?=[\\p{L}])([^a-z]))+((?=[\\p{L}])([^A-Z]))*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
	patternGPT4o    = "[^\\r\\n\\p{L}\\p{N}]?((?=[\\p{L}])([^a-z]))*((?=[\\p{L}])([^A-Z]))+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\\r\\n\\p{L}\\p{N}]?((?=[\\p{L}])([^a-z]))+((?=[\\p{L}])([^A-Z]))*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
	patternDeepSeek = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)

// preTokenizations by the names in tokenizer.ggml.pre, families that cut alike in one line.
var preTokenizations = func() map[string]preTokenization {
	m := map[string]preTokenization{}
	add := func(p preTokenization, names ...string) {
		for _, n := range names {
			m[n] = p
		}
	}
	one := func(patterns ...string) preTokenization { return preTokenization{patterns: patterns} }
	add(one(patternDefault0, patternGPT2, "\\p{N}+", "[0-9][0-9][0-9]"), "", "default")
	add(preTokenization{patterns: []string{patternLlama3}, ignoreMerges: true, addBOS: true}, "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")
	add(one(patternLlama3), "dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "seed-coder")
	add(one(patternQwen2), "qwen2", "stablelm2", "hunyuan", "deepseek-r1-qwen", "megrez", "kormo")
	add(one(patternGPT2), "gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "mpt", "olmo", "jais", "trillion",
		"granite-docling", "roberta-bpe", "jina-v1-en", "jina-v2-code", "modern-bert", "exaone4")
	add(one("\\p{N}", patternGPT2), "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b")
	add(one(patternFalcon0, patternGPT2, "[0-9][0-9][0-9]"), "falcon")
	add(one(patternSpaced), "poro-chat", "bloom", "gpt3-finnish")
	add(one(patternSpaced, "\\p{N}"), "viking")
	add(preTokenization{patterns: []string{patternTekken}, ignoreMerges: true, addBOS: true}, "tekken")
	add(one(patternGPT4o), "gpt-4o", "llama4")
	add(one("\\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", patternDeepSeek), "deepseek-v3", "hunyuan-dense")
	return m
}()

func preTokenizerOf(name string) (preTokenization, error) {
	p, ok := preTokenizations[name]
	if !ok {
		known := slices.Sorted(maps.Keys(preTokenizations))
		return p, fmt.Errorf("tokenizer.ggml.pre: expected one of %s, got %q", strings.Join(known[1:], ", "), name)
	}
	return p, nil
}
