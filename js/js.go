// Package js holds the npm package for Go programs that serve it: its sources, the engine as built last (engine/, compressed) and the
// kernels.
package js

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/temper-ml/temper/backend/wasm"
)

//go:generate go run ../cmd/temper-wasm/link -o dist -embed engine

//go:embed src engine/temper.wasm.gz
var content embed.FS

// Files returns the package's files by name: src/… and dist/….
func Files() (map[string][]byte, error) {
	out := map[string][]byte{
		"dist/kernels.wasm": wasm.Plain, "dist/kernels-relaxed.wasm": wasm.Relaxed,
		"dist/kernels-threads.wasm": wasm.PlainThreads, "dist/kernels-relaxed-threads.wasm": wasm.RelaxedThreads,
	}
	list, err := fs.ReadDir(content, "src")
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		b, err := content.ReadFile(path.Join("src", e.Name()))
		if err != nil {
			return nil, err
		}
		out["src/"+e.Name()] = b
	}
	packed, err := content.ReadFile("engine/temper.wasm.gz")
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if out["dist/temper.wasm"], err = io.ReadAll(z); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return out, nil
}
