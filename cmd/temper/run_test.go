package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/tests/fixture"
)

// call runs the program in this process.
func call(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errb bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(stdin), &out, &errb)
	return code, out.String(), errb.String()
}

func tiny(t *testing.T) string { return filepath.Join(fixture.Parity(t), "models", "bert-seqcls") }

// clone copies a model folder and lets edit change it.
func clone(t *testing.T, edit func(dir string)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	require.NoError(t, os.CopyFS(dir, os.DirFS(tiny(t))))
	edit(dir)
	return dir
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, b, 0o644))
	return path
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), name), []byte(text))
}

// weights rewrites model.safetensors of a clone.
func weights(t *testing.T, change func(b []byte) []byte) string {
	return clone(t, func(dir string) {
		p := filepath.Join(dir, "model.safetensors")
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		write(t, p, change(b))
	})
}

// header changes the JSON header of a safetensors file.
func header(t *testing.T, change func(map[string]any)) string {
	return weights(t, func(b []byte) []byte {
		n := binary.LittleEndian.Uint64(b)
		var h map[string]any
		require.NoError(t, json.Unmarshal(b[8:8+n], &h))
		change(h)
		j, err := json.Marshal(h)
		require.NoError(t, err)
		out := binary.LittleEndian.AppendUint64(nil, uint64(len(j)))
		return append(append(out, j...), b[8+n:]...)
	})
}

func config(t *testing.T, change func(map[string]any)) string {
	return clone(t, func(dir string) {
		p := filepath.Join(dir, "config.json")
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		var c map[string]any
		require.NoError(t, json.Unmarshal(b, &c))
		change(c)
		b, err = json.Marshal(c)
		require.NoError(t, err)
		write(t, p, b)
	})
}

const word = "bert.embeddings.word_embeddings.weight"

