// Bench compares temper in the page with transformers.js, onnxruntime-web and wllama, in one headless Chromium, on the same models and
// shapes, taking turns, and prints a table of medians and their ratios beside the bars that are set for them:
//
//	cd tests/browser && go run ./bench [-only f32,int8,decoder,start,kernels] [-threads 1,2] [-json FILE]
//
// The peers are installed by npm into the cache folder on first use. It needs the model all-MiniLM-L6-v2 (TEMPER_MINILM), its ONNX exports
// as tests/bench writes them into the cache folder, and gemma-3-270m (TEMPER_GEMMA). temper's and transformers.js's times include tokenizing
// and pooling, onnxruntime-web's are the network alone.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
)

type options struct {
	threads                              []int
	only                                 []string
	shapes                               []string
	rounds, kernelTime                   int
	calls, prompt, generate              int
	model, onnx, onnxInt8, gemma, output string
	chromium, cache                      string
}

// row is one line of the table: who, at what, how quickly.
type row struct {
	Work    string  `json:"work"`
	Threads int     `json:"threads"`
	Engine  string  `json:"engine"`
	Unit    string  `json:"unit"`
	Median  float64 `json:"median"`
	Best    float64 `json:"best"`
	// CPU is the median in processor time of the whole browser instead of wall time, 0 where it was not measured.
	CPU     float64 `json:"cpu,omitempty"`
	Samples int     `json:"samples"`
}

// verdict is a ratio of temper to its best peer, above 1 where temper is better.
type verdict struct {
	Work    string  `json:"work"`
	Threads int     `json:"threads"`
	Engine  string  `json:"engine"`
	Peer    string  `json:"peer"`
	Ratio   float64 `json:"ratio"`
	// CPURatio is the ratio by processor time, which other work on the machine disturbs less.
	CPURatio float64 `json:"cpu_ratio,omitempty"`
	Bar      float64 `json:"bar"`
}

