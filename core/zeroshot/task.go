// Package zeroshot labels texts with no training: from the names or descriptions of the labels alone, or with a few examples. Three ways,
// by the kind of model: nearness of sentence embeddings, entailment ("this text is about sports"), and the likelihood of each label's
// name after a prompt.
package zeroshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/temper-ml/temper/core/builtin"
)

// Task says in words what is to be decided.
type Task struct {
	// About is what the labels say about a text: "the section of a newspaper that a report belongs in".
	About string
	// Template is a sentence with {} where a label's words go: "This text is about {}." The default is {} alone, "This text is about {}."
	// for entailment.
	Template string
	// Prompts are ways to ask a decoder, with {text} once, and ending where the label's word comes: "Review: {text}\nOpinion:".
	Prompts []string
	Labels  []Label
}

// Label is one class.
type Label struct {
	Name string // as results show it
	Word string // as a text would put it, for prompts: "place" for LOC; the name in plain words when empty
	// Description is a phrase that fits the template; the word when empty.
	Description string
}

// Example is a labelled text; Label indexes Task.Labels.
type Example struct {
	Text  string
	Label int
}

// Classifier gives each text a probability for each label of its task.
type Classifier interface {
	Classify(ctx context.Context, texts []string) ([][]float64, error)
	// About says in a line how it decides, what it chose on the examples included.
	About() string
}

const (
	maxLabels = 10000
	maxTask   = 4 << 20
)

// FromNames is a task whose labels have nothing but names.
func FromNames(names []string) (*Task, error) {
	t := &Task{}
	for _, n := range names {
		t.Labels = append(t.Labels, Label{Name: strings.TrimSpace(n)})
	}
	return t, t.check()
}

// FromBuiltin is a built-in task.
func FromBuiltin(b builtin.Task) (*Task, error) {
	t := &Task{About: b.About, Template: b.Template}
	for _, l := range b.Labels {
		t.Labels = append(t.Labels, Label{Name: l.Label, Description: l.Description})
	}
	return t, t.check()
}

// Parse reads a task from YAML (or JSON): either a map from labels to descriptions, or a map with the keys about, template, prompts and
// labels, where labels is a list of names or a map from names to descriptions or to {word, description}. names, when not nil, are the labels
// to use, in that order; those without a description have none.
func Parse(raw []byte, names []string) (*Task, error) {
	if len(raw) > maxTask {
		return nil, fmt.Errorf("%d bytes: expected at most %d", len(raw), maxTask)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("expected a map from labels to descriptions")
	}
	t := &Task{}
	root := doc.Content[0]
	var err error
	if labels := lookUp(root, "labels"); labels == nil || labels.Kind == yaml.ScalarNode {
		err = t.readLabels(root)
	} else {
		for i := 0; i+1 < len(root.Content) && err == nil; i += 2 {
			key, v := root.Content[i], root.Content[i+1]
			switch key.Value {
			case "about":
				err = v.Decode(&t.About)
			case "template":
				err = v.Decode(&t.Template)
			case "prompts":
				err = v.Decode(&t.Prompts)
			case "labels":
				err = t.readLabels(v)
			default:
				err = fmt.Errorf("line %d: key %q: expected about, template, prompts or labels", key.Line, key.Value)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if names != nil {
		if err := t.pick(names); err != nil {
			return nil, err
		}
	}
	return t, t.check()
}

func lookUp(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func (t *Task) readLabels(n *yaml.Node) error {
	switch n.Kind {
	case yaml.SequenceNode:
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: expected the name of a label", c.Line)
			}
			t.Labels = append(t.Labels, Label{Name: c.Value})
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			l := Label{Name: n.Content[i].Value}
			switch v := n.Content[i+1]; v.Kind {
			case yaml.ScalarNode:
				if v.Tag != "!!null" {
					l.Description = v.Value
				}
			case yaml.MappingNode:
				for k := 0; k+1 < len(v.Content); k += 2 {
					key, text := v.Content[k], v.Content[k+1]
					if text.Kind != yaml.ScalarNode {
						return fmt.Errorf("line %d: label %q: %s: expected a text", text.Line, l.Name, key.Value)
					}
					switch key.Value {
					case "word":
						l.Word = text.Value
					case "description":
						l.Description = text.Value
					default:
						return fmt.Errorf("line %d: label %q: key %q: expected word or description", key.Line, l.Name, key.Value)
					}
				}
			default:
				return fmt.Errorf("line %d: label %q: expected a description", v.Line, l.Name)
			}
			t.Labels = append(t.Labels, l)
		}
	default:
		return fmt.Errorf("line %d: labels: expected a list or a map", n.Line)
	}
	return nil
}

// pick keeps the named labels, in that order.
func (t *Task) pick(names []string) error {
	var out []Label
	for _, n := range names {
		n = strings.TrimSpace(n)
		i := slices.IndexFunc(t.Labels, func(l Label) bool { return l.Name == n })
		if i < 0 {
			out = append(out, Label{Name: n})
			continue
		}
		out = append(out, t.Labels[i])
	}
	t.Labels = out
	return nil
}

func (t *Task) check() error {
	if len(t.Labels) < 2 || len(t.Labels) > maxLabels {
		return fmt.Errorf("expected 2 to %d labels, got %d", maxLabels, len(t.Labels))
	}
	seen := map[string]bool{}
	for i, l := range t.Labels {
		if l.Name == "" {
			return fmt.Errorf("label %d has no name", i+1)
		}
		if seen[l.Name] {
			return fmt.Errorf("label %q is given twice", short(l.Name))
		}
		seen[l.Name] = true
	}
	if t.Template != "" && strings.Count(t.Template, "{}") != 1 {
		return fmt.Errorf("template %q: expected {} once", t.Template)
	}
	for _, p := range t.Prompts {
		if strings.Count(p, "{text}") != 1 {
			return fmt.Errorf("prompt %q: expected {text} once", p)
		}
	}
	return nil
}

// Names lists the labels' names.
func (t *Task) Names() []string {
	out := make([]string, len(t.Labels))
	for i, l := range t.Labels {
		out[i] = l.Name
	}
	return out
}

// word is the label in plain words: "card_not_arrived" becomes "card not arrived".
func (l Label) word() string {
	if l.Word != "" {
		return l.Word
	}
	w := strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return ' '
		}
		return r
	}, l.Name)
	if w = strings.TrimSpace(w); w == "" {
		return l.Name
	}
	return w
}

func (l Label) describe() string {
	if l.Description != "" {
		return l.Description
	}
	return l.word()
}

func (t *Task) checkExamples(examples []Example) error {
	for i, e := range examples {
		if e.Label < 0 || e.Label >= len(t.Labels) {
			return fmt.Errorf("example %d: label %d of %d", i+1, e.Label, len(t.Labels))
		}
	}
	return nil
}
