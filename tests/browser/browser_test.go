// Package browser drives a real headless Chromium: the engine in the page must do what it does natively, and the demo page must work.
package browser

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
	browserdemo "github.com/temper-ml/temper/browser-demo"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/builtin"
	"github.com/temper-ml/temper/core/bundle"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/train"
	"github.com/temper-ml/temper/tests/fixture"
)

func chromium(t testing.TB) string {
	for _, name := range []string{os.Getenv("TEMPER_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if name == "" {
			continue
		}
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	t.Skip("no Chromium found (set TEMPER_CHROMIUM)")
	return ""
}

// models are the bundles of the tests: MiniLM itself, and two classifiers of the built-in messages made from it.
func models(t testing.TB) map[string][]byte {
	dir := fixture.MiniLM(t)
	once.Do(func() {
		k, err := native.New(native.Options{})
		require.NoError(t, err)
		defer k.Close()
		made = map[string][]byte{"minilm.temper": pack(t, dir)}
		set := messages(t)
		made["ordinary.temper"] = tuned(t, k, dir, set)
		// Hardened: the same messages and disguised copies of them.
		noisy, err := data.Concat(set, disguised(t, set, 1), disguised(t, set, 1000))
		require.NoError(t, err)
		made["hardened.temper"] = tuned(t, k, dir, noisy)
	})
	require.NotNil(t, made["hardened.temper"], "an earlier test failed to make the models")
	return made
}

var (
	once sync.Once
	made map[string][]byte
)

func pack(t testing.TB, dir string) []byte {
	f, err := checkpoint.OpenFolder(dir)
	require.NoError(t, err)
	defer f.Close()
	files, err := bundle.FromFolder(f)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, bundle.Write(&b, files))
	return b.Bytes()
}

// stories is the built-in decoder.
func stories(t testing.TB) []byte {
	dir := filepath.Join(fixture.Root(), "cmd", "temper", "stories")
	files := map[string][]byte{}
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer_config.json", "tokenizer.json.gz"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		if plain, ok := strings.CutSuffix(name, ".gz"); ok {
			z, err := gzip.NewReader(bytes.NewReader(b))
			require.NoError(t, err)
			b, err = io.ReadAll(z)
			require.NoError(t, err)
			name = plain
		}
		files[name] = b
	}
	var b bytes.Buffer
	require.NoError(t, bundle.Write(&b, files))
	return b.Bytes()
}

func messages(t testing.TB) *data.Dataset {
	set := &data.Dataset{Name: "messages", LabelNames: []string{builtin.Ham, builtin.Spam}}
	for i, m := range builtin.Messages().Train {
		label := 0
		if m.Label == builtin.Spam {
			label = 1
		}
		set.Texts, set.Labels, set.Rows = append(set.Texts, m.Text), append(set.Labels, label), append(set.Rows, i)
	}
	set, err := set.Shots(60, 1)
	require.NoError(t, err)
	return set
}

// disguised copies a set with random misspellings.
func disguised(t testing.TB, set *data.Dataset, seed uint64) *data.Dataset {
	var reqs []attack.Request
	for i, text := range set.Texts {
		x := attack.NewText(text)
		q := attack.Request{Text: text, Words: x.Spans, Max: 1, Labels: set.LabelNames, Label: set.Labels[i], Seed: seed + uint64(i)}
		for w := range x.Spans {
			q.May = append(q.May, w)
		}
		reqs = append(reqs, q)
	}
	got, err := harden.NewCharNoise().Perturb(t.Context(), reqs, nil)
	require.NoError(t, err)
	out := *set
	out.Texts = nil
	for i, c := range got {
		if len(c) == 0 {
			c = []string{set.Texts[i]}
		}
		out.Texts = append(out.Texts, c[0])
	}
	return &out
}

func tuned(t testing.TB, k backend.Kernels, base string, set *data.Dataset) []byte {
	dir := t.TempDir()
	res, err := train.Run(t.Context(), train.Options{Base: base, Out: dir, Kernels: k, Train: set, Method: "head", SaveEvery: -1})
	require.NoError(t, err)
	require.NoError(t, res.Bundle.Close())
	return pack(t, dir)
}

