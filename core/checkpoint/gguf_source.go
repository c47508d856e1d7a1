package checkpoint

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/temper-ml/temper/core/tensor"
)

// Source presents the tensors under Hugging Face's names and in its layout, for the families that core/model builds. Tensors are views of
// the file except where llama.cpp stores them otherwise: q and k rows of the Llama kin (reordered block by block, never expanded), Gemma's
// norms (minus one) and GPT-2's transposed matrices. Adapters and exports thus see what transformers would see.
func (g *GGUF) Source() (Source, error) {
	f, err := g.family()
	if err != nil {
		return nil, err
	}
	s := &ggufSource{g: g, from: make(map[string]ggufOrigin, len(g.names))}
	s.heads, s.kvHeads, err = g.headCounts()
	if err != nil {
		return nil, err
	}
	for _, name := range g.names {
		hf, c, ok := f.toHF(name)
		if !ok {
			if strings.HasPrefix(name, "rope_f") { // rope_freqs, rope_factors_long and _short go into the config
				continue
			}
			return nil, fmt.Errorf("%s: tensor %q has no place in a %s model", g.path, name, f.modelType)
		}
		s.names = append(s.names, hf)
		s.from[hf] = ggufOrigin{name, c}
	}
	return s, nil
}

type ggufSource struct {
	g              *GGUF
	names          []string
	from           map[string]ggufOrigin
	heads, kvHeads int
}

type ggufOrigin struct {
	name   string
	change change
}

func (s *ggufSource) Names() []string { return slices.Clone(s.names) }

func (s *ggufSource) Tensor(name string) (tensor.Tensor, error) {
	o, ok := s.from[name]
	if !ok {
		return tensor.Tensor{}, fmt.Errorf("%s: tensor %q: %w", s.g.path, name, ErrNoTensor)
	}
	t, err := s.g.Tensor(o.name)
	if err != nil {
		return t, err
	}
	t.Name = name
	if t, err = o.change.undo(t, s.heads, s.kvHeads); err != nil {
		return t, fmt.Errorf("%s: tensor %q: %w", s.g.path, o.name, err)
	}
	return t, nil
}

// undo turns GGUF's layout into Hugging Face's; do is the way back.
func (c change) undo(t tensor.Tensor, heads, kvHeads int) (tensor.Tensor, error) {
	switch c {
	case rotated, rotatedKV:
		if c == rotatedKV {
			heads = kvHeads
		}
		return reorderRows(t, heads, 2, func(half, i int) int { return i*2 + half })
	case grouped:
		return regroup(t, heads, true)
	case plusOne:
		return addToAll(t, -1)
	case turned:
		return transpose(t)
	}
	return t, nil
}

func (c change) do(t tensor.Tensor, heads, kvHeads int) (tensor.Tensor, error) {
	switch c {
	case rotated, rotatedKV:
		if c == rotatedKV {
			heads = kvHeads
		}
		n := rowCount(t)
		if heads < 1 || n%(2*heads) != 0 {
			return t, fmt.Errorf("%d rows are not %d heads of an even size", n, heads)
		}
		half := n / heads / 2
		// Row 2i+j of a head comes from row j·half+i.
		return gatherRows(t, func(r int) int {
			head, in := r/(2*half), r%(2*half)
			return head*2*half + in%2*half + in/2
		})
	case grouped:
		return regroup(t, heads, false)
	case plusOne:
		return addToAll(t, 1)
	case turned:
		return transpose(t)
	}
	return t, nil
}

// rowCount treats a vector (a bias) as a column: one element a row.
func rowCount(t tensor.Tensor) int {
	if len(t.Shape) == 1 {
		return t.Shape[0]
	}
	return t.Rows()
}

// reorderRows rebuilds each head of 2·half rows: row part·half+i comes from row from(part, i) of the head.
func reorderRows(t tensor.Tensor, heads, parts int, from func(part, i int) int) (tensor.Tensor, error) {
	n := rowCount(t)
	if heads < 1 || n%(parts*heads) != 0 {
		return t, fmt.Errorf("%d rows are not %d heads of an even size", n, heads)
	}
	size := n / heads
	half := size / parts
	return gatherRows(t, func(r int) int {
		head, in := r/size, r%size
		return head*size + from(in/half, in%half)
	})
}

// regroup reorders GPT-NeoX's fused rows: [q, k, v][head] into [head][q, k, v], or back.
func regroup(t tensor.Tensor, heads int, toHeads bool) (tensor.Tensor, error) {
	n := rowCount(t)
	if heads < 1 || n%(3*heads) != 0 {
		return t, fmt.Errorf("%d rows are not q, k and v of %d heads", n, heads)
	}
	size := n / 3 / heads
	return gatherRows(t, func(r int) int {
		in := r % size
		if toHeads {
			head, part := r/size/3, r/size%3
			return (part*heads+head)*size + in
		}
		part, head := r/size/heads, r/size%heads
		return (head*3+part)*size + in
	})
}

