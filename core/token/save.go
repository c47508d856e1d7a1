package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrNoSource is returned by Save for tokenizers that no tokenizer.json can express exactly: those of GGUF files.
var ErrNoSource = errors.New("token: a vocabulary from a GGUF file cannot be saved as tokenizer.json")

// Save writes tokenizer.json: the one that was loaded, with what SetTruncation, SetPadding and SetNormalizer changed.
func (t *Tokenizer) Save() ([]byte, error) {
	if t.source == nil {
		return nil, ErrNoSource
	}
	if w, ok := t.model.(*wordPiece); ok && w.typos != nil {
		return Expand(t.source)
	}
	return bytes.Clone(t.source), nil
}

// SetTruncation changes the truncation that Encode applies and Save writes; nil turns it off. Not to be called while others use the tokenizer.
func (t *Tokenizer) SetTruncation(tr *Truncation) error {
	if tr == nil {
		t.truncation = nil
		return t.replace("truncation", nil)
	}
	set := *tr
	if set.Strategy == "" {
		set.Strategy = LongestFirst
	}
	value := object{"direction": side(set.Left), "max_length": set.MaxLength, "strategy": set.Strategy, "stride": set.Stride}
	raw, err := marshal(value)
	if err != nil {
		return fmt.Errorf("token: truncation: %w", err)
	}
	if _, err := loadTruncation(raw); err != nil {
		return fmt.Errorf("token: truncation: %w", err)
	}
	t.truncation = &set
	return t.replace("truncation", value)
}

func side(left bool) string {
	if left {
		return "Left"
	}
	return "Right"
}

// SetPadding changes the padding that Encode applies and Save writes; nil turns it off. Not to be called while others use the tokenizer.
func (t *Tokenizer) SetPadding(p *Padding) error {
	if p == nil {
		t.padding = nil
		return t.replace("padding", nil)
	}
	set := *p
	var strategy any = "BatchLongest"
	if set.Length > 0 {
		strategy = object{"Fixed": set.Length}
	}
	value := object{"strategy": strategy, "direction": side(set.Left), "pad_to_multiple_of": nil, "pad_id": set.ID, "pad_type_id": set.TypeID, "pad_token": set.Token}
	if set.MultipleOf > 0 {
		value["pad_to_multiple_of"] = set.MultipleOf
	}
	raw, err := marshal(value)
	if err != nil {
		return fmt.Errorf("token: padding: %w", err)
	}
	if _, err := loadPadding(raw); err != nil {
		return fmt.Errorf("token: padding: %w", err)
	}
	t.padding = &set
	return t.replace("padding", value)
}

// Truncation and Padding are the limits that Encode applies, nil for none.
func (t *Tokenizer) Truncation() *Truncation { return clone(t.truncation) }

// Padding is the padding that Encode applies, nil for none.
func (t *Tokenizer) Padding() *Padding { return clone(t.padding) }

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Normalizer is the "normalizer" of tokenizer.json, null for none.
func (t *Tokenizer) Normalizer() json.RawMessage {
	var f struct {
		Normalizer json.RawMessage `json:"normalizer"`
	}
	if json.Unmarshal(t.source, &f) != nil || isNull(f.Normalizer) {
		return json.RawMessage("null")
	}
	return f.Normalizer
}

// SetNormalizer takes a "normalizer" as tokenizer.json holds it; null removes it. Not to be called while others use the tokenizer.
func (t *Tokenizer) SetNormalizer(raw json.RawMessage) error {
	if t.source == nil {
		return ErrNoSource
	}
	if !isNull(raw) && !json.Valid(raw) {
		return fmt.Errorf("token: normalizer: expected JSON, got %.60q", raw)
	}
	n, err := loadNormalizer(raw, 0)
	if err != nil {
		return fmt.Errorf("token: normalizer: %w", err)
	}
	if isNull(raw) {
		raw = json.RawMessage("null")
	}
	t.normalizer = n
	t.indexAdded()
	t.pool.clear()
	return t.replace("normalizer", raw)
}

// replace puts value in the place of a key of the source; all else stays byte for byte.
func (t *Tokenizer) replace(key string, value any) error {
	if t.source == nil {
		return nil
	}
	raw, err := marshal(value)
	if err != nil {
		return fmt.Errorf("token: %s: %w", key, err)
	}
	d := json.NewDecoder(bytes.NewReader(t.source))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return fmt.Errorf("token: tokenizer.json: expected an object")
	}
	var out bytes.Buffer
	end := int64(0)
	found := false
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return fmt.Errorf("token: tokenizer.json: %w", err)
		}
		var old json.RawMessage
		if err := d.Decode(&old); err != nil {
			return fmt.Errorf("token: tokenizer.json: %w", err)
		}
		if name == key {
			out.Write(t.source[end : d.InputOffset()-int64(len(old))])
			out.Write(raw)
			end = d.InputOffset()
			found = true
		}
	}
	rest := t.source[end:]
	if !found {
		open := bytes.IndexByte(rest, '{')
		out.Write(rest[:open+1])
		fmt.Fprintf(&out, "%q:%s", key, raw)
		rest = rest[open+1:]
		if trimmed := bytes.TrimLeft(rest, " \t\r\n"); len(trimmed) > 0 && trimmed[0] != '}' {
			out.WriteByte(',')
		}
	}
	out.Write(rest)
	t.source = out.Bytes()
	return nil
}
