package host_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/plugins/host"
)

var limits = host.Options{MemoryPages: 16, Fuel: 20_000_000, Parallel: 2}

func open(t testing.TB, g guest) (*host.Plugin, error) {
	t.Helper()
	p, err := host.OpenBytes(t.Context(), "hostile.wasm", g.bytes(), limits)
	if err == nil {
		t.Cleanup(func() { p.Close() })
	}
	return p, err
}

var one = []attack.Request{{Text: "some words", Max: 4, Seed: 1, Labels: []string{"a", "b"}}}

func TestWellBehaved(t *testing.T) {
	p, err := open(t, guest{})
	require.NoError(t, err)
	assert.Equal(t, "hostile", p.Name())
	for range 3 {
		got, err := p.Perturb(t.Context(), one, nil)
		require.NoError(t, err)
		assert.Equal(t, [][]string{{"x"}}, got)
	}
}

func loop(body ...byte) []byte { return cat([]byte{0x03, 0x40}, body, []byte{0x0c, 0, 0x0b, 0x00}) }

// Each hostile guest is refused, or fails, with an error that names the file and says what was wrong; none takes the host down or hangs it.
func TestHostileGuests(t *testing.T) {
	grow := cat([]byte{0x03, 0x40}, i32c(1), []byte{0x40, 0, 0x1a, 0x0c, 0, 0x0b, 0x00})
	fill := cat([]byte{0x03, 0x40}, i32c(0), i32c(7), i32c(1<<20-65536), []byte{0xfc, 11, 0, 0x0c, 0, 0x0b, 0x00})
	recurse := cat([]byte{0x20, 0, 0x20, 1, 0x10}, leb(2))
	ask := func(n int, name string, args ...int64) []byte {
		var b []byte
		for _, a := range args {
			b = cat(b, i32c(a))
		}
		return cat([]byte{0x03, 0x40}, b, []byte{0x10, 0, 0x1a, 0x0c, 0, 0x0b, 0x00})
	}
	for name, c := range map[string]struct {
		guest  guest
		atOpen bool
		want   string
		is     error
	}{
		"loop":                   {guest{perturb: loop()}, false, "fuel", host.ErrFuel},
		"loop in alloc":          {guest{alloc: loop()}, false, "temper_alloc: used up its fuel", host.ErrFuel},
		"loop in initialize":     {guest{init: loop()}, true, "_initialize: used up its fuel", host.ErrFuel},
		"endless recursion":      {guest{perturb: recurse}, false, "temper_perturb", nil},
		"memory bomb":            {guest{perturb: grow}, false, "fuel", host.ErrFuel},
		"fill bomb":              {guest{perturb: fill, pages: 16}, false, "fuel", host.ErrFuel},
		"random bomb":            {guest{imports: []guestImport{{"wasi_snapshot_preview1", "random_get", 2, 1}}, perturb: ask(2, "random_get", 0, 65536)}, false, "fuel", host.ErrFuel},
		"question bomb":          {guest{imports: []guestImport{{"temper", "score", 5, 1}}, perturb: ask(5, "score", 0, 0, 4, 0, 100)}, false, "fuel", host.ErrFuel},
		"too much memory":        {guest{pages: 17}, true, "starts with 17 pages", nil},
		"trap":                   {guest{perturb: []byte{0x00}}, false, "trapped", host.ErrTrap},
		"outside its memory":     {guest{perturb: cat(i32c(1<<30), []byte{0x28, 2, 0, 0x1a}, packed(0, 4))}, false, "trapped", host.ErrTrap},
		"bad UTF-8":              {guest{data: answer([][]string{{"\xff\xfe"}})}, false, "not valid UTF-8", nil},
		"wrong version":          {guest{version: i32c(2)}, true, "version 2 of the contract", nil},
		"answer outside memory":  {guest{perturb: packed(65530, 100)}, false, "outside the memory", nil},
		"answer wraps around":    {guest{perturb: packed(0xffffffff, 0x100)}, false, "outside the memory", nil},
		"oversized answer":       {guest{perturb: packed(0, 1<<31)}, false, "expected at most 16777216", nil},
		"empty answer":           {guest{perturb: packed(0, 0)}, false, "ends 4 bytes early", nil},
		"answer cut short":       {guest{perturb: packed(0, 9)}, false, "early", nil},
		"string length lies":     {guest{data: []byte{1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 'x'}}, false, "string of 4294967295 bytes", nil},
		"count lies":             {guest{data: []byte{1, 0, 0, 0, 255, 255, 255, 255}}, false, "4294967295 candidates", nil},
		"too many texts":         {guest{data: answer([][]string{{"x"}, {"y"}})}, false, "for 2 texts, expected 1", nil},
		"too many candidates":    {guest{data: answer([][]string{{"1", "2", "3", "4", "5"}})}, false, "5 candidates for text 0, expected at most 4", nil},
		"oversized candidate":    {guest{data: answer([][]string{{strings.Repeat("x", 5000)}})}, false, "5000 bytes, expected at most 4136", nil},
		"bytes left over":        {guest{data: append(answer([][]string{{"x"}}), 0)}, false, "1 bytes too many", nil},
		"no room":                {guest{alloc: i32c(0)}, false, "no room", nil},
		"alloc outside memory":   {guest{alloc: i32c(-16)}, false, "outside the memory", nil},
		"forbidden import":       {guest{imports: []guestImport{{"wasi_snapshot_preview1", "sock_send", 5, 1}}}, true, "import wasi_snapshot_preview1.sock_send is not part", nil},
		"unknown module":         {guest{imports: []guestImport{{"env", "system", 1, 1}}}, true, "import env.system", nil},
		"import of another type": {guest{imports: []guestImport{{"temper", "score", 1, 1}}}, true, "score", nil},
		"no memory exported":     {guest{drop: "memory"}, true, "does not export its memory", nil},
		"no perturb":             {guest{drop: "temper_perturb"}, true, "does not export temper_perturb", nil},
		"a program":              {guest{extra: cat(str("_start"), []byte{0, 3}), extras: 1}, true, "_start", nil},
		"claims the fuel":        {guest{extra: cat(str("temper_fuel"), []byte{0, 3}), extras: 1}, true, "temper_fuel", nil},
		"start function":         {guest{start: true}, true, "start function", nil},
		"ends itself":            {guest{imports: []guestImport{{"wasi_snapshot_preview1", "proc_exit", 1, 0}}, perturb: cat(i32c(3), []byte{0x10, 0}, packed(0, 0))}, false, "ended itself", nil},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			p, err := open(t, c.guest)
			if c.atOpen {
				require.Error(t, err)
			} else {
				require.NoError(t, err)
				_, err = p.Perturb(t.Context(), one, scorer{})
				require.Error(t, err)
			}
			assert.ErrorContains(t, err, "plugin hostile.wasm: ")
			assert.ErrorContains(t, err, c.want)
			if c.is != nil {
				assert.ErrorIs(t, err, c.is)
			}
			assert.Less(t, time.Since(start), 20*time.Second)
		})
	}
}

