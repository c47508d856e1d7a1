package parity

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestVariants runs further fixtures of the kind "models", which variants/variants.py writes where the reference libraries are installed:
// other shapes, heads, windows and rotations of every family, so that nothing fits the shared fixtures alone.
func TestVariants(t *testing.T) {
	root := os.Getenv("TEMPER_VARIANTS")
	if root == "" {
		t.Skip("set TEMPER_VARIANTS to a folder written by tests/parity/variants/variants.py")
	}
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	defer results.print(t)
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) { runModel(t, filepath.Join(root, e.Name())) })
	}
}
