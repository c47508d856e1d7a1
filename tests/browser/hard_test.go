package browser

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/tests/fixture"
)

// TestNetworkDies breaks the connection in mid-download: the error says so by its type, and the next load goes on where it broke off.
func TestNetworkDies(t *testing.T) {
	bundle := pack(t, fixture.MiniLM(t))
	var asked atomic.Int32
	var resumed atomic.Value
	url := served(t, map[string]http.HandlerFunc{"model.temper": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if asked.Add(1) > 1 {
			resumed.Store(r.Header.Get("Range"))
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bundle))
			return
		}
		w.Header().Set("Content-Length", itoa(len(bundle)))
		_, _ = w.Write(bundle[:len(bundle)*2/5])
		w.(http.Flusher).Flush()
		time.Sleep(500 * time.Millisecond)
		panic(http.ErrAbortHandler) // the connection is cut
	}})
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(url)))
	var got struct {
		Code, Name    string
		Cached, Total float64
		Dim           int
	}
	run(t, ctx, &got, `const {load} = await import('/temper/src/index.js');
		const broken = await load('/m/model.temper', {threads: 1}).catch((e) => e);
		let last;
		const m = await load('/m/model.temper', {threads: 1, onProgress: (p) => { if (p.phase === 'download') last = p }});
		return {code: broken.code, name: broken.constructor.name, cached: last.cached, total: last.total, dim: (await m.embed('hello')).length}`)
	t.Logf("%+v, asked for %s", got, resumed.Load())
	require.Equal(t, "Aborted", got.Code)
	require.Equal(t, "AbortedError", got.Name)
	require.Equal(t, float64(len(bundle)), got.Total)
	require.Greater(t, got.Cached, got.Total/4)
	require.Less(t, got.Cached, got.Total/2)
	require.Contains(t, resumed.Load(), "bytes=")
	require.Equal(t, 384, got.Dim)
}

// TestCorruptCache spoils what the cache holds: a piece, then the record of the pieces. Both are noticed and fetched again.
func TestCorruptCache(t *testing.T) {
	bundle := pack(t, fixture.MiniLM(t))
	url := served(t, map[string]http.HandlerFunc{"model.temper": content(bundle)})
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(url)))
	var got struct {
		Piece, Record, Whole float64
		Dim                  int
		Same                 bool
	}
	run(t, ctx, &got, `const {load} = await import('/temper/src/index.js');
		let last;
		const complete = async () => {
			const c = await caches.open('temper-v1');
			for (const k of await c.keys()) if (k.url.includes('/meta/')) return (await (await c.match(k)).json().catch(() => ({}))).complete;
		};
		const get = async () => {
			const m = await load('/m/model.temper', {threads: 1, onProgress: (p) => { if (p.phase === 'download') last = p }});
			const v = Array.from(await m.embed('hello world'));
			for (let i = 0; i < 300 && !(await complete()); i++) await new Promise((ok) => setTimeout(ok, 100)); // writes go on beside the work
			await m.close();
			return [v, last.cached];
		};
		const spoil = async (what, body) => {
			const c = await caches.open('temper-v1');
			const keys = (await c.keys()).filter((k) => k.url.includes(what));
			if (!keys.length) throw new Error('nothing cached as ' + what);
			await c.put(keys[keys.length >> 1], new Response(body));
		};
		const [first] = await get();
		await spoil('/piece/', new Uint8Array(4 << 20));
		const [second, piece] = await get();
		await spoil('/meta/', '{"sums": [');
		const [third, record] = await get();
		const [fourth, whole] = await get();
		return {piece, record, whole, dim: first.length, same: [second, third, fourth].every((v) => JSON.stringify(v) === JSON.stringify(first))}`)
	t.Logf("%+v", got)
	require.Equal(t, 384, got.Dim)
	require.True(t, got.Same)
	require.Less(t, got.Piece, float64(len(bundle)), "a spoilt piece counts for nothing")
	require.Zero(t, got.Record)
	require.Equal(t, float64(len(bundle)), got.Whole, "the cache is whole again")
}

