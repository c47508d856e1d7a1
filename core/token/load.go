package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
	"unsafe"
)

// Load reads a tokenizer.json. Memory is bounded by about 40 times the file's size.
func Load(data []byte) (*Tokenizer, error) {
	if short, _, ok := strip(data); ok {
		t, err := load(short)
		if err != nil {
			return nil, err
		}
		if w, ok := t.model.(*wordPiece); ok && w.typos != nil {
			return t, nil
		}
		// Somebody changed the entries before the misspellings: all of them count.
	}
	return load(bytes.Clone(data))
}

// load is Load of data that is the tokenizer's own: the vocabulary's names are parts of it.
func load(data []byte) (*Tokenizer, error) {
	var file struct {
		Truncation    json.RawMessage `json:"truncation"`
		Padding       json.RawMessage `json:"padding"`
		AddedTokens   json.RawMessage `json:"added_tokens"`
		Normalizer    json.RawMessage `json:"normalizer"`
		PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
		PostProcessor json.RawMessage `json:"post_processor"`
		Decoder       json.RawMessage `json:"decoder"`
		Model         json.RawMessage `json:"model"`
	}
	rest, big, ok := apart(data, "model")
	if !ok {
		rest = data
	}
	if err := json.Unmarshal(rest, &file); err != nil {
		if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
			err = fmt.Errorf("expected an object, got %s", wrong.Value)
		}
		return nil, fmt.Errorf("token: tokenizer.json: %w", err)
	}
	if ok {
		file.Model = big["model"]
	}
	t := &Tokenizer{source: data}
	var err error
	if t.model, t.vocab, err = loadModel(file.Model); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: model: %w", err)
	}
	if t.normalizer, err = loadNormalizer(file.Normalizer, 0); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: normalizer: %w", err)
	}
	if t.pre, err = loadPreTokenizer(nil, file.PreTokenizer, 0); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: pre_tokenizer: %w", err)
	}
	if t.post, err = loadPostProcessor(nil, file.PostProcessor, 0); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: post_processor: %w", err)
	}
	if t.decoder, err = loadDecoder(file.Decoder, 0); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: decoder: %w", err)
	}
	if t.truncation, err = loadTruncation(file.Truncation); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: truncation: %w", err)
	}
	if t.padding, err = loadPadding(file.Padding); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: padding: %w", err)
	}
	added, err := loadAdded(file.AddedTokens)
	if err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: added_tokens: %w", err)
	}
	t.addTokens(added)
	t.finish()
	return t, nil
}

// maxNesting bounds how deep Sequence components may nest.
const maxNesting = 16

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// kind reads the type of a component.
func kind(raw json.RawMessage, depth int) (string, error) {
	if depth > maxNesting {
		return "", fmt.Errorf("components are nested more than %d deep", maxNesting)
	}
	var k struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &k); err != nil {
		return "", err
	}
	if k.Type == "" {
		return "", fmt.Errorf("expected an object with a \"type\", got %.60s", raw)
	}
	return k.Type, nil
}

func loadVocab(raw json.RawMessage) (*vocab, error) {
	if isNull(raw) {
		return nil, fmt.Errorf("vocab: missing")
	}
	if v, ok := plainVocab(raw); ok {
		return v, nil
	}
	ids := map[string]int32{}
	if err := json.Unmarshal(raw, &ids); err != nil {
		return nil, fmt.Errorf("vocab: expected an object of ids: %w", err)
	}
	return newVocab(ids)
}

