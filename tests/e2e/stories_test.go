package e2e

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The built-in decoder writes offline, the same text for the same seed, and knows what it has cost.
func TestStories(t *testing.T) {
	write := func(args ...string) string {
		var r struct {
			Text   string
			Tokens int
		}
		require.NoError(t, json.Unmarshal([]byte(temper(t, append([]string{"generate", "temper-stories", "--json", "--max-tokens", "40"}, args...)...)), &r))
		assert.Positive(t, r.Tokens)
		return r.Text
	}
	assert.Contains(t, write("--prompt", "Once upon a", "--temperature", "0"), "time")
	a := write("--prompt", "One day, a little", "--temperature", "0.8", "--seed", "3")
	assert.Equal(t, a, write("--prompt", "One day, a little", "--temperature", "0.8", "--seed", "3"))
	assert.NotEqual(t, a, write("--prompt", "One day, a little", "--temperature", "0.8", "--seed", "4"))
	var p struct {
		BitsByte float64 `json:"bits_per_byte"`
	}
	text := tales(t, "text.txt", 5, 1)
	require.NoError(t, json.Unmarshal([]byte(temper(t, "eval", "temper-stories", "--text", text, "--json")), &p))
	assert.Less(t, p.BitsByte, 3.0)
	var cost struct {
		Steps []struct {
			Step string
			Cost struct {
				Tokens float64 `json:"tokens"`
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(temper(t, "cost", "temper-stories", "--json")), &cost))
	require.NotEmpty(t, cost.Steps)
	assert.Equal(t, "pretrain", cost.Steps[0].Step)
	assert.Positive(t, cost.Steps[0].Cost.Tokens)
}