func main() {
	cache, _ := os.UserCacheDir()
	cache = filepath.Join(cache, "temper-test")
	env := func(name, other string) string { return cmp.Or(os.Getenv(name), other) }
	o := options{cache: cache}
	threads := flag.String("threads", "1,2", "threads of all engines, one run for each")
	only := flag.String("only", "f32,int8,decoder,start", "parts to measure")
	shapes := flag.String("shapes", "1x16,1x128,8x64", "texts x tokens")
	flag.IntVar(&o.rounds, "rounds", 7, "turns of each engine")
	flag.IntVar(&o.calls, "calls", 3, "timed calls of a turn, at least")
	flag.IntVar(&o.prompt, "prompt", 250, "words of a decoder's prompt")
	flag.IntVar(&o.generate, "generate", 48, "tokens that a decoder generates")
	flag.IntVar(&o.kernelTime, "kernel-time", 60, "milliseconds for each line of -only kernels")
	flag.StringVar(&o.model, "model", env("TEMPER_MINILM", filepath.Join(cache, "minilm")), "Hugging Face folder of MiniLM")
	flag.StringVar(&o.onnx, "onnx", filepath.Join(cache, "bench-f32.onnx"), "its ONNX export")
	flag.StringVar(&o.onnxInt8, "onnx-int8", filepath.Join(cache, "bench-int8.onnx"), "its int8 ONNX export")
	flag.StringVar(&o.gemma, "gemma", env("TEMPER_GEMMA", filepath.Join(cache, "gemma-3-270m-q4_k_m.gguf")), "GGUF file of the decoder")
	flag.StringVar(&o.chromium, "chromium", env("TEMPER_CHROMIUM", "chromium"), "browser to use")
	flag.StringVar(&o.output, "json", "", "file to write the figures to")
	flag.Parse()
	o.only, o.shapes = strings.Split(*only, ","), strings.Split(*shapes, ",")
	for _, s := range strings.Split(*threads, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "bench: -threads %q: expected numbers above 0\n", *threads)
			os.Exit(2)
		}
		o.threads = append(o.threads, n)
	}
	if err := run(o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options, stdout, stderr io.Writer) error {
	modules, err := install(filepath.Join(o.cache, "browser-peers"))
	if err != nil {
		return err
	}
	s, err := site(o.model, o.onnx, o.onnxInt8, o.gemma, modules)
	if err != nil {
		return err
	}
	defer s.Close()
	var rows []row
	for _, part := range o.only {
		if part == "kernels" {
			if err := kernelRates(o, s.URL, stdout); err != nil {
				return err
			}
			continue
		}
		if part == "trace" {
			if err := startTrace(o, s.URL, stdout); err != nil {
				return err
			}
			continue
		}
		for _, threads := range o.threads {
			var got []row
			switch part {
			case "f32":
				got, err = encoders(o, s.URL, stderr, []page{temperPage("f32", threads, true), temperPage("f32", threads, false), transformersPage("f32", threads), ortPage("f32", threads)})
			case "int8":
				got, err = encoders(o, s.URL, stderr, []page{temperPage("int8", threads, true), temperPage("int8", threads, false), transformersPage("int8", threads), ortPage("int8", threads)})
			case "temper": // ours alone, to look at a change
				got, err = encoders(o, s.URL, stderr, []page{temperPage("f32", threads, true), temperPage("f32", threads, false), temperPage("int8", threads, true), temperPage("int8", threads, false)})
			case "decoder":
				got, err = decoders(o, s.URL, stderr, []page{temperDecoder(threads), wllamaPage(threads)})
			case "temper-decoder":
				got, err = decoders(o, s.URL, stderr, []page{temperDecoder(threads)})
			case "start":
				got, err = starts(o, s.URL, threads, stderr)
			default:
				return fmt.Errorf("-only %s: expected f32, int8, decoder, start or kernels", part)
			}
			if err != nil {
				return fmt.Errorf("%s, %d threads: %w", part, threads, err)
			}
			rows = append(rows, got...)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	verdicts := judge(rows)
	table(stdout, rows, verdicts)
	if o.output == "" {
		return nil
	}
	b, err := json.MarshalIndent(map[string]any{"rows": rows, "ratios": verdicts}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.output, append(b, '\n'), 0o644)
}

// open gives each page a tab of one browser.
func open(b *browser, url string, pages []page, stderr io.Writer) ([]context.Context, error) {
	var tabs []context.Context
	for _, p := range pages {
		ctx, _ := chromedp.NewContext(b.ctx)
		if err := chromedp.Run(ctx, chromedp.Navigate(url)); err != nil {
			return nil, err
		}
		var about string
		if err := ask(ctx, &about, p.setup); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", p.Name, p.Work, err)
		}
		fmt.Fprintf(stderr, "%s, %s: %s\n", p.Name, p.Work, about)
		tabs = append(tabs, ctx)
	}
	return tabs, nil
}

// encoders times embedding of each shape, engines taking turns.
func encoders(o options, url string, stderr io.Writer, pages []page) ([]row, error) {
	b, err := start(o.chromium)
	if err != nil {
		return nil, err
	}
	defer b.close()
	tabs, err := open(b, url, pages, stderr)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, shape := range o.shapes {
		batch, seq, ok := strings.Cut(shape, "x")
		if !ok {
			return nil, fmt.Errorf("-shapes %s: expected texts x tokens", shape)
		}
		times, cpus := make([][]float64, len(pages)), make([][]float64, len(pages))
		for round := range o.rounds + 1 {
			for i := range pages {
				var got []float64
				// The first call of a turn wakes threads that have gone to sleep; a turn has a few timed calls, and 60 ms of them at least.
				began := b.cpu()
				err := ask(tabs[i], &got, fmt.Sprintf(`await once(%[1]s, %[2]s); const out = []; let sum = 0;
					while (out.length < %[3]d || sum < 60) { const t = performance.now(); await once(%[1]s, %[2]s); const d = performance.now() - t; out.push(d); sum += d; } return out`, batch, seq, o.calls))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", pages[i].Name, err)
				}
				if round > 0 { // the first turn compiles
					times[i] = append(times[i], got...)
					cpus[i] = append(cpus[i], (b.cpu()-began).Seconds()*1e3/float64(len(got)+1))
				}
			}
		}
		for i, p := range pages {
			r := summary("MiniLM "+p.Work+" "+shape, p, "ms", times[i], cpus[i])
			fmt.Fprintf(stderr, "%s, %s: %.1f ms, %.1f ms of processor time\n", r.Work, r.Engine, r.Median, r.CPU)
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func decoders(o options, url string, stderr io.Writer, pages []page) ([]row, error) {
	b, err := start(o.chromium)
	if err != nil {
		return nil, err
	}
	defer b.close()
	tabs, err := open(b, url, pages, stderr)
	if err != nil {
		return nil, err
	}
	type rate struct{ Tokens, Rate float64 }
	prompts, generations := make([][]float64, len(pages)), make([][]float64, len(pages))
	promptCPU, generationCPU := make([][]float64, len(pages)), make([][]float64, len(pages))
	for round := range min(o.rounds, 3) {
		for i := range pages {
			var r rate
			began := b.cpu()
			if err := ask(tabs[i], &r, fmt.Sprintf(`return await prompt(%d, 'Story %d.')`, o.prompt, round)); err != nil {
				return nil, fmt.Errorf("%s: %w", pages[i].Name, err)
			}
			promptCPU[i] = append(promptCPU[i], r.Tokens/(b.cpu()-began).Seconds())
			fmt.Fprintf(stderr, "%s: prompt of %g tokens, %.1f tokens/s, %.1f by processor time\n", pages[i].Name, r.Tokens, r.Rate, promptCPU[i][round])
			prompts[i] = append(prompts[i], r.Rate)
			began = b.cpu()
			if err := ask(tabs[i], &r, fmt.Sprintf(`return await generate(%d)`, o.generate)); err != nil {
				return nil, fmt.Errorf("%s: %w", pages[i].Name, err)
			}
			generationCPU[i] = append(generationCPU[i], r.Tokens/(b.cpu()-began).Seconds())
			fmt.Fprintf(stderr, "%s: %g tokens at %.1f tokens/s, %.1f by processor time\n", pages[i].Name, r.Tokens, r.Rate, generationCPU[i][round])
			generations[i] = append(generations[i], r.Rate)
		}
	}
	var rows []row
	for i, p := range pages {
		rows = append(rows, summary(p.Work+" prompt", p, "tok/s", prompts[i], promptCPU[i]))
	}
	for i, p := range pages {
		rows = append(rows, summary(p.Work+" generation", p, "tok/s", generations[i], generationCPU[i]))
	}
	return rows, nil
}

// starts visits each engine's page with a new browser: time from navigation to the first embedding, and the memory that the page adds.
func starts(o options, url string, threads int, stderr io.Writer) ([]row, error) {
	pages := []page{temperPage("int8", threads, true), transformersPage("int8", threads), ortPage("int8", threads)}
	times, added, cpus := make([][]float64, len(pages)), make([][]float64, len(pages)), make([][]float64, len(pages))
	visit := func(i int) error {
		b, err := start(o.chromium)
		if err != nil {
			return err
		}
		defer b.close()
		time.Sleep(700 * time.Millisecond) // the browser's own start
		blank, err := b.memory()
		if err != nil {
			return err
		}
		var first float64
		began := b.cpu()
		if err := chromedp.Run(b.ctx, chromedp.Navigate(url)); err != nil {
			return err
		}
		// The page is empty: from here on everything is the engine's.
		body := strings.ReplaceAll(pages[i].setup, "for (const seq of [16, 64, 128])", "for (const seq of [])")
		if err := ask(b.ctx, &first, `await (async () => {`+body+`})(); await once(1, 16); return performance.now()`); err != nil {
			return fmt.Errorf("%s: %w", pages[i].Name, err)
		}
		cpu := (b.cpu() - began).Seconds() * 1e3
		if err := ask(b.ctx, nil, `for (let i = 0; i < 5; i++) await once(1, 128); await new Promise((ok) => setTimeout(ok, 1500))`); err != nil {
			return err
		}
		after, err := b.memory()
		if err != nil {
			return err
		}
		mb := float64(after-blank) / (1 << 20)
		fmt.Fprintf(stderr, "%s: first result after %.0f ms, %.0f MiB added\n", pages[i].Name, first, mb)
		times[i], added[i], cpus[i] = append(times[i], first), append(added[i], mb), append(cpus[i], cpu)
		return nil
	}
	for range min(o.rounds, 5) {
		for i := range pages {
			if err := visit(i); err != nil {
				return nil, err
			}
		}
	}
	var rows []row
	for i, p := range pages {
		rows = append(rows, summary("navigation to first result, cold, MiniLM int8", p, "ms", times[i], cpus[i]))
	}
	for i, p := range pages {
		rows = append(rows, summary("memory added, MiniLM int8", p, "MiB", added[i], nil))
	}
	return rows, nil
}

func summary(work string, p page, unit string, v, cpu []float64) row {
	slices.Sort(v)
	slices.Sort(cpu)
	r := row{Work: work, Threads: p.Threads, Engine: p.Name, Unit: unit, Median: v[len(v)/2], Best: v[0], Samples: len(v)}
	if unit == "tok/s" {
		r.Best = v[len(v)-1]
	}
	if len(cpu) > 0 {
		r.CPU = cpu[len(cpu)/2]
	}
	return r
}

// bar is the ratio that a line is to reach, and the peers that it is measured by.
func bar(r row) (float64, []string) {
	plain := r.Engine == "temper plain"
	encoders := []string{"transformers.js"}
	switch {
	case strings.HasPrefix(r.Work, "MiniLM f32") && !plain:
		return 1.3, encoders
	case strings.HasPrefix(r.Work, "MiniLM int8") && plain:
		return 1.1, encoders
	case strings.HasPrefix(r.Work, "MiniLM int8"):
		return 1.5, encoders
	case strings.HasSuffix(r.Work, "prompt"):
		return 4, []string{"wllama"}
	case strings.HasSuffix(r.Work, "generation"):
		return 2, []string{"wllama"}
	case strings.HasPrefix(r.Work, "navigation"):
		return 2, []string{"transformers.js", "onnxruntime-web"}
	case strings.HasPrefix(r.Work, "memory"):
		return 2, encoders
	}
	return 0, nil
}

func judge(rows []row) []verdict {
	var out []verdict
	for _, r := range rows {
		want, names := bar(r)
		if want == 0 || !strings.HasPrefix(r.Engine, "temper") {
			continue
		}
		v := verdict{Work: r.Work, Threads: r.Threads, Engine: r.Engine, Bar: want}
		for _, p := range rows {
			if p.Work != r.Work || p.Threads != r.Threads || !slices.Contains(names, p.Engine) {
				continue
			}
			ratio, cpu := p.Median/r.Median, 0.0
			if r.CPU > 0 {
				cpu = p.CPU / r.CPU
			}
			if r.Unit == "tok/s" {
				ratio = r.Median / p.Median
				if p.CPU > 0 {
					cpu = r.CPU / p.CPU
				}
			}
			if v.Peer == "" || ratio < v.Ratio {
				v.Peer, v.Ratio, v.CPURatio = p.Engine, ratio, cpu
			}
		}
		if v.Peer != "" {
			out = append(out, v)
		}
	}
	return out
}

func table(w io.Writer, rows []row, verdicts []verdict) {
	fmt.Fprintln(w, "| work | threads | engine | median (best) | processor time | ratio | by processor time | bar |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	for _, r := range rows {
		ratio, byCPU, want, cpu := "", "", "", ""
		for _, v := range verdicts {
			if v.Work == r.Work && v.Threads == r.Threads && v.Engine == r.Engine {
				ratio, want = fmt.Sprintf("%.2f × %s", v.Ratio, v.Peer), fmt.Sprintf("%g", v.Bar)
				if v.CPURatio > 0 {
					byCPU = fmt.Sprintf("%.2f", v.CPURatio)
				}
			}
		}
		if r.CPU > 0 {
			cpu = fmt.Sprintf("%.1f", r.CPU)
		}
		fmt.Fprintf(w, "| %s | %d | %s | %.1f (%.1f) %s | %s | %s | %s | %s |\n", r.Work, r.Threads, r.Engine, r.Median, r.Best, r.Unit, cpu, ratio, byCPU, want)
	}
}
