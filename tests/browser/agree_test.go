package browser

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/bundle"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/generate"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/quant"
	"github.com/temper-ml/temper/js"
	"github.com/temper-ml/temper/tests/fixture"
)

// served gives a page, with the isolation headers, the package under /temper/ and files under /m/; it returns the page's address.
func served(t testing.TB, files map[string]http.HandlerFunc) string {
	pkg, err := js.Files()
	require.NoError(t, err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
		if name, ok := strings.CutPrefix(r.URL.Path, "/temper/"); ok && pkg[name] != nil {
			w.Header().Set("Content-Type", map[string]string{".js": "text/javascript", ".wasm": "application/wasm"}[filepath.Ext(name)])
			_, _ = w.Write(pkg[name])
			return
		}
		if r.URL.Path == "/" {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<!doctype html><title>test</title>"))
			return
		}
		name, _ := strings.CutPrefix(r.URL.Path, "/m/")
		if h := files[name]; h != nil {
			h(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/"
}

// content serves bytes, in ranges if asked.
func content(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(b))
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// unpacked writes a bundle's files to a folder.
func unpacked(t testing.TB, b []byte) string {
	files, err := bundle.Parse(b)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, content, 0o644))
	}
	return dir
}

// realTexts are sentences that people wrote.
func realTexts(t testing.TB, n int) []string {
	b, err := os.ReadFile(filepath.Join(fixture.Data(t), "sst2", "test.tsv"))
	require.NoError(t, err)
	var out []string
	for _, line := range strings.Split(string(b), "\n")[1:] {
		if _, text, ok := strings.Cut(line, "\t"); ok && len(out) < n {
			out = append(out, text)
		}
	}
	require.Len(t, out, n)
	return out
}

func asJSON(t testing.TB, v any) string {
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

// TestInt8LabelsEqualNative: the same label on 499 of 500 real texts, with and without relaxed SIMD.
func TestInt8LabelsEqualNative(t *testing.T) {
	chromium(t)
	dir := unpacked(t, models(t)["ordinary.temper"])
	f, err := checkpoint.OpenFolder(dir)
	require.NoError(t, err)
	defer f.Close()
	small := filepath.Join(t.TempDir(), "int8")
	_, err = quant.Int8Folder(t.Context(), f, small, quant.Options{})
	require.NoError(t, err)
	k, err := native.New(native.Options{})
	require.NoError(t, err)
	defer k.Close()
	p, err := pipeline.Open(small, k, pipeline.Options{})
	require.NoError(t, err)
	defer p.Close()
	texts := realTexts(t, 500)
	want, err := p.Classify(t.Context(), texts)
	require.NoError(t, err)

	url := served(t, map[string]http.HandlerFunc{"int8.temper": content(pack(t, small))})
	for name, relaxed := range map[string]string{"relaxed": "true", "plain": "false"} {
		t.Run(name, func(t *testing.T) {
			ctx := tab(t)
			require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(url)))
			var got []pipeline.Prediction
			run(t, ctx, &got, `const {load} = await import('/temper/src/index.js');
				const m = await load('/m/int8.temper', {relaxed: `+relaxed+`});
				return await m.classify(`+asJSON(t, texts)+`)`)
			require.Len(t, got, len(want))
			same, worst := 0, 0.0
			for i := range want {
				if got[i].Label == want[i].Label {
					same++
					worst = max(worst, float64(max(got[i].Score-want[i].Score, want[i].Score-got[i].Score)))
				}
			}
			t.Logf("%d of %d labels equal, scores within %.2g", same, len(want), worst)
			require.GreaterOrEqual(t, same, 499)
		})
	}
}