// Whatever a file, a flag or a text says: one clear sentence that names it, exit code 1 or 2, no panic.
func TestMalformedInput(t *testing.T) {
	good := tiny(t)
	data := file(t, "d.tsv", "label\ttext\nLABEL_0\tone two\nLABEL_1\tthree\n")
	out := filepath.Join(t.TempDir(), "out")
	base := clone(t, func(string) {})
	nan := weights(t, func(b []byte) []byte {
		for i := 8 + binary.LittleEndian.Uint64(b); i+4 <= uint64(len(b)); i += 4 {
			binary.LittleEndian.PutUint32(b[i:], 0x7fc00000)
		}
		return b
	})
	tune := func(d string, more ...string) []string {
		return append([]string{"tune", good, "--data", d, "-o", out, "-q"}, more...)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"unknown verb", []string{"fly"}, 2, []string{`unknown verb "fly"`}},
		{"unknown flag", []string{"eval", good, "--loud"}, 2, []string{"--loud"}},
		{"missing argument", []string{"eval"}, 2, []string{"eval", "usage"}},
		{"no model", []string{"classify", filepath.Join(out, "none"), "x"}, 1, []string{"none"}},
		{"model is a file", []string{"classify", data, "x"}, 1, []string{"not a folder"}},
		{"an encoder to write", []string{"generate", good, "--prompt", "x"}, 1, []string{"is an encoder"}},
		{"masks that were not trained", []string{"fill", good, "a [MASK]"}, 1, []string{"no trained tensor"}},
		{"a decoder to embed", []string{"embed", file(t, "d.gguf", "GGUF"), "x"}, 1, []string{"d.gguf", "decoder"}},
		{"empty folder", []string{"classify", t.TempDir(), "x"}, 1, []string{"not a model folder"}},
		{"negative threads", []string{"eval", good, "--threads", "-1"}, 2, []string{"--threads"}},
		{"unknown method", tune(data, "--method", "magic"), 2, []string{"magic", "lora"}},
		{"unknown recipe", []string{"attack", good, "--data", data, "--recipe", "hex"}, 2, []string{"hex", "deepwordbug"}},
		{"no data file", tune(filepath.Join(out, "no.tsv")), 1, []string{"no.tsv"}},
		{"empty data", tune(file(t, "e.tsv", "")), 1, []string{"e.tsv", "empty"}},
		{"header only", tune(file(t, "h.tsv", "label\ttext\n")), 1, []string{"h.tsv"}},
		{"no header", tune(file(t, "n.tsv", "good\tnice film\nbad\tdull film\n")), 1, []string{"n.tsv", "header"}},
		{"one class", tune(file(t, "o.tsv", "label\ttext\na\tx\na\ty\n")), 1, []string{"two labels", `"a"`}},
		{"binary data", tune(file(t, "b.tsv", "label\ttext\n\x00\x01\x02\t\x00\n")), 1, []string{"b.tsv"}},
		{"bad UTF-8", tune(file(t, "u.tsv", "label\ttext\na\t\xff\xfe\n")), 1, []string{"u.tsv", "UTF-8"}},
		{"bad row number", tune(data, "--rows", file(t, "r.txt", "0\n99\n")), 1, []string{"99"}},
		{"too few shots", tune(data, "--shots", "5"), 1, []string{"LABEL_0", "5"}},
		{"unknown label", []string{"eval", good, "--data", file(t, "l.tsv", "label\ttext\nodd\tx\n")}, 1, []string{"odd", "LABEL"}},
		{"unwritable folder", tune(data, "-o", "/proc/temper/out"), 1, []string{"/proc/temper"}},
		{"truncated weights", []string{"classify", weights(t, func(b []byte) []byte { return b[:len(b)/2] }), "x"}, 1, []string{"model.safetensors"}},
		{"empty weights", []string{"classify", weights(t, func([]byte) []byte { return nil }), "x"}, 1, []string{"model.safetensors"}},
		{"huge header", []string{"classify", weights(t, func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b, 1<<60)
			return b
		}), "x"}, 1, []string{"model.safetensors", "header"}},
		{"lying offsets", []string{"classify", header(t, func(h map[string]any) {
			h[word].(map[string]any)["data_offsets"] = []int{0, 1 << 50}
		}), "x"}, 1, []string{"model.safetensors", word}},
		{"overlapping tensors", []string{"classify", header(t, func(h map[string]any) {
			for k := range h {
				if k != word && k != "__metadata__" {
					h[k].(map[string]any)["data_offsets"] = h[word].(map[string]any)["data_offsets"]
					break
				}
			}
		}), "x"}, 1, []string{"model.safetensors"}},
		{"lying shape", []string{"classify", header(t, func(h map[string]any) {
			h[word].(map[string]any)["shape"] = []int{1 << 40, 1 << 40}
		}), "x"}, 1, []string{"model.safetensors", word}},
		{"missing tensor", []string{"classify", config(t, func(c map[string]any) { c["num_hidden_layers"] = 3 }), "x"}, 1, []string{"encoder.layer.2"}},
		{"wrong shape", []string{"classify", config(t, func(c map[string]any) { c["vocab_size"] = 77 }), "x"}, 1, []string{word, "77"}},
		{"broken config", []string{"classify", clone(t, func(d string) { write(t, filepath.Join(d, "config.json"), []byte("{")) }), "x"}, 1, []string{"config"}},
		{"incomplete config", []string{"classify", config(t, func(c map[string]any) { delete(c, "hidden_size") }), "x"}, 1, []string{"hidden_size"}},
		{"absurd config", []string{"classify", config(t, func(c map[string]any) { c["num_attention_heads"] = 1 << 30 }), "x"}, 1, []string{"num_attention_heads"}},
		{"unknown family", []string{"classify", config(t, func(c map[string]any) { c["model_type"] = "abacus" }), "x"}, 1, []string{"abacus"}},
		{"broken tokenizer", []string{"classify", clone(t, func(d string) { write(t, filepath.Join(d, "tokenizer.json"), []byte(`{"model":{"type":"X"}}`)) }), "x"}, 1, []string{"tokenizer"}},
		{"no tokenizer", []string{"classify", clone(t, func(d string) { require.NoError(t, os.Remove(filepath.Join(d, "tokenizer.json"))) }), "x"}, 1, []string{"tokenizer.json"}},
		{"a classifier's head asked to embed nothing", []string{"embed", good, "--data", file(t, "x.tsv", "")}, 1, []string{"x.tsv"}},
		{"no output named", []string{"tune", good, "--data", data}, 2, []string{"out"}},
		{"an empty output", tune(data, "-o", ""), 2, []string{"--out"}},
		{"the base as output", []string{"tune", base, "--data", data, "-o", base}, 2, []string{"--out", base}},
		{"the base as output, by another name", []string{"quantize", base, "--type", "int8", "-o", filepath.Join(base, "..", "model")}, 2, []string{"--out"}},
		{"nothing to merge", []string{"merge", good, "-o", out}, 2, []string{"no adapter"}},
		{"no number", tune(data, "--lr", "nan"), 2, []string{"--lr"}},
		{"endless", tune(data, "--weight-decay", "inf"), 2, []string{"--weight-decay"}},
		{"negative rate", tune(data, "--lr", "-1"), 2, []string{"--lr"}},
		{"negative epochs", tune(data, "--epochs", "-1"), 2, []string{"--epochs"}},
		{"negative warm-up", tune(data, "--warmup", "-1"), 2, []string{"--warmup"}},
		{"negative scale", tune(data, "--method", "lora", "--alpha", "-1"), 2, []string{"--alpha"}},
		{"negative examples", []string{"attack", good, "--data", data, "--examples", "-1"}, 2, []string{"--examples"}},
		{"too many threads", []string{"eval", good, "--data", data, "--threads", "100000"}, 2, []string{"--threads"}},
		{"unknown schedule", tune(data, "--schedule", "zigzag"), 2, []string{"zigzag", "linear"}},
		{"unknown optimizer", tune(data, "--optimizer", "magic"), 2, []string{"magic", "adamw"}},
		{"a gate without a bar", []string{"check", good, "--data", data}, 2, []string{"--min-accuracy"}},
		{"unknown topic of help", []string{"help", "fly"}, 2, []string{`"fly"`}},
		{"unknown shell", []string{"completion", "fly"}, 2, []string{"fly"}},
		{"unknown family to pretrain", []string{"pretrain", "--data", data, "--family", "gru", "-o", out}, 2, []string{"gru", "bert"}},
		{"an adapter for no layer", tune(data, "--method", "lora", "--target-modules", "abacus"), 1, []string{"abacus", "query"}},
		{"weights that are no numbers", []string{"classify", nan, "x"}, 1, []string{nan, "not a finite number"}},
		{"embeddings that are no numbers", []string{"embed", nan, "x", "--json"}, 1, []string{nan, "not a finite number"}},
		{"scores that are no numbers", []string{"eval", nan, "--data", data, "--json"}, 1, []string{"not numbers"}},
		{"features that are no numbers", []string{"tune", nan, "--data", data, "--method", "head", "-o", out}, 1, []string{"not a finite number"}},
		{"inspecting a text", []string{"inspect", data}, 1, []string{"d.tsv", "safetensors"}},
		{"inspecting an empty GGUF file", []string{"inspect", file(t, "e.gguf", "")}, 1, []string{"e.gguf", "GGUF"}},
		{"a tokenizer that is a list", []string{"classify", clone(t, func(d string) { write(t, filepath.Join(d, "tokenizer.json"), []byte(`[]`)) }), "x"}, 1, []string{"tokenizer.json", "object"}},
		{"plugin that is none", []string{"attack", good, "--data", data, "--plugin", file(t, "p.wasm", "nonsense")}, 1, []string{"p.wasm"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := call(t, "", c.args...)
			require.Equal(t, c.code, code, stderr)
			require.Empty(t, stdout)
			for _, w := range c.want {
				require.Contains(t, stderr, w)
			}
			require.LessOrEqual(t, strings.Count(stderr, "\n"), 3, stderr)
			require.NotContains(t, stderr, "goroutine")
		})
	}
}

