package token

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestApart(t *testing.T) {
	for _, raw := range []string{
		`{"big":{"a":[1,2,{"b":"}\"]"}]},"x":1}`, ` { "x" : [ 1 , 2 ] , "big" : "a,b}" , "y":null } `, `{"big":1}`, `{"x":1}`, "{\n\"x\":\t{}\n,\"big\":[]\n}",
	} {
		rest, members, ok := apart([]byte(raw), "big")
		require.True(t, ok, raw)
		var want, got map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(raw), &want))
		require.NoError(t, json.Unmarshal(rest, &got), "%s", rest)
		if big, has := want["big"]; has {
			assert.Equal(t, string(big), string(members["big"]), raw)
			got["big"] = big
		}
		assert.Equal(t, want, got, raw)
	}
	// Left to encoding/json, which may refuse them.
	for _, raw := range []string{``, `[1]`, `{`, `{}`, `{"big":1,"big":2}`, `{"Big":1,"big":2}`, `{"b\u0069g":1}`, `{"big":}`, `{"big":1}x`, `{"big":[1}`, `{"big":"`, `{"big" 1}`} {
		_, _, ok := apart([]byte(raw), "big")
		if json.Valid([]byte(raw)) {
			assert.False(t, ok, raw)
		}
	}
}
