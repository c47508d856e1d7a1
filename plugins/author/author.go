// Package author helps people who write plugins: it makes a new one from a template, builds it, checks it against the contract and
// measures it.
package author

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed all:templates
var templates embed.FS

// Languages are what New knows.
var Languages = []string{"go", "rust", "c", "assemblyscript"}

var nameRule = regexp.MustCompile(`^[a-z][a-z0-9-]{0,40}$`)

// New makes the folder dir with a plugin in lang that builds and passes Check. Its name is the folder's base name: small letters, digits
// and hyphens. It returns the files written. An existing folder must be empty.
func New(dir, lang string) ([]string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("plugin new: %w", err)
	}
	name := filepath.Base(abs)
	if !nameRule.MatchString(name) {
		return nil, fmt.Errorf("plugin new: the folder's name %q becomes the plugin's: expected small letters, digits and hyphens, a letter first", name)
	}
	if !contains(Languages, lang) {
		return nil, fmt.Errorf("plugin new: language %q, expected one of %s", lang, strings.Join(Languages, ", "))
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("plugin new: %s is not empty", dir)
	}
	var written []string
	root := "templates/" + lang
	err = fs.WalkDir(templates, root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := templates.ReadFile(path)
		if err != nil {
			return err
		}
		to := strings.TrimPrefix(path, root+"/")
		if t, ok := strings.CutSuffix(to, ".tmpl"); ok {
			to = t
			b = bytes.ReplaceAll(b, []byte("NAME"), []byte(name))
			b = bytes.ReplaceAll(b, []byte("TEMPER_"+name), []byte("TEMPER_NAME"))
		}
		to = strings.TrimSuffix(to, ".copy")
		switch to {
		case "plugin.c":
			to = name + ".c"
		case "plugin.ts":
			to = name + ".ts"
		}
		to = filepath.Join(dir, filepath.FromSlash(to))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		written = append(written, to)
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil {
		return written, fmt.Errorf("plugin new: %w", err)
	}
	return written, nil
}

// Language tells what a plugin's folder is written in.
func Language(dir string) (string, error) {
	switch {
	case exists(dir, "go.mod"):
		return "go", nil
	case exists(dir, "Cargo.toml"):
		return "rust", nil
	}
	if m, _ := filepath.Glob(filepath.Join(dir, "*.c")); len(m) == 1 {
		return "c", nil
	}
	if m, _ := filepath.Glob(filepath.Join(dir, "*.ts")); len(m) == 1 {
		return "assemblyscript", nil
	}
	return "", fmt.Errorf("plugin build: %s holds neither go.mod, nor Cargo.toml, nor one .c or .ts file", dir)
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// ErrNoCompiler is what Build gets where the language's compiler is not installed; the message says what to install.
var ErrNoCompiler = errors.New("compiler not found")

// Build compiles the plugin in dir to out (DIR/NAME.wasm when empty) with the language's own tools, and returns the file's path.
func Build(ctx context.Context, dir, out string) (string, error) {
	lang, err := Language(dir)
	if err != nil {
		return "", err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("plugin build: %w", err)
	}
	if out == "" {
		out = filepath.Join(abs, filepath.Base(abs)+".wasm")
	}
	if out, err = filepath.Abs(out); err != nil {
		return "", fmt.Errorf("plugin build: %w", err)
	}
	switch lang {
	case "go":
		err = run(ctx, abs, []string{"GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=-mod=mod", "GOWORK=off"}, "install Go 1.24 or newer",
			[]string{"go"}, "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, ".")
	case "c":
		err = buildC(ctx, abs, out)
	case "rust":
		err = buildRust(ctx, abs, out)
	case "assemblyscript":
		var files []string
		if files, err = filepath.Glob(filepath.Join(abs, "*.ts")); err == nil {
			err = run(ctx, abs, nil, "install Node.js, then: npm install assemblyscript", []string{"asc", "npx"}, ascArguments(files[0], out)...)
		}
	}
	if err != nil {
		return "", fmt.Errorf("plugin build: %w", err)
	}
	return out, nil
}

func ascArguments(file, out string) []string {
	args := []string{file, "-o", out, "--optimizeLevel", "3", "--shrinkLevel", "1", "--runtime", "stub", "--exportStart", "_initialize"}
	if _, err := exec.LookPath("asc"); err != nil {
		args = append([]string{"--yes", "--package", "assemblyscript", "asc"}, args...)
	}
	return args
}

func buildC(ctx context.Context, dir, out string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.c"))
	if err != nil {
		return err
	}
	args := []string{
		"--target=wasm32", "-O2", "-Wall", "-Wno-unused-function", "-mbulk-memory", "-nostdlib", "-ffreestanding", "-I", dir,
		"-Wl,--no-entry", "-Wl,--strip-all", "-o", out, files[0],
	}
	// Inside temper's own tree the header is not copied beside the source.
	if sdk := filepath.Join(dir, "..", "..", "sdk", "c"); exists(sdk, "temper.h") && !exists(dir, "temper.h") {
		args = append([]string{"-I", sdk}, args...)
	}
	return run(ctx, dir, nil, "install clang and lld (Debian: clang-19 lld-19)", []string{"clang", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17"}, args...)
}

func buildRust(ctx context.Context, dir, out string) error {
	target, err := os.MkdirTemp("", "temper-plugin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(target)
	err = run(ctx, dir, []string{"CARGO_TARGET_DIR=" + target}, "install Rust, then: rustup target add wasm32-unknown-unknown", []string{"cargo"},
		"build", "--release", "--quiet", "--target", "wasm32-unknown-unknown")
	if err != nil {
		return err
	}
	made, err := filepath.Glob(filepath.Join(target, "wasm32-unknown-unknown", "release", "*.wasm"))
	if err != nil || len(made) != 1 {
		return fmt.Errorf("cargo made %d .wasm files, expected 1 (is crate-type cdylib?)", len(made))
	}
	b, err := os.ReadFile(made[0])
	if err != nil {
		return err
	}
	return os.WriteFile(out, b, 0o644)
}

// run starts the first of the tools that is installed. The output of a failure is part of the error.
func run(ctx context.Context, dir string, env []string, advice string, tools []string, args ...string) error {
	for _, tool := range tools {
		path, err := exec.LookPath(tool)
		if err != nil {
			continue
		}
		c := exec.CommandContext(ctx, path, args...)
		c.Dir = dir
		c.Env = append(os.Environ(), env...)
		b, err := c.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", tool, err, bytes.TrimSpace(b))
		}
		return nil
	}
	return fmt.Errorf("%w: %s: %s", ErrNoCompiler, tools[0], advice)
}
