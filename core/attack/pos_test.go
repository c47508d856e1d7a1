package attack

import (
	_ "embed"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

//go:embed pos_heldout_test.txt
var posHeldout string

// The tagger is judged on sentences that it never saw, open classes only.
func TestTaggerOnHeldOutSentences(t *testing.T) {
	right, all := 0, 0
	for _, s := range parseTagged(posHeldout) {
		words := make([]string, len(s))
		for i, w := range s {
			words[i] = w.word
		}
		got := PartsOfSpeech(words)
		for i, w := range s {
			if w.part == Closed {
				assert.Equal(t, Closed, got[i], "%q in %q", w.word, words)
				continue
			}
			all++
			if got[i] == w.part {
				right++
			} else {
				t.Logf("%q is %s, not %s, in %q", w.word, w.part, got[i], words)
			}
		}
	}
	t.Logf("%d of %d open-class words", right, all)
	assert.GreaterOrEqual(t, float64(right)/float64(all), 0.9)
	assert.Equal(t, newTagger().weights, trainTagger(posSentences, 8).weights, "learning is deterministic")
}

func TestSamePart(t *testing.T) {
	x := NewText("the slow film moves gracefully")
	require.Equal(t, []Part{Closed, Adjective, Noun, Verb, Adverb}, PartsOfSpeech(x.words()))
	for _, c := range []struct {
		word     int
		to       string
		nounVerb bool
		want     bool
	}{
		{1, "dull", false, true},
		{1, "slowly", false, false},
		{2, "picture", false, true},
		{2, "quietly", true, false},
		{3, "drifts", false, true},
		{3, "sadly", true, false},
		{3, "the", true, false},
		{4, "happily", false, true},
		{4, "happiness", false, false},
		{2, "motion picture", false, true}, // more words: not judged
	} {
		ok, err := SamePart{c.nounVerb}.Allow(nil, []*Text{x.Replace(c.word, c.to)}, x)
		require.NoError(t, err)
		assert.Equal(t, []bool{c.want}, ok, "%s for %s", c.to, x.Word(c.word))
	}
	play := NewText("a play")
	for nounVerb, want := range map[bool]bool{false: false, true: true} {
		ok, err := SamePart{nounVerb}.Allow(nil, []*Text{NewText("they play").Replace(1, "verify")}, play)
		require.NoError(t, err)
		assert.Equal(t, []bool{want}, ok, "a verb for a noun, allowed: %v", nounVerb)
	}
	assert.Empty(t, PartsOfSpeech(nil))
	assert.Equal(t, []Part{Noun}, PartsOfSpeech([]string{"\xff\xfe"}))
}