// gatherRows copies rows as stored, blocks and all.
func gatherRows(t tensor.Tensor, from func(r int) int) (tensor.Tensor, error) {
	n := rowCount(t)
	if n == 0 {
		return t, nil
	}
	width := len(t.Data) / n
	out := t
	out.Data = make([]byte, n*width)
	if t.Scales != nil {
		out.Scales = make([]float32, n)
	}
	for r := range n {
		f := from(r)
		copy(out.Data[r*width:(r+1)*width], t.Data[f*width:])
		if t.Scales != nil {
			out.Scales[r] = t.Scales[f]
		}
	}
	return out, nil
}

func addToAll(t tensor.Tensor, v float32) (tensor.Tensor, error) {
	x, err := t.F32()
	if err != nil {
		return t, err
	}
	y := make([]float32, len(x))
	for i := range x {
		y[i] = x[i] + v
	}
	return tensor.FromF32(t.Name, y, t.Shape...), nil
}

// transpose turns a matrix of plain elements; blocks cannot be turned without expanding them.
func transpose(t tensor.Tensor) (tensor.Tensor, error) {
	if len(t.Shape) != 2 {
		return t, fmt.Errorf("expected a matrix, got shape %v", t.Shape)
	}
	if t.DType.Quantized() {
		return t, fmt.Errorf("a transposed %s matrix cannot be read; use an F16 or F32 file of this model", t.DType)
	}
	rows, cols, size := t.Shape[0], t.Shape[1], t.DType.BlockBytes()
	out := t
	out.Shape = []int{cols, rows}
	out.Data = make([]byte, len(t.Data))
	for r := range rows {
		for c := range cols {
			copy(out.Data[(c*rows+r)*size:(c*rows+r+1)*size], t.Data[(r*cols+c)*size:])
		}
	}
	return out, nil
}

func (g *GGUF) headCounts() (heads, kv int, err error) {
	arch := g.String("general.architecture")
	if heads, err = g.uniform(arch + ".attention.head_count"); err != nil {
		return 0, 0, err
	}
	if heads < 1 {
		return 0, 0, fmt.Errorf("%s: %s.attention.head_count: expected a number above 0, got %v", g.path, arch, g.values[arch+".attention.head_count"])
	}
	if kv, err = g.uniform(arch + ".attention.head_count_kv"); err != nil {
		return 0, 0, err
	}
	if kv < 1 {
		kv = heads
	}
	return heads, kv, nil
}

// uniform reads a number, or an array with one number per layer that must all be equal; 0 when the key is absent.
func (g *GGUF) uniform(key string) (int, error) {
	v := g.values[key]
	if v == nil {
		return 0, nil
	}
	if n, ok := toInt(v); ok {
		return n, nil
	}
	list := g.Ints(key)
	if len(list) == 0 {
		return 0, fmt.Errorf("%s: %s: expected a whole number, got %T", g.path, key, v)
	}
	for _, n := range list {
		if n != list[0] {
			return 0, fmt.Errorf("%s: %s differs from layer to layer, which is not supported", g.path, key)
		}
	}
	return list[0], nil
}

