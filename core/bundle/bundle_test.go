package bundle

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoundTrip(t *testing.T) {
	files := map[string][]byte{"config.json": []byte(`{"a":1}`), "1_Pooling/config.json": []byte("{}"), "model.safetensors": bytes.Repeat([]byte("weights!"), 1<<20), "empty": {}}
	var b bytes.Buffer
	require.NoError(t, Write(&b, files))
	got, err := Parse(b.Bytes())
	require.NoError(t, err)
	require.Equal(t, files, got)
	h, at, err := ParseHeader(b.Bytes())
	require.NoError(t, err)
	require.Len(t, h.Chunks, 3)
	require.Equal(t, int64(b.Len()), at+h.Size)
	require.Zero(t, at%64)

	for _, i := range []int{0, 9, 30, int(at), b.Len() - 1} {
		bad := bytes.Clone(b.Bytes())
		bad[i] ^= 1
		_, err := Parse(bad)
		require.Error(t, err, "byte %d", i)
	}
	_, err = Parse(b.Bytes()[:b.Len()-1])
	require.ErrorIs(t, err, ErrCorrupt)
	require.Error(t, Write(&b, map[string][]byte{"../up": nil}))
}

func FuzzParse(f *testing.F) {
	var b bytes.Buffer
	require.NoError(f, Write(&b, map[string][]byte{"config.json": []byte("{}"), "w": {1, 2, 3}}))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := Parse(b)
		if err != nil {
			return
		}
		var again bytes.Buffer
		require.NoError(t, Write(&again, files))
		back, err := Parse(again.Bytes())
		require.NoError(t, err)
		require.Len(t, back, len(files))
	})
}
