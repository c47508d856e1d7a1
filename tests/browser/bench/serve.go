package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/temper-ml/temper/core/bundle"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/quant"
	"github.com/temper-ml/temper/js"
)

// peers are installed by npm into the cache folder on first use.
var peers = map[string]string{"onnxruntime-web": "1.30.0", "@huggingface/transformers": "4.3.1", "@wllama/wllama": "3.8.1"}

func install(dir string) (modules string, err error) {
	modules = filepath.Join(dir, "node_modules")
	var missing []string
	for name, version := range peers {
		if _, err := os.Stat(filepath.Join(modules, filepath.FromSlash(name), "package.json")); err != nil {
			missing = append(missing, name+"@"+version)
		}
	}
	if len(missing) == 0 {
		return modules, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	c := exec.Command("npm", append([]string{"install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund"}, missing...)...)
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install %s: %w\n%s", strings.Join(missing, " "), err, out)
	}
	return modules, nil
}

func packed(dir string) ([]byte, error) {
	f, err := checkpoint.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	files, err := bundle.FromFolder(f)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = bundle.Write(&b, files)
	return b.Bytes(), err
}

// site is what the pages load from.
func site(model, onnx, onnxInt8, gemma, modules string) (*httptest.Server, error) {
	pkg, err := js.Files()
	if err != nil {
		return nil, err
	}
	memory := map[string][]byte{"/peak.wasm": peakModule}
	for name, b := range pkg {
		memory["/temper/"+name] = b
	}
	if memory["/m/f32.temper"], err = packed(model); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "temper-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	f, err := checkpoint.OpenFolder(model)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := quant.Int8Folder(context.Background(), f, filepath.Join(tmp, "int8"), quant.Options{}); err != nil {
		return nil, err
	}
	if memory["/m/int8.temper"], err = packed(filepath.Join(tmp, "int8")); err != nil {
		return nil, err
	}
	files := map[string]string{"/peers/minilm/onnx/model.onnx": onnx, "/peers/minilm/onnx/model_quantized.onnx": onnxInt8, "/m/gemma.gguf": gemma}
	folders := map[string]string{"/peers/minilm/": model, "/ort/": filepath.Join(modules, "onnxruntime-web", "dist"),
		"/tf/":     filepath.Join(modules, "@huggingface", "transformers", "dist"),
		"/tfort/":  filepath.Join(modules, "@huggingface", "transformers", "node_modules", "onnxruntime-web", "dist"),
		"/wllama/": filepath.Join(modules, "@wllama", "wllama", "esm")}
	if _, err := os.Stat(folders["/tfort/"]); err != nil {
		folders["/tfort/"] = folders["/ort/"]
	}
	types := map[string]string{".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Embedder-Policy", "require-corp")
		if t, ok := types[filepath.Ext(r.URL.Path)]; ok {
			h.Set("Content-Type", t)
		}
		if b, ok := memory[r.URL.Path]; ok {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			return
		}
		if p, ok := files[r.URL.Path]; ok {
			http.ServeFile(w, r, p)
			return
		}
		if r.URL.Path == "/" {
			h.Set("Content-Type", "text/html")
			fmt.Fprint(w, "<!doctype html><title>bench</title>")
			return
		}
		for prefix, dir := range folders {
			if rest, ok := strings.CutPrefix(r.URL.Path, prefix); ok {
				http.ServeFile(w, r, filepath.Join(dir, filepath.FromSlash(rest)))
				return
			}
		}
		http.NotFound(w, r)
	})), nil
}
