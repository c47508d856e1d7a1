package peft

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Type names a method as peft writes it in adapter_config.json.
type Type string

// The methods. BitFit and Bottleneck are temper's own: peft has no name for them.
const (
	LoRA         Type = "LORA"
	AdaLoRA      Type = "ADALORA"
	IA3          Type = "IA3"
	VeRA         Type = "VERA"
	OFT          Type = "OFT"
	BOFT         Type = "BOFT"
	LNTuning     Type = "LN_TUNING"
	PrefixTuning Type = "PREFIX_TUNING"
	PromptTuning Type = "PROMPT_TUNING"
	PTuning      Type = "P_TUNING"
	BitFit       Type = "BITFIT"
	Bottleneck   Type = "BOTTLENECK"
)

// Config is adapter_config.json: the keys that temper acts on. Keys that it does not know are kept as they were and written back.
type Config struct {
	Type          Type     `json:"peft_type"`
	BaseModel     string   `json:"base_model_name_or_path"`
	TaskType      string   `json:"task_type"`
	Targets       Targets  `json:"target_modules"`
	Exclude       Targets  `json:"exclude_modules"`
	Layers        ints     `json:"layers_to_transform"`
	ModulesToSave []string `json:"modules_to_save"`
	FanInFanOut   bool     `json:"fan_in_fan_out"`

	// LoRA (Hu et al., 2021), rsLoRA (Kalajdzievski, 2023), DoRA (Liu et al., 2024), AdaLoRA (Zhang et al., 2023), VeRA (Kopiczko et al., 2023).
	R            int                `json:"r"`
	Alpha        float64            `json:"lora_alpha"`
	Dropout      float64            `json:"lora_dropout"`
	Bias         string             `json:"bias"` // "none", "all", "lora_only"
	RSLoRA       bool               `json:"use_rslora"`
	DoRA         bool               `json:"use_dora"`
	RankPattern  map[string]rank    `json:"rank_pattern"`
	AlphaPattern map[string]float64 `json:"alpha_pattern"`
	InitR        int                `json:"init_r"`
	TargetR      int                `json:"target_r"`
	TInit        int                `json:"tinit"`
	TFinal       int                `json:"tfinal"`
	DeltaT       int                `json:"deltaT"`
	TotalStep    int                `json:"total_step"`
	Beta1        float64            `json:"beta1"`
	Beta2        float64            `json:"beta2"`
	OrthWeight   float64            `json:"orth_reg_weight"`
	DInitial     float64            `json:"d_initial"`
	PRNGKey      int64              `json:"projection_prng_key"`

	// IA3 (Liu et al., 2022).
	FeedForward Targets `json:"feedforward_modules"`

	// OFT (Qiu et al., 2023) and BOFT (Liu et al., 2024).
	BlockSize        int     `json:"oft_block_size"`
	BlockShare       bool    `json:"block_share"`
	CayleyNeumann    bool    `json:"use_cayley_neumann"`
	NeumannTerms     int     `json:"num_cayley_neumann_terms"`
	Constrained      bool    `json:"coft"`
	Eps              float64 `json:"eps"`
	ButterflySize    int     `json:"boft_block_size"`
	ButterflyBlocks  int     `json:"boft_block_num"`
	ButterflyFactors int     `json:"boft_n_butterfly_factor"`

	// Prefix tuning (Li & Liang, 2021), prompt tuning (Lester et al., 2021), P-tuning (Liu et al., 2021).
	VirtualTokens    int    `json:"num_virtual_tokens"`
	TokenDim         int    `json:"token_dim"`
	NumLayers        int    `json:"num_layers"`
	NumHeads         int    `json:"num_attention_heads"`
	EncoderHidden    int    `json:"encoder_hidden_size"`
	EncoderLayers    int    `json:"encoder_num_layers"`
	Reparametrise    string `json:"encoder_reparameterization_type"` // "MLP" or "LSTM"
	PrefixProjection bool   `json:"prefix_projection"`

	// Bottleneck adapters (Houlsby et al., 2019).
	Size int `json:"bottleneck_size"`

	raw map[string]json.RawMessage
}

