package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/temper-ml/temper/backend"
)

// Head is what stands on top of the network.
type Head string

// Heads. HeadAuto takes the one that the config's "architectures" names.
const (
	HeadAuto     Head = ""
	HeadNone     Head = "none"   // the bare network: hidden states and sentence embeddings
	HeadSequence Head = "seqcls" // one row of logits per sequence
	HeadToken    Head = "tokcls" // one row of logits per token
	HeadMasked   Head = "mlm"    // vocabulary logits per token, encoders
	HeadCausal   Head = "causal" // vocabulary logits of the next token, decoders
)

// Pooling is how token states become a sentence embedding.
type Pooling string

// Poolings as sentence-transformers names them: the mean over tokens, the first token, the last one, the maximum over tokens.
const (
	PoolMean Pooling = "mean"
	PoolCLS  Pooling = "cls"
	PoolLast Pooling = "lasttoken"
	PoolMax  Pooling = "max"
)

// Problem types as transformers names them.
const (
	SingleLabel = "single_label_classification"
	MultiLabel  = "multi_label_classification"
	Regression  = "regression"
)

// Config is a config.json, checked, in one form for all families. Keys that temper does not know are kept and written back.
type Config struct {
	// ModelType is the family: "bert", "llama", …
	ModelType string
	Head      Head
	// Labels are the names of the classes of a classification head, in the order of its logits.
	Labels      []string
	ProblemType string // "" when the file does not say: see Problem
	Pooling     Pooling
	// Decoder is true for families that see to the left only.
	Decoder bool

	Vocab, Hidden, Layers, Heads, KVHeads, HeadDim, Intermediate int

	// Embedding is the width of the word table: Hidden, or less where it is projected.
	Embedding    int
	MaxPositions int
	// PositionOffset is the position of the first token (RoBERTa counts from the pad id + 1).
	PositionOffset int
	Types          int // rows of the token type table
	PadID          int // −1 when there is none
	BOS            int // −1 when there is none
	EOS            []int

	Act       backend.Activation
	NormEps   float32
	InitRange float32
	// TieWords shares the word table with the output layer of a language-model head.
	TieWords bool

	HiddenDropout, AttentionDropout, EmbeddingDropout, ClassifierDropout, PoolerDropout, InnerDropout float32

	// Decoders and ModernBERT. Full[i] says that layer i sees everything, otherwise only Window; NoRope[i] that it has no rotation.
	Rope, LocalRope *Rope
	Window          int
	Full, NoRope    []bool
	AttentionBias   bool
	OutputBias      bool // of the attention's output projection
	MLPBias         bool
	NormBias        bool
	AttentionScale  float32 // 0: 1/sqrt(HeadDim)
	Softcap         float32 // of attention scores
	LogitSoftcap    float32
	LogitScale      float32 // logits are multiplied by it; 0 is 1
	EmbedScale      float32 // 0 is 1
	ResidualScale   float32 // 0 is 1
	Parallel        bool    // attention and feed-forward read the same input
	InverseLayer    bool    // GPT-2: scores divided by the layer's number

	// Encoders with relative positions.
	Buckets, MaxRelative           int
	ContextToPosition, PositionToC bool
	Relative, ShareKeys, NormRel   bool
	AbsolutePositions              bool
	ConvKernel                     int

	PoolerAct    backend.Activation
	ClassifyAct  backend.Activation
	ClassifyPool Pooling // ModernBERT
	ClassifyBias bool
	DecoderBias  bool
	Groups       int // ALBERT: sets of shared layers
	Inner        int // ALBERT: layers in a set

	raw    map[string]json.RawMessage
	family *family
}

// Bounds on what a config may say: far above any model, low enough that products of two do not overflow.
const (
	maxVocab  = 1 << 24
	maxWidth  = 1 << 20
	maxLayers = 1 << 12
	maxHeads  = 1 << 12
	maxLabels = 1 << 16
	maxLength = 1 << 28
)

