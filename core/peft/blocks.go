package peft

import (
	"fmt"
	"strconv"
	"strings"
)

// Blocks reads a choice among n blocks: "last:2", "first:3", or numbers from 0 separated by commas.
func Blocks(choice string, n int) ([]int, error) {
	bad := func() ([]int, error) {
		return nil, fmt.Errorf("layers %q: expected last:N, first:N or numbers below %d, separated by commas", choice, n)
	}
	if end, count, ok := strings.Cut(choice, ":"); ok {
		k, err := strconv.Atoi(count)
		if err != nil || k < 1 || k > n || end != "last" && end != "first" {
			return bad()
		}
		out := make([]int, k)
		for i := range out {
			if out[i] = i; end == "last" {
				out[i] = n - k + i
			}
		}
		return out, nil
	}
	var out []int
	seen := map[int]bool{}
	for s := range strings.SplitSeq(choice, ",") {
		i, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || i < 0 || i >= n || seen[i] {
			return bad()
		}
		seen[i] = true
		out = append(out, i)
	}
	return out, nil
}

// ChooseLayers sets the blocks that get the adapter to a choice among n, as Blocks reads it; "" leaves them as they are.
func (c *Config) ChooseLayers(choice string, n int) error {
	if choice == "" {
		return nil
	}
	switch c.Type {
	case PrefixTuning, PromptTuning, PTuning, BitFit, LNTuning:
		return fmt.Errorf("layers %q: %s has none to choose", choice, c.Type)
	}
	blocks, err := Blocks(choice, n)
	if err != nil {
		return err
	}
	c.Layers = blocks
	return nil
}
