package builtin

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDialogues(t *testing.T) {
	train, test := Dialogues()
	assert.GreaterOrEqual(t, len(train), 500)
	assert.InDelta(t, 0.1, float64(len(test))/float64(len(train)+len(test)), 0.01)
	asked, longer, told := map[string]bool{}, 0, 0
	for _, d := range append(train, test...) {
		require.NoError(t, d.check())
		system := d.Messages[0].Role == "system"
		turns := len(d.Messages)
		if system {
			told++
			turns--
		}
		assert.LessOrEqual(t, turns, 6)
		if turns > 2 {
			longer++
		}
		var question strings.Builder
		for _, turn := range d.Messages {
			assert.True(t, utf8.ValidString(turn.Content))
			assert.LessOrEqual(t, len(strings.Fields(turn.Content)), 80, "short turns: %q", turn.Content)
			if turn.Role != "assistant" {
				question.WriteString(normalise(turn.Content) + "|")
			}
		}
		assert.False(t, asked[question.String()], "asked twice: %s", question.String())
		asked[question.String()] = true
	}
	assert.GreaterOrEqual(t, longer, 100, "dialogues of more than one exchange")
	assert.GreaterOrEqual(t, told, 40, "dialogues with a system message")
}

func TestHeldOutDialoguesAreNotInTrain(t *testing.T) {
	train, test := Dialogues()
	grams := func(d Dialogue) map[string]bool {
		var text strings.Builder
		for _, turn := range d.Messages {
			if turn.Role != "system" {
				text.WriteString(normalise(turn.Content) + " ")
			}
		}
		return fiveGrams(text.String())
	}
	for _, held := range test {
		own := grams(held)
		for _, d := range train {
			assert.Less(t, jaccard(own, grams(d)), 0.5, "%v and %v", held, d)
		}
	}
}

func TestDialoguesAreTheCallersOwn(t *testing.T) {
	train, _ := Dialogues()
	train[0].Messages[0].Content = "changed"
	again, _ := Dialogues()
	assert.NotEqual(t, "changed", again[0].Messages[0].Content)
}

func TestDialoguesJSONL(t *testing.T) {
	train, test := Dialogues()
	for part, want := range map[string]int{"train": len(train), "test": len(test)} {
		raw, err := DialoguesJSONL(part)
		require.NoError(t, err)
		assert.Equal(t, want, bytes.Count(raw, []byte("\n")))
	}
	_, err := DialoguesJSONL("dev")
	assert.ErrorContains(t, err, `got "dev"`)
}

func TestParseDialoguesErrors(t *testing.T) {
	for name, c := range map[string]struct{ line, want string }{
		"json":       {`{"messages":`, "line 1"},
		"empty":      {`{"messages":[]}`, "pairs"},
		"no answer":  {`{"messages":[{"role":"user","content":"hi"}]}`, "pairs"},
		"order":      {`{"messages":[{"role":"assistant","content":"a"},{"role":"user","content":"b"}]}`, "want role user"},
		"no content": {`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":" "}]}`, "message 2 is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseDialogues(c.line)
			assert.ErrorContains(t, err, c.want)
		})
	}
}
