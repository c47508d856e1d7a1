package data

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// readJSONL reads an object a line, or one array of objects. Labels may be strings, numbers or booleans. Rows with "messages" are
// dialogues; rows with "prompt" and "completion" (or "instruction" and "output") become dialogues of two turns.
func readJSONL(b []byte, o Options) (*table, error) {
	t := &table{}
	b = bytes.TrimRight(b, " \t\r\n")
	if trimmed := bytes.TrimLeft(b, " \t\r\n"); trimmed[0] == '[' {
		return t, t.readArray(trimmed, lineAt(b, len(b)-len(trimmed)), o)
	}
	line := 0
	for len(b) > 0 {
		var l []byte
		l, b, _ = bytes.Cut(b, []byte("\n"))
		line++
		if len(bytes.TrimSpace(l)) == 0 {
			continue
		}
		if err := t.addJSON(l, line, o); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
	return t, nil
}

func (t *table) readArray(b []byte, firstLine int, o Options) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("line %d: bad JSON: %w", firstLine, err)
	}
	line, counted := firstLine, 0
	for d.More() {
		var raw json.RawMessage
		err := d.Decode(&raw)
		end := int(d.InputOffset())
		start := max(counted, end-len(raw))
		line += bytes.Count(b[counted:start], []byte("\n"))
		counted = start
		if err == nil {
			err = t.addJSON(raw, line, o)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line, tidyJSON(err))
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("line %d: %w", line, tidyJSON(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text follows the closing bracket")
	}
	return nil
}

func tidyJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("JSON ends too early")
	}
	return err
}

func (t *table) addJSON(b []byte, line int, o Options) error {
	var obj map[string]json.RawMessage
	if err := json.Unmarshal(b, &obj); err != nil || obj == nil {
		if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
			return fmt.Errorf("bad JSON: %w", err)
		}
		return fmt.Errorf("expected a JSON object like {\"text\": …, \"label\": …}, got %.40q", bytes.TrimSpace(b))
	}
	dialogue, err := messages(obj)
	if err != nil {
		return err
	}
	if (dialogue != nil) != (t.messages != nil) && len(t.texts) > 0 {
		return errors.New("some rows are dialogues and some are not")
	}
	t.lines = append(t.lines, line)
	if dialogue != nil {
		t.messages = append(t.messages, dialogue)
		t.texts = append(t.texts, "")
		return nil
	}
	keys := slices.Sorted(maps.Keys(obj))
	c, err := findColumns(keys, true, o)
	if err != nil {
		return err
	}
	text, err := jsonText(keys[c.text], obj[keys[c.text]])
	if err != nil {
		return err
	}
	first := len(t.texts) == 0
	t.texts = append(t.texts, text)
	if (c.textB >= 0) != (t.textsB != nil) && !first {
		return errors.New("some rows have a second text and some do not")
	}
	if c.textB >= 0 {
		text, err := jsonText(keys[c.textB], obj[keys[c.textB]])
		if err != nil {
			return err
		}
		t.textsB = append(t.textsB, text)
	}
	if (c.label >= 0) != (t.labels != nil) && !first {
		return errors.New("some rows have a label and some do not")
	}
	if c.label >= 0 {
		label, err := jsonLabel(keys[c.label], obj[keys[c.label]])
		if err != nil {
			return err
		}
		t.labels = append(t.labels, label)
	}
	return nil
}

func jsonText(key string, raw json.RawMessage) (string, error) {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", fmt.Errorf("%q: expected a string, got %.40s", key, raw)
	}
	return *s, nil
}

func jsonLabel(key string, raw json.RawMessage) (string, error) {
	switch raw[0] {
	case '"':
		return jsonText(key, raw)
	case '[', '{', 'n':
		return "", fmt.Errorf("%q: expected a string, a number or a boolean as the label, got %.40s", key, raw)
	}
	return string(raw), nil
}

// messages reads a dialogue; nil where the row is none.
func messages(obj map[string]json.RawMessage) ([]Message, error) {
	if raw, ok := obj["messages"]; ok {
		var m []Message
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf(`"messages": expected a list of {"role", "content"}: %w`, err)
		}
		if len(m) == 0 {
			return nil, errors.New(`"messages" is empty`)
		}
		for i, x := range m {
			if x.Role == "" {
				return nil, fmt.Errorf(`"messages": turn %d has no "role"`, i)
			}
		}
		return m, nil
	}
	for _, pair := range [][2]string{{"prompt", "completion"}, {"instruction", "output"}} {
		a, okA := obj[pair[0]]
		b, okB := obj[pair[1]]
		if !okA || !okB {
			continue
		}
		user, err := jsonText(pair[0], a)
		if err != nil {
			return nil, err
		}
		answer, err := jsonText(pair[1], b)
		if err != nil {
			return nil, err
		}
		if extra, err := jsonText("input", obj["input"]); obj["input"] != nil && err == nil && extra != "" {
			user += "\n\n" + extra
		}
		return []Message{{"user", user}, {"assistant", answer}}, nil
	}
	return nil, nil
}
