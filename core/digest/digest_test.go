package digest

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPortableIsSHA256(t *testing.T) {
	data := bytes.Repeat([]byte("temper, SHA-256 \x00\xff"), 20)
	for n := range len(data) {
		want := sha256.Sum256(data[:n])
		p := newPortable()
		_, err := p.Write(data[:n/3])
		require.NoError(t, err)
		_, err = p.Write(data[n/3 : n])
		require.NoError(t, err)
		require.Equal(t, want[:], p.Sum(nil), "%d bytes", n)
		require.Equal(t, want[:], p.Sum(nil), "a sum does not end it")
		require.Equal(t, want, Sum256(data[:n]))
	}
}