func TestNotWasm(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty": nil, "text": []byte("hello world"), "component": []byte("\x00asm\x0d\x00\x01\x00"), "cut": guest{}.bytes()[:60],
		"huge count": cat([]byte("\x00asm\x01\x00\x00\x00"), section(1, leb(0xffffffff))),
	} {
		_, err := host.OpenBytes(t.Context(), "odd.wasm", b, limits)
		require.ErrorContains(t, err, "plugin odd.wasm", name)
	}
	_, err := host.Open(t.Context(), filepath.Join(t.TempDir(), "none.wasm"), limits)
	require.ErrorContains(t, err, "none.wasm")
}

// A guest that fails once is replaced, and what it left behind is gone: this one counts its calls in memory and traps at the second.
func TestPoisonedInstanceIsThrownAway(t *testing.T) {
	count := cat(
		i32c(2048), i32c(2048), []byte{0x28, 2, 0}, i32c(1), []byte{0x6a, 0x36, 2, 0}, // counter++
		i32c(2048), []byte{0x28, 2, 0}, i32c(2), []byte{0x46, 0x04, 0x40, 0x00, 0x0b}, // the second call traps
		packed(0, uint32(len(answer([][]string{{"x"}})))),
	)
	p, err := open(t, guest{perturb: count})
	require.NoError(t, err)
	for range 3 {
		_, err = p.Perturb(t.Context(), one, nil)
		require.NoError(t, err)
		_, err = p.Perturb(t.Context(), one, nil)
		require.ErrorIs(t, err, host.ErrTrap)
	}
}