// TestAttackEqualsNative: the same candidates and outcome for the same seed.
func TestAttackEqualsNative(t *testing.T) {
	chromium(t)
	ordinary := models(t)["ordinary.temper"]
	k, err := native.New(native.Options{})
	require.NoError(t, err)
	defer k.Close()
	p, err := pipeline.Open(unpacked(t, ordinary), k, pipeline.Options{})
	require.NoError(t, err)
	defer p.Close()
	texts := realTexts(t, 12)
	said, err := p.Classify(t.Context(), texts)
	require.NoError(t, err)
	var examples []attack.Example
	type example struct {
		Text  string `json:"text"`
		Label string `json:"label"`
	}
	var forPage []example
	for i, x := range said {
		examples = append(examples, attack.Example{Row: i, Text: texts[i], Label: slices.Index(p.Labels(), x.Label)})
		forPage = append(forPage, example{texts[i], x.Label})
	}
	v, err := p.Victim()
	require.NoError(t, err)
	recipe, err := attack.NewRecipe("deepwordbug", attack.Capabilities(v, attack.Options{})...)
	require.NoError(t, err)
	want, err := attack.Run(t.Context(), v, examples, recipe, attack.Options{Seed: 7, Batch: 32, InFlight: 8})
	require.NoError(t, err)

	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(served(t, map[string]http.HandlerFunc{"ordinary.temper": content(ordinary)}))))
	var got attack.Report
	run(t, ctx, &got, `const {load} = await import('/temper/src/index.js');
		const m = await load('/m/ordinary.temper');
		return await m.attack(`+asJSON(t, forPage)+`, {recipe: 'deepwordbug', seed: 7})`)
	require.Len(t, got.Results, len(want.Results))
	same := 0
	for i, w := range want.Results {
		g := got.Results[i]
		if g.Status == w.Status && g.Adversarial == w.Adversarial && g.Queries == w.Queries {
			same++
		} else {
			t.Logf("row %d: native %s after %d queries %q, page %s after %d queries %q", i, w.Status, w.Queries, w.Adversarial, g.Status, g.Queries, g.Adversarial)
		}
	}
	t.Logf("%d of %d attacks equal; native won %d, held %d", same, len(want.Results), want.Won, want.Held)
	require.Equal(t, len(want.Results), same)
}

// TestFillEqualsNative runs a masked language model in the page.
func TestFillEqualsNative(t *testing.T) {
	chromium(t)
	dir := filepath.Join(fixture.Parity(t), "models", "bert-mlm")
	k, err := native.New(native.Options{})
	require.NoError(t, err)
	defer k.Close()
	p, err := pipeline.Open(dir, k, pipeline.Options{Head: model.HeadMasked})
	require.NoError(t, err)
	defer p.Close()
	const text = "the [MASK] is here"
	want, err := p.Fill(t.Context(), text, 5)
	require.NoError(t, err)
	require.Len(t, want, 5)
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(served(t, map[string]http.HandlerFunc{"mlm.temper": content(pack(t, dir))}))))
	var got []pipeline.Word
	run(t, ctx, &got, `const {load} = await import('/temper/src/index.js');
		const m = await load('/m/mlm.temper', {head: 'masked-lm', threads: 1}).catch(() => load('/m/mlm.temper', {threads: 1}));
		return await m.fill('`+text+`', {n: 5})`)
	require.Len(t, got, 5)
	for i := range want {
		require.Equal(t, want[i].Token, got[i].Token)
		require.InDelta(t, want[i].Score, got[i].Score, 1e-4)
	}
}

// TestGreedyEqualsNative: each token that the page chooses after its own text is the one chosen here, or nearly ties with it.
func TestGreedyEqualsNative(t *testing.T) {
	chromium(t)
	path := fixture.Gemma(t)
	d, err := generate.Open(path, generate.OpenOptions{})
	require.NoError(t, err)
	defer d.Close()
	k, err := native.New(native.Options{})
	require.NoError(t, err)
	defer k.Close()
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(served(t, map[string]http.HandlerFunc{"gemma.gguf": content(file)}))))
	var loaded bool
	run(t, ctx, &loaded, `const {load} = await import('/temper/src/index.js'); globalThis.m = await load('/m/gemma.gguf', {cache: 'none'}); return true`)
	const tokens, tie = 24, 0.3 // logits of 4-bit weights and 8-bit activations, summed in another order, differ by a tenth
	for _, prompt := range []string{"The capital of France is", "Once upon a time there was a small"} {
		var got []int32
		run(t, ctx, &got, `const out = []; for await (const p of m.generate(`+asJSON(t, prompt)+`, {maxTokens: 24, temperature: 0})) out.push(p.token); return out`)
		ids := d.Encode(prompt, false)
		cache := model.NewCache(d.Model.Config(), 1, len(ids)+tokens)
		var arena grad.Arena
		equal, next := 0, ids
		for at, token := range got {
			arena.Reset()
			out, err := d.Model.Forward(grad.Infer(k, &arena), &model.Batch{IDs: next, Offsets: []int32{0, int32(len(next))}, Cache: cache, Want: model.WantLastLogits})
			require.NoError(t, err)
			logits := out.Logits.Data[len(out.Logits.Data)-out.Logits.Cols:]
			best := int32(0)
			for i, v := range logits {
				if v > logits[best] {
					best = int32(i)
				}
			}
			if best == token {
				equal++
			} else {
				require.InDelta(t, logits[best], logits[token], tie, "%q: token %d is %d in the page and %d here, which is no near tie", prompt, at, token, best)
			}
			next = []int32{token}
		}
		require.Len(t, got, tokens)
		t.Logf("%q: %d of %d tokens equal, the others near ties", prompt, equal, len(got))
		require.GreaterOrEqual(t, equal, tokens*3/4)
	}
}

