package attack_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
)

func words(s string) []string {
	out := []string{}
	x := attack.NewText(s)
	for i := range x.Spans {
		out = append(out, x.Word(i))
	}
	return out
}

func TestWords(t *testing.T) {
	for s, want := range map[string][]string{
		"":                             {},
		" ... ":                        {},
		"It's a well-made film.":       {"It's", "a", "well-made", "film"},
		"'CCC' -x- _y_ *z* a@b.c":      {"CCC", "x", "y", "z", "a@b", "c"},
		"caf\u00e9 na\u00efve 3\u00bd": {"caf\u00e9", "na\u00efve", "3\u00bd"},
		"co\u200bol e\u0301t":          {"co", "ol", "e", "t"}, // marks and invisible characters end a word, as Python's \w has it
		"很好 ok":                        {"很", "好", "ok"},
		"a`b 2×3 ˗x":                   {"a`b", "2×3", "˗x"},
		"\xff ok":                      {"ok"},
	} {
		assert.Equal(t, want, words(s), "%q", s)
	}
}

func TestReplace(t *testing.T) {
	x := attack.NewText("one two, three")
	y := x.Replace(1, "2")
	assert.Equal(t, "one 2, three", y.S)
	assert.Equal(t, []bool{false, true, false}, y.Modified)
	d := y.Replace(0, "")
	assert.Equal(t, "2, three", d.S)
	assert.Equal(t, []int{-1, 0, 1}, d.Origin)
	assert.Equal(t, []bool{true, false}, d.Modified)
	d = y.Replace(2, "")
	assert.Equal(t, "one 2, ", d.S, "nothing follows, so the space stays, as in TextAttack")
	s := x.Replace(0, "o ne")
	assert.Equal(t, []bool{true, true, false, false}, s.Modified)
	assert.Equal(t, []int{1, 2, 3}, s.Origin)
	s = x.Replace(0, "one more")
	assert.Equal(t, []int{0, 2, 3}, s.Origin)
	assert.Equal(t, "one two, three", x.S)
	assert.Equal(t, 1, attack.Changed(x, y))
	assert.Equal(t, 2, attack.Changed(x, d))
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		limit int
		want  int
	}{
		{"", "", -1, 0}, {"kitten", "sitting", -1, 3}, {"kitten", "sitting", 2, 3}, {"abc", "", -1, 3}, {"käse", "kase", -1, 1}, {"ab", "ba", -1, 2},
		{"abcdefgh", "a", 3, 4}, {"same", "same", 0, 0},
	} {
		assert.Equal(t, c.want, attack.EditDistance(c.a, c.b, c.limit), "%s %s", c.a, c.b)
		assert.Equal(t, c.want, attack.EditDistance(c.b, c.a, c.limit), "%s %s", c.b, c.a)
	}
}

func TestSkeleton(t *testing.T) {
	assert.Equal(t, "paypal", attack.Skeleton("р\u200bауpаl"))
	assert.Equal(t, "Elite", attack.Skeleton("Élïtè"))
	assert.Equal(t, "free", attack.Skeleton("ｆｒｅｅ"))
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"one two, three", "很好 it's", "a\u200bb -- c", "\xff\xfe", "'- x -'"} {
		f.Add(s, 1, "new word")
		f.Add(s, 0, "")
	}
	f.Fuzz(func(t *testing.T, s string, i int, w string) {
		x := attack.NewText(s)
		require.True(t, utf8.ValidString(x.S))
		last := 0
		for _, sp := range x.Spans {
			require.True(t, sp.Start >= last && sp.End > sp.Start && sp.End <= len(x.S))
			last = sp.End
		}
		if x.Len() == 0 || i < 0 {
			return
		}
		y := x.Replace(i%x.Len(), strings.ToValidUTF8(w, "?"))
		require.Len(t, y.Modified, y.Len())
		require.Len(t, y.Origin, x.Len())
		for _, o := range y.Origin {
			require.True(t, o >= -1 && o < y.Len())
		}
		require.GreaterOrEqual(t, attack.Changed(x, y), 0)
	})
}