type scorer struct{}

func (scorer) Labels() []string { return []string{"a", "b"} }
func (scorer) Scores(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i := range out {
		out[i] = []float32{0.25, 0.75}
	}
	return out, nil
}

type slow struct{ scorer }

func (slow) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestTimeoutAndCancel(t *testing.T) {
	data := append(answer([][]string{{"x"}}), 1, 0, 0, 0, 1, 0, 0, 0, 'x')
	at := int64(len(answer([][]string{{"x"}})))
	g := guest{
		imports: []guestImport{{"temper", "score", 5, 1}}, data: data,
		perturb: cat(i32c(0), i32c(at), i32c(9), i32c(512), i32c(512), []byte{0x10, 0, 0x1a}, packed(0, uint32(at))),
	}
	o := limits
	o.Timeout = 50 * time.Millisecond
	p, err := host.OpenBytes(t.Context(), "slow.wasm", g.bytes(), o)
	require.NoError(t, err)
	defer p.Close()
	_, err = p.Perturb(t.Context(), one, slow{})
	require.ErrorIs(t, err, host.ErrTimeout)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Perturb(ctx, one, slow{})
	require.ErrorIs(t, err, context.Canceled)
	got, err := p.Perturb(t.Context(), one, scorer{})
	require.NoError(t, err)
	assert.Equal(t, [][]string{{"x"}}, got)
}

func TestCompileCache(t *testing.T) {
	o := limits
	o.CacheDir = t.TempDir()
	for range 2 {
		p, err := host.OpenBytes(t.Context(), "a.wasm", guest{}.bytes(), o)
		require.NoError(t, err)
		require.NoError(t, p.Close())
	}
	entries, err := os.ReadDir(o.CacheDir)
	require.NoError(t, err)
	assert.NotEmpty(t, entries)
}

var texts = []string{
	"Win free money now, click here!", "it's a well-made film", "", "  ", "这部电影很好看", "деньги даром", "e\u0301te\u0301 na\u00efve", "a b c d",
	"\U0001f600 smile \U0001f600", strings.Repeat("long words everywhere ", 200),
}

func requests(seed uint64) []attack.Request {
	var reqs []attack.Request
	for i, s := range texts {
		reqs = append(reqs, attack.Request{Text: s, Words: attack.Words(s), Seed: seed + uint64(i), Max: 16, Label: i % 2, Labels: []string{"ham", "spam"}})
	}
	return reqs
}

// TestExamples runs every committed example over texts of many kinds.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../examples/*/*.wasm")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			info, err := os.Stat(file)
			require.NoError(t, err)
			assert.Less(t, info.Size(), int64(100_000))
			p, err := host.Open(t.Context(), file, host.Options{})
			require.NoError(t, err)
			defer p.Close()
			reqs := requests(7)
			all, err := p.Perturb(t.Context(), reqs, scorer{})
			require.NoError(t, err)
			made := 0
			for i, q := range reqs {
				made += len(all[i])
				assert.LessOrEqual(t, len(all[i]), 16)
				for _, s := range all[i] {
					assert.True(t, utf8.ValidString(s))
				}
				alone, err := p.Perturb(t.Context(), []attack.Request{q}, scorer{})
				require.NoError(t, err)
				assert.Equal(t, all[i], alone[0], "a text is answered as if alone")
			}
			assert.Positive(t, made)

			// In an attack, candidates stay within the words that may change.
			ex := []attack.Example{{Row: 0, Text: texts[0], Label: 1}, {Row: 1, Text: texts[1], Label: 1}, {Row: 2, Text: texts[4], Label: 1}, {Row: 3, Text: texts[5], Label: 1}}
			rep, err := attack.Run(t.Context(), scorer{}, ex, attack.PluginRecipe(p), attack.Options{Seed: 1})
			require.NoError(t, err)
			assert.Zero(t, rep.Rejected["outside-allowed-words"])
		})
	}
}

func BenchmarkPerturb(b *testing.B) {
	p, err := host.Open(b.Context(), "../examples/homoglyphs/homoglyphs.wasm", host.Options{Parallel: 1})
	require.NoError(b, err)
	defer p.Close()
	reqs := requests(1)
	for b.Loop() {
		if _, err := p.Perturb(b.Context(), reqs, nil); err != nil {
			b.Fatal(err)
		}
	}
}
