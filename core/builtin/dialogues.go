package builtin

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Turn is one message of a dialogue.
type Turn struct {
	Role    string `json:"role"` // "system", "user" or "assistant"
	Content string `json:"content"`
}

// Dialogue is a short talk: perhaps a system message, then user and assistant in turns, ending with the assistant.
type Dialogue struct {
	Messages []Turn `json:"messages"`
}

//go:embed dialogues.jsonl
var dialoguesFile []byte

//go:embed dialogues_test.jsonl
var dialoguesTestFile []byte

var loadDialogues = sync.OnceValues(func() ([2][]Dialogue, error) {
	var parts [2][]Dialogue
	for i, file := range []struct {
		name string
		raw  []byte
	}{{"dialogues.jsonl", dialoguesFile}, {"dialogues_test.jsonl", dialoguesTestFile}} {
		var err error
		if parts[i], err = parseDialogues(string(file.raw)); err != nil {
			return parts, fmt.Errorf("%s: %w", file.name, err)
		}
	}
	return parts, nil
})

// Dialogues returns the dialogues to tune on and those held out, about one in ten. They are the caller's own. It panics when the embedded
// files are malformed, which the tests of this package rule out.
func Dialogues() (train, test []Dialogue) {
	parts, err := loadDialogues()
	if err != nil {
		panic("builtin: " + err.Error())
	}
	return cloneDialogues(parts[0]), cloneDialogues(parts[1])
}

// DialoguesJSONL returns one part, "train" or "test", as the file that it comes from: a JSON object {"messages":[{"role","content"},…]} a line.
func DialoguesJSONL(part string) ([]byte, error) {
	switch part {
	case "train":
		return slices.Clone(dialoguesFile), nil
	case "test":
		return slices.Clone(dialoguesTestFile), nil
	}
	return nil, fmt.Errorf("built-in dialogues: want part train or test, got %q", part)
}

func parseDialogues(file string) ([]Dialogue, error) {
	var all []Dialogue
	for i, line := range strings.Split(strings.TrimSuffix(file, "\n"), "\n") {
		var d Dialogue
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if err := d.check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		all = append(all, d)
	}
	return all, nil
}

// check says what is wrong with the order of roles or with a content.
func (d Dialogue) check() error {
	turns := d.Messages
	if len(turns) > 0 && turns[0].Role == "system" {
		turns = turns[1:]
	}
	if len(turns) == 0 || len(turns)%2 != 0 {
		return fmt.Errorf("want pairs of user and assistant, got %d messages", len(turns))
	}
	for i, turn := range d.Messages {
		if strings.TrimSpace(turn.Content) == "" {
			return fmt.Errorf("message %d is empty", i+1)
		}
	}
	for i, turn := range turns {
		if want := [2]string{"user", "assistant"}[i%2]; turn.Role != want {
			return fmt.Errorf("want role %s, got %q", want, turn.Role)
		}
	}
	return nil
}

func cloneDialogues(all []Dialogue) []Dialogue {
	own := slices.Clone(all)
	for i := range own {
		own[i].Messages = slices.Clone(own[i].Messages)
	}
	return own
}