// ParseConfig reads a config.json of any supported family, as transformers 4 or 5 writes it.
func ParseConfig(data []byte) (*Config, error) {
	r := &reader{}
	if err := json.Unmarshal(data, &r.raw); err != nil {
		if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
			return nil, fmt.Errorf("config: expected a JSON object, got %s", wrong.Value)
		}
		return nil, fmt.Errorf("config: not a JSON object: %w", err)
	}
	c := &Config{raw: r.raw, ModelType: r.string("model_type", "")}
	f, ok := families[c.ModelType]
	if !ok && r.err == nil {
		return nil, fmt.Errorf("config: model_type %q is not supported (supported: %s)", c.ModelType, strings.Join(Families(), ", "))
	}
	if r.err == nil {
		c.family, c.Decoder = f, f.decoder
		c.common(r)
		f.read(c, r)
	}
	if r.err == nil {
		c.check(r)
	}
	if r.err != nil {
		return nil, fmt.Errorf("config: %w", r.err)
	}
	return c, nil
}

// Families lists the supported model types, sorted.
func Families() []string { return slices.Sorted(maps.Keys(families)) }

// common reads what all families share.
func (c *Config) common(r *reader) {
	c.Vocab = r.int("vocab_size", required, 1, maxVocab)
	c.InitRange = float32(r.float("initializer_range", 0.02, 0, 10))
	c.TieWords = r.bool("tie_word_embeddings", c.family.tied)
	c.PadID = r.int("pad_token_id", -1, -1, maxVocab)
	c.BOS = r.int("bos_token_id", -1, -1, maxVocab)
	c.EOS = r.ids("eos_token_id")
	c.PositionOffset = 0
	var archs []string
	r.get("architectures", &archs, "a list of class names")
	c.Head = HeadNone
	if len(archs) == 0 && c.Decoder {
		c.Head = HeadCausal
	}
	if len(archs) > 0 {
		c.Head = headOf(archs[0])
	}
	c.labels(r)
	c.ProblemType = r.string("problem_type", "")
	switch c.ProblemType {
	case "", SingleLabel, MultiLabel, Regression:
	default:
		r.fail("problem_type: expected %s, %s or %s, got %q", SingleLabel, MultiLabel, Regression, c.ProblemType)
	}
	switch p := Pooling(r.string("temper_pooling", "")); p {
	case "", PoolMean, PoolCLS, PoolLast, PoolMax:
		c.Pooling = p
	default:
		r.fail("temper_pooling: unknown pooling %q", p)
	}
}

// ids reads one id or a list of them.
func (r *reader) ids(key string) []int {
	if !r.has(key) {
		return nil
	}
	var list []int
	if r.raw[key][0] == '[' {
		r.get(key, &list, "token ids")
	} else {
		list = []int{r.int(key, 0, -1, maxVocab)}
	}
	for _, id := range list {
		if id < -1 || id > maxVocab {
			r.fail("%s: expected token ids, got %s", key, abridge(r.raw[key]))
			return nil
		}
	}
	return slices.DeleteFunc(list, func(id int) bool { return id < 0 })
}

func headOf(class string) Head {
	for suffix, h := range map[string]Head{
		"ForSequenceClassification": HeadSequence, "ForTokenClassification": HeadToken, "ForMaskedLM": HeadMasked,
		"ForPreTraining": HeadMasked, "ForCausalLM": HeadCausal, "LMHeadModel": HeadCausal,
	} {
		if strings.HasSuffix(class, suffix) {
			return h
		}
	}
	return HeadNone
}

// labels reads id2label, or the number of labels, or label2id. transformers' default is two.
func (c *Config) labels(r *reader) {
	var byID map[string]string
	if r.get("id2label", &byID, "an object of strings") {
		if len(byID) == 0 || len(byID) > maxLabels {
			r.fail("id2label: expected 1 to %d labels, got %d", maxLabels, len(byID))
			return
		}
		c.Labels = make([]string, len(byID))
		seen := make([]bool, len(byID))
		for k, v := range byID {
			i, err := strconv.Atoi(k)
			if err != nil || i < 0 || i >= len(byID) || seen[i] {
				r.fail("id2label: expected ids 0 to %d, got %q", len(byID)-1, k)
				return
			}
			c.Labels[i], seen[i] = v, true
		}
		return
	}
	c.Labels = DefaultLabels(r.int("num_labels", 2, 1, maxLabels))
}

// DefaultLabels are the names that transformers gives to n labels: LABEL_0, LABEL_1, …
func DefaultLabels(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "LABEL_" + strconv.Itoa(i)
	}
	return out
}

