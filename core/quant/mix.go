// Package quant rewrites the weights of a model in smaller element types and says what that cost: Hugging Face folders with int8 rows that
// temper maps, and GGUF files mixed as llama.cpp mixes them. No importance matrix is used.
package quant

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/temper-ml/temper/core/tensor"
)

// format is a file type of llama.cpp: the number in general.file_type and the type that most tensors get.
type format struct {
	fileType uint32
	base     tensor.DType
}

var formats = map[string]format{
	"f32": {0, tensor.F32}, "f16": {1, tensor.F16}, "bf16": {32, tensor.BF16}, "q8_0": {7, tensor.Q8_0},
	"q4_0": {2, tensor.Q4_0}, "q4_1": {3, tensor.Q4_1}, "q5_0": {8, tensor.Q5_0}, "q5_1": {9, tensor.Q5_1},
	"q2_k": {10, tensor.Q2_K}, "q3_k_s": {11, tensor.Q3_K}, "q3_k_m": {12, tensor.Q3_K}, "q3_k_l": {13, tensor.Q3_K},
	"q4_k_s": {14, tensor.Q4_K}, "q4_k_m": {15, tensor.Q4_K}, "q5_k_s": {16, tensor.Q5_K}, "q5_k_m": {17, tensor.Q5_K}, "q6_k": {18, tensor.Q6_K},
	"iq4_nl": {25, tensor.IQ4_NL}, "iq4_xs": {30, tensor.IQ4_XS},
}

// Int8 is the type of Int8Folder.
const Int8 = "int8"

// Types lists what can be asked for, int8 first.
func Types() []string { return append([]string{Int8}, slices.Sorted(maps.Keys(formats))...) }

// mixer chooses the type of each tensor as llama.cpp's quantizer does (llama_tensor_get_type in src/llama-quant.cpp), for models without
// experts. Tensors must come in the order of the file: the value projections are counted.
type mixer struct {
	name       string
	format     format
	layers     int
	groups     int // query heads per key-value head
	hasOutput  bool
	values     int // attn_v tensors seen
	valueCount int
}

// quantized reports whether llama.cpp quantizes the tensor at all: matrices of weights, but no norms and no tables of positions.
func quantized(name string, shape []int) bool {
	if len(shape) < 2 || !strings.HasSuffix(name, "weight") || strings.Contains(name, "_norm.weight") {
		return false
	}
	return name != "position_embd.weight" && name != "token_types.weight"
}

func layerOf(name string) int {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return -1
	}
	n, _, _ := strings.Cut(rest, ".")
	i, err := strconv.Atoi(n)
	if err != nil {
		return -1
	}
	return i
}

// moreBits picks the layers that suffer most: the first and last eighth, and every third between.
func moreBits(i, n int) bool { return i < n/8 || i >= 7*n/8 || (i-n/8)%3 == 2 }

// choose returns the type of a tensor.
func (m *mixer) choose(name string, shape []int) tensor.DType {
	if !quantized(name, shape) {
		return tensor.F32
	}
	t := m.format.base
	if !t.Quantized() {
		return t
	}
	cols := shape[len(shape)-1]
	if name == "output.weight" || name == "token_embd.weight" && !m.hasOutput {
		if cols%t.BlockLen() != 0 {
			t = tensor.Q8_0
		} else if t != tensor.Q8_0 {
			t = tensor.Q6_K
		}
		return m.fit(t, cols)
	}
	is := func(names ...string) bool { return slices.Contains(names, m.name) }
	layer := layerOf(name)
	switch {
	case strings.Contains(name, "attn_v.weight"):
		switch {
		case is("q2_k") && m.groups >= 4:
			t = tensor.Q4_K
		case is("q2_k"):
			t = tensor.Q3_K
		case is("q3_k_m") && m.values < 2, is("q3_k_l"):
			t = tensor.Q5_K
		case is("q3_k_m"):
			t = tensor.Q4_K
		case is("iq4_nl", "iq4_xs") && m.groups >= 4:
			t = tensor.Q5_K
		case is("q4_k_m", "q5_k_m") && moreBits(m.values, m.valueCount):
			t = tensor.Q6_K
		case is("q4_k_s") && m.values < 4:
			t = tensor.Q5_K
		}
		m.values++
	case strings.Contains(name, "ffn_down"):
		switch {
		case is("q2_k"):
			t = tensor.Q3_K
		case is("q3_k_m") && layer < m.layers/16, is("q3_k_l"):
			t = tensor.Q5_K
		case is("q3_k_m"):
			t = tensor.Q4_K
		case is("q4_k_m", "q5_k_m") && moreBits(layer, m.layers):
			t = tensor.Q6_K
		case is("iq4_nl", "iq4_xs", "q4_k_s") && layer < m.layers/8:
			t = tensor.Q5_K
		}
	case strings.Contains(name, "attn_output.weight"):
		switch {
		case is("q2_k"):
			t = tensor.Q3_K
		case is("q3_k_m"):
			t = tensor.Q4_K
		case is("q3_k_l"):
			t = tensor.Q5_K
		}
	case strings.Contains(name, "attn_qkv.weight"):
		switch {
		case is("q3_k_m", "q3_k_l"):
			t = tensor.Q4_K
		case is("q4_k_m"):
			t = tensor.Q5_K
		case is("q5_k_m"):
			t = tensor.Q6_K
		}
	}
	return m.fit(t, cols)
}

// fit falls back to a type of smaller blocks where rows are no whole blocks.
func (m *mixer) fit(t tensor.DType, cols int) tensor.DType {
	if cols%t.BlockLen() == 0 {
		return t
	}
	switch t {
	case tensor.Q2_K, tensor.Q3_K, tensor.IQ4_XS:
		t = tensor.IQ4_NL
	case tensor.Q4_K:
		t = tensor.Q5_0
	case tensor.Q5_K:
		t = tensor.Q5_1
	case tensor.Q6_K:
		t = tensor.Q8_0
	}
	if cols%t.BlockLen() != 0 {
		return tensor.F16
	}
	return t
}

func formatOf(name string) (format, error) {
	f, ok := formats[strings.ToLower(name)]
	if !ok {
		return f, fmt.Errorf("unknown type %q, expected one of %s", name, strings.Join(Types(), ", "))
	}
	return f, nil
}
