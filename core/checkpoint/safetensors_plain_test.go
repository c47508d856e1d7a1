package checkpoint

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func empty() *Safetensors {
	return &Safetensors{entries: map[string]safetensorsEntry{}, metadata: map[string]string{}}
}

func TestPlainHeader(t *testing.T) {
	for header, plain := range map[string]bool{
		`{}`:    true,
		` {} `:  true,
		`{} {}`: false,
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`:                                                         true,
		` { "a" : { "shape" : [ ] , "dtype" : "BF16" , "data_offsets" : [ 0 , 2 ] } , "__metadata__" : { "k" : "v" } } `: true,
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`:    false,
		`{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}`:                                             false,
		`{"a":{"dtype":"F32","shape":[2]}}`:                                                                              false,
		`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`:                                                        false,
		`{"a":{"dtype":"F32","shape":[02],"data_offsets":[0,8]}}`:                                                        false,
		`{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}`:                                                       false,
		`{"a":{"dtype":"F32","shape":[2,],"data_offsets":[0,8]}}`:                                                        false,
		`{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}`:                                                         false,
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}`:                                                   false,
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}`:                                                       false,
		`{"a":{"dtype":"F32","shape":[9999999999999999999],"data_offsets":[0,8]}}`:                                       false,
		"{\"a\n\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}":                                             false,
		`{"\u0061":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`:                                                    false, // left to encoding/json
		`{"__metadata__":{"k":"v","k":"w"}}`:                                                                             false,
		`{"__metadata__":{},"__metadata__":{}}`:                                                                          false,
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`:                                                          false,
		`{,}`: false,
	} {
		assert.Equal(t, plain, empty().plainHeader([]byte(header)), header)
	}
}

// FuzzPlainHeader: what the quick way takes, the thorough one takes too, with the same result.
func FuzzPlainHeader(f *testing.F) {
	f.Add([]byte(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"format":"pt"}}`))
	f.Add([]byte(` { "é" : { "shape" : [ ] , "dtype" : "BF16" , "data_offsets" : [ 0 , 2 ] } } `))
	f.Fuzz(func(t *testing.T, header []byte) {
		quick, thorough := empty(), empty()
		if !utf8.Valid(header) || len(header) == 0 || header[0] != '{' || !quick.plainHeader(header) {
			return
		}
		require.NoError(t, thorough.anyHeader(header))
		require.Equal(t, thorough, quick)
	})
}