// ConfigJSON writes what transformers' config.json would say of this model.
func (g *GGUF) ConfigJSON() ([]byte, error) {
	f, err := g.family()
	if err != nil {
		return nil, err
	}
	heads, kv, err := g.headCounts()
	if err != nil {
		return nil, err
	}
	c := map[string]any{"model_type": f.modelType, "architectures": []string{f.class}}
	key := func(s string) string { return f.arch + "." + s }
	need := func(s string) int {
		n, uerr := g.uniform(key(s))
		if err == nil && uerr != nil {
			err = uerr
		}
		if err == nil && n < 1 {
			err = fmt.Errorf("%s: %s: expected a number above 0, got %v", g.path, key(s), g.values[key(s)])
		}
		return n
	}
	hidden, layers, inner, context := need("embedding_length"), need("block_count"), need("feed_forward_length"), need("context_length")
	if err != nil {
		return nil, err
	}
	if layers > 1<<16 || heads > 1<<16 || hidden > 1<<24 {
		return nil, fmt.Errorf("%s: %d layers, %d heads and width %d are beyond any model", g.path, layers, heads, hidden)
	}
	for name := range g.tensors {
		if rest, ok := strings.CutPrefix(name, "blk."); ok {
			at, _, _ := strings.Cut(rest, ".")
			if n, err := strconv.Atoi(at); err == nil && n >= layers {
				return nil, fmt.Errorf("%s: %s is %d, but there is a tensor %s", g.path, key("block_count"), layers, name)
			}
		}
	}
	embd, ok := g.tensors["token_embd.weight"]
	if !ok || len(embd.shape) != 2 {
		return nil, fmt.Errorf("%s: expected a matrix token_embd.weight", g.path)
	}
	c["vocab_size"] = embd.shape[0]
	_, output := g.tensors["output.weight"]
	c["tie_word_embeddings"] = !output
	for name, k := range map[string]string{"bos_token_id": "bos_token_id", "pad_token_id": "padding_token_id"} {
		if v, ok := g.Int("tokenizer.ggml." + k); ok && v >= 0 && v < embd.shape[0] { // files write 0xffffffff for none
			c[name] = v
		}
	}
	var eos []int
	for _, k := range []string{"eos_token_id", "eot_token_id", "eom_token_id"} {
		if v, ok := g.Int("tokenizer.ggml." + k); ok && v >= 0 && v < embd.shape[0] && !slices.Contains(eos, v) {
			eos = append(eos, v)
		}
	}
	switch len(eos) {
	case 0:
	case 1:
		c["eos_token_id"] = eos[0]
	default:
		c["eos_token_id"] = eos
	}
	eps := func(k string, def float64) float64 {
		if v, ok := g.Float(key(k)); ok {
			return shortFloat(v)
		}
		return def
	}
	switch f.modelType {
	case "gpt2":
		c["n_embd"], c["n_head"], c["n_layer"], c["n_inner"], c["n_positions"] = hidden, heads, layers, inner, context
		c["layer_norm_epsilon"], c["activation_function"] = eps("attention.layer_norm_epsilon", 1e-5), "gelu_new"
		return json.MarshalIndent(c, "", "  ")
	case "gpt_neox":
		c["layer_norm_eps"], c["hidden_act"] = eps("attention.layer_norm_epsilon", 1e-5), "gelu"
		if v, ok := g.Bool(key("use_parallel_residual")); ok {
			c["use_parallel_residual"] = v
		}
		_, c["attention_bias"] = g.tensors["blk.0.attn_qkv.bias"]
		if v, ok := g.Int(key("rope.dimension_count")); ok {
			c["rotary_pct"] = float64(v) / float64(hidden/heads)
		}
	default:
		c["rms_norm_eps"], c["hidden_act"] = eps("attention.layer_norm_rms_epsilon", 1e-6), "silu"
		c["num_key_value_heads"] = kv
		if f.modelType != "qwen2" { // whose projections always have biases, but for the output
			_, c["attention_bias"] = g.tensors["blk.0.attn_output.bias"]
		}
	}
	c["hidden_size"], c["num_hidden_layers"], c["intermediate_size"] = hidden, layers, inner
	c["num_attention_heads"], c["max_position_embeddings"] = heads, context
	headDim := hidden / heads
	if v, err := g.uniform(key("attention.key_length")); err != nil {
		return nil, err
	} else if v > 0 {
		headDim = v
	}
	if v, err := g.uniform(key("attention.value_length")); err != nil {
		return nil, err
	} else if v > 0 && v != headDim {
		return nil, fmt.Errorf("%s: %s: expected the key length %d, got %d", g.path, key("attention.value_length"), headDim, v)
	}
	if f.modelType != "gpt_neox" && f.modelType != "phi3" {
		c["head_dim"] = headDim
	}
	if err := g.rope(c, key, headDim, context); err != nil {
		return nil, err
	}
	if v, ok := g.Int(key("attention.sliding_window")); ok && v > 0 {
		c["sliding_window"] = v
	}
	switch f.modelType {
	case "gemma3_text":
		delete(c, "hidden_act")
		c["hidden_activation"] = "gelu_pytorch_tanh"
		scalar := float64(headDim)
		if layers == 62 { // the 27B model, the only one whose scale is not that of its heads
			scalar = float64(hidden) / float64(heads)
		}
		if v, ok := g.Float(key("attention.scale")); ok && v > 0 {
			scalar = 1 / (v * v)
		}
		c["query_pre_attn_scalar"] = scalar
		for name, k := range map[string]string{"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"} {
			if v, ok := g.Float(key(k)); ok && v > 0 {
				c[name] = shortFloat(v)
			}
		}
		types := make([]string, layers)
		pattern, _ := g.values[key("attention.sliding_window_pattern")].([]bool)
		every := 6
		if v, ok := g.Int(key("attention.sliding_window_pattern")); ok && v > 0 {
			every = v
		}
		for i := range types {
			local := (i+1)%every != 0
			if len(pattern) == layers {
				local = pattern[i]
			}
			types[i] = "full_attention"
			if local {
				types[i] = "sliding_attention"
			}
		}
		c["layer_types"] = types
		local := 10000.0
		if v, ok := g.Float(key("rope.freq_base_swa")); ok {
			local = shortFloat(v)
		}
		full := map[string]any{"rope_type": "default", "rope_theta": c["rope_theta"]}
		if s, ok := c["rope_scaling"].(map[string]any); ok {
			for k, v := range s {
				full[k] = v
			}
		}
		delete(c, "rope_theta")
		delete(c, "rope_scaling")
		c["rope_parameters"] = map[string]any{
			"full_attention":    full,
			"sliding_attention": map[string]any{"rope_type": "default", "rope_theta": local},
		}
	case "smollm3":
		// llama.cpp fixes the pattern: every fourth layer has no rotation.
		keep := make([]int, layers)
		for i := range keep {
			if (i+1)%4 != 0 {
				keep[i] = 1
			}
		}
		c["no_rope_layers"], c["no_rope_layer_interval"] = keep, 4
	}
	return json.MarshalIndent(c, "", "  ")
}