// site serves the demo and, under /test/, the models and an empty page. Without isolation the headers are left out.
func site(t testing.TB, isolated bool) *httptest.Server {
	m := models(t)
	h, err := browserdemo.Handler(browserdemo.Models{Ordinary: m["ordinary.temper"], Hardened: m["hardened.temper"], Decoder: stories(t), Story: true,
		Samples: []browserdemo.Sample{{Text: "You have won a prize, claim your money now", Recipe: "bad-characters"}}})
	require.NoError(t, err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, test := strings.CutPrefix(r.URL.Path, "/test/")
		if !test {
			if !isolated {
				w = plain{w}
			}
			h.ServeHTTP(w, r)
			return
		}
		if isolated {
			w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
			w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
		}
		switch {
		case name == "":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<!doctype html><title>test</title>")
		case name == "corrupt.temper":
			b := bytes.Clone(m["minilm.temper"])
			b[len(b)-1000] ^= 1
			_, _ = w.Write(b)
		case name == "slow.temper":
			b := m["minilm.temper"]
			for len(b) > 0 && r.Context().Err() == nil {
				n := min(1<<20, len(b))
				_, _ = w.Write(b[:n])
				b = b[n:]
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		case m[name] != nil:
			w.Header().Set("ETag", `"1"`)
			http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(m[name]))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// plain drops the isolation headers.
type plain struct{ http.ResponseWriter }

func (p plain) WriteHeader(code int) {
	p.Header().Del("Cross-Origin-Opener-Policy")
	p.Header().Del("Cross-Origin-Embedder-Policy")
	p.ResponseWriter.WriteHeader(code)
}

// profile is a folder for one browser. The browser's helper processes may write to it for a moment after the browser
// itself has gone, so that it is removed with patience, and what stays is no fault of temper.
func profile(t testing.TB) string {
	dir, err := os.MkdirTemp("", "temper-browser-")
	require.NoError(t, err)
	t.Cleanup(func() {
		for range 50 {
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("a browser's profile stays in %s", dir)
	})
	return dir
}

// tab opens a fresh browser.
func tab(t testing.TB) context.Context {
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.WSURLReadTimeout(time.Minute), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.UserDataDir(profile(t)), chromedp.WindowSize(1200, 1400))
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, end := chromedp.NewContext(alloc, chromedp.WithErrorf(func(string, ...any) {}))
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	chromedp.ListenTarget(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Logf("page: %s", ev.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			for _, a := range ev.Args {
				t.Logf("console: %s", a.Value)
			}
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			shoot(t, ctx)
		}
		cancel()
		end()
		stop()
	})
	return ctx
}

func shoot(t testing.TB, ctx context.Context) {
	var png []byte
	if err := chromedp.Run(ctx, chromedp.FullScreenshot(&png, 100)); err != nil {
		t.Logf("no screenshot: %v", err)
		return
	}
	dir := filepath.Join(fixture.Root(), "tests", "out")
	_ = os.MkdirAll(dir, 0o755)
	p := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".png")
	if err := os.WriteFile(p, png, 0o644); err == nil {
		t.Logf("screenshot: %s", p)
	}
}

// run runs the body of an async function in the page and decodes its result.
func run(t testing.TB, ctx context.Context, out any, body string) {
	t.Helper()
	var raw string
	err := chromedp.Run(ctx, chromedp.Evaluate(`(async () => { try { return JSON.stringify({ok: await (async () => {`+body+`})() ?? null}) } catch (e) { return JSON.stringify({error: String(e?.stack ?? e)}) } })()`, &raw,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	require.NoError(t, err)
	var r struct {
		OK    json.RawMessage
		Error string
	}
	require.NoError(t, json.Unmarshal([]byte(raw), &r))
	require.Empty(t, r.Error)
	if out != nil {
		require.NoError(t, json.Unmarshal(r.OK, out))
	}
}

var texts = []string{"hello world", "The quick brown fox jumps over the lazy dog, twice.", "Ünïcödé und 中文 text 🎉", strings.Repeat("a long text of many words ", 60)}

func TestEmbeddingsEqualNative(t *testing.T) {
	chromium(t)
	k, err := native.New(native.Options{})
	require.NoError(t, err)
	defer k.Close()
	p, err := pipeline.Open(fixture.MiniLM(t), k, pipeline.Options{})
	require.NoError(t, err)
	defer p.Close()
	want, err := p.Embed(t.Context(), texts)
	require.NoError(t, err)

	s := site(t, true)
	for _, c := range []struct {
		name, options string
		threads       int
	}{{"one thread, plain SIMD", "{threads: 1, relaxed: false}", 1}, {"one thread, relaxed SIMD", "{threads: 1, relaxed: true}", 1}, {"two threads", "{threads: 2}", 2}} {
		t.Run(c.name, func(t *testing.T) {
			ctx := tab(t)
			require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(s.URL+"/test/")))
			js, err := json.Marshal(texts)
			require.NoError(t, err)
			var got struct {
				Rows    [][]float64
				Threads int
				Level   string
			}
			run(t, ctx, &got, `const {load} = await import('/temper/src/index.js');
				const m = await load('/test/minilm.temper', `+c.options+`);
				return {rows: (await m.embed(`+string(js)+`)).map((r) => Array.from(r)), threads: m.threads, level: m.level}`)
			require.Equal(t, c.threads, got.Threads)
			t.Log(got.Level)
			require.Len(t, got.Rows, len(texts))
			worst := 0.0
			for i, row := range got.Rows {
				require.Len(t, row, len(want[i]))
				for j, v := range row {
					worst = max(worst, math.Abs(v-float64(want[i][j])))
				}
			}
			t.Logf("largest difference %.2g", worst)
			require.Less(t, worst, 1e-4)
		})
	}
}

func TestErrors(t *testing.T) {
	s, bare := site(t, true), site(t, false)
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(s.URL+"/test/")))
	code := func(body string) string {
		var got string
		run(t, ctx, &got, `const {load, Engine} = await import('/temper/src/index.js'); try { `+body+`; return 'no error' } catch (e) { return e.code + ' ' + e.constructor.name + ' ' + e.message }`)
		t.Log(got)
		return got
	}
	require.Contains(t, code(`await load('/test/corrupt.temper', {threads: 1})`), "Corrupt CorruptError")
	require.Contains(t, code(`await load('/test/', {threads: 1})`), "NotFound TemperError")
	require.Contains(t, code(`const a = new AbortController(); setTimeout(() => a.abort(), 300); await load('/test/slow.temper', {threads: 1, signal: a.signal})`), "Aborted AbortedError")
	require.Contains(t, code(`await load('/test/minilm.temper', {threads: 1, maxMemory: 48 << 20})`), "OutOfMemory OutOfMemoryError")
	require.Contains(t, code(`const m = await load('/test/minilm.temper', {threads: 1}); await m.classify('x')`), "Request RequestError")

	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(bare.URL+"/test/")))
	require.Contains(t, code(`await Engine.create({threads: 2})`), "NotIsolated NotIsolatedError")
	var threads int
	run(t, ctx, &threads, `const {Engine} = await import('/temper/src/index.js'); return (await Engine.create()).threads`)
	require.Equal(t, 1, threads)
}