// TestTwoTabs loads one model in two tabs of one browser at once, which share the cache.
func TestTwoTabs(t *testing.T) {
	bundle := pack(t, fixture.MiniLM(t))
	url := served(t, map[string]http.HandlerFunc{"model.temper": content(bundle)})
	first := tab(t)
	require.NoError(t, chromedp.Run(first, chromedp.Navigate(url)))
	second, cancel := chromedp.NewContext(first)
	defer cancel()
	require.NoError(t, chromedp.Run(second, chromedp.Navigate(url)))
	const begin = `globalThis.loaded = import('/temper/src/index.js').then(({load}) => load('/m/model.temper')); return true`
	for _, ctx := range []context.Context{first, second} {
		run(t, ctx, nil, begin)
	}
	var rows [2][]float64
	for i, ctx := range []context.Context{first, second} {
		run(t, ctx, &rows[i], `const m = await loaded; return Array.from(await m.embed('hello world'))`)
	}
	require.Len(t, rows[0], 384)
	require.Equal(t, rows[0], rows[1])
	// Both go on at once; then a third visit finds the cache whole.
	for _, ctx := range []context.Context{first, second} {
		run(t, ctx, nil, `const m = await loaded; globalThis.many = m.embed(Array(40).fill('a text of a few words')); return true`)
	}
	for _, ctx := range []context.Context{second, first} {
		var n int
		run(t, ctx, &n, `return (await many).length`)
		require.Equal(t, 40, n)
	}
	becomesWhole(t, second, len(bundle))
}

// becomesWhole visits until all of the model comes from the cache. Pieces are written beside the work, so a visit that ends early leaves the last of
// them to the next one; what is there once stays there.
func becomesWhole(t *testing.T, ctx context.Context, size int) {
	t.Helper()
	before := 0.0
	for range 5 {
		require.NoError(t, chromedp.Run(ctx, chromedp.Reload()))
		var cached float64
		run(t, ctx, &cached, `const {load} = await import('/temper/src/index.js'); let last;
			await load('/m/model.temper', {onProgress: (p) => { if (p.phase === 'download') last = p }}); return last.cached`)
		require.Positive(t, cached)
		require.GreaterOrEqual(t, cached, before)
		if before = cached; cached == float64(size) {
			return
		}
		time.Sleep(time.Second)
	}
	require.Equal(t, float64(size), before, "the cache never became whole")
}

// TestReloadInTune leaves the page while a model is being tuned: the page that comes after starts whole, from the cache, and tunes.
func TestReloadInTune(t *testing.T) {
	bundle := pack(t, fixture.MiniLM(t))
	url := served(t, map[string]http.HandlerFunc{"model.temper": content(bundle)})
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(url)))
	const examples = `const examples = [['win a prize now', 'spam'], ['free money inside', 'spam'], ['lunch on friday?', 'ham'], ['see you at home', 'ham']].map(([text, label]) => ({text, label}));`
	for range 2 {
		run(t, ctx, nil, examples+`const {load} = await import('/temper/src/index.js'); const m = await load('/m/model.temper');
			await new Promise((ok, fail) => { m.tune(examples, {method: 'lora', epochs: 5000, onProgress: (p) => { if (p.step > 2) ok() }}).catch(fail) }); return true`)
		require.NoError(t, chromedp.Run(ctx, chromedp.Reload()))
	}
	var label string
	run(t, ctx, &label, examples+`const {load} = await import('/temper/src/index.js');
		const m = await load('/m/model.temper');
		const tuned = await m.tune(examples, {method: 'head'});
		return (await tuned.classify('a prize and free money')).label`)
	require.Equal(t, "spam", label)
	becomesWhole(t, ctx, len(bundle))
}