// Targets are module names, each matching itself and any name that ends in "." and it; or one regular expression that must match the
// whole name; "all-linear" takes every linear layer but the output.
type Targets struct {
	Names []string
	Regex string
}

// Names returns Targets of a list of names.
func Names(n ...string) Targets { return Targets{Names: n} }

// Empty reports whether nothing is named.
func (t Targets) Empty() bool { return len(t.Names) == 0 && t.Regex == "" }

// UnmarshalJSON reads a list, a string or null.
func (t *Targets) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*t = Targets{}
		return nil
	}
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &t.Regex)
	}
	return json.Unmarshal(b, &t.Names)
}

// MarshalJSON writes names sorted, as peft does, a pattern as a string, nothing as null.
func (t Targets) MarshalJSON() ([]byte, error) {
	if t.Regex != "" {
		return json.Marshal(t.Regex)
	}
	if t.Names == nil {
		return []byte("null"), nil
	}
	return json.Marshal(slices.Sorted(slices.Values(t.Names)))
}

// AllLinear takes every linear layer but the output layer.
const AllLinear = "all-linear"

// Match reports whether the module is named.
func (t Targets) Match(module string) (bool, error) {
	if t.Regex == AllLinear {
		return true, nil
	}
	if t.Regex != "" {
		ok, err := matches(`^(?:`+t.Regex+`)$`, module)
		if err != nil {
			return false, fmt.Errorf("target_modules %q: %w", t.Regex, err)
		}
		return ok, nil
	}
	return matchName(t.Names, module), nil
}

func matchName(names []string, module string) bool {
	for _, n := range names {
		if module == n || strings.HasSuffix(module, "."+n) {
			return true
		}
	}
	return false
}

// ints is a list of numbers, or one number, or null.
type ints []int

func (v *ints) UnmarshalJSON(b []byte) error {
	*v = nil
	if string(b) == "null" {
		return nil
	}
	if len(b) > 0 && b[0] != '[' {
		var n int
		if err := json.Unmarshal(b, &n); err != nil {
			return err
		}
		*v = ints{n}
		return nil
	}
	return json.Unmarshal(b, (*[]int)(v))
}

// rank is a number; AdaLoRA writes a list of booleans instead, one per singular value that is kept.
type rank struct {
	N    int
	Mask []bool
}

func (r *rank) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &r.Mask); err != nil {
			return err
		}
		r.N = 0
		for _, keep := range r.Mask {
			if keep {
				r.N++
			}
		}
		return nil
	}
	return json.Unmarshal(b, &r.N)
}

func (r rank) MarshalJSON() ([]byte, error) {
	if r.Mask != nil {
		return json.Marshal(r.Mask)
	}
	return json.Marshal(r.N)
}

// maxRank bounds what a config may ask for: no layer of a model that runs on a CPU is larger.
const maxRank = 1 << 16

// wrongType says what stands where something else is expected, in the words of the file rather than Go's.
func wrongType(err error) error {
	var t *json.UnmarshalTypeError
	if !errors.As(err, &t) {
		return err
	}
	kind := map[reflect.Kind]string{reflect.String: "a string", reflect.Bool: "true or false", reflect.Slice: "a list", reflect.Map: "an object", reflect.Struct: "an object"}[t.Type.Kind()]
	if kind == "" {
		kind = "a number"
	}
	if t.Field == "" {
		return fmt.Errorf("expected %s, got %s", kind, t.Value)
	}
	return fmt.Errorf("%s: expected %s, got %s", t.Field, kind, t.Value)
}