func TestLongLineIsFine(t *testing.T) {
	d := file(t, "long.tsv", "label\ttext\nLABEL_0\t"+strings.Repeat("word ", 200000)+"\nLABEL_1\tshort\n")
	code, stdout, stderr := call(t, "", "eval", tiny(t), "--data", d, "--json")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `"examples":2`)
}

// A text of a megabyte costs little more than its own size, however little of it the model reads.
func TestLongLineIsCheap(t *testing.T) {
	d := file(t, "long.tsv", "label\ttext\nLABEL_0\t"+strings.Repeat("a ", 1<<20)+"\nLABEL_1\tshort\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	code, _, stderr := call(t, "", "eval", tiny(t), "--data", d, "--json")
	runtime.ReadMemStats(&after)
	require.Zero(t, code, stderr)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100<<20))
}

func TestContract(t *testing.T) {
	good := tiny(t)
	data := file(t, "d.tsv", "label\ttext\nLABEL_0\tone two\nLABEL_1\tthree four\nLABEL_0\tfive\nLABEL_2\tsix seven\n")
	out := filepath.Join(t.TempDir(), "out")
	keys := func(s string) (k []string) {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(s), &m), s)
		for key := range m {
			k = append(k, key)
		}
		return k
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"tokenize", good, "a b"}, []string{"encodings"}},
		{[]string{"embed", good, "a b"}, []string{"dim", "embeddings"}},
		{[]string{"classify", good, "a b"}, []string{"results"}},
		{[]string{"eval", good, "--data", data}, []string{"examples", "accuracy", "macro_f1", "loss", "labels", "seconds", "texts_per_second"}},
		{[]string{"tune", good, "--data", data, "--dev", data, "--epochs", "1", "-o", out}, []string{"method", "trainable_parameters",
			"total_parameters", "steps", "train_loss", "dev", "seconds", "tokens_per_second", "peak_rss_bytes", "cost"}},
		{[]string{"attack", good, "--data", data}, []string{"recipe", "examples", "skipped", "clean_accuracy", "accuracy_under_attack",
			"attack_success_rate", "average_queries", "average_words_changed", "queries_per_second", "seconds"}},
		{[]string{"harden", good, "--data", data, "--dev", data, "--epochs", "1", "-o", out}, []string{"method", "before", "after"}},
		{[]string{"bench", good, "--seq", "4", "--runs", "2"}, []string{"milliseconds", "tokens_per_second", "gflops", "threads", "level"}},
		{[]string{"doctor"}, []string{"level"}},
		{[]string{"models"}, []string{"models"}},
		{[]string{"version"}, []string{"version"}},
	} {
		t.Run(c.args[0], func(t *testing.T) {
			code, stdout, stderr := call(t, "", append(c.args, "--json", "-q")...)
			require.Zero(t, code, stderr)
			require.Subset(t, keys(stdout), c.want)
			require.Equal(t, 1, strings.Count(stdout, "\n"))
			code, text, stderr := call(t, "", append(c.args, "-q")...)
			require.Zero(t, code, stderr)
			require.NotContains(t, text, "{")
			require.NotEmpty(t, text)
		})
	}
}

