// Package builtin holds the small texts that come inside the binary, so that demos and tests need neither files nor a network: labelled
// messages for a scam and spam filter, short dialogues for tuning a base decoder to talk, and label descriptions for zero-shot use.
//
// Every text was written for this project. Names are invented, addresses use reserved domains (example.com, .example, .test) and telephone
// numbers the fictional 555-01xx range; the scam messages are samples for a filter and lead nowhere.
package builtin

import (
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Ham and Spam are the two labels of the messages. Scams count as spam.
const (
	Ham  = "ham"
	Spam = "spam"
)

// Example is one labelled text.
type Example struct {
	Label string `json:"label"` // Ham or Spam
	Text  string `json:"text"`  // one line of UTF-8
	Topic string `json:"topic"` // what it is about, "parcel" or "family"; not part of the task
}

// MessageSet is the labelled messages in three parts that share no text. Some topics occur in Test only, so that it also measures what was
// never seen.
type MessageSet struct {
	Train, Dev, Test []Example
}

//go:embed messages/train.tsv messages/dev.tsv messages/test.tsv messages/topics.json
var messageFiles embed.FS

var loadMessages = sync.OnceValues(func() (MessageSet, error) {
	var set MessageSet
	raw, err := messageFiles.ReadFile("messages/topics.json")
	if err != nil {
		return set, err
	}
	topics := map[string][]string{}
	if err := json.Unmarshal(raw, &topics); err != nil {
		return set, fmt.Errorf("messages/topics.json: %w", err)
	}
	for name, part := range map[string]*[]Example{"train": &set.Train, "dev": &set.Dev, "test": &set.Test} {
		raw, err := messageFiles.ReadFile("messages/" + name + ".tsv")
		if err != nil {
			return set, err
		}
		if *part, err = parseMessages(string(raw), topics[name]); err != nil {
			return set, fmt.Errorf("messages/%s.tsv: %w", name, err)
		}
	}
	return set, nil
})

// Messages returns the labelled messages. The slices are the caller's own. It panics when the embedded files are malformed, which the tests
// of this package rule out.
func Messages() MessageSet {
	set, err := loadMessages()
	if err != nil {
		panic("builtin: " + err.Error())
	}
	return MessageSet{Train: slices.Clone(set.Train), Dev: slices.Clone(set.Dev), Test: slices.Clone(set.Test)}
}

// MessagesTSV returns one part, "train", "dev" or "test", as the file that it comes from: UTF-8, the header label<TAB>text, a message a line.
func MessagesTSV(part string) ([]byte, error) {
	switch part {
	case "train", "dev", "test":
		return messageFiles.ReadFile("messages/" + part + ".tsv")
	}
	return nil, fmt.Errorf("built-in messages: want part train, dev or test, got %q", part)
}

// parseMessages reads label<TAB>text lines under a header; topics has one entry for each line.
func parseMessages(file string, topics []string) ([]Example, error) {
	lines := strings.Split(strings.TrimSuffix(file, "\n"), "\n")
	if lines[0] != "label\ttext" {
		return nil, fmt.Errorf("line 1: want the header label<TAB>text, got %q", lines[0])
	}
	lines = lines[1:]
	if len(lines) != len(topics) {
		return nil, fmt.Errorf("want one topic for each of %d messages, got %d", len(lines), len(topics))
	}
	examples := make([]Example, len(lines))
	for i, line := range lines {
		label, text, found := strings.Cut(line, "\t")
		if !found || text == "" || strings.Contains(text, "\t") || label != Ham && label != Spam {
			return nil, fmt.Errorf("line %d: want %s or %s, a tab and a text without tabs, got %q", i+2, Ham, Spam, line)
		}
		examples[i] = Example{Label: label, Text: text, Topic: topics[i]}
	}
	return examples, nil
}
