package zeroshot_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/core/zeroshot"
)

func TestParse(t *testing.T) {
	task, err := zeroshot.Parse([]byte("refund: asks for money back\nshipping:\n"), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"refund", "shipping"}, task.Names())
	require.Equal(t, "asks for money back", task.Labels[0].Description)
	require.Empty(t, task.Labels[1].Description)

	task, err = zeroshot.Parse([]byte("about: what is wanted\ntemplate: They want {}.\nprompts: ['{text} =>']\nlabels:\n  LOC: {word: place, description: a city}\n  NUM: a number\n"), []string{"NUM", "LOC", "HUM"})
	require.NoError(t, err)
	require.Equal(t, []zeroshot.Label{{Name: "NUM", Description: "a number"}, {Name: "LOC", Word: "place", Description: "a city"}, {Name: "HUM"}}, task.Labels)
	require.Equal(t, "what is wanted", task.About)

	task, err = zeroshot.Parse([]byte("labels: [a, b]"), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, task.Names())

	for says, in := range map[string]string{
		"expected a map":           "- a\n- b",
		"2 to":                     "a: b",
		"twice":                    "labels: [a, a]",
		"expected {} once":         "template: x\nlabels: [a, b]",
		"expected {text} once":     "prompts: [x]\nlabels: [a, b]",
		"expected about":           "other: 1\nlabels: [a, b]",
		"expected word":            "labels: {a: {x: y}, b: c}",
		"no name":                  "labels: ['', b]",
		"name of a label":          "labels: [[a], b]",
		"expected a description":   "a: [x]\nb: y",
		"did not find expected":    "a: [",
		"label \"a\": word: expec": "labels: {a: {word: [x]}, b: c}",
	} {
		_, err := zeroshot.Parse([]byte(in), nil)
		require.ErrorContains(t, err, says, in)
	}
	for _, b := range builtin.Tasks() {
		_, err := zeroshot.FromBuiltin(b)
		require.NoError(t, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a: b\nc: d", "labels: [a, b]", "labels: {a: {word: x}, b: y}\ntemplate: '{}'", "a: &x [*x]", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		task, err := zeroshot.Parse(raw, nil)
		if err == nil && len(task.Labels) < 2 {
			t.Fatal("a task with fewer than two labels")
		}
	})
}

// bag embeds a text as counts of words it knows.
type bag []string

func (b bag) Embed(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i, text := range texts {
		v, n := make([]float32, len(b)+1), 0.0
		v[len(b)] = 0.1
		for k, w := range b {
			v[k] = float32(strings.Count(text, w))
		}
		for _, x := range v {
			n += float64(x) * float64(x)
		}
		for k := range v {
			v[k] /= float32(math.Sqrt(n))
		}
		out[i] = v
	}
	return out, nil
}

func TestEmbedding(t *testing.T) {
	ctx := context.Background()
	e := bag{"money", "parcel", "late", "coin"}
	task, err := zeroshot.Parse([]byte("refund: money\nshipping: parcel"), nil)
	require.NoError(t, err)
	c, err := zeroshot.NewEmbedding(ctx, e, task, nil)
	require.NoError(t, err)
	p, err := c.Classify(ctx, []string{"my money", "my parcel"})
	require.NoError(t, err)
	require.Greater(t, p[0][0], 0.9)
	require.Greater(t, p[1][1], 0.9)
	require.InDelta(t, 1, p[0][0]+p[0][1], 1e-9)
	// Words that no description has are learnt from examples.
	shots := []zeroshot.Example{{"coin", 0}, {"coin money", 0}, {"late", 1}, {"parcel late", 1}}
	c, err = zeroshot.NewEmbedding(ctx, e, task, shots)
	require.NoError(t, err)
	p, err = c.Classify(ctx, []string{"coin", "late"})
	require.NoError(t, err)
	require.Greater(t, p[0][0], 0.9)
	require.Greater(t, p[1][1], 0.9)
	require.Contains(t, c.About(), "4 of them right")
	_, err = zeroshot.NewEmbedding(ctx, e, task, []zeroshot.Example{{"x", 2}})
	require.ErrorContains(t, err, "label 2 of 2")
}

// inference entails when a word of the hypothesis' end is in the text.
type inference []string

