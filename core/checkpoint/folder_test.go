package checkpoint_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/tests/fixture"
)

func shard(t *testing.T, ts ...tensor.Tensor) []byte {
	var b bytes.Buffer
	require.NoError(t, checkpoint.EncodeSafetensors(&b, ts, nil))
	return b.Bytes()
}

func TestFolderSharded(t *testing.T) {
	files := func(index string) map[string][]byte {
		return map[string][]byte{
			"config.json":                      []byte("{}"),
			"model.safetensors.index.json":     []byte(index),
			"model-00001-of-00002.safetensors": shard(t, tensor.FromF32("a", []float32{1}, 1)),
			"model-00002-of-00002.safetensors": shard(t, tensor.FromF32("b", []float32{2}, 1)),
		}
	}
	good := `{"metadata":{"total_size":8},"weight_map":{"b":"model-00002-of-00002.safetensors","a":"model-00001-of-00002.safetensors"}}`
	dir := t.TempDir()
	for name, b := range files(good) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	onDisk, err := checkpoint.OpenFolder(dir)
	require.NoError(t, err)
	inMemory, err := checkpoint.NewFolder("memory", files(good))
	require.NoError(t, err)
	for _, f := range []*checkpoint.Folder{onDisk, inMemory} {
		s, err := f.Source()
		require.NoError(t, err)
		assert.Equal(t, []string{"b", "a"}, s.Names())
		b, err := s.Tensor("b")
		require.NoError(t, err)
		v, err := b.F32()
		require.NoError(t, err)
		assert.Equal(t, []float32{2}, v)
		_, err = s.Tensor("c")
		require.ErrorIs(t, err, checkpoint.ErrNoTensor)
		require.NoError(t, f.Close())
	}

	for want, index := range map[string]string{
		"bad JSON":                `{`,
		`"weight_map" is missing`: `{}`,
		"expected \"{\"":          `{"weight_map":[]}`,
		"names no tensor":         `{"weight_map":{}}`,
		"given twice":             `{"weight_map":{"a":"model-00001-of-00002.safetensors","a":"model-00001-of-00002.safetensors"}}`,
		"is not the name of a safetensors file in this folder": `{"weight_map":{"a":"../x.safetensors"}}`,
		"expected a string":      `{"weight_map":{"a":1}}`,
		"which does not hold it": `{"weight_map":{"a":"model-00002-of-00002.safetensors"}}`,
		"file does not exist":    `{"weight_map":{"a":"model-00003.safetensors"}}`,
	} {
		f, err := checkpoint.NewFolder("some-model", files(index))
		require.NoError(t, err)
		_, err = f.Source()
		require.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "some-model")
	}
}

func TestOpenFolderRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := checkpoint.OpenFolder(dir)
	require.ErrorContains(t, err, "is not a model folder: expected config.json")
	require.ErrorContains(t, err, "it holds nothing")
	_, err = checkpoint.OpenFolder(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	pickle := filepath.Join(dir, "pytorch_model.bin")
	require.NoError(t, os.WriteFile(pickle, []byte("PK"), 0o644))
	_, err = checkpoint.OpenFolder(dir)
	require.ErrorContains(t, err, "pickle files are not read")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o644))
	f, err := checkpoint.OpenFolder(dir)
	require.NoError(t, err)
	_, err = f.Source()
	require.ErrorContains(t, err, "pickle files are not read (they can run code); convert to safetensors")
	require.NoError(t, os.Remove(pickle))
	_, err = f.Source()
	require.ErrorContains(t, err, "expected model.safetensors or model.safetensors.index.json, the folder holds config.json")

	_, err = checkpoint.OpenFolder(filepath.Join(dir, "config.json"))
	require.ErrorContains(t, err, "not a folder")
	_, err = f.File("../x")
	require.ErrorContains(t, err, "points outside the folder")
	_, err = f.File("tokenizer.json")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestFolderMiniLM(t *testing.T) {
	f, err := checkpoint.OpenFolder(fixture.MiniLM(t))
	require.NoError(t, err)
	defer f.Close()
	s, err := f.Source()
	require.NoError(t, err)
	w, err := s.Tensor("embeddings.word_embeddings.weight")
	require.NoError(t, err)
	assert.Equal(t, []int{30522, 384}, w.Shape)
	p, ok, err := f.Pooling()
	require.NoError(t, err)
	assert.True(t, ok && p.Mean && p.Normalize && !p.CLS)
	assert.Equal(t, 384, p.Dimension)
}

func TestWriteFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "out")
	write := func(config string, shards ...string) error {
		return checkpoint.WriteFolder(dir, func(w *checkpoint.FolderWriter) error {
			for _, name := range shards {
				if err := w.Safetensors(name, []tensor.Tensor{tensor.New("a", 1)}, nil); err != nil {
					return err
				}
			}
			return errors.Join(w.File("1_Pooling/config.json", []byte("{}")), w.File("config.json", []byte(config)))
		})
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		require.NoError(t, err)
		return string(b)
	}
	require.NoError(t, write("first", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"))
	assert.Equal(t, "first", read("config.json"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "checkpoints"), 0o755))

	require.NoError(t, write("second", "model.safetensors"))
	assert.Equal(t, "second", read("config.json"))
	assert.Equal(t, "mine", read("notes.txt"))
	assert.DirExists(t, filepath.Join(dir, "checkpoints"))
	assert.NoFileExists(t, filepath.Join(dir, "model-00001-of-00002.safetensors"), "shards of the older model stay behind")

	// A failure half way leaves the model and no debris.
	err := checkpoint.WriteFolder(dir, func(w *checkpoint.FolderWriter) error {
		require.NoError(t, w.File("config.json", []byte("third")))
		return errors.New("the disk is full")
	})
	require.ErrorContains(t, err, "the disk is full")
	assert.Equal(t, "second", read("config.json"))
	list, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	assert.Len(t, list, 1)

	// A link stays a link.
	link := filepath.Join(filepath.Dir(dir), "link")
	require.NoError(t, os.Symlink("out", link))
	require.NoError(t, checkpoint.WriteFolder(link, func(w *checkpoint.FolderWriter) error { return w.File("config.json", []byte("fourth")) }))
	assert.Equal(t, "fourth", read("config.json"))

	for want, write := range map[string]func(*checkpoint.FolderWriter) error{
		"points outside": func(w *checkpoint.FolderWriter) error { return w.File("../x", nil) },
		"written twice":  func(w *checkpoint.FolderWriter) error { return errors.Join(w.File("x", nil), w.File("x", nil)) },
	} {
		require.ErrorContains(t, checkpoint.WriteFolder(dir, write), want)
	}
	plain := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(plain, nil, 0o644))
	require.ErrorContains(t, checkpoint.WriteFolder(plain, nil), "expected a folder or nothing")
	require.ErrorContains(t, checkpoint.WriteFolder(filepath.Join(plain, "x"), nil), "write model folder")
}

func FuzzShardIndex(f *testing.F) {
	f.Add([]byte(`{"weight_map":{"a":"model-1.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../m.safetensors"},"metadata":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		folder, err := checkpoint.NewFolder("f", map[string][]byte{"config.json": nil, "model.safetensors.index.json": b, "model-1.safetensors": shard(t, tensor.New("a", 1))})
		require.NoError(t, err)
		var s checkpoint.Source
		fixture.Bounded(t, len(b), 512, 1<<18, func() { s, err = folder.Source() })
		if err == nil {
			require.Equal(t, []string{"a"}, s.Names())
		}
	})
}
