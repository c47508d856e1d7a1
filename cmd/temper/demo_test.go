package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	browserdemo "github.com/temper-ml/temper/browser-demo"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/core/harden"
)

// TestSamples: the page begins with messages that fall before hardening and stand after, spam first.
func TestSamples(t *testing.T) {
	labels := []string{builtin.Ham, builtin.Spam}
	report := func(results ...attack.Result) map[string]*attack.Report {
		return map[string]*attack.Report{demoRecipes[0]: {Labels: labels, Results: results}}
	}
	result := func(row int, text string, label int, status attack.Status, queries int) attack.Result {
		return attack.Result{Row: row, Text: text, Label: label, Status: status, Queries: queries}
	}
	r := &demoResult{
		Before: &harden.Standing{Reports: report(result(0, "fine one", 0, attack.Won, 10), result(1, "a longer spam", 1, attack.Won, 20), result(2, "spam", 1, attack.Won, 30),
			result(3, "falls twice", 1, attack.Won, 5), result(4, "too many tries", 1, attack.Won, 500), result(5, "stands", 1, attack.Held, 9))},
		After: &harden.Standing{Reports: report(result(0, "fine one", 0, attack.Held, 50), result(1, "a longer spam", 1, attack.Held, 50), result(2, "spam", 1, attack.Held, 50),
			result(3, "falls twice", 1, attack.Won, 50), result(4, "too many tries", 1, attack.Held, 50), result(5, "stands", 1, attack.Held, 50))},
	}
	name := demoRecipes[0]
	require.Equal(t, []browserdemo.Sample{{Text: "spam", Recipe: name}, {Text: "a longer spam", Recipe: name}, {Text: "fine one", Recipe: name}}, samples(r))
	require.Empty(t, samples(&demoResult{Before: &harden.Standing{}, After: &harden.Standing{}}))
}

// TestPageModels packs what the page loads, from built-in and other decoders, and writes it for a static host.
func TestPageModels(t *testing.T) {
	a := &app{}
	dir := t.TempDir()
	for _, name := range []string{demoOrdinary, demoHardened} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, name), os.DirFS("stories"))) // any model will do here
	}
	m, err := a.pageModels(dir, builtinStories)
	require.NoError(t, err)
	require.True(t, m.Story)
	require.NotEmpty(t, m.Encoder)
	gguf := filepath.Join(dir, "some.gguf")
	require.NoError(t, os.WriteFile(gguf, []byte("GGUF"), 0o644))
	other, err := a.pageModels(dir, gguf)
	require.NoError(t, err)
	require.False(t, other.Story)
	require.Equal(t, "decoder.gguf", other.DecoderName)
	_, err = a.pageModels(dir, filepath.Join(dir, "none"))
	require.Error(t, err)

	m.Samples = []browserdemo.Sample{{Text: "a", Recipe: "spacing"}}
	site := filepath.Join(dir, "site")
	require.NoError(t, browserdemo.WriteStatic(site, m))
	for _, name := range []string{"index.html", "_headers", "models/decoder.temper", "models/encoder.temper", "temper/dist/temper.wasm", "temper/src/index.js"} {
		require.FileExists(t, filepath.Join(site, filepath.FromSlash(name)))
	}
	list, err := os.ReadFile(filepath.Join(site, "models", "models.json"))
	require.NoError(t, err)
	require.JSONEq(t, `{"ordinary":{"url":"models/ordinary.temper"},"hardened":{"url":"models/hardened.temper"},"encoder":{"url":"models/encoder.temper"},
		"decoder":{"url":"models/decoder.temper","story":true},"samples":[{"text":"a","recipe":"spacing"}]}`, string(list))
}
