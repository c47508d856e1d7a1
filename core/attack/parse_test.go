package attack_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
)

func TestParseConstraint(t *testing.T) {
	for _, c := range []struct {
		in   string
		want attack.Constraint
		need attack.Need
	}{
		{"max-words=3", attack.MaxWords{Words: 3}, ""},
		{"max-share=0.4", attack.MaxWords{Share: 0.4}, ""},
		{"max-edits=30", attack.MaxEdits{N: 30}, ""},
		{"min-length=4", attack.MinLength{N: 4}, ""},
		{"similar=0.8", attack.Similar{Min: 0.8}, attack.NeedEncoder},
		{"plausible=0.1", attack.Plausible{Min: 0.1}, attack.NeedMasker},
		{"looks-alike=0.02", attack.LooksAlike{Max: 0.02}, ""},
		{"same-part", attack.SamePart{}, ""},
	} {
		got, need, err := attack.ParseConstraint(c.in)
		require.NoError(t, err, c.in)
		assert.Equal(t, c.want, got)
		assert.Equal(t, c.need, need)
	}
	for _, bad := range []string{"", "max-words", "max-words=", "max-words=-1", "max-words=1.5", "similar=2", "similar=NaN", "same-part=1", "nothing=1", "max-edits=1e99"} {
		_, _, err := attack.ParseConstraint(bad)
		assert.ErrorContains(t, err, "expected", bad)
	}
	for _, f := range attack.ConstraintForms() {
		f = strings.NewReplacer("=N", "=2", "=0..1", "=0.5").Replace(f)
		_, _, err := attack.ParseConstraint(f)
		assert.NoError(t, err, f)
	}
}

// Every constraint that can be asked for counts what it turns down.
func TestConstraintsAreCounted(t *testing.T) {
	for name, of := range map[string]string{
		"max-words=1": "deepwordbug", "max-share=0.01": "deepwordbug", "max-edits=1": "deepwordbug", "max-growth=0": "deepwordbug", "min-length=6": "deepwordbug",
		"similar=0.999": "synonyms", "similar-words=0.9999": "synonyms", "same-part": "synonyms", "plausible=1": "synonyms", "looks-alike=0": "deepwordbug",
	} {
		c, _, err := attack.ParseConstraint(name)
		require.NoError(t, err)
		r, err := attack.NewRecipe(of)
		require.NoError(t, err)
		r.Constraints = append(r.Constraints, c)
		rep, err := attack.Run(t.Context(), newBag(), examples, r, attack.Options{Seed: 1, Words: synonyms})
		require.NoError(t, err)
		assert.Positive(t, rep.Rejected[c.Name()], "%s: %v", name, rep.Rejected)
	}
}

func TestParseSearch(t *testing.T) {
	for _, name := range attack.SearchNames() {
		s, err := attack.ParseSearch(name)
		require.NoError(t, err)
		r, err := attack.NewRecipe("synonyms")
		require.NoError(t, err)
		r.Search = s
		rep, err := attack.Run(t.Context(), newBag(), examples, r, attack.Options{Seed: 1, Words: synonyms})
		require.NoError(t, err, name)
		assert.Positive(t, rep.Won, name)
	}
	_, err := attack.ParseSearch("magic")
	assert.ErrorContains(t, err, "expected one of")
}
