package builtin

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTasks(t *testing.T) {
	want := map[string]int{"news": 4, "questions": 6, "banking": 12, "sentiment": 2, "requests": 7}
	tasks := Tasks()
	require.Len(t, tasks, len(want))
	for _, task := range tasks {
		assert.Len(t, task.Labels, want[task.Name], task.Name)
		assert.NotEmpty(t, task.About)
		assert.Equal(t, 1, strings.Count(task.Template, "{}"), task.Name)
		tried, seen := map[string]int{}, map[string]bool{}
		for _, text := range task.Texts {
			tried[text.Label]++
			assert.NotEmpty(t, text.Text)
			assert.False(t, seen[text.Text], text.Text)
			seen[text.Text] = true
		}
		for _, label := range task.Labels {
			assert.NotEmpty(t, label.Description, label.Label)
			assert.GreaterOrEqual(t, len(label.Examples), 3, label.Label)
			assert.Positive(t, tried[label.Label], "%s has a text to try", label.Label)
			delete(tried, label.Label)
			for _, example := range label.Examples {
				assert.False(t, seen[example], "an example is not a text to try, nor given twice: %q", example)
				seen[example] = true
			}
		}
		assert.Empty(t, tried, "texts with labels that %s does not have", task.Name)
	}
}

func TestFindTask(t *testing.T) {
	task, ok := FindTask("sentiment")
	require.True(t, ok)
	assert.Equal(t, "positive", task.Labels[0].Label)
	task.Labels[0].Examples[0] = "changed"
	again, _ := FindTask("sentiment")
	assert.NotEqual(t, "changed", again.Labels[0].Examples[0])
	_, ok = FindTask("weather")
	assert.False(t, ok)
}
