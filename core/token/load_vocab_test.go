package token

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPlainVocabAgreesWithJSON(t *testing.T) {
	for _, raw := range []string{
		`{}`, ` { } `, `{"a":0}`, `{"a": 1, "b" : 22,\n"c":333}`, `{"\u0041\\n\"": 7, "中": 8, "a":1, "a":2}`, "{\"\xff\": 3}",
		`{"a":-1}`, `{"a":1.5}`, `{"a":1e3}`, `{"a":12345678901}`, `{"a":"1"}`, `{"a":null}`, `[1]`, `{"a":1`, `{"a":1,}`, `{"a"}`, `{"a":1}x`, `{"a":01}`, "{\"a\x01\":1}", `{"\x":1}`, `{"a":1 "b":2}`,
	} {
		got, ok := plainVocab([]byte(raw))
		want := map[string]int32{}
		err := json.Unmarshal([]byte(raw), &want)
		if ok {
			assert.NoError(t, err, raw)
			assert.Equal(t, want, got.ids, raw)
		}
	}
	_, ok := plainVocab([]byte(`{"a": 1, "b" : 22}`))
	assert.True(t, ok, "plain objects take the short way")
}
