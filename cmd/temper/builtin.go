package main

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/generate"
)

// The built-in models, trained by temper itself: see the RECIPE.md of each.
//
//go:embed base stories
var builtinFiles embed.FS

// Names of the built-in models where a MODEL or BASE is asked for.
const (
	builtinBase    = "temper-mini"    // an encoder
	builtinStories = "temper-stories" // a decoder
)

// builtins maps names to folders.
var builtins = map[string]string{builtinBase: "base", builtinStories: "stories"}

// named reports whether ref is a built-in model's name.
func (a *app) named(ref string) bool { return builtins[ref] != "" }

// builtin opens a built-in model.
func (a *app) builtin(ref string) (*checkpoint.Folder, error) {
	dir := builtins[ref]
	if dir == "" {
		return nil, fmt.Errorf("%s: no such built-in model; there are %s", ref, strings.Join(slices.Sorted(maps.Keys(builtins)), ", "))
	}
	files := map[string][]byte{}
	err := fs.WalkDir(builtinFiles, dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".md") || strings.HasSuffix(path, ".svg") {
			return err
		}
		b, err := builtinFiles.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
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

// decoderPath finds a decoder for openDecoder: a built-in one's name stays as it is.
func (a *app) decoderPath(cmd *cobra.Command, ref string) (string, error) {
	if a.named(ref) {
		return ref, nil
	}
	return a.modelPath(cmd, ref)
}

// openDecoder opens what decoderPath found.
func (a *app) openDecoder(path string, o generate.OpenOptions) (*generate.Decoder, error) {
	if !a.named(path) {
		return generate.Open(path, o)
	}
	f, err := a.builtin(path)
	if err != nil {
		return nil, err
	}
	d, err := generate.FromFolder(f)
	if err != nil {
		return nil, err
	}
	for _, spec := range o.Adapters {
		if err := d.AddAdapter(spec); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// writes tells whether path, found by decoderPath, holds a decoder.
func (a *app) writes(path string) (bool, error) {
	if a.named(path) {
		return path == builtinStories, nil
	}
	return isDecoder(path)
}
