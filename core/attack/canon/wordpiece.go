package canon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/token"
)

// wordPiece is a tokenizer.json with a WordPiece vocabulary, open for changes of what its entries are read as.
type wordPiece struct {
	doc, model map[string]json.RawMessage
	prefix     string // of continuations
	vocab      map[string]int
}

// entry is a word of the vocabulary and the id that it is read as.
type entry struct {
	token string
	id    int
}

// parseWordPiece reads it without the misspellings that Typos added, if it did.
func parseWordPiece(tokenizer []byte) (*wordPiece, error) {
	t := &wordPiece{prefix: "##"}
	tokenizer, _ = token.Strip(tokenizer)
	if err := json.Unmarshal(tokenizer, &t.doc); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(t.doc["model"], &t.model); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	var kind string
	if err := json.Unmarshal(t.model["type"], &kind); err != nil || kind != "WordPiece" {
		return nil, fmt.Errorf("needs a WordPiece vocabulary, found %q", kind)
	}
	if raw := t.model["continuing_subword_prefix"]; raw != nil {
		if err := json.Unmarshal(raw, &t.prefix); err != nil {
			return nil, fmt.Errorf("continuing_subword_prefix: %w", err)
		}
	}
	if err := json.Unmarshal(t.model["vocab"], &t.vocab); err != nil {
		return nil, fmt.Errorf("vocab: %w", err)
	}
	delete(t.model, "temper_typos")
	return t, nil
}

// rewrite returns the tokenizer.json with other ids for some entries (-1 leaves one out), in the order that they were in, and new entries after
// them, sorted.
func (t *wordPiece) rewrite(changed map[string]int, added []entry) ([]byte, error) {
	slices.SortFunc(added, func(a, b entry) int { return strings.Compare(a.token, b.token) })
	vocab := bytes.TrimSpace(t.model["vocab"])
	if len(changed) > 0 {
		var err error
		if vocab, err = renumber(vocab, changed); err != nil {
			return nil, fmt.Errorf("vocab: %w", err)
		}
	}
	var b bytes.Buffer
	b.Write(vocab[:len(vocab)-1])
	for _, e := range added {
		if c := b.Bytes(); c[len(c)-1] != '{' {
			b.WriteByte(',')
		}
		quoted, err := json.Marshal(e.token)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s:%d", quoted, e.id)
	}
	b.WriteByte('}')
	t.model["vocab"] = b.Bytes()
	raw, err := json.Marshal(t.model)
	if err != nil {
		return nil, err
	}
	t.doc["model"] = raw
	return inOrder(t.doc), nil
}

// renumber gives entries of a vocabulary other ids and keeps their order; -1 leaves one out.
func renumber(vocab []byte, ids map[string]int) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(vocab))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for n := 0; dec.More(); {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var id int
		if err := dec.Decode(&id); err != nil {
			return nil, err
		}
		name, _ := key.(string)
		if to, ok := ids[name]; ok {
			id = to
		}
		if id < 0 {
			continue
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%d", quoted, id)
		n++
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