// TestResume breaks a download off and loads again: the pieces that came are not fetched twice.
func TestResume(t *testing.T) {
	s := site(t, true)
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(s.URL+"/test/")))
	var got struct{ First, Cached, Total, Again float64 }
	run(t, ctx, &got, `const {load, Engine} = await import('/temper/src/index.js');
		const e = await Engine.create({threads: 1});
		const a = new AbortController(); let first = 0, last;
		await e.load('/test/minilm.temper', {signal: a.signal, onProgress: (p) => { if (p.loaded > 30e6 && !first) { first = p.loaded; a.abort() } }}).catch(() => {});
		const m = await e.load('/test/minilm.temper', {onProgress: (p) => { if (p.phase === 'download') last = p }});
		await m.close();
		let again; await e.load('/test/minilm.temper', {onProgress: (p) => { if (p.phase === 'download') again = p }});
		return {first, cached: last.cached, total: last.total, again: again.cached}`)
	t.Logf("%+v", got)
	require.Greater(t, got.Cached, 10e6)
	require.Less(t, got.Cached, got.Total)
	require.InDelta(t, got.Total, got.Again, 1)
}

// wait looks until the expression is true (chromedp's own polling needs eval, which the page's policy forbids).
func wait(js string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			var ok bool
			err := chromedp.Evaluate(`Boolean(`+js+`)`, &ok).Do(ctx)
			if ok {
				return nil
			}
			if time.Now().After(end) {
				return fmt.Errorf("waiting for %s: %w", js, errors.Join(context.DeadlineExceeded, err))
			}
		}
	})
}

