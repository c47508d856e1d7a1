// Link builds the browser's engine: it compiles cmd/temper-wasm, turns its memory into an import and writes it to the npm package with the
// kernels beside it.
//
//	go run ./cmd/temper-wasm/link [-o js/dist]
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/temper-ml/temper/backend/wasm"
	"github.com/temper-ml/temper/backend/wasm/link"
)

func main() {
	out := flag.String("o", "js/dist", "folder to write to")
	embed := flag.String("embed", "js/engine", "folder for the compressed engine that Go programs embed; empty: none")
	flag.Parse()
	if err := run(*out, *embed); err != nil {
		fmt.Fprintln(os.Stderr, "link:", err)
		os.Exit(1)
	}
}

func run(dir, embed string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "temper-wasm")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	raw := filepath.Join(tmp, "engine.wasm")
	// Without inlining the engine is a tenth smaller on the wire; what has to be fast are the kernels.
	c := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-w", "-gcflags=all=-l", "-o", raw, "github.com/temper-ml/temper/cmd/temper-wasm")
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("build the engine: %w", err)
	}
	module, err := os.ReadFile(raw)
	if err != nil {
		return err
	}
	if module, err = link.Trim(module); err != nil {
		return err
	}
	linked, mem, err := link.ImportMemory(module, link.Memory{Max: 65536})
	if err != nil {
		return err
	}
	files := map[string][]byte{"temper.wasm": linked, "kernels.wasm": wasm.Plain, "kernels-relaxed.wasm": wasm.Relaxed,
		"kernels-threads.wasm": wasm.PlainThreads, "kernels-relaxed-threads.wasm": wasm.RelaxedThreads,
		"memory.json": fmt.Appendf(nil, "{\"pages\":%d}\n", mem.Min)}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	if embed != "" {
		var z bytes.Buffer
		w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := w.Write(linked); err != nil {
			return err
		}
		if err := errors.Join(w.Close(), os.MkdirAll(embed, 0o755), os.WriteFile(filepath.Join(embed, "temper.wasm.gz"), z.Bytes(), 0o644)); err != nil {
			return err
		}
	}
	fmt.Printf("%s: engine of %d bytes, %d pages of memory at start\n", dir, len(linked), mem.Min)
	return nil
}
