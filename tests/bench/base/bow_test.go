package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBagOfWords(t *testing.T) {
	texts := []string{"win a prize now", "free prize call now", "see you at lunch", "lunch at noon?", "your parcel is here", "parcel on its way"}
	y := []int{0, 0, 1, 1, 2, 2}
	got, err := bagOfWords(context.Background(), texts, y, 3, []string{"PRIZE!", "late lunch", "a parcel", "zzz"}, 10)
	require.NoError(t, err)
	assert.Equal(t, []int32{0, 1, 2}, got[:3])
	_, err = bagOfWords(context.Background(), []string{"…"}, []int{0}, 2, nil, 1)
	assert.Error(t, err)
}
