package peft_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/peft"
)

func TestBlocks(t *testing.T) {
	for choice, want := range map[string][]int{
		"last:2": {4, 5}, "first:3": {0, 1, 2}, "last:6": {0, 1, 2, 3, 4, 5}, "3": {3}, "5, 0": {5, 0},
		"": nil, "last:0": nil, "last:7": nil, "mid:2": nil, "6": nil, "-1": nil, "1,1": nil, "last:": nil, "x": nil, "1,": nil,
	} {
		got, err := peft.Blocks(choice, 6)
		if want == nil {
			require.ErrorContains(t, err, "expected last:N", choice)
			continue
		}
		require.NoError(t, err, choice)
		require.Equal(t, want, got, choice)
	}
	cfg, err := peft.Method("lora")
	require.NoError(t, err)
	require.NoError(t, cfg.ChooseLayers("", 6))
	require.Empty(t, cfg.Layers)
	require.NoError(t, cfg.ChooseLayers("last:1", 6))
	require.EqualValues(t, []int{5}, cfg.Layers)
	require.Error(t, cfg.ChooseLayers("last:9", 6))
	cfg, err = peft.Method("prompt")
	require.NoError(t, err)
	require.ErrorContains(t, cfg.ChooseLayers("last:1", 6), "none to choose")
}