// check tests what must hold for every family.
func (c *Config) check(r *reader) {
	if c.Embedding == 0 {
		c.Embedding = c.Hidden
	}
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	if c.HeadDim == 0 {
		if c.Hidden%c.Heads != 0 {
			r.fail("hidden size %d is not a multiple of %d attention heads", c.Hidden, c.Heads)
			return
		}
		c.HeadDim = c.Hidden / c.Heads
	}
	if c.Heads%c.KVHeads != 0 {
		r.fail("%d attention heads are not a multiple of %d key-value heads", c.Heads, c.KVHeads)
	}
	for _, rope := range []*Rope{c.Rope, c.LocalRope} {
		if rope != nil && r.err == nil {
			if err := rope.complete(c.HeadDim, c.MaxPositions); err != nil {
				r.fail("rope: %w", err)
			}
		}
	}
	if !c.family.supports(c.Head) {
		r.fail("architectures: %s has no head %q", c.ModelType, c.Head)
	}
}

// Problem is the problem type, guessed as transformers does when the file does not say: one label is a regression.
func (c *Config) Problem() string {
	switch {
	case c.ProblemType != "":
		return c.ProblemType
	case len(c.Labels) == 1:
		return Regression
	}
	return SingleLabel
}

// Class is the name of transformers' class for the family and head, for "architectures".
func (c *Config) Class() string {
	switch c.Head {
	case HeadSequence:
		return c.family.class + "ForSequenceClassification"
	case HeadToken:
		return c.family.class + "ForTokenClassification"
	case HeadMasked:
		return c.family.class + "ForMaskedLM"
	case HeadCausal:
		if c.ModelType == "gpt2" {
			return "GPT2LMHeadModel"
		}
		return c.family.class + "ForCausalLM"
	}
	return c.family.class + "Model"
}

// Clone returns a copy whose settings can be changed.
func (c *Config) Clone() *Config {
	d := *c
	d.Labels, d.raw = slices.Clone(c.Labels), maps.Clone(c.raw)
	return &d
}

// Get returns a key of the file as it was read, nil when absent.
func (c *Config) Get(key string) json.RawMessage { return c.raw[key] }

// Set sets a key of the file as it will be written; it does not change the network.
func (c *Config) Set(key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("config: %s: %w", key, err)
	}
	c.raw[key] = b
	return nil
}

// MarshalJSON writes config.json: what was read, with head, labels, problem type and pooling as they are now.
func (c *Config) MarshalJSON() ([]byte, error) {
	out := maps.Clone(c.raw)
	put := func(key string, v any) {
		b, err := json.Marshal(v)
		if err == nil { // strings, numbers and maps of them
			out[key] = b
		}
	}
	var archs []string
	if json.Unmarshal(out["architectures"], &archs) != nil || len(archs) == 0 || headOf(archs[0]) != c.Head {
		put("architectures", []string{c.Class()})
	}
	if c.Head == HeadSequence || c.Head == HeadToken {
		byID, byLabel := map[string]string{}, map[string]int{}
		for i, l := range c.Labels {
			byID[strconv.Itoa(i)], byLabel[l] = l, i
		}
		put("id2label", byID)
		put("label2id", byLabel)
		delete(out, "num_labels")
	}
	if c.ProblemType != "" {
		put("problem_type", c.ProblemType)
	}
	if c.Pooling != "" {
		put("temper_pooling", c.Pooling)
	}
	return json.MarshalIndent(out, "", "  ")
}

// ParsePooling reads 1_Pooling/config.json of a sentence-transformers folder.
func ParsePooling(data []byte) (Pooling, error) {
	r := &reader{}
	if err := json.Unmarshal(data, &r.raw); err != nil {
		return "", fmt.Errorf("pooling config: not a JSON object: %w", err)
	}
	if mode := Pooling(r.string("pooling_mode", "")); mode != "" && r.err == nil {
		switch mode {
		case PoolMean, PoolCLS, PoolLast, PoolMax:
			return mode, nil
		}
		return "", fmt.Errorf("pooling config: pooling_mode %q is not supported", mode)
	}
	var found []Pooling
	for key, p := range map[string]Pooling{
		"pooling_mode_cls_token": PoolCLS, "pooling_mode_mean_tokens": PoolMean,
		"pooling_mode_max_tokens": PoolMax, "pooling_mode_lasttoken": PoolLast,
	} {
		if r.bool(key, false) {
			found = append(found, p)
		}
	}
	for _, key := range []string{"pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"} {
		if r.bool(key, false) {
			return "", fmt.Errorf("pooling config: %s is not supported", key)
		}
	}
	if r.err != nil {
		return "", fmt.Errorf("pooling config: %w", r.err)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("pooling config: expected one pooling mode, got %d", len(found))
	}
	return found[0], nil
}
