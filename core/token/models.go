package token

import (
	"encoding/json"
	"fmt"
	"strings"
)

func loadModel(raw json.RawMessage) (model, *vocab, error) {
	if isNull(raw) {
		return nil, nil, fmt.Errorf("missing")
	}
	var m struct {
		Type         string          `json:"type"`
		UnkToken     *string         `json:"unk_token"`
		UnkID        *int32          `json:"unk_id"`
		Prefix       *string         `json:"continuing_subword_prefix"`
		Suffix       *string         `json:"end_of_word_suffix"`
		MaxChars     *int            `json:"max_input_chars_per_word"`
		FuseUnk      bool            `json:"fuse_unk"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
		Vocab        json.RawMessage `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		Typos        json.RawMessage `json:"temper_typos"`
	}
	rest, big, ok := apart(raw, "vocab", "merges")
	if !ok {
		rest = raw
	}
	if err := json.Unmarshal(rest, &m); err != nil {
		return nil, nil, err
	}
	if ok {
		m.Vocab, m.Merges = big["vocab"], big["merges"]
	}
	if m.Type == "" { // old files leave it out
		switch {
		case !isNull(m.Merges):
			m.Type = "BPE"
		case len(m.Vocab) > 0 && m.Vocab[0] == '[':
			m.Type = "Unigram"
		case m.Prefix != nil || m.MaxChars != nil:
			m.Type = "WordPiece"
		default:
			m.Type = "WordLevel"
		}
	}
	str := func(s *string, or string) string {
		if s == nil {
			return or
		}
		return *s
	}
	if m.Type == "Unigram" {
		u, err := loadUnigram(m.Vocab, m.UnkID, m.ByteFallback)
		if err != nil {
			return nil, nil, err
		}
		return u, u.vocab, nil
	}
	v, err := loadVocab(m.Vocab)
	if err != nil {
		return nil, nil, err
	}
	switch m.Type {
	case "WordPiece":
		chars := 100
		if m.MaxChars != nil {
			if chars = *m.MaxChars; chars < 0 {
				return nil, nil, fmt.Errorf("max_input_chars_per_word: expected at least 0, got %d", chars)
			}
		}
		w := newWordPiece(v, str(m.UnkToken, "[UNK]"), str(m.Prefix, "##"), chars)
		typos, err := loadTypos(m.Typos, v)
		if err != nil {
			return nil, nil, err
		}
		w.setTypos(typos)
		return w, v, nil
	case "WordLevel":
		w := &wordLevel{vocab: v, unk: str(m.UnkToken, "<unk>"), unkID: -1}
		if id, ok := v.ids[w.unk]; ok {
			w.unkID = id
		}
		return w, v, nil
	case "BPE":
		merges, err := loadMerges(m.Merges)
		if err != nil {
			return nil, nil, err
		}
		b, err := newBPE(v, merges, bpe{
			unk: str(m.UnkToken, ""), prefix: str(m.Prefix, ""), suffix: str(m.Suffix, ""),
			fuseUnk: m.FuseUnk, byteFallback: m.ByteFallback, ignoreMerges: m.IgnoreMerges,
		})
		if err != nil {
			return nil, nil, err
		}
		return b, v, nil
	}
	return nil, nil, fmt.Errorf("type: expected WordPiece, BPE, Unigram or WordLevel, got %q", m.Type)
}

// loadMerges reads ["a b", …] and [["a", "b"], …].
func loadMerges(raw json.RawMessage) ([][2]string, error) {
	if isNull(raw) {
		return nil, fmt.Errorf("merges: missing")
	}
	var lines []string
	if json.Unmarshal(raw, &lines) == nil {
		return parseMerges(lines)
	}
	var list [][]string
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("merges: expected a list of pairs: %w", err)
	}
	out := make([][2]string, len(list))
	for i, p := range list {
		if len(p) != 2 {
			return nil, fmt.Errorf("merges: merge %d: expected two tokens, got %d", i, len(p))
		}
		out[i] = [2]string(p)
	}
	return out, nil
}

func parseMerges(lines []string) ([][2]string, error) {
	out := make([][2]string, 0, len(lines))
	for i, line := range lines {
		if strings.HasPrefix(line, "#version") {
			continue
		}
		a, b, ok := strings.Cut(line, " ")
		if !ok || a == "" || b == "" || strings.Contains(b, " ") {
			return nil, fmt.Errorf("merges: merge %d: expected two tokens with a space between, got %.60q", i, line)
		}
		out = append(out, [2]string{a, b})
	}
	return out, nil
}

// loadUnigram reads [["piece", score], …].
func loadUnigram(raw json.RawMessage, unk *int32, byteFallback bool) (*unigram, error) {
	if isNull(raw) {
		return nil, fmt.Errorf("vocab: missing")
	}
	var list []scored
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("vocab: expected a list of pieces and scores: %w", err)
	}
	names, scores := make([]string, len(list)), make([]float64, len(list))
	for i, p := range list {
		names[i], scores[i] = p.name, p.score
	}
	id := int32(-1)
	if unk != nil {
		if id = *unk; id < 0 {
			return nil, fmt.Errorf("unk_id: expected at least 0, got %d", id)
		}
	}
	return newUnigram(names, scores, id, byteFallback)
}

type scored struct {
	name  string
	score float64
}

func (s *scored) UnmarshalJSON(raw []byte) error {
	pair := []any{&s.name, &s.score}
	if err := json.Unmarshal(raw, &pair); err != nil {
		return err
	}
	if len(pair) != 2 || s.name == "" && string(raw) == "[]" {
		return fmt.Errorf("expected a piece and its score, got %.60s", raw)
	}
	return nil
}