// plainVocab reads an object of ids, many times as fast as encoding/json: loading a vocabulary is much of the time to the first answer. It
// reports false for anything that it would rather leave to encoding/json. Names are parts of raw, which must not change afterwards.
func plainVocab(raw []byte) (*vocab, bool) {
	i, n := 0, len(raw)
	text := unsafe.String(unsafe.SliceData(raw), n)
	space := func() {
		for i < n && (raw[i] == ' ' || raw[i] == '\n' || raw[i] == '\t' || raw[i] == '\r') {
			i++
		}
	}
	is := func(c byte) bool {
		space()
		if i < n && raw[i] == c {
			i++
			return true
		}
		return false
	}
	if !is('{') {
		return nil, false
	}
	list := make([]entry, 0, n/12)
	for first := true; ; first = false {
		if first && is('}') {
			break
		}
		if !is('"') {
			return nil, false
		}
		from, plain, high := i, true, false
		for i < n && raw[i] != '"' {
			c := raw[i]
			plain = plain && c >= ' '
			high = high || c >= utf8.RuneSelf
			if c == '\\' {
				plain = false
				i++
			}
			i++
		}
		if i >= n {
			return nil, false
		}
		name := text[from:i]
		i++
		if !plain || high && !utf8.ValidString(name) {
			if json.Unmarshal(raw[from-1:i], &name) != nil {
				return nil, false
			}
		}
		if !is(':') {
			return nil, false
		}
		space()
		id, digits := 0, i
		for i < n && raw[i] >= '0' && raw[i] <= '9' && i-digits < 9 {
			id = id*10 + int(raw[i]-'0')
			i++
		}
		if i == digits || raw[digits] == '0' && i > digits+1 {
			return nil, false
		}
		list = append(list, entry{name, int32(id)})
		if is(',') {
			continue
		}
		if !is('}') { // also longer numbers, fractions and exponents
			return nil, false
		}
		break
	}
	space()
	if i != n {
		return nil, false
	}
	v, err := vocabOf(list)
	return v, err == nil
}

// pairOf reads ["[SEP]", 102].
type pairOf struct {
	token string
	id    int32
}

func (p *pairOf) UnmarshalJSON(raw []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(raw, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return fmt.Errorf("expected a token and its id, got %d values", len(parts))
	}
	if err := json.Unmarshal(parts[0], &p.token); err != nil {
		return err
	}
	if err := json.Unmarshal(parts[1], &p.id); err != nil {
		return err
	}
	if p.id < 0 {
		return fmt.Errorf("id of %q: expected at least 0, got %d", p.token, p.id)
	}
	return nil
}

func loadPostProcessor(dst []postProcessor, raw json.RawMessage, depth int) ([]postProcessor, error) {
	if isNull(raw) {
		return dst, nil
	}
	k, err := kind(raw, depth)
	if err != nil {
		return nil, err
	}
	switch k {
	case "Sequence":
		var s struct {
			Processors []json.RawMessage `json:"processors"`
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, err
		}
		for _, one := range s.Processors {
			if dst, err = loadPostProcessor(dst, one, depth+1); err != nil {
				return nil, err
			}
		}
		return dst, nil
	case "TemplateProcessing":
		t, err := loadTemplate(raw)
		if err != nil {
			return nil, err
		}
		return append(dst, t), nil
	case "BertProcessing", "RobertaProcessing":
		p := struct {
			Sep    *pairOf `json:"sep"`
			Cls    *pairOf `json:"cls"`
			Trim   *bool   `json:"trim_offsets"`
			Prefix *bool   `json:"add_prefix_space"`
		}{}
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, err
		}
		if p.Sep == nil || p.Cls == nil {
			return nil, fmt.Errorf("%s: \"sep\" and \"cls\" must be given", k)
		}
		token := func(p *pairOf, typeID int32) templatePiece {
			return templatePiece{ids: []int32{p.id}, tokens: []string{p.token}, typeID: typeID}
		}
		a, b := templatePiece{}, templatePiece{sequence: 1}
		cls, sep := token(p.Cls, 0), token(p.Sep, 0)
		if k == "RobertaProcessing" {
			return append(dst, &template{
				single: []templatePiece{cls, a, sep}, pair: []templatePiece{cls, a, sep, sep, b, sep},
				trim: orTrue(p.Trim), prefixSpace: orTrue(p.Prefix), flat: true, free: true,
			}), nil
		}
		b.typeID = 1
		return append(dst, &template{single: []templatePiece{cls, a, sep}, pair: []templatePiece{cls, a, sep, b, token(p.Sep, 1)}, free: true}), nil
	case "ByteLevel":
		p := struct {
			Trim   *bool `json:"trim_offsets"`
			Prefix *bool `json:"add_prefix_space"`
		}{}
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, err
		}
		return append(dst, byteLevelProcessor{trim: orTrue(p.Trim), prefixSpace: orTrue(p.Prefix)}), nil
	}
	return nil, fmt.Errorf("type %q is not known", k)
}

