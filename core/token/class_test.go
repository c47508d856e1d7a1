package token

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// enginesFinder is what a pattern was read by before classes had a finder of their own.
func enginesFinder(t testing.TB, pattern string) finder {
	t.Helper()
	s, err := translate(pattern)
	require.NoError(t, err)
	re, err := compileSafely(s)
	require.NoError(t, err)
	return regexFinder{re}
}

func TestClassesAreTheEngines(t *testing.T) {
	alphabet := []rune("abc09 -_.éß\u00adаεοІ\u200b\u200c\u2010‐…\U0001d4d0\U0001f600\ufeff")
	r := rand.New(rand.NewPCG(3, 4))
	for _, pattern := range []string{"[a]", "[abc]", "[a-c0-9]", "[\u0430-\u044f]", "[\u00ad\u200b-\u200f\ufeff]", "[аεοІ\U0001d4d0-\U0001d4ff]", "[_.]", "[ééé]", "[\U0001f600]", "[a-aа]"} {
		f, err := compile(pattern)
		require.NoError(t, err)
		require.IsType(t, &classFinder{}, f, pattern)
		old := enginesFinder(t, pattern)
		for range 300 {
			var s []rune
			for range r.IntN(30) {
				s = append(s, alphabet[r.IntN(len(alphabet))])
			}
			want, err := old.find([]byte(string(s)), nil)
			require.NoError(t, err)
			got, err := f.find([]byte(string(s)), nil)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(want), fmt.Sprint(got), "%s on %q", pattern, string(s))
		}
	}
	for _, other := range []string{"[^a]", "[a\\d]", "[a&&b]", "[[a]b]", "[a]+", "a", "[]", "[", "[a-]", "[-a]", "[a-b-c]", "[c-a]", "[a]|[b]", "[\xff]"} {
		_, ok := classOf(other)
		require.False(t, ok, other)
	}
}

func FuzzClass(f *testing.F) {
	f.Add("[abc]", "a quick cab")
	f.Add("[\u200b-\u200f]", "a\u200bb\xff")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		c, ok := classOf(pattern)
		if !ok || len(text) > 200 {
			return
		}
		s, err := translate(pattern)
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		re, err := compileSafely(s)
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		want, err := regexFinder{re}.find([]byte(text), nil)
		if err != nil {
			return
		}
		got, _ := c.find([]byte(text), nil)
		require.Equal(t, fmt.Sprint(want), fmt.Sprint(got))
	})
}

// The finder of numbers finds what the pattern does.
func TestNumbersAreTheEngines(t *testing.T) {
	f, err := compile(PatternNumbers)
	require.NoError(t, err)
	require.IsType(t, numbersFinder{}, f)
	old := enginesFinder(t, PatternNumbers)
	check := func(s string) {
		want, err := old.find([]byte(s), nil)
		require.NoError(t, err)
		got, err := f.find([]byte(s), nil)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(want), fmt.Sprint(got), "%q", s)
	}
	alphabet := []rune("aaaaaaaaaaaab0123 .-é́٣०⃣𝟘_")
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		var s []rune
		for range r.IntN(60) {
			s = append(s, alphabet[r.IntN(len(alphabet))])
		}
		check(string(s))
	}
	for before := range 70 {
		for between := 28; between < 40; between++ {
			check(strings.Repeat("x", before) + "1" + strings.Repeat("y", between) + "2z")
			check(strings.Repeat("x", before) + "1" + strings.Repeat("y", between) + "2z3" + strings.Repeat("é", before) + "4")
		}
	}
	check("")
	check("call 08712\u0301402050 now")
}
