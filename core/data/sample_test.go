package data_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/data"
)

func letters(n int) *data.Dataset {
	s := "text\tlabel\n"
	for i := range n {
		s += fmt.Sprintf("text %d\t%c\n", i/2, 'a'+i%4)
	}
	d, err := data.Parse("a.tsv", []byte(s), data.Options{})
	if err != nil {
		panic(err)
	}
	return d
}

func TestShots(t *testing.T) {
	d := letters(100)
	s, err := d.Shots(5, 1)
	require.NoError(t, err)
	assert.Equal(t, []int{5, 5, 5, 5}, s.Counts())
	assert.True(t, slices.IsSorted(s.Rows))
	again, err := letters(100).Shots(5, 1)
	require.NoError(t, err)
	assert.Equal(t, s, again)
	// The draw is pinned: a seed keeps its meaning over releases.
	assert.Equal(t, []int{3, 6, 18, 19, 25, 28, 29, 32, 43, 48, 53, 58, 60, 62, 71, 76, 85, 86, 93, 99}, s.Rows)
	other, err := d.Shots(5, 2)
	require.NoError(t, err)
	assert.NotEqual(t, s.Rows, other.Rows)
	_, err = d.Shots(26, 1)
	require.ErrorContains(t, err, `26 examples of each label are wanted, "a" has 25`)
	_, err = d.Shots(0, 1)
	require.Error(t, err)
}

func TestSplit(t *testing.T) {
	d := letters(2000)
	rest, part := d.Split(0.25, 7)
	assert.Equal(t, 2000, rest.Len()+part.Len())
	assert.InDelta(t, 500, part.Len(), 80)
	side := map[string]bool{}
	for _, s := range part.Texts {
		side[s] = true
	}
	for _, s := range rest.Texts {
		require.False(t, side[s], "%q is on both sides", s)
	}
	_, few := letters(20).Split(0.25, 7)
	assert.Subset(t, part.Texts, few.Texts, "the side of a text does not depend on the file")
	all, none := d.Split(0, 7)
	assert.Equal(t, 2000, all.Len())
	assert.Zero(t, none.Len())
}

func TestBatches(t *testing.T) {
	lengths := make([]int, 103)
	for i := range lengths {
		lengths[i] = 1 + i*37%50
	}
	lengths[17] = 500
	for _, o := range []data.BatchOptions{
		{MaxExamples: 8},
		{MaxTokens: 128},
		{MaxExamples: 8, MaxTokens: 128, Shuffle: true, Seed: 3},
		{MaxExamples: 8, Shuffle: true, SortWindow: 32},
		{MaxTokens: 128, Shuffle: true, SortWindow: 1000},
		{},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			var all []int
			for i, b := range data.Batches(lengths, o) {
				require.NotEmpty(t, b)
				tokens := 0
				for _, e := range b {
					tokens += lengths[e]
				}
				if o.MaxExamples > 0 {
					assert.LessOrEqual(t, len(b), o.MaxExamples, i)
				}
				if o.MaxTokens > 0 && len(b) > 1 {
					assert.LessOrEqual(t, tokens, o.MaxTokens, i)
				}
				all = append(all, b...)
			}
			assert.Equal(t, !o.Shuffle, slices.IsSorted(all))
			slices.Sort(all)
			require.Len(t, all, len(lengths))
			assert.Len(t, slices.Compact(all), len(lengths), "an example is missing")
			assert.Equal(t, data.PlanBatches(lengths, o), data.PlanBatches(lengths, o))
			if o.Shuffle {
				next := o
				next.Epoch++
				assert.NotEqual(t, data.PlanBatches(lengths, o), data.PlanBatches(lengths, next))
			}
		})
	}
	assert.Len(t, data.PlanBatches(lengths, data.BatchOptions{MaxExamples: 8, DropLast: true}), 12)
	assert.Len(t, data.PlanBatches(lengths[:8], data.BatchOptions{MaxExamples: 8, DropLast: true}), 1)
	assert.Empty(t, data.PlanBatches(nil, data.BatchOptions{MaxExamples: 8}))
}
