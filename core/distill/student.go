package distill

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
)

// Student is what a student begins as: parts of its teacher, or a shape of its own over the teacher's tokens.
type Student struct {
	Config, Tokenizer []byte
	// Init holds the teacher's weights that are taken over; nil when there are none.
	Init checkpoint.Source
	// Layers are the teacher's blocks that the student's are compared with.
	Layers []int
	// Tokens maps the student's ids to the teacher's; nil: they are the same.
	Tokens []int32
}

// Select makes a student of a teacher's blocks layers (nil: all), as DistilBERT was (Sanh et al., 2019), with the most frequent pieces of its vocabulary in texts,
// about vocab of them (0: all). Every single character stays, so that any text that had tokens has some.
func Select(config, tokenizer []byte, src checkpoint.Source, layers []int, vocab int, texts []string) (*Student, error) {
	cfg, err := model.ParseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("distill: teacher: %w", err)
	}
	s := &Student{Config: config, Tokenizer: tokenizer, Layers: layers}
	if layers == nil {
		for i := range cfg.Layers {
			s.Layers = append(s.Layers, i)
		}
	}
	for _, l := range s.Layers {
		if l < 0 || l >= cfg.Layers {
			return nil, fmt.Errorf("distill: block %d: the teacher has blocks 0 to %d", l, cfg.Layers-1)
		}
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(config, &raw); err != nil {
		return nil, fmt.Errorf("distill: teacher: %w", err)
	}
	put := func(key string, v any) error {
		b, err := json.Marshal(v)
		raw[key] = b
		return err
	}
	found := false
	for _, key := range []string{"num_hidden_layers", "n_layers", "n_layer"} {
		if _, ok := raw[key]; ok {
			found = true
			if err := put(key, len(s.Layers)); err != nil {
				return nil, err
			}
		}
	}
	if !found {
		return nil, errors.New("distill: teacher: its config does not say how many blocks it has")
	}
	var kinds []json.RawMessage
	if json.Unmarshal(raw["layer_types"], &kinds) == nil && len(kinds) == cfg.Layers {
		var kept []json.RawMessage
		for _, l := range s.Layers {
			kept = append(kept, kinds[l])
		}
		if err := put("layer_types", kept); err != nil {
			return nil, err
		}
	}
	if vocab > 0 && vocab < cfg.Vocab {
		if s.Tokenizer, s.Tokens, err = selectPieces(tokenizer, vocab, texts); err != nil {
			return nil, err
		}
		if err := put("vocab_size", len(s.Tokens)); err != nil {
			return nil, err
		}
		for _, key := range []string{"pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id"} {
			var id int32
			if json.Unmarshal(raw[key], &id) == nil && len(raw[key]) > 0 && string(raw[key]) != "null" {
				if at := slices.Index(s.Tokens, id); at >= 0 {
					if err := put(key, at); err != nil {
						return nil, err
					}
				} else {
					delete(raw, key)
				}
			}
		}
	}
	if s.Config, err = json.MarshalIndent(raw, "", "  "); err != nil {
		return nil, err
	}
	s.Init = &selection{src: src, layers: s.Layers, tokens: s.Tokens, vocab: cfg.Vocab}
	return s, nil
}

// selection is a Source over part of another's blocks and rows of word tables.
type selection struct {
	src    checkpoint.Source
	layers []int
	tokens []int32
	vocab  int
}

// blockOf finds the number of the block in a tensor's name: that of the first part that is a number.
func blockOf(name string) (before string, block int, after string, ok bool) {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		if n, err := strconv.Atoi(p); err == nil {
			return strings.Join(parts[:i], "."), n, strings.Join(parts[i+1:], "."), true
		}
	}
	return name, 0, "", false
}

// Names implements checkpoint.Source.
func (s *selection) Names() []string {
	var out []string
	for _, name := range s.src.Names() {
		before, block, after, ok := blockOf(name)
		if !ok {
			out = append(out, name)
			continue
		}
		for to, from := range s.layers {
			if from == block {
				out = append(out, fmt.Sprintf("%s.%d.%s", before, to, after))
			}
		}
	}
	return out
}