func (n inference) Labels() []string { return n }

func (inference) Logits(_ context.Context, texts, pairs []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i := range texts {
		words := strings.Fields(strings.Trim(pairs[i], "."))
		out[i] = []float32{0, 0, 0}
		if strings.Contains(texts[i], words[len(words)-1]) {
			out[i][1] = 5
		}
	}
	return out, nil
}

func TestEntailment(t *testing.T) {
	task, err := zeroshot.FromNames([]string{"sports", "war"})
	require.NoError(t, err)
	c, err := zeroshot.NewEntailment(inference{"contradiction", "ENTAILMENT", "neutral"}, task)
	require.NoError(t, err)
	p, err := c.Classify(context.Background(), []string{"the war is over"})
	require.NoError(t, err)
	require.Greater(t, p[0][1], 0.9)
	_, err = zeroshot.NewEntailment(inference{"a", "b"}, task)
	require.ErrorContains(t, err, "entailment")
}

// speaker is a decoder over bytes that prefers "yes" everywhere, and more so where the text says "good"; it has no ear for the prompt "bad:".
type speaker struct{ prompts *[]string }

func (s speaker) Continuations(_ context.Context, prompt []int32, texts [][]int32) ([][]float64, error) {
	p := decode(prompt)
	*s.prompts = append(*s.prompts, p)
	last := p[strings.LastIndex(p, "\n\n")+1:]
	out := make([][]float64, len(texts))
	for i, t := range texts {
		lp := -4.0
		switch {
		case decode(t) == " yes":
			lp = -1
			if strings.Contains(last, "good") && !strings.Contains(last, "deaf") {
				lp = -0.5
			}
		case decode(t) != " no":
			return nil, fmt.Errorf("unexpected %q", decode(t))
		}
		out[i] = []float64{lp / 2, lp / 2}
	}
	return out, nil
}

func encode(s string) []int32 {
	var out []int32
	for _, b := range []byte(s) {
		out = append(out, int32(b))
	}
	return out
}

func decode(ids []int32) string {
	b := make([]byte, len(ids))
	for i, id := range ids {
		b[i] = byte(id)
	}
	return string(b)
}

func TestPrompted(t *testing.T) {
	ctx := context.Background()
	codec := zeroshot.Codec{Prompt: encode, Plain: encode, Decode: decode}
	task, err := zeroshot.Parse([]byte("about: whether it is good\nprompts: ['deaf {text}?', 'ear {text}?']\nlabels: [yes, no]"), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"yes", "no"}, task.Names())
	var asked []string
	s := speaker{&asked}

	raw, err := zeroshot.NewPrompted(ctx, s, codec, task, nil, zeroshot.PromptOptions{Raw: true})
	require.NoError(t, err)
	p, err := raw.Classify(ctx, []string{"awful"})
	require.NoError(t, err)
	require.Greater(t, p[0][0], 0.9, "without calibration the favourite word wins")

	// With examples to choose on, the prompt that listens is taken; calibrated, what says nothing is undecided.
	var shots []zeroshot.Example
	for i := range 12 {
		shots = append(shots, zeroshot.Example{Text: []string{"good one", "awful one"}[i%2], Label: i % 2})
	}
	c, err := zeroshot.NewPrompted(ctx, s, codec, task, shots, zeroshot.PromptOptions{Shots: 4})
	require.NoError(t, err)
	require.Contains(t, c.About(), "ear")
	p, err = c.Classify(ctx, []string{"so good", "so so"})
	require.NoError(t, err)
	require.Greater(t, p[0][0], 0.6)
	require.InDelta(t, 0.5, p[1][0], 1e-6)
	last := asked[len(asked)-1]
	require.True(t, strings.HasSuffix(last, "ear so so?"), last)

	// Long texts are cut, and a prompt that leaves no room is refused.
	_, err = c.Classify(ctx, []string{strings.Repeat("good ", 2000)})
	require.NoError(t, err)
	require.LessOrEqual(t, len(asked[len(asked)-1]), 2048)
	_, err = zeroshot.NewPrompted(ctx, s, codec, task, nil, zeroshot.PromptOptions{Context: 40})
	require.ErrorContains(t, err, "too small")
}
