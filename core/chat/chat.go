// Package chat renders dialogues as the texts that models were trained on, by the chat templates of their tokenizer_config.json.
//
// Templates are Jinja, as Hugging Face's apply_chat_template renders it: trim_blocks, lstrip_blocks, loop controls, tojson without sorting or escaping. The
// evaluator is our own, since exactness needs Python's values (ordered dicts, None, True, repr of floats), and because templates come from strangers: steps,
// output, recursion and nesting are bounded, and a template sees nothing but its inputs.
package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode"
)

// maxSource bounds the length of a template in bytes.
const maxSource = 1 << 20

// Template is a parsed chat template, safe for concurrent use.
type Template struct {
	source string
	body   []stmt
}

// Message is a turn of a dialogue, for callers who need no more than text.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Input is what a template renders.
type Input struct {
	// Messages is a JSON array of objects such as {"role": "user", "content": "…"}; the order of keys is kept.
	Messages json.RawMessage
	// Tools is a JSON array of tool descriptions, or nothing.
	Tools json.RawMessage
	// AddGenerationPrompt ends the text where the model's turn begins.
	AddGenerationPrompt bool
	// ContinueFinalMessage ends the text inside the last message, for the model to go on with it.
	ContinueFinalMessage bool
	// Tokens are the special tokens by role: bos_token, eos_token and so on.
	Tokens map[string]string
	// Variables are others that the template asks for, as JSON: enable_thinking, date_string.
	Variables map[string]json.RawMessage
	// Now is the time that strftime_now shows; time.Now when nil.
	Now func() time.Time
}

// Messages makes Input.Messages of plain turns.
func Messages(turns ...Message) json.RawMessage {
	raw, err := json.Marshal(turns)
	if err != nil {
		return nil // strings always marshal
	}
	return raw
}

// Parse reads a template.
func Parse(source string) (t *Template, err error) {
	defer recoverFailure(&err, "chat: template")
	if len(source) > maxSource {
		return nil, fmt.Errorf("chat: template of %d bytes: expected at most %d", len(source), maxSource)
	}
	p := &parser{toks: lex(source)}
	body, _ := p.body()
	return &Template{source: source, body: body}, nil
}

func recoverFailure(err *error, what string) {
	switch r := recover().(type) {
	case nil:
	case failure:
		*err = fmt.Errorf("%s: %w", what, r.err)
	case runtime.Error:
		// A mistake of this package must not take a server down with it.
		*err = fmt.Errorf("%s: internal error: %v", what, r)
	default:
		panic(r)
	}
}

// FromConfig reads the template in a tokenizer_config.json, nil if there is none, and the special tokens for Input.Tokens. Where the file has several, name
// picks one; "" is "default".
func FromConfig(config []byte, name string) (*Template, map[string]string, error) {
	var f map[string]json.RawMessage
	if err := json.Unmarshal(config, &f); err != nil {
		return nil, nil, fmt.Errorf("chat: tokenizer_config.json: %w", err)
	}
	tokens := map[string]string{}
	for key, raw := range f {
		if !strings.HasSuffix(key, "_token") {
			continue
		}
		var s string
		var o struct {
			Content *string `json:"content"`
		}
		if json.Unmarshal(raw, &s) == nil && s != "" {
			tokens[key] = s
		} else if json.Unmarshal(raw, &o) == nil && o.Content != nil {
			tokens[key] = *o.Content
		}
	}
	raw, ok := f["chat_template"]
	if !ok || string(raw) == "null" {
		return nil, tokens, nil
	}
	var source string
	if json.Unmarshal(raw, &source) != nil {
		var all []struct{ Name, Template string }
		if err := json.Unmarshal(raw, &all); err != nil {
			return nil, nil, fmt.Errorf("chat: tokenizer_config.json: chat_template: expected a string or a list of named templates: %w", err)
		}
		if name == "" {
			name = "default"
		}
		found := false
		for _, one := range all {
			if one.Name == name {
				source, found = one.Template, true
			}
		}
		if !found {
			return nil, nil, fmt.Errorf("chat: tokenizer_config.json: chat_template: none is called %q", name)
		}
	}
	t, err := Parse(source)
	return t, tokens, err
}

