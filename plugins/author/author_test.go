package author_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/plugins/author"
	"github.com/temper-ml/temper/plugins/host"
)

func check(t *testing.T, file string) {
	t.Helper()
	rep, err := author.Check(t.Context(), file, host.Options{})
	require.NoError(t, err)
	for _, f := range rep.Findings {
		assert.True(t, f.OK || f.Warning, "%s: %s", f.Name, f.Detail)
	}
	assert.True(t, rep.OK())
	assert.Positive(t, rep.Candidates)
}

// A fresh plugin of every language builds with the compiler that is installed and passes the suite.
func TestNewBuildCheck(t *testing.T) {
	for _, lang := range author.Languages {
		t.Run(lang, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "my-plugin")
			files, err := author.New(dir, lang)
			require.NoError(t, err)
			require.NotEmpty(t, files)
			if lang == "assemblyscript" && os.Getenv("TEMPER_ASC") == "" {
				t.Skip("set TEMPER_ASC=1 to build AssemblyScript (npx fetches the compiler)")
			}
			file, err := author.Build(t.Context(), dir, "")
			if errors.Is(err, author.ErrNoCompiler) {
				t.Skip(err)
			}
			if err != nil && strings.Contains(err.Error(), "rustup target add") {
				t.Skip("the Rust target wasm32-unknown-unknown is not installed")
			}
			require.NoError(t, err)
			assert.Equal(t, filepath.Join(dir, "my-plugin.wasm"), file)
			check(t, file)
		})
	}
}

func TestExamplesPassTheSuite(t *testing.T) {
	files, err := filepath.Glob("../examples/*/*.wasm")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 7)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) { check(t, f) })
	}
}

// The example in Go is too large to keep built; it also asks the model back.
func TestGuidedExample(t *testing.T) {
	file, err := author.Build(t.Context(), "../examples/guided", filepath.Join(t.TempDir(), "guided.wasm"))
	require.NoError(t, err)
	check(t, file)
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := author.New(filepath.Join(dir, "x"), "cobol")
	require.ErrorContains(t, err, "assemblyscript")
	_, err = author.New(filepath.Join(dir, "Bad Name"), "c")
	require.ErrorContains(t, err, "small letters")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "there"), nil, 0o600))
	require.NoError(t, os.Rename(dir, dir+"-x"))
	_, err = author.Build(t.Context(), dir+"-x", "")
	require.ErrorContains(t, err, "neither")
}

func TestBuildErrorsShowTheCompiler(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broken")
	_, err := author.New(dir, "go")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\nfunc main() { nonsense }\n"), 0o600))
	_, err = author.Build(t.Context(), dir, "")
	require.ErrorContains(t, err, "nonsense")
}

func TestCheckFindsFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "not.wasm")
	require.NoError(t, os.WriteFile(file, []byte("hello"), 0o600))
	rep, err := author.Check(t.Context(), file, host.Options{})
	require.NoError(t, err)
	assert.False(t, rep.OK())
	_, err = author.Check(t.Context(), file+".gone", host.Options{})
	require.Error(t, err)
}

func TestBench(t *testing.T) {
	rep, err := author.Bench(t.Context(), "../examples/homoglyphs/homoglyphs.wasm", host.Options{}, 20*time.Millisecond)
	require.NoError(t, err)
	assert.Positive(t, rep.TextsPerSecond)
	assert.Positive(t, rep.CandidatesPerSecond)
	t.Logf("%+v", rep)
}

// The templates carry copies of the guest SDKs, because those in Go are a module of their own, which cannot be embedded.
func TestTemplatesHoldTheSDKs(t *testing.T) {
	for to, from := range map[string]string{
		"c/temper.h.copy": "c/temper.h", "go/temper/temper.go.copy": "go/temper.go", "go/temper/host_wasip1.go.copy": "go/host_wasip1.go",
		"go/temper/host_other.go.copy": "go/host_other.go", "rust/temper-plugin/src/lib.rs.copy": "rust/src/lib.rs",
		"rust/temper-plugin/Cargo.toml.copy": "rust/Cargo.toml", "assemblyscript/temper/index.ts.copy": "assemblyscript/assembly/index.ts",
	} {
		want, err := os.ReadFile(filepath.Join("..", "sdk", from))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join("templates", to))
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got), "copy plugins/sdk/%s to plugins/author/templates/%s", from, to)
	}
}
