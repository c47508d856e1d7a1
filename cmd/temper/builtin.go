package main

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/temper-ml/temper/core/checkpoint"
)

// The built-in encoder, trained by temper itself: see base/RECIPE.md.
//
//go:embed base
var baseFiles embed.FS

// builtinBase is its name where a MODEL or BASE is asked for.
const builtinBase = "temper-mini"

// named reports whether ref is a built-in model's name.
func (a *app) named(ref string) bool { return ref == builtinBase }

// builtin opens a built-in model.
func (a *app) builtin(ref string) (*checkpoint.Folder, error) {
	if !a.named(ref) {
		return nil, fmt.Errorf("%s: no such built-in model; there is %s", ref, builtinBase)
	}
	files := map[string][]byte{}
	err := fs.WalkDir(baseFiles, "base", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".md") {
			return err
		}
		b, err := baseFiles.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, "base/")
		if plain, ok := strings.CutSuffix(name, ".gz"); ok {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				return err
			}
			if b, err = io.ReadAll(z); err != nil {
				return err
			}
			name = plain
		}
		files[name] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return checkpoint.NewFolder(ref, files)
}