// Source is the template's text.
func (t *Template) Source() string { return t.source }

const continueTag = "CONTINUE_FINAL_MESSAGE_TAG "

// Render writes the dialogue. The template's own complaints come as *TemplateError.
func (t *Template) Render(in Input) (text string, err error) {
	defer recoverFailure(&err, "chat")
	c := &context{out: &strings.Builder{}, fuel: maxFuel, now: in.Now, globals: map[string]any{}}
	if c.now == nil {
		c.now = time.Now
	}
	for name, token := range in.Tokens {
		c.globals[name] = token
	}
	for name, raw := range in.Variables {
		v, err := decode(raw)
		if err != nil {
			return "", fmt.Errorf("chat: variable %q: %w", name, err)
		}
		c.globals[name] = v
	}
	messages := &list{}
	if len(in.Messages) > 0 {
		v, err := decode(in.Messages)
		if err != nil {
			return "", fmt.Errorf("chat: messages: %w", err)
		}
		l, ok := v.(*list)
		if !ok {
			return "", fmt.Errorf("chat: messages: expected an array, got %s", typeName(v))
		}
		messages = l
	}
	for i, m := range messages.items {
		d, ok := m.(*dict)
		if !ok {
			return "", fmt.Errorf("chat: message %d: expected an object, got %s", i, typeName(m))
		}
		messages.items[i] = aliased(d)
	}
	var tools any
	if len(in.Tools) > 0 {
		if tools, err = decode(in.Tools); err != nil {
			return "", fmt.Errorf("chat: tools: %w", err)
		}
	}
	final := ""
	if in.ContinueFinalMessage {
		if in.AddGenerationPrompt {
			return "", errors.New("chat: a generation prompt cannot be added when the final message is to be continued")
		}
		if final, err = tagFinal(messages); err != nil {
			return "", err
		}
	}
	c.globals["messages"], c.globals["tools"], c.globals["documents"] = messages, tools, nil
	c.globals["add_generation_prompt"] = in.AddGenerationPrompt
	runAll(c, &frame{}, t.body)
	out := c.out.String()
	if in.ContinueFinalMessage {
		return cutFinal(out, final)
	}
	return out, nil
}

// aliased gives a message's thoughts the names that templates know them by.
func aliased(m *dict) *dict {
	var thought any
	for _, key := range []string{"reasoning_content", "thinking", "reasoning"} {
		if v, ok := m.get(key); ok && v != nil {
			thought = v
			break
		}
	}
	if thought == nil {
		return m
	}
	out := newDict()
	out.set("thinking", thought)
	for _, k := range m.keys {
		v, _ := m.get(k)
		out.set(k, v)
	}
	out.set("reasoning_content", thought)
	return out
}

// tagFinal marks the end of the last message's text and returns the text.
func tagFinal(messages *list) (string, error) {
	if len(messages.items) == 0 {
		return "", errors.New("chat: there is no final message to continue")
	}
	last := messages.items[len(messages.items)-1].(*dict)
	content, _ := last.get("content")
	switch x := content.(type) {
	case string:
		last.set("content", x+continueTag)
		return x, nil
	case *list:
		for i := len(x.items) - 1; i >= 0; i-- {
			part, ok := x.items[i].(*dict)
			if !ok {
				continue
			}
			if s, ok := part.get("text"); ok {
				if s, ok := s.(string); ok {
					part.set("text", s+continueTag)
					return s, nil
				}
			}
		}
	}
	return "", errors.New("chat: the final message has no text to continue")
}

func cutFinal(out, final string) (string, error) {
	i := strings.LastIndex(out, strings.TrimSpace(continueTag))
	if i < 0 || !strings.Contains(out, strings.TrimSpace(final)) {
		return "", errors.New("chat: the template leaves out the final message, so it cannot be continued")
	}
	if strings.HasPrefix(out[i:], continueTag) {
		return out[:i], nil
	}
	return strings.TrimRightFunc(out[:i], unicode.IsSpace), nil
}
