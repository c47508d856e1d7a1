package data_test

import (
	"bytes"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/data"
)

func TestParquet(t *testing.T) {
	type row struct {
		Nested []int32 `parquet:"nested,list"`
		Text   string  `parquet:"text"`
		Label  int64   `parquet:"label"`
	}
	var b bytes.Buffer
	w := parquet.NewGenericWriter[row](&b, parquet.KeyValueMetadata("huggingface", `{"info":{"features":{"label":{"names":["zebra","ant"],"_type":"ClassLabel"},"text":{"_type":"Value"}}}}`))
	_, err := w.Write([]row{{[]int32{1, 2}, "one", 1}, {nil, "two", 0}, {nil, "zwölf", 1}})
	require.NoError(t, err)
	require.NoError(t, w.Close())
	d, err := data.Parse("a.parquet", b.Bytes(), data.Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{"one", "two", "zwölf"}, d.Texts)
	assert.Equal(t, []string{"zebra", "ant"}, d.LabelNames, "in the file's order")
	assert.Equal(t, []int{1, 0, 1}, d.Labels)

	_, err = data.Parse("a.parquet", b.Bytes(), data.Options{Text: "label"})
	require.ErrorContains(t, err, "expected strings")
	_, err = data.Parse("a.parquet", b.Bytes(), data.Options{Text: "nested"})
	require.ErrorContains(t, err, "a list or a structure")
	for cut := 0; cut < b.Len(); cut += 7 {
		_, err := data.Parse("a.parquet", b.Bytes()[:cut], data.Options{})
		require.Error(t, err)
	}
	for at := 4; at < b.Len(); at++ {
		damaged := bytes.Clone(b.Bytes())
		damaged[at] ^= 0x55
		_, _ = data.Parse("a.parquet", damaged, data.Options{}) // an error or not, but no panic
	}
}