// Tensor implements checkpoint.Source.
func (s *selection) Tensor(name string) (tensor.Tensor, error) {
	from := name
	if before, block, after, ok := blockOf(name); ok {
		if block >= len(s.layers) {
			return tensor.Tensor{}, fmt.Errorf("%s: %w", name, checkpoint.ErrNoTensor)
		}
		from = fmt.Sprintf("%s.%d.%s", before, s.layers[block], after)
	}
	t, err := s.src.Tensor(from)
	if err != nil {
		return t, err
	}
	t.Name = name
	if s.tokens == nil || len(t.Shape) == 0 || t.Shape[0] != s.vocab || from != name {
		return t, nil
	}
	rows := t
	rows.Shape = slices.Clone(t.Shape)
	rows.Shape[0] = len(s.tokens)
	stride := t.DType.RowBytes(tensor.Elements(t.Shape[1:]))
	rows.Data, rows.Scales = make([]byte, 0, stride*len(s.tokens)), nil
	for _, id := range s.tokens {
		rows.Data = append(rows.Data, t.Data[int(id)*stride:(int(id)+1)*stride]...)
		if t.Scales != nil {
			rows.Scales = append(rows.Scales, t.Scales[id])
		}
	}
	return rows, nil
}

// selectPieces keeps the n most frequent pieces of a WordPiece tokenizer.json beside special tokens and single characters, numbered in their
// old order, and returns the old ids. Words whose piece is gone fall into smaller ones that the teacher knows too.
func selectPieces(raw []byte, n int, texts []string) ([]byte, []int32, error) {
	t, err := token.Load(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("distill: tokenizer: %w", err)
	}
	var file map[string]any
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, nil, fmt.Errorf("distill: tokenizer: %w", err)
	}
	m, _ := file["model"].(map[string]any)
	vocab, _ := m["vocab"].(map[string]any)
	if kind, _ := m["type"].(string); kind != "WordPiece" || vocab == nil {
		return nil, nil, fmt.Errorf("distill: part of the vocabulary is kept of WordPiece tokenizers only, this one is %v", m["type"])
	}
	counts := make([]int, t.MaxID()+1)
	for _, text := range texts {
		for _, id := range t.AppendIDs(nil, text, true) {
			counts[id]++
		}
	}
	keep := make([]bool, len(counts))
	var rest []int32
	kept := 0
	for id := range int32(len(counts)) {
		name, ok := t.Token(id)
		switch {
		case !ok:
		case t.IsSpecial(id) && !strings.HasPrefix(name, "[unused"), utf8.RuneCountInString(strings.TrimPrefix(name, "##")) == 1:
			keep[id] = true
			kept++
		case counts[id] > 0:
			rest = append(rest, id)
		}
	}
	slices.SortStableFunc(rest, func(a, b int32) int { return counts[b] - counts[a] })
	for _, id := range rest[:min(len(rest), max(0, n-kept))] {
		keep[id] = true
	}
	var old []int32
	next := map[int32]int{}
	for id, k := range keep {
		if k {
			next[int32(id)] = len(old)
			old = append(old, int32(id))
		}
	}
	pieces := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(vocab)) {
		id, ok := vocab[name].(float64)
		if to, in := next[int32(id)]; ok && in {
			pieces[name] = to
		}
	}
	m["vocab"] = pieces
	var added []any
	list, _ := file["added_tokens"].([]any)
	for _, a := range list {
		if o, ok := a.(map[string]any); ok {
			id, _ := o["id"].(float64)
			if to, in := next[int32(id)]; in {
				o["id"] = to
				added = append(added, o)
			}
		}
	}
	file["added_tokens"] = added
	renumber(file["post_processor"], next)
	if file["padding"] != nil {
		file["padding"] = nil // batches are not padded, and the pad id has moved
	}
	out, err := json.Marshal(file)
	if err != nil {
		return nil, nil, err
	}
	if _, err := token.Load(out); err != nil {
		return nil, nil, fmt.Errorf("distill: tokenizer: %w", err)
	}
	return out, old, nil
}

// renumber changes the ids in a post-processor: lists called "ids", and the pairs of BertProcessing.
func renumber(v any, next map[int32]int) {
	switch x := v.(type) {
	case map[string]any:
		for key, value := range x {
			switch list, ok := value.([]any); {
			case ok && key == "ids":
				for i, id := range list {
					if f, ok := id.(float64); ok {
						list[i] = next[int32(f)]
					}
				}
			case ok && (key == "sep" || key == "cls") && len(list) == 2:
				if f, ok := list[1].(float64); ok {
					list[1] = next[int32(f)]
				}
			default:
				renumber(value, next)
			}
		}
	case []any:
		for _, e := range x {
			renumber(e, next)
		}
	}
}
