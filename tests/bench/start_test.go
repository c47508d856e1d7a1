package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/tests/fixture"
)

// BenchmarkStart times opening a model and its first answer.
func BenchmarkStart(b *testing.B) {
	dir := fixture.MiniLM(b)
	for b.Loop() {
		k, err := kernels(1, false)
		require.NoError(b, err)
		p, err := pipeline.Open(dir, k, pipeline.Options{Head: model.HeadNone})
		require.NoError(b, err)
		_, err = p.Embed(context.Background(), []string{"a good film, worth every minute"})
		require.NoError(b, err)
		require.NoError(b, p.Close())
		k.Close()
	}
}
