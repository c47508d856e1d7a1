package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/harden"
)

func TestParseJudge(t *testing.T) {
	out := "noise\nattack.mr.deepwordbug.clean_accuracy\t80\t%\nattack.mr.deepwordbug.accuracy_under_attack\t44.5\t%\nattack.mr.deepwordbug.mean_queries\t31.5\t\nattack.mr.deepwordbug.examples\t200\t\n"
	f, err := parseJudge(strings.NewReader(out), "attack.mr.deepwordbug.")
	require.NoError(t, err)
	assert.Equal(t, figure{200, 0.8, 0.445, 31.5}, f)
	assert.InDelta(t, 0.55625, f.kept(), 1e-12)
	_, err = parseJudge(strings.NewReader(out), "attack.mr.synonyms.")
	assert.ErrorContains(t, err, "attack.mr.synonyms.examples")
}

func TestParseSettings(t *testing.T) {
	f, err := parseSettings("method=augment+fgm,epochs=4,lr=0.001,share=0.5,epsilon=0.2,word-noise=0.4")
	require.NoError(t, err)
	o := harden.Defaults()
	f(&o)
	assert.Equal(t, 4, o.Tune.Epochs)
	require.Len(t, o.Perturbers, 2, "the default and the added")
	x, err := harden.Objective(o.Method, harden.Sources{})
	require.NoError(t, err)
	a := x.(*harden.Augment)
	o.Augment(a)
	assert.Equal(t, 0.5, a.Share)
	assert.Equal(t, 0.2, a.Inner.(*harden.Embedding).Epsilon)
	for _, bad := range []string{"epochs", "epochs=x", "magic=1"} {
		_, err := parseSettings(bad)
		assert.ErrorContains(t, err, strings.Split(bad, "=")[0])
	}
}

func TestDrawAblation(t *testing.T) {
	all := []ablated{
		{Defence: "none", Seed: 1, Accuracy: 0.8, Elsewhere: 0.6, Under: map[string]figure{"a&b": {100, 0.8, 0.2, 30}}},
		{Defence: "none", Seed: 2, Accuracy: 0.9, Elsewhere: 0.7, Under: map[string]figure{"a&b": {100, 0.8, 0.4, 30}}},
	}
	mean, sd := meanAndDeviation(all, "none", func(a ablated) float64 { return a.Accuracy })
	assert.InDelta(t, 0.85, mean, 1e-12)
	assert.InDelta(t, 0.070710678, sd, 1e-8)
	svg := drawAblation(all)
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
	}
	assert.Contains(t, svg, "a&amp;b")
	var b strings.Builder
	printAblation(&b, all)
	assert.Contains(t, b.String(), "| none | 85.0 ± 7.1 % | 65.0 ± 7.1 % |")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for _, l := range lines {
		assert.Equal(t, strings.Count(lines[0], "|"), strings.Count(l, "|"), l)
	}
}