// A hardened model reads the words of its lexicon alike: the answer does not change with them. A lexicon that is missing or broken is named.
func TestHardenWithSynonymEncoding(t *testing.T) {
	good, dir := tiny(t), t.TempDir()
	data, lexicon, out := filepath.Join(dir, "data.tsv"), filepath.Join(dir, "near.tsv"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(data, []byte("text\tlabel\n"+strings.Repeat("one lamp 12345\tx\ntwo lamps\ty\n", 4)), 0o600))
	require.NoError(t, os.WriteFile(lexicon, []byte("lamp\tLantern, torch\n\nlamps\tlanterns\n"), 0o600))
	args := []string{"harden", good, "--data", data, "--epochs", "1", "--canonical", "numbers", "--attack-examples", "0", "-o", out, "-q", "--synonym-encoding"}
	code, _, stderr := call(t, "", append(args, lexicon)...)
	require.Zero(t, code, stderr)
	scores := func(text string) string {
		code, stdout, stderr := call(t, "", "classify", out, text, "--json", "-q")
		require.Zero(t, code, stderr)
		_, after, ok := strings.Cut(stdout, `"scores"`)
		require.True(t, ok, stdout)
		return after
	}
	require.Equal(t, scores("one 12345 x"), scores("one 9o8 x"), "numbers are one number")
	require.NotEqual(t, scores("one 12345 x"), scores("one x"))
	require.NoError(t, os.WriteFile(lexicon, []byte("no tab\n"), 0o600))
	for path, want := range map[string]string{filepath.Join(dir, "absent.tsv"): "--synonym-encoding", lexicon: "near.tsv: lexicon line 1"} {
		code, _, stderr = call(t, "", append(args, path)...)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, want)
	}
}

func TestStandardInput(t *testing.T) {
	code, stdout, stderr := call(t, "one two\n\nthree\n", "classify", tiny(t), "--json")
	require.Zero(t, code, stderr)
	require.Equal(t, 2, strings.Count(stdout, `"label"`))
	code, _, stderr = call(t, "", "classify", tiny(t))
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "standard input is empty")
}