// TestTeachInPage: the classes of five times eight examples, and LoRA on 64 of up to 32 tokens, as it is natively. Times are for TEMPER_TIMES,
// since other work on the machine would make them fail.
func TestTeachInPage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	topics := map[string][]string{
		"weather": {"rain is expected tonight", "the sun will shine all day", "a storm comes from the west", "snow fell in the hills"},
		"food":    {"this soup needs more salt", "bake the bread for an hour", "she cooked rice and beans", "fresh apples from the market"},
		"sport":   {"the team won the final", "he ran ten miles before noon", "the goal came late", "she swims every morning"},
		"money":   {"the bank raised its rates", "prices went up again", "he paid the bill in cash", "my savings are growing"},
		"travel":  {"the train leaves at nine", "we booked a small hotel", "her flight was delayed", "they drove along the coast"},
	}
	type example struct {
		Text  string `json:"text"`
		Label string `json:"label"`
	}
	var teach, lora []example
	for label, texts := range topics {
		for i := range 8 {
			teach = append(teach, example{texts[i%len(texts)] + []string{"", " today"}[i/len(texts)], label})
		}
	}
	for i, text := range realTexts(t, 64) {
		lora = append(lora, example{strings.Join(strings.Fields(text)[:min(20, len(strings.Fields(text)))], " "), []string{"a", "b"}[i%2]})
	}
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(served(t, map[string]http.HandlerFunc{"minilm.temper": content(pack(t, fixture.MiniLM(t)))}))))
	var got struct {
		Head, Lora, Longest float64
		Label               string
		Steps               int
	}
	run(t, ctx, &got, `const {load} = await import('/temper/src/index.js');
		const m = await load('/m/minilm.temper');
		let longest = 0, last = performance.now(), on = true;
		(async () => { while (on) { await new Promise((ok) => setTimeout(ok, 10)); longest = Math.max(longest, performance.now() - last); last = performance.now(); } })();
		let t = performance.now();
		const head = await m.tune(`+asJSON(t, teach)+`, {method: 'head', seed: 1});
		const headTime = performance.now() - t;
		const label = (await head.classify('the ferry sails to the island on sunday')).label;
		t = performance.now();
		let steps = 0;
		await m.tune(`+asJSON(t, lora)+`, {method: 'lora', epochs: `+map[bool]string{true: "10", false: "1"}[os.Getenv("TEMPER_TIMES") != ""]+`, batch: 16, seed: 1, onProgress: () => steps++});
		const loraTime = performance.now() - t;
		on = false;
		return {head: headTime, lora: loraTime, longest, label, steps}`)
	t.Logf("head on 5×8 examples %.2f s, LoRA %d steps %.1f s, the page waited at most %.0f ms", got.Head/1000, got.Steps, got.Lora/1000, got.Longest)
	require.Equal(t, "travel", got.Label)
	require.Positive(t, got.Steps)
	if os.Getenv("TEMPER_TIMES") != "" {
		require.Less(t, got.Head, 3000.0)
		require.Less(t, got.Lora, 60000.0)
		require.Less(t, got.Longest, 200.0)
	}
}
