package pipeline_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/tests/fixture"
)

func TestTag(t *testing.T) {
	p, err := pipeline.Open(filepath.Join(fixture.Parity(t), "models", "bert-tokcls"), backend.Generic(1), pipeline.Options{})
	require.NoError(t, err)
	defer p.Close()
	text := "the letter, from the baker"
	tags, err := p.Tag(t.Context(), []string{text, "word"})
	require.NoError(t, err)
	require.Len(t, tags, 2)
	at := 0
	for _, tag := range tags[0] {
		assert.Contains(t, p.Labels(), tag.Label)
		assert.GreaterOrEqual(t, tag.Start, at)
		assert.LessOrEqual(t, tag.End, len(text))
		assert.Greater(t, tag.Score, float32(1)/float32(len(p.Labels())+1))
		at = tag.Start
	}
	alone, err := p.Tag(t.Context(), []string{"word"})
	require.NoError(t, err)
	assert.Equal(t, alone[0], tags[1], "texts do not see each other")
	_, err = p.Classify(t.Context(), []string{text})
	assert.Error(t, err)
}

func TestSpans(t *testing.T) {
	text := "Ann Lee met Bo in Rome"
	tags := []pipeline.Tag{
		{"Ann", "B-PER", 0.9, 0, 3}, {"Lee", "I-PER", 0.7, 4, 7}, {"met", "O", 1, 8, 11},
		{"Bo", "B-PER", 0.5, 12, 14}, {"in", "O", 1, 15, 17}, {"Ro", "LOC", 0.4, 18, 20}, {"##me", "LOC", 0.8, 20, 22},
	}
	spans := pipeline.Spans(text, tags)
	require.Len(t, spans, 3)
	assert.Equal(t, []string{"Ann Lee", "Bo", "Rome"}, []string{spans[0].Text, spans[1].Text, spans[2].Text})
	assert.Equal(t, []string{"PER", "PER", "LOC"}, []string{spans[0].Label, spans[1].Label, spans[2].Label})
	assert.InDelta(t, 0.8, spans[0].Score, 1e-6)
	assert.InDelta(t, 0.6, spans[2].Score, 1e-6)
	two := pipeline.Spans("ab", []pipeline.Tag{{"a", "B-X", 1, 0, 1}, {"b", "B-X", 1, 1, 2}})
	assert.Len(t, two, 2, "each B- begins another")
}