// TestTwoGigabytes reads a model of more than 2 GiB, whose buffers lie above what a signed address reaches: MiniLM with a vocabulary of a
// million and a half, of which the tokenizer uses the first thirty thousand.
func TestTwoGigabytes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 GB of memory")
	}
	dir := fixture.MiniLM(t)
	const rows, dim = 1_500_000, 384
	weights, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	n := int(binary.LittleEndian.Uint64(weights))
	var header map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(weights[8:8+n], &header))
	type entry struct {
		Dtype   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	const words = "embeddings.word_embeddings.weight"
	var small entry
	require.NoError(t, json.Unmarshal(header[words], &small))
	require.Equal(t, "F32", small.Dtype)
	// The table goes first and grows; what stood before it moves behind it.
	body := weights[8+n:]
	table := body[small.Offsets[0]:small.Offsets[1]]
	grown := 4 * rows * dim
	rest := append(bytes.Clone(body[:small.Offsets[0]]), body[small.Offsets[1]:]...)
	moved := map[string]any{words: entry{"F32", []int{rows, dim}, [2]int{0, grown}}}
	for name, raw := range header {
		if name == words || name == "__metadata__" {
			continue
		}
		var e entry
		require.NoError(t, json.Unmarshal(raw, &e))
		shift := grown
		if e.Offsets[0] >= small.Offsets[1] {
			shift -= len(table)
		}
		e.Offsets[0] += shift
		e.Offsets[1] += shift
		moved[name] = e
	}
	head, err := json.Marshal(moved)
	require.NoError(t, err)
	head = append(head, bytes.Repeat([]byte(" "), (8-len(head)%8)%8)...)
	size := 8 + len(head) + grown + len(rest)
	require.Greater(t, size, 2<<30)
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	var c map[string]any
	require.NoError(t, json.Unmarshal(config, &c))
	c["vocab_size"] = rows
	config, err = json.Marshal(c)
	require.NoError(t, err)
	files := map[string]http.HandlerFunc{"big/config.json": content(config), "big/model.safetensors": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", itoa(size))
		zeros := make([]byte, 1<<20)
		parts := []io.Reader{bytes.NewReader(binary.LittleEndian.AppendUint64(nil, uint64(len(head)))), bytes.NewReader(head), bytes.NewReader(table)}
		for left := grown - len(table); left > 0; left -= len(zeros) {
			parts = append(parts, bytes.NewReader(zeros[:min(left, len(zeros))]))
		}
		_, _ = io.Copy(w, io.MultiReader(append(parts, bytes.NewReader(rest))...))
	}}
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	files["small.temper"] = content(pack(t, dir))
	for _, e := range list {
		if name := "big/" + e.Name(); !e.IsDir() && files[name] == nil && strings.HasSuffix(name, ".json") {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			files[name] = content(b)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "1_Pooling", "config.json")); err == nil {
		files["big/1_Pooling/config.json"] = content(b)
	}
	url := served(t, files)
	ctx := tab(t)
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(url)))
	var got struct {
		Worst      float64
		Threads    int
		Parameters float64
		Memory     float64
		Code       string
	}
	run(t, ctx, &got, `const {load, Engine} = await import('/temper/src/index.js');
		const texts = ['hello world', 'a second text, somewhat longer than the first'];
		const s = await load('/m/small.temper', {cache: 'none'});
		const want = await s.embed(texts);
		await s.close();
		const m = await load('/m/big/', {cache: 'none', threads: 2});
		const rows = await m.embed(texts);
		let worst = 0;
		rows.forEach((r, i) => r.forEach((v, j) => { worst = Math.max(worst, Math.abs(v - want[i][j])) }));
		const {memory} = await m.engine.info();
		const code = await m.fill('x').then(() => 'none', (e) => e.code);
		const out = {worst, threads: m.threads, parameters: m.parameters, memory, code};
		await m.close();
		return out`)
	t.Logf("%+v", got)
	require.Less(t, got.Worst, 1e-6)
	require.Greater(t, got.Memory, float64(2<<30))
	require.Greater(t, got.Parameters, 5e8)
	require.Equal(t, "Request", got.Code, "the engine lives on and answers")
}