// rope fills rope_theta and rope_scaling.
func (g *GGUF) rope(c map[string]any, key func(string) string, headDim, context int) error {
	theta := 10000.0
	if v, ok := g.Float(key("rope.freq_base")); ok && v > 0 {
		theta = shortFloat(v)
	}
	c["rope_theta"] = theta
	if v, ok := g.Int(key("rope.dimension_count")); ok && v > 0 && v < headDim && c["rotary_pct"] == nil {
		c["partial_rotary_factor"] = float64(v) / float64(headDim)
	}
	original := context
	if v, ok := g.Int(key("rope.scaling.original_context_length")); ok && v > 0 {
		original = v
	}
	factor, hasFactor := g.Float(key("rope.scaling.factor"))
	if hasFactor {
		factor = shortFloat(factor)
	}
	attention := 1.0
	if v, ok := g.Float(key("rope.scaling.attn_factor")); ok && v > 0 {
		attention = shortFloat(v)
	}
	factors := func(name string) ([]float64, error) {
		if _, ok := g.tensors[name]; !ok {
			return nil, nil
		}
		t, err := g.Tensor(name)
		if err != nil {
			return nil, err
		}
		v, err := t.F32()
		if err != nil {
			return nil, err
		}
		out := make([]float64, len(v))
		for i, f := range v {
			if !(f > 0) || math.IsInf(float64(f), 0) {
				return nil, fmt.Errorf("%s: tensor %q: expected positive factors, got %g", g.path, name, f)
			}
			out[i] = shortFloat(float64(f))
		}
		return out, nil
	}
	freqs, err := factors("rope_freqs.weight")
	if err != nil {
		return err
	}
	long, err := factors("rope_factors_long.weight")
	if err != nil {
		return err
	}
	short, err := factors("rope_factors_short.weight")
	if err != nil {
		return err
	}
	switch kind := g.String(key("rope.scaling.type")); {
	case freqs != nil:
		// Llama 3's scaling, stored as one divisor per pair: a longrope whose factors do not depend on the length.
		c["rope_scaling"] = map[string]any{"rope_type": "longrope", "short_factor": freqs, "long_factor": freqs, "attention_factor": 1.0, "factor": 1.0}
		c["original_max_position_embeddings"] = original
	case long != nil && short != nil:
		s := map[string]any{"rope_type": "longrope", "short_factor": short, "long_factor": long}
		if v, ok := g.Float(key("rope.scaling.attn_factor")); ok && v > 0 {
			s["attention_factor"] = shortFloat(v)
		}
		c["rope_scaling"] = s
		c["original_max_position_embeddings"] = original
	case (kind == "linear" || kind == "" && factor > 1) && hasFactor && factor >= 1:
		c["rope_scaling"] = map[string]any{"rope_type": "linear", "factor": factor}
	case kind == "yarn" && hasFactor && factor >= 1:
		s := map[string]any{"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
		if attention != 1 {
			s["attention_factor"] = attention
		}
		c["rope_scaling"] = s
	case kind != "" && kind != "none" && kind != "linear" && kind != "yarn" && kind != "longrope":
		return fmt.Errorf("%s: %s: unknown rope scaling %q", g.path, key("rope.scaling.type"), kind)
	}
	return nil
}

// shortFloat is the shortest decimal that has the same float32 bits: 1e-05 rather than 9.999999747378752e-06.
func shortFloat(v float64) float64 {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', -1, 32), 64)
	if err != nil || math.IsInf(short, 0) {
		return v
	}
	return short
}
