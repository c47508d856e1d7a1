package attack_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
)

// shouter writes words in capitals and fails on texts that hold its word.
type shouter struct{ name, fails string }

func (s *shouter) Name() string { return s.name }

func (s *shouter) Perturb(_ context.Context, reqs []attack.Request, _ attack.Victim) ([][]string, error) {
	out := make([][]string, len(reqs))
	for i, q := range reqs {
		if s.fails == "*" || s.fails != "" && strings.Contains(q.Text, s.fails) {
			return nil, errors.New("trapped")
		}
		for _, w := range q.May {
			at := q.Words[w]
			out[i] = append(out[i], q.Text[:at.Start]+"x"+q.Text[at.Start:at.End]+"x"+q.Text[at.End:])
		}
	}
	return out, nil
}

// A plugin that fails is contained: the others go on, what it fails on is counted, and batching changes nothing.
func TestAttackGoesOnWithoutAFailingPlugin(t *testing.T) {
	good := attack.PluginsRecipe(&shouter{name: "good"})
	want, err := attack.Run(t.Context(), newBag(), examples, good, attack.Options{Seed: 1})
	require.NoError(t, err)
	require.Positive(t, want.Won)
	for _, fails := range []string{"*", "mess", "great"} {
		var said []string
		both := func(o attack.Options) *attack.Report {
			o.Seed, o.Complain = 1, func(name string, err error) { said = append(said, name+": "+err.Error()) }
			rep, err := attack.Run(t.Context(), newBag(), examples, attack.PluginsRecipe(&shouter{name: "good"}, &shouter{name: "bad", fails: fails}), o)
			require.NoError(t, err)
			return rep
		}
		rep := both(attack.Options{})
		assert.Equal(t, want.Won, rep.Won)
		assert.Positive(t, rep.Rejected["bad failed"])
		assert.Equal(t, []string{"bad: trapped"}, said, "said once")
		assert.Equal(t, outcome(t, rep), outcome(t, both(attack.Options{InFlight: 1, Batch: 1})))
	}
	_, err = attack.Run(t.Context(), newBag(), examples, attack.PluginsRecipe(&shouter{name: "bad", fails: "*"}), attack.Options{Seed: 1})
	assert.ErrorContains(t, err, "trapped", "alone, a failing plugin ends the run")
}
