package builtin

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// Task is a classification task told in words: what a model needs to label texts with no training (descriptions) or with a few samples.
type Task struct {
	Name     string      `json:"name"`     // "news", "questions", "banking", "sentiment", "requests"
	About    string      `json:"about"`    // what the labels say about a text, for a prompt
	Template string      `json:"template"` // a sentence with {} where a description goes, for entailment or embedding
	Labels   []TaskLabel `json:"labels"`
	Texts    []TaskText  `json:"texts"` // labelled texts to try it on; none of them is among the examples
}

// TaskLabel is one label of a Task.
type TaskLabel struct {
	Label       string   `json:"label"`
	Description string   `json:"description"` // a phrase that fits the task's template
	Examples    []string `json:"examples"`    // at least three
}

// TaskText is a text with its right label.
type TaskText struct {
	Label string `json:"label"`
	Text  string `json:"text"`
}

//go:embed zeroshot.json
var zeroShotFile []byte

var loadTasks = sync.OnceValues(func() ([]Task, error) {
	var file struct {
		Tasks []Task `json:"tasks"`
	}
	if err := json.Unmarshal(zeroShotFile, &file); err != nil {
		return nil, fmt.Errorf("zeroshot.json: %w", err)
	}
	return file.Tasks, nil
})

// Tasks returns the zero-shot tasks. "news" has the labels of AG News, "questions" those of TREC and "sentiment" those of SST-2, so that
// their descriptions serve on those data too. The result is the caller's own. It panics when the embedded file is malformed, which the tests
// of this package rule out.
func Tasks() []Task {
	loaded, err := loadTasks()
	if err != nil {
		panic("builtin: " + err.Error())
	}
	tasks := slices.Clone(loaded)
	for i := range tasks {
		tasks[i].Texts = slices.Clone(tasks[i].Texts)
		tasks[i].Labels = slices.Clone(tasks[i].Labels)
		for j := range tasks[i].Labels {
			tasks[i].Labels[j].Examples = slices.Clone(tasks[i].Labels[j].Examples)
		}
	}
	return tasks
}

// FindTask returns the task of that name; ok is false when there is none.
func FindTask(name string) (task Task, ok bool) {
	for _, t := range Tasks() {
		if t.Name == name {
			return t, true
		}
	}
	return Task{}, false
}
