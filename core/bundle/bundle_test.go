package bundle

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
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

// A page downloads the words that are guarded, not their misspellings, and reads them all the same.
func TestGuardedTokenizer(t *testing.T) {
	typos := &token.Typos{Words: []string{"great", "awful"}, IDs: []int32{1, 2}, Counts: []float64{1, 1}}
	whole, err := token.WithTypos([]byte(`{"model":{"type":"WordPiece","unk_token":"[UNK]","vocab":{"[UNK]":0,"great":1,"awful":2}}}`), typos, typos.Table())
	require.NoError(t, err)
	files := map[string][]byte{"tokenizer.json": whole, "config.json": []byte("{}")}
	var b bytes.Buffer
	require.NoError(t, Write(&b, files))
	require.Equal(t, whole, files["tokenizer.json"])
	require.Less(t, b.Len(), len(whole))
	got, err := Parse(b.Bytes())
	require.NoError(t, err)
	tok, err := token.Load(got["tokenizer.json"])
	require.NoError(t, err)
	require.Equal(t, []int32{1}, tok.AppendIDs(nil, "graet", false))
	back, err := token.Expand(got["tokenizer.json"])
	require.NoError(t, err)
	require.Equal(t, string(whole), string(back))
}
