package builtin

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testOnly are the topics that a filter trained on Train has never met.
var testOnly = map[string]string{
	"toll": Spam, "petsale": Spam, "inheritance": Spam, "holidaydeal": Spam, "gaming": Spam,
	"garden": Ham, "vet": Ham, "car": Ham, "council": Ham, "music": Ham,
}

func parts(set MessageSet) map[string][]Example {
	return map[string][]Example{"train": set.Train, "dev": set.Dev, "test": set.Test}
}

func TestMessagesCounts(t *testing.T) {
	set := Messages()
	assert.GreaterOrEqual(t, len(set.Train), 640)
	assert.GreaterOrEqual(t, len(set.Dev), 100)
	assert.GreaterOrEqual(t, len(set.Test), 200)
	for name, part := range parts(set) {
		spam := 0
		for _, e := range part {
			require.Contains(t, []string{Ham, Spam}, e.Label)
			if e.Label == Spam {
				spam++
			}
		}
		assert.InDelta(t, 0.5, float64(spam)/float64(len(part)), 0.03, "share of spam in %s", name)
	}
}

func TestMessagesAreDistinctAcrossParts(t *testing.T) {
	type row struct {
		part  string
		text  string
		grams map[string]bool
	}
	var rows []row
	seen := map[string]string{}
	for name, part := range parts(Messages()) {
		for _, e := range part {
			plain := normalise(e.Text)
			if other, ok := seen[plain]; ok {
				t.Errorf("twice: %q and %q", other, e.Text)
			}
			seen[plain] = e.Text
			rows = append(rows, row{name, e.Text, fiveGrams(plain)})
		}
	}
	for i, a := range rows {
		for _, b := range rows[:i] {
			if likeness := jaccard(a.grams, b.grams); likeness >= 0.3 {
				t.Errorf("likeness %.2f of %s %q and %s %q", likeness, a.part, a.text, b.part, b.text)
			}
		}
	}
}

func TestMessagesShareNoLongPhrases(t *testing.T) {
	const long = 6 // words
	owner := map[string]string{}
	for _, part := range parts(Messages()) {
		for _, e := range part {
			words := strings.Fields(normalise(e.Text))
			for i := 0; i+long <= len(words); i++ {
				phrase := strings.Join(words[i:i+long], " ")
				if other, ok := owner[phrase]; ok && other != e.Text {
					t.Errorf("%q is in %q and %q", phrase, other, e.Text)
				}
				owner[phrase] = e.Text
			}
		}
	}
}

func TestMessageTopics(t *testing.T) {
	set := Messages()
	all := map[string]map[string]bool{Ham: {}, Spam: {}}
	learned := map[string]bool{}
	for name, part := range parts(set) {
		for _, e := range part {
			require.NotEmpty(t, e.Topic)
			all[e.Label][e.Topic] = true
			if name != "test" {
				learned[e.Topic] = true
				assert.NotContains(t, testOnly, e.Topic, "%s %q", name, e.Text)
			}
		}
	}
	assert.GreaterOrEqual(t, len(all[Spam]), 14)
	assert.GreaterOrEqual(t, len(all[Ham]), 14)
	for topic, label := range testOnly {
		assert.True(t, all[label][topic], "%s topic %s occurs in test", label, topic)
		assert.False(t, learned[topic], topic)
	}
	both := 0 // topics with ham and spam, where keywords alone do not decide
	for topic := range all[Ham] {
		if all[Spam][topic] {
			both++
		}
	}
	assert.GreaterOrEqual(t, both, 8)
}

func TestMessagesAreHarmlessAndWellFormed(t *testing.T) {
	host := regexp.MustCompile(`(?i)(?:https?://|www\.|@)[a-z0-9.-]+|\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|net|org|co|uk|info|io|me|biz|xyz|top|ru|cn|example|test)\b`)
	phone := regexp.MustCompile(`\b\d{3}-\d{4}\b|\b\d{7,}\b`)
	for name, part := range parts(Messages()) {
		for _, e := range part {
			assert.True(t, utf8.ValidString(e.Text))
			assert.NotContains(t, e.Text, `"`, "so that readers with and without quoting agree")
			assert.Equal(t, strings.Join(strings.Fields(e.Text), " "), e.Text, "white space")
			words := len(strings.Fields(e.Text))
			assert.True(t, words >= 5 && words <= 36, "%s: %d words in %q", name, words, e.Text)
			for _, h := range host.FindAllString(e.Text, -1) {
				assert.Regexp(t, `\.(example|test)$`, strings.ToLower(h), e.Text)
			}
			for _, p := range phone.FindAllString(e.Text, -1) {
				assert.Regexp(t, `^555-01\d\d$`, p, e.Text)
			}
		}
	}
}

func TestMessagesAreTheCallersOwn(t *testing.T) {
	first := Messages()
	first.Train[0].Label = "changed"
	assert.NotEqual(t, "changed", Messages().Train[0].Label)
}

func TestMessagesTSV(t *testing.T) {
	for name, part := range parts(Messages()) {
		raw, err := MessagesTSV(name)
		require.NoError(t, err)
		assert.Equal(t, len(part)+1, bytes.Count(raw, []byte("\n")))
	}
	_, err := MessagesTSV("all")
	assert.ErrorContains(t, err, `got "all"`)
}

func TestParseMessagesErrors(t *testing.T) {
	for name, c := range map[string]struct {
		file, want string
		topics     []string
	}{
		"header":      {"text\tlabel\nham\tx\n", "line 1", []string{"a"}},
		"topics":      {"label\ttext\nham\tx\n", "one topic for each of 1", nil},
		"label":       {"label\ttext\nok\tx\n", "line 2", []string{"a"}},
		"no text":     {"label\ttext\nham\t\n", "line 2", []string{"a"}},
		"third field": {"label\ttext\nham\tx\ty\n", "line 2", []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseMessages(c.file, c.topics)
			assert.ErrorContains(t, err, c.want)
		})
	}
}

var notLetters = regexp.MustCompile(`[^a-z0-9]+`)

func normalise(text string) string {
	return strings.TrimSpace(notLetters.ReplaceAllString(strings.ToLower(text), " "))
}

func fiveGrams(text string) map[string]bool {
	grams := map[string]bool{}
	for i := 0; i+5 <= len(text); i++ {
		grams[text[i:i+5]] = true
	}
	return grams
}

func jaccard(a, b map[string]bool) float64 {
	shared := 0
	for g := range a {
		if b[g] {
			shared++
		}
	}
	if shared == 0 {
		return 0
	}
	return float64(shared) / float64(len(a)+len(b)-shared)
}
