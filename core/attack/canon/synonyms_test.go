package canon

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
)

func TestReadings(t *testing.T) {
	near := map[string][]string{
		"great":  {"grand", "superb"},
		"superb": {"great"},
		"grand":  {"large"},
		"large":  {"big", "not"},
		"not":    {"large"},
		"big":    {"Huge", "it's", "large"},
	}
	counts := map[string]float64{"great": 5, "big": 9, "large": 1}
	for _, c := range []struct {
		name string
		s    Synonyms
		want map[string]string
	}{
		{"the usual words choose first, and take their neighbours along", Synonyms{Near: near, Counts: counts, Leave: func(w string) bool { return w == "not" }},
			map[string]string{"big": "big", "large": "big", "great": "great", "grand": "great", "superb": "great"}},
		{"pairs kept apart", Synonyms{Near: near, Counts: counts, Apart: func(a, b string) bool {
			return a == "grand" && b == "great" || a == "great" && b == "grand" || a == "not" || b == "not"
		}},
			map[string]string{"big": "big", "large": "big", "great": "great", "grand": "grand", "superb": "great"}},
		{"no chains", Synonyms{Near: map[string][]string{"b": {"a"}, "c": {"b"}, "d": {"c"}}}, map[string]string{"a": "a", "b": "a", "c": "c", "d": "c"}},
		{"who chooses first takes along", Synonyms{Near: map[string][]string{"a": {"x"}, "b": {"y"}, "x": {"z"}, "z": {"b", "a"}}, Counts: map[string]float64{"a": 9, "b": 8, "z": 1}},
			map[string]string{"a": "a", "x": "a", "z": "a", "b": "b", "y": "b"}},
		{"and none that speaks against one that is there", Synonyms{Near: map[string][]string{"okay": {"great", "poor"}}, Counts: map[string]float64{"okay": 3, "great": 2},
			Apart: func(a, b string) bool { return a == "great" && b == "poor" || a == "poor" && b == "great" }}, map[string]string{"okay": "okay", "great": "okay", "poor": "poor"}},
		{"nothing", Synonyms{}, map[string]string{}},
	} {
		require.Equal(t, c.want, c.s.Readings(), c.name)
	}
}

func TestReadAlike(t *testing.T) {
	texts := []string{"the film is great fun", "a great story", "the film is superb", "an awful story"}
	tok, err := token.TrainWordPiece(slices.Values(slices.Repeat(texts, 3)), token.TrainOptions{VocabSize: 200, Lowercase: true})
	require.NoError(t, err)
	raw, err := tok.Save()
	require.NoError(t, err)
	ids := func(k *token.Tokenizer, s string) []int32 { return k.AppendIDs(nil, s, false) }
	lexicon := map[string][]string{"great": {"superb", "magnificent"}, "quux": {"zyzzy"}, "awful": {"dreadful", "great"}}
	out, words, err := ReadAlike(raw, Synonyms{Near: lexicon, Counts: map[string]float64{"great": 6, "superb": 3, "awful": 3},
		Apart: func(a, b string) bool { return a == "awful" && b == "great" }})
	require.NoError(t, err)
	require.Equal(t, []string{"awful", "dreadful", "great", "magnificent", "superb"}, words)
	alike, err := token.Load(out)
	require.NoError(t, err)
	for w, as := range map[string]string{"superb": "great", "magnificent": "great", "great": "great", "Magnificent": "great", "dreadful": "awful", "awful": "awful"} {
		require.Equal(t, ids(tok, as), ids(alike, w), w)
	}
	for _, same := range []string{"the film is fun", "quux", "zyzzy"} {
		require.Equal(t, ids(tok, same), ids(alike, same), "%s: nothing near is in the vocabulary", same)
	}

	// The guard reads misspellings of such words too, and none of them as a misspelling.
	guarded, _, err := Typos(out, Guard{Words: []string{"magnificent", "great", "dread"}, Real: words, Counts: map[string]float64{"great": 6}, Slips: 100})
	require.NoError(t, err)
	g, err := token.Load(guarded)
	require.NoError(t, err)
	require.Equal(t, ids(tok, "great"), ids(g, "magnifcent"))
	require.Equal(t, ids(tok, "awful"), ids(g, "dreadful"))

	// A word that others are read as is not reread as a more usual one.
	taxi, words, err := ReadAlike([]byte(`{"model":{"type":"WordPiece","vocab":{"[UNK]":0,"car":1,"cab":2,"taxi":3}}}`), Synonyms{Near: map[string][]string{"cab": {"taxi"}}})
	require.NoError(t, err)
	taxi, _, err = Typos(taxi, Guard{Words: []string{"car", "taxi"}, Real: words, Counts: map[string]float64{"car": 100}, Slips: 0.25})
	require.NoError(t, err)
	k, err := token.Load(taxi)
	require.NoError(t, err)
	require.Equal(t, ids(k, "taxi"), ids(k, "cab"))

	for _, bad := range []string{`{`, `{"model":{"type":"BPE"}}`, `{"model":{"type":"WordPiece","vocab":3}}`, `{"model":{"type":"WordPiece"}}`} {
		_, _, err = ReadAlike([]byte(bad), Synonyms{Near: lexicon})
		require.Error(t, err, bad)
	}
}

// The file is the same every time, whatever the order of maps.
func TestReadAlikeIsDeterministic(t *testing.T) {
	vocab := map[string]int{"[UNK]": 0}
	near := map[string][]string{}
	for i := range 200 {
		w := strings.Repeat(string(rune('a'+i%26)), 1+i/26)
		if i%3 != 0 {
			vocab[w] = len(vocab)
		}
		near[w] = []string{strings.Repeat(string(rune('a'+(i+1)%26)), 1+(i+1)/26), strings.Repeat(string(rune('a'+(i*7)%26)), 1+(i*7)%200/26)}
	}
	v, err := json.Marshal(vocab)
	require.NoError(t, err)
	raw := fmt.Appendf(nil, `{"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":%s}}`, v)
	first, _, err := ReadAlike(raw, Synonyms{Near: near})
	require.NoError(t, err)
	for range 20 {
		again, _, err := ReadAlike(raw, Synonyms{Near: near})
		require.NoError(t, err)
		require.Equal(t, string(first), string(again))
	}
}

func FuzzReadAlike(f *testing.F) {
	f.Add([]byte(`{"model":{"type":"WordPiece","vocab":{"[UNK]":0,"good":1,"fine":2}}}`), "good fine nice")
	f.Add([]byte(`{"model":{"type":"WordPiece","vocab":{}}}`), "a b")
	f.Add([]byte(`{"model":{"type":"WordPiece","vocab":null}}`), "")
	f.Fuzz(func(t *testing.T, raw []byte, words string) {
		near := map[string][]string{}
		list := strings.Fields(words)
		for i, w := range list {
			near[w] = list[i:]
		}
		out, _, err := ReadAlike(raw, Synonyms{Near: near})
		if err == nil {
			require.True(t, json.Valid(out))
		}
		if out, _, err = Typos(raw, Guard{Words: list[:min(3, len(list))]}); err == nil {
			require.True(t, json.Valid(out))
		}
	})
}
