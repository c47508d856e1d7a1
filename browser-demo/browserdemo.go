// Package browserdemo is the page that shows temper: a static site over the npm package, and the handler that serves it with the headers
// that threads need.
package browserdemo

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/temper-ml/temper/js"
)

//go:embed site
var site embed.FS

// Model says where a model of the page is; URL is relative to the page.
type Model struct {
	URL string `json:"url"`
	// Story is set for a decoder that tells stories and cannot answer.
	Story bool `json:"story,omitempty"`
}

// Models are what the page shows: two classifiers side by side, and optionally an encoder to teach on and a decoder to talk to. Each is a
// bundle (see core/bundle) or a GGUF file.
type Models struct {
	Ordinary, Hardened, Encoder, Decoder []byte
	// DecoderName ends in .gguf or .temper.
	DecoderName string
	// Story says that the decoder goes on with a text and cannot answer: the page lets it tell stories.
	Story bool
	// Samples are messages to begin with, the first one shown at once; none leaves the page its own.
	Samples []Sample
}

// Sample is a message that is worth attacking, and by which recipe.
type Sample struct {
	Text   string `json:"text"`
	Recipe string `json:"recipe"`
}

// files returns all files of the page by name.
func files(m Models) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := fs.WalkDir(site, "site", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := site.ReadFile(p)
		out[strings.TrimPrefix(p, "site/")] = b
		return err
	})
	if err != nil {
		return nil, err
	}
	pkg, err := js.Files()
	if err != nil {
		return nil, err
	}
	for name, b := range pkg {
		out["temper/"+name] = b
	}
	list := map[string]any{}
	add := func(role, name string, b []byte) {
		if b != nil {
			list[role] = Model{URL: "models/" + name, Story: role == "decoder" && m.Story}
			out["models/"+name] = b
		}
	}
	if m.Ordinary == nil || m.Hardened == nil {
		return nil, errors.New("the page needs an ordinary and a hardened classifier")
	}
	add("ordinary", "ordinary.temper", m.Ordinary)
	add("hardened", "hardened.temper", m.Hardened)
	add("encoder", "encoder.temper", m.Encoder)
	name := m.DecoderName
	if name == "" {
		name = "decoder.temper"
	}
	add("decoder", path.Base(name), m.Decoder)
	if len(m.Samples) > 0 {
		list["samples"] = m.Samples
	}
	b, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	out["models/models.json"] = b
	return out, nil
}

var types = map[string]string{".wasm": "application/wasm", ".js": "text/javascript; charset=utf-8", ".webmanifest": "application/manifest+json", ".svg": "image/svg+xml"}

// Handler serves the page at /. Every answer carries the headers of cross-origin isolation, so that the engine can use threads.
func Handler(m Models) (http.Handler, error) {
	all, err := files(m)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Embedder-Policy", "require-corp")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src 'self'; connect-src 'self'")
		h.Set("Cache-Control", "no-cache")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		if name == "" {
			name = "index.html"
		}
		b, ok := all[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		ct := types[path.Ext(name)]
		if ct == "" {
			ct = mime.TypeByExtension(path.Ext(name))
		}
		if ct == "" {
			ct = "application/octet-stream"
		}
		h.Set("Content-Type", ct)
		h.Set("ETag", fmt.Sprintf("\"%x-%x\"", began.UnixNano(), len(b)))
		http.ServeContent(w, r, "", began, bytes.NewReader(b))
	}), nil
}

// WriteStatic writes the page for any static host. Hosts that read a _headers file send the isolation headers; on others the page's service
// worker adds them.
func WriteStatic(dir string, m Models) error {
	all, err := files(m)
	if err != nil {
		return err
	}
	all["_headers"] = []byte("/*\n  Cross-Origin-Opener-Policy: same-origin\n  Cross-Origin-Embedder-Policy: require-corp\n")
	all[".nojekyll"] = nil
	for name, b := range all {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