// ParseConfig reads adapter_config.json.
func ParseConfig(b []byte) (Config, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return Config{}, fmt.Errorf("adapter_config.json: %w", wrongType(err))
	}
	var probe struct {
		Type Type `json:"peft_type"`
	}
	if err := json.Unmarshal(b, &probe); err != nil {
		return Config{}, fmt.Errorf("adapter_config.json: %w", wrongType(err))
	}
	c, err := Default(probe.Type)
	if err != nil {
		return Config{}, fmt.Errorf("adapter_config.json: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fmt.Errorf("adapter_config.json: %w", wrongType(err))
	}
	maps.Copy(c.raw, raw)
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("adapter_config.json: %w", err)
	}
	return c, nil
}

// Default returns the settings that peft starts from (its defaults, where temper has no better ones).
func Default(t Type) (Config, error) {
	keys, ok := templates[t]
	if !ok {
		return Config{}, fmt.Errorf("peft_type %q: expected one of %v", t, slices.Sorted(maps.Keys(templates)))
	}
	c := Config{Type: t, raw: map[string]json.RawMessage{}}
	dec := json.NewDecoder(strings.NewReader(keys))
	if err := dec.Decode(&c.raw); err != nil {
		panic(fmt.Sprintf("peft: template of %s: %v", t, err))
	}
	if err := json.Unmarshal([]byte(keys), &c); err != nil {
		panic(fmt.Sprintf("peft: template of %s: %v", t, err))
	}
	return c, nil
}

// Validate reports settings that cannot be met.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	switch c.Type {
	case LoRA, VeRA:
		check(c.R > 0 && c.R <= maxRank, "r: expected 1 to %d, got %d", maxRank, c.R)
	case AdaLoRA:
		check(c.InitR > 0 && c.InitR <= maxRank, "init_r: expected 1 to %d, got %d", maxRank, c.InitR)
	case PrefixTuning, PromptTuning, PTuning:
		check(c.VirtualTokens > 0 && c.VirtualTokens <= maxRank, "num_virtual_tokens: expected 1 to %d, got %d", maxRank, c.VirtualTokens)
		check(c.EncoderHidden >= 0 && c.EncoderHidden <= maxRank, "encoder_hidden_size: expected at most %d, got %d", maxRank, c.EncoderHidden)
	case Bottleneck:
		check(c.Size > 0 && c.Size <= maxRank, "bottleneck_size: expected 1 to %d, got %d", maxRank, c.Size)
	}
	for k, r := range c.RankPattern {
		check(r.N >= 0 && r.N <= maxRank && len(r.Mask) <= maxRank, "rank_pattern %s: expected 1 to %d, got %d", k, maxRank, r.N)
	}
	check(c.Dropout >= 0 && c.Dropout < 1, "lora_dropout: expected at least 0 and below 1, got %g", c.Dropout)
	switch c.Bias {
	case "", "none", "all", "lora_only":
	default:
		check(false, "bias: expected none, all or lora_only, got %q", c.Bias)
	}
	return errors.Join(errs...)
}

// Encode returns adapter_config.json as peft writes it: keys sorted, two spaces.
func (c Config) Encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("adapter_config.json: %w", err)
	}
	var own map[string]json.RawMessage
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, fmt.Errorf("adapter_config.json: %w", err)
	}
	out := maps.Clone(c.raw)
	if out == nil {
		out = map[string]json.RawMessage{}
	}
	for k, v := range own {
		if _, known := out[k]; known { // only the keys of this method
			out[k] = v
		}
	}
	out["inference_mode"] = json.RawMessage("true")
	if b, err = json.Marshal(out); err != nil {
		return nil, fmt.Errorf("adapter_config.json: %w", err)
	}
	var buf bytes.Buffer
	if err := json.Indent(&buf, b, "", "  "); err != nil {
		return nil, fmt.Errorf("adapter_config.json: %w", err)
	}
	return buf.Bytes(), nil
}

// pattern returns the value of the first key that matches the whole end of the module name, as peft's get_pattern_key. Keys are tried
// in sorted order, since JSON objects have none.
func pattern[V any](m map[string]V, module string, def V) V {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if ok, err := matches(`^(?:.*\.)?(?:`+k+`)$`, module); err == nil && ok {
			return m[k]
		}
	}
	return def
}