func TestDemo(t *testing.T) {
	s := site(t, true)
	ctx := tab(t)
	const ready = `temperDemo.failed || (temperDemo.ready && document.querySelector('#hardened .label').textContent.length > 1)`
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(s.URL), wait(`globalThis.temperDemo && (`+ready+`)`)))
	var failed string
	require.NoError(t, chromedp.Run(ctx, chromedp.Evaluate(`String(temperDemo.failed?.message ?? '')`, &failed)))
	require.Empty(t, failed)

	var text, machine, message, recipe string
	require.NoError(t, chromedp.Run(ctx,
		chromedp.Text("#ordinary .label", &text), chromedp.Text("#machine", &machine), chromedp.Value("#message", &message), chromedp.Value("#recipe", &recipe),
		chromedp.Click("#attack"), wait(`temperDemo.lastAttack`),
	))
	require.Equal(t, "Spam or scam", text)
	require.Equal(t, "You have won a prize, claim your money now", message)
	require.Equal(t, "bad-characters", recipe)
	t.Log(text, machine)
	var outcome struct{ Ordinary, Hardened string }
	run(t, ctx, &outcome, `return {ordinary: document.querySelector('#ordinary .outcome').textContent, hardened: document.querySelector('#hardened .outcome').textContent}`)
	t.Logf("%+v", outcome)
	require.NotEmpty(t, outcome.Ordinary)
	require.NotEmpty(t, outcome.Hardened)
	shootAs(t, ctx, "demo")

	require.NoError(t, chromedp.Run(ctx, chromedp.Click("#teach"), wait(`document.querySelector('#trial-verdict').textContent.length > 3`)))
	var verdict string
	require.NoError(t, chromedp.Run(ctx, chromedp.Text("#trial-verdict", &verdict)))
	t.Log(verdict)
	require.Contains(t, verdict, "complaint")

	// A story, then a plugin from a file.
	var told string
	require.NoError(t, chromedp.Run(ctx, chromedp.Click("#send"), wait(`document.querySelector('#log').textContent.length > 60 && !document.querySelector('#send').disabled`), chromedp.Text("#log", &told)))
	t.Log(told)
	require.Contains(t, told, "Once upon a time")

	require.NoError(t, chromedp.Run(ctx, chromedp.SetUploadFiles("#plugin", []string{filepath.Join(fixture.Root(), "plugins", "examples", "homoglyphs", "homoglyphs.wasm")}, chromedp.ByQuery), wait(`document.querySelector('#recipe').selectedOptions[0].textContent.includes('lugin')`),
		chromedp.Evaluate(`temperDemo.lastAttack = null`, nil), chromedp.Click("#attack"), wait(`temperDemo.lastAttack`)))
	run(t, ctx, &outcome, `return {ordinary: document.querySelector('#ordinary .outcome').textContent, hardened: document.querySelector('#hardened .outcome').textContent}`)
	t.Logf("plugin: %+v", outcome)
	require.NotEmpty(t, outcome.Ordinary)
	require.NotContains(t, outcome.Ordinary, "did not work")

	// The same by dropping the file on the page.
	dropped, err := os.ReadFile(filepath.Join(fixture.Root(), "plugins", "examples", "leetspeak", "leetspeak.wasm"))
	require.NoError(t, err)
	var recipes []string
	run(t, ctx, &recipes, `const before = document.querySelector('#recipe').options.length, d = new DataTransfer();
		d.items.add(new File([Uint8Array.from(atob('`+base64.StdEncoding.EncodeToString(dropped)+`'), (c) => c.charCodeAt(0))], 'mine.wasm'));
		document.querySelector('#drop').dispatchEvent(new DragEvent('drop', {dataTransfer: d, bubbles: true, cancelable: true}));
		for (let i = 0; i < 100 && document.querySelector('#recipe').options.length === before; i++) await new Promise((ok) => setTimeout(ok, 100));
		return Array.from(document.querySelector('#recipe').options, (o) => o.textContent)`)
	require.Contains(t, recipes[len(recipes)-1], "leetspeak")

	require.NoError(t, chromedp.Run(ctx, chromedp.Click("#language")))
	require.NoError(t, chromedp.Run(ctx, chromedp.Text("#headline", &text)))
	require.Contains(t, text, "被骗")
	// What was said before is said again in the new language.
	run(t, ctx, &recipes, `return ['#taught', '#rate', '#status'].map((e) => document.querySelector(e).textContent)`)
	for _, line := range recipes {
		require.Regexp(t, `\p{Han}`, line)
	}

	// A phone, in the dark; nothing may stick out sideways.
	var wide bool
	require.NoError(t, chromedp.Run(ctx, chromedp.EmulateViewport(360, 740), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}),
		chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth + 1`, &wide)))
	shootAs(t, ctx, "demo-phone")
	require.False(t, wide, "the page is wider than a phone")

	// Without a network, after one visit.
	require.NoError(t, chromedp.Run(ctx, wait(`navigator.serviceWorker.controller`)))
	s.CloseClientConnections()
	s.Close()
	require.NoError(t, chromedp.Run(ctx, chromedp.Reload(), wait(`globalThis.temperDemo && (`+ready+`)`)))
	require.NoError(t, chromedp.Run(ctx, chromedp.Evaluate(`String(temperDemo.failed?.message ?? '')`, &failed)))
	require.Empty(t, failed, "offline")
}

func shootAs(t testing.TB, ctx context.Context, name string) {
	var png []byte
	require.NoError(t, chromedp.Run(ctx, chromedp.FullScreenshot(&png, 100)))
	dir := filepath.Join(fixture.Root(), "tests", "out")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

func TestAttackAndTuneInPage(t *testing.T) {
	s := site(t, true)
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(s.URL+"/test/")))
	var got struct {
		Status   string
		Queries  int
		Progress int
		Lora     string
		Steps    int
		Same     float64
		Cancel   string
	}
	run(t, ctx, &got, `const {Engine} = await import('/temper/src/index.js');
		const e = await Engine.create();
		const m = await e.load('/test/ordinary.temper');
		let progress = 0;
		const r = await m.attack('Your account is locked, verify your password now', {recipe: 'deepwordbug', seed: 1, onProgress: () => progress++});
		const examples = [['win a prize now', 'spam'], ['free money inside', 'spam'], ['lunch on friday?', 'ham'], ['see you at home', 'ham']].map(([text, label]) => ({text, label}));
		let steps = 0;
		const l = await m.tune(examples, {method: 'lora', epochs: 8, batch: 4, lr: 0.002, seed: 1, onProgress: () => steps++});
		const before = await l.classify('free prize money');
		const again = await e.load([{name: 'saved.temper', data: await l.save()}]);
		const after = await again.classify('free prize money');
		const a = new AbortController();
		const cancel = await m.tune(examples, {method: 'lora', epochs: 500, signal: a.signal, onProgress: () => a.abort()}).then(() => 'done', (x) => x.code);
		return {status: r.results[0].status, queries: r.queries, progress, lora: before.label, steps, same: Math.abs(before.score - after.score), cancel}`)
	t.Logf("%+v", got)
	require.Contains(t, []string{"won", "held"}, got.Status)
	require.Positive(t, got.Progress)
	require.Equal(t, "spam", got.Lora)
	require.Equal(t, 8, got.Steps)
	require.Less(t, got.Same, 1e-4)
	require.Equal(t, "Aborted", got.Cancel)
}
