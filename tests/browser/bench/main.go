// Bench compares temper in the page with onnxruntime-web, in one headless Chromium, on the same model and shapes, alternating:
//
//	cd tests/browser && go run ./bench -onnx FILE [-threads 1] [-model FOLDER] [-json]
//
// FILE is the model's ONNX export (tests/bench makes one). onnxruntime-web is installed by npm into the cache folder on first use.
// temper's times include tokenizing and pooling, onnxruntime-web's are the network alone.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/temper-ml/temper/core/bundle"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/js"
)

const script = `(async () => { try {
const {load} = await import('/temper/src/index.js');
const ort = await import('/ort/ort.wasm.min.mjs');
const threads = %d, shapes = [[1, 16], [1, 128], [8, 64]], rounds = %d;
ort.env.wasm.wasmPaths = '/ort/';
ort.env.wasm.numThreads = threads;
const m = await load('/model.temper', {threads});
const session = await ort.InferenceSession.create('/model.onnx', {executionProviders: ['wasm']});
const out = [];
for (const [batch, seq] of shapes) {
  const texts = Array(batch).fill(Array(seq - 2).fill('word').join(' '));
  const ids = (await m.tokenize(texts[0])).ids;
  if (ids.length !== seq) throw new Error('expected ' + seq + ' tokens, got ' + ids.length);
  const feeds = {};
  for (const name of session.inputNames) {
    const v = /mask/.test(name) ? new BigInt64Array(batch * seq).fill(1n) : /type/.test(name) ? new BigInt64Array(batch * seq) : BigInt64Array.from({length: batch * seq}, (_, i) => BigInt(ids[i %% seq]));
    feeds[name] = new ort.Tensor('int64', v, [batch, seq]);
  }
  const runs = {temper: () => m.embed(texts), ort: () => session.run(feeds)}, times = {temper: [], ort: []};
  for (let r = 0; r < rounds + 3; r++) for (const who of Object.keys(runs)) {
    const t = performance.now();
    await runs[who]();
    if (r >= 3) times[who].push(performance.now() - t);
  }
  const stat = (v) => { v.sort((a, b) => a - b); return {min: v[0], median: v[v.length >> 1]}; };
  out.push({shape: batch + 'x' + seq, temper: stat(times.temper), ort: stat(times.ort)});
}
return JSON.stringify({rows: out, level: m.level, threads: m.threads});
} catch (e) { return JSON.stringify({error: String(e.stack ?? e)}) } })()`

func main() {
	threads := flag.Int("threads", 1, "threads of both")
	rounds := flag.Int("rounds", 15, "timed rounds")
	onnx := flag.String("onnx", "", "ONNX export of the model")
	model := flag.String("model", os.Getenv("TEMPER_MINILM"), "Hugging Face folder of the model")
	browser := flag.String("chromium", "chromium", "browser to use")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if err := run(*threads, *rounds, *onnx, *model, *browser, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// peer installs onnxruntime-web into the cache folder and returns its dist folder.
func peer() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "temper-test", "browser-peers")
	dist := filepath.Join(dir, "node_modules", "onnxruntime-web", "dist")
	if _, err := os.Stat(filepath.Join(dist, "ort.wasm.min.mjs")); err == nil {
		return dist, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	c := exec.Command("npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "onnxruntime-web")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install onnxruntime-web: %w\n%s", err, out)
	}
	return dist, nil
}

func run(threads, rounds int, onnx, model, browser string, asJSON bool) error {
	if onnx == "" || model == "" {
		return fmt.Errorf("-onnx FILE and -model FOLDER (or TEMPER_MINILM) are needed")
	}
	dist, err := peer()
	if err != nil {
		return err
	}
	f, err := checkpoint.OpenFolder(model)
	if err != nil {
		return err
	}
	defer f.Close()
	files, err := bundle.FromFolder(f)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	if err := bundle.Write(&packed, files); err != nil {
		return err
	}
	pkg, err := js.Files()
	if err != nil {
		return err
	}
	peerFiles := http.StripPrefix("/ort/", http.FileServer(http.Dir(dist)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
		name, ours := strings.CutPrefix(r.URL.Path, "/temper/")
		switch {
		case r.URL.Path == "/":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<!doctype html><title>bench</title>")
		case r.URL.Path == "/model.temper":
			http.ServeContent(w, r, "model.temper", time.Time{}, bytes.NewReader(packed.Bytes()))
		case r.URL.Path == "/model.onnx":
			http.ServeFile(w, r, onnx)
		case strings.HasSuffix(r.URL.Path, ".mjs") && !ours:
			w.Header().Set("Content-Type", "text/javascript")
			peerFiles.ServeHTTP(w, r)
		case !ours:
			peerFiles.ServeHTTP(w, r)
		default:
			http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(pkg[name]))
		}
	}))
	defer s.Close()
	profile, err := os.MkdirTemp("", "temper-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(profile)
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(profile))...)
	defer stop()
	ctx, end := chromedp.NewContext(alloc, chromedp.WithErrorf(func(string, ...any) {}))
	defer end()
	var raw string
	err = chromedp.Run(ctx, chromedp.Navigate(s.URL), chromedp.Evaluate(fmt.Sprintf(script, threads, rounds), &raw,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if err != nil {
		return err
	}
	if asJSON {
		fmt.Println(raw)
		return nil
	}
	type stat struct{ Min, Median float64 }
	var got struct {
		Error   string
		Level   string
		Threads int
		Rows    []struct {
			Shape       string
			Temper, Ort stat
		}
	}
	if err := json.Unmarshal([]byte(raw), &got); err != nil {
		return err
	}
	if got.Error != "" {
		return fmt.Errorf("in the page: %s", got.Error)
	}
	fmt.Printf("temper %s, %d threads, against onnxruntime-web on the same threads; ms best (median); ratio of medians, of best\n", got.Level, got.Threads)
	for _, r := range got.Rows {
		fmt.Printf("%-7s temper %8.2f (%8.2f)   onnxruntime-web %8.2f (%8.2f)   ratio %.2f  %.2f\n", r.Shape, r.Temper.Min, r.Temper.Median, r.Ort.Min, r.Ort.Median,
			r.Ort.Median/r.Temper.Median, r.Ort.Min/r.Temper.Min)
	}
	return nil
}