func loadTemplate(raw json.RawMessage) (*template, error) {
	type ref struct {
		ID     string `json:"id"`
		TypeID int32  `json:"type_id"`
	}
	type part struct {
		Special  *ref `json:"SpecialToken"`
		Sequence *ref `json:"Sequence"`
	}
	var f struct {
		Single  []part `json:"single"`
		Pair    []part `json:"pair"`
		Special map[string]struct {
			IDs    []int32  `json:"ids"`
			Tokens []string `json:"tokens"`
		} `json:"special_tokens"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	convert := func(name string, parts []part) ([]templatePiece, error) {
		out := make([]templatePiece, 0, len(parts))
		for i, p := range parts {
			switch {
			case p.Sequence != nil:
				piece := templatePiece{typeID: p.Sequence.TypeID}
				switch p.Sequence.ID {
				case "A":
				case "B":
					piece.sequence = 1
				default:
					return nil, fmt.Errorf("%s, part %d: sequence: expected A or B, got %q", name, i, p.Sequence.ID)
				}
				if piece.sequence == 1 && name == "single" {
					return nil, fmt.Errorf("single, part %d: sequence B in the template for one text", i)
				}
				out = append(out, piece)
			case p.Special != nil:
				s, ok := f.Special[p.Special.ID]
				if !ok || len(s.IDs) != len(s.Tokens) {
					return nil, fmt.Errorf("%s, part %d: special token %q needs as many ids as tokens in \"special_tokens\"", name, i, p.Special.ID)
				}
				for _, id := range s.IDs {
					if id < 0 {
						return nil, fmt.Errorf("special token %q: id: expected at least 0, got %d", p.Special.ID, id)
					}
				}
				if len(s.IDs) > 0 {
					out = append(out, templatePiece{typeID: p.Special.TypeID, ids: s.IDs, tokens: s.Tokens})
				}
			default:
				return nil, fmt.Errorf("%s, part %d: expected a SpecialToken or a Sequence", name, i)
			}
		}
		return out, nil
	}
	t := &template{}
	var err error
	if t.single, err = convert("single", f.Single); err != nil {
		return nil, err
	}
	if t.pair, err = convert("pair", f.Pair); err != nil {
		return nil, err
	}
	return t, nil
}

func loadDecoder(raw json.RawMessage, depth int) (decoder, error) {
	if isNull(raw) {
		return nil, nil
	}
	k, err := kind(raw, depth)
	if err != nil {
		return nil, err
	}
	f := struct {
		Decoders  []json.RawMessage `json:"decoders"`
		Prefix    *string           `json:"prefix"`
		Cleanup   *bool             `json:"cleanup"`
		Content   *string           `json:"content"`
		Start     int               `json:"start"`
		Stop      int               `json:"stop"`
		Mark      *string           `json:"replacement"`
		Scheme    string            `json:"prepend_scheme"`
		Prepend   *bool             `json:"add_prefix_space"`
		Suffix    *string           `json:"suffix"`
		Pad       *string           `json:"pad_token"`
		Delimiter *string           `json:"word_delimiter_token"`
		Pattern   json.RawMessage   `json:"pattern"`
	}{}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	str := func(s *string, or string) string {
		if s == nil {
			return or
		}
		return *s
	}
	switch k {
	case "Sequence":
		var d decoders
		for _, one := range f.Decoders {
			inner, err := loadDecoder(one, depth+1)
			if err != nil {
				return nil, err
			}
			if inner != nil {
				d = append(d, inner)
			}
		}
		return d, nil
	case "WordPiece":
		return wordPieceDecoder{prefix: str(f.Prefix, "##"), cleanup: orTrue(f.Cleanup)}, nil
	case "ByteLevel":
		return byteLevelDecoder{}, nil
	case "ByteFallback":
		return byteFallback{}, nil
	case "Fuse":
		return fuse{}, nil
	case "Strip":
		c := str(f.Content, "")
		r, n := utf8.DecodeRuneInString(c)
		if n == 0 || n != len(c) {
			return nil, fmt.Errorf("Strip: content: expected one character, got %q", c)
		}
		return stripDecoder{content: r, start: f.Start, stop: f.Stop}, nil
	case "Metaspace":
		return metaspaceDecoder{mark: str(f.Mark, metaMark), never: f.Scheme == "never" || f.Scheme == "" && !orTrue(f.Prepend)}, nil
	case "BPEDecoder":
		return bpeDecoder{suffix: str(f.Suffix, "</w>")}, nil
	case "CTC":
		return ctcDecoder{pad: str(f.Pad, "<pad>"), delimiter: str(f.Delimiter, "|"), cleanup: orTrue(f.Cleanup)}, nil
	case "Replace":
		r, err := loadReplacer(f.Pattern, str(f.Content, ""))
		if err != nil {
			return nil, err
		}
		return replaceDecoder{replace: r.text}, nil
	}
	return nil, fmt.Errorf("type %q is not known", k)
}

func loadTruncation(raw json.RawMessage) (*Truncation, error) {
	if isNull(raw) {
		return nil, nil
	}
	var f struct {
		MaxLength int      `json:"max_length"`
		Stride    int      `json:"stride"`
		Strategy  Strategy `json:"strategy"`
		Direction string   `json:"direction"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	switch f.Strategy {
	case "", LongestFirst, OnlyFirst, OnlySecond:
	default:
		return nil, fmt.Errorf("strategy: expected %s, %s or %s, got %q", LongestFirst, OnlyFirst, OnlySecond, f.Strategy)
	}
	left, err := direction(f.Direction)
	if err != nil {
		return nil, err
	}
	if f.MaxLength < 0 || f.MaxLength > math.MaxInt32 || f.Stride < 0 || f.Stride > math.MaxInt32 {
		return nil, fmt.Errorf("max_length %d, stride %d: expected 0 to %d", f.MaxLength, f.Stride, math.MaxInt32)
	}
	return &Truncation{MaxLength: f.MaxLength, Stride: f.Stride, Strategy: f.Strategy, Left: left}, nil
}

func direction(s string) (left bool, err error) {
	switch s {
	case "", "Right":
		return false, nil
	case "Left":
		return true, nil
	}
	return false, fmt.Errorf("direction: expected Left or Right, got %q", s)
}

func loadPadding(raw json.RawMessage) (*Padding, error) {
	if isNull(raw) {
		return nil, nil
	}
	var f struct {
		Strategy  json.RawMessage `json:"strategy"`
		Direction string          `json:"direction"`
		Multiple  int             `json:"pad_to_multiple_of"`
		ID        int32           `json:"pad_id"`
		TypeID    int32           `json:"pad_type_id"`
		Token     string          `json:"pad_token"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	left, err := direction(f.Direction)
	if err != nil {
		return nil, err
	}
	p := &Padding{MultipleOf: f.Multiple, ID: f.ID, TypeID: f.TypeID, Token: f.Token, Left: left}
	var longest string
	var fixed struct{ Fixed int }
	switch {
	case json.Unmarshal(f.Strategy, &longest) == nil && longest == "BatchLongest":
	case json.Unmarshal(f.Strategy, &fixed) == nil && fixed.Fixed > 0:
		p.Length = fixed.Fixed
	default:
		return nil, fmt.Errorf("strategy: expected \"BatchLongest\" or {\"Fixed\": n}, got %.60s", f.Strategy)
	}
	if p.Length > maxPadding || p.MultipleOf < 0 || p.MultipleOf > maxPadding || p.ID < 0 {
		return nil, fmt.Errorf("length %d, pad_to_multiple_of %d, pad_id %d: expected 0 to %d", p.Length, p.MultipleOf, p.ID, maxPadding)
	}
	return p, nil
}

func loadAdded(raw json.RawMessage) ([]AddedToken, error) {
	if isNull(raw) {
		return nil, nil
	}
	var list []struct {
		ID         int32  `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		Lstrip     bool   `json:"lstrip"`
		Rstrip     bool   `json:"rstrip"`
		Normalized *bool  `json:"normalized"`
		Special    bool   `json:"special"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	out := make([]AddedToken, 0, len(list))
	for _, a := range list {
		if a.ID < 0 {
			return nil, fmt.Errorf("id of %q: expected at least 0, got %d", a.Content, a.ID)
		}
		normalized := !a.Special
		if a.Normalized != nil {
			normalized = *a.Normalized
		}
		out = append(out, AddedToken{ID: a.ID, Content: a.Content, SingleWord: a.SingleWord, Lstrip: a.Lstrip, Rstrip: a.Rstrip, Normalized: normalized, Special: a.Special})
	}
	return out, nil
}
