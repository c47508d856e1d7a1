package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
)

func TestMeasureFlags(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.tsv"), filepath.Join(dir, "bad.tsv")
	require.NoError(t, os.WriteFile(good, []byte("fine\tgood,0.8 great,0.7\n"), 0o600))
	require.NoError(t, os.WriteFile(bad, []byte("no tab here\n"), 0o600))
	labels := []string{"ham", "spam"}
	for name, c := range map[string]struct {
		flags measureFlags
		goal  attack.Goal
		err   string
	}{
		"none":            {measureFlags{}, nil, ""},
		"target":          {measureFlags{target: "spam"}, attack.Targeted{Target: 1}, ""},
		"evade":           {measureFlags{evade: "spam", below: 0.3}, attack.Threshold{Class: 1, Below: 0.3}, ""},
		"unknown label":   {measureFlags{evade: "eggs", below: 0.3}, nil, "the model's labels are ham, spam"},
		"both":            {measureFlags{evade: "spam", target: "ham"}, nil, "exclude each other"},
		"threshold":       {measureFlags{evade: "spam", below: 1.5}, nil, "--below 1.5"},
		"lexicon":         {measureFlags{lexicon: good}, nil, ""},
		"broken lexicon":  {measureFlags{lexicon: bad}, nil, "lexicon line 1"},
		"missing lexicon": {measureFlags{lexicon: filepath.Join(dir, "none")}, nil, "--lexicon"},
	} {
		t.Run(name, func(t *testing.T) {
			var o attack.Options
			closer, err := c.flags.options(nil, &cobra.Command{}, labels, &o)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			closer()
			assert.Equal(t, c.goal, o.Goal)
			if c.flags.lexicon != "" {
				near, err := o.Words.Nearest(t.Context(), "fine", 5)
				require.NoError(t, err)
				assert.Equal(t, []string{"good", "great"}, near)
			}
		})
	}
	r, err := attack.NewRecipe("deepwordbug")
	require.NoError(t, err)
	before := len(r.Constraints)
	require.NoError(t, (&measureFlags{constraints: []string{"max-words=2", "similar=0.8"}}).constrain(&r))
	assert.Len(t, r.Constraints, before+2)
	assert.Equal(t, []attack.Need{attack.NeedEncoder}, r.Needs)
	assert.ErrorContains(t, (&measureFlags{constraints: []string{"max-words=x"}}).constrain(&r), "--constraint")
}
