// Command decoder runs temper and llama.cpp (through node-llama-cpp) on the same GGUF file, prompts and threads, in turn, and prints the ratio
// of their times.
//
//	npm install --prefix DIR --ignore-scripts node-llama-cpp @node-llama-cpp/linux-x64
//	go run ./tests/bench/decoder -model gemma-3-270m-q4_k_m.gguf -node DIR
package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/generate"
)

//go:embed llama.mjs
var script string

const parallel = 8

// work is one line of the table: prompts of so many tokens, read and continued at once.
type work struct {
	name            string
	prompts, length int
	tokens          int
	first           bool // the time to the first token counts, not the whole
}

var works = []work{
	{"first token after 8", 1, 8, 2, true},
	{"read 128 tokens", 1, 128, 1, false},
	{"read 512 tokens", 1, 512, 1, false},
	{"write 64 tokens", 1, 8, 64, false},
	{"write 64 tokens after 512", 1, 512, 64, false},
	{"8 texts at once, 32 tokens each", 8, 8, 32, false},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "decoder:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, "temper-test")
	path := flag.String("model", filepath.Join(dir, "gemma-3-270m-q4_k_m.gguf"), "GGUF file")
	node := flag.String("node", filepath.Join(dir, "node"), "folder with node_modules/node-llama-cpp")
	threads := flag.String("threads", "1,2", "thread counts")
	rounds := flag.Int("rounds", 5, "rounds per row")
	match := flag.String("rows", "", "only rows whose name contains this")
	flag.Parse()
	fmt.Println("| work | threads | temper, best ms | llama.cpp, best ms | median of ratios |")
	fmt.Println("|---|---|---|---|---|")
	for _, s := range strings.Split(*threads, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-threads %q: want numbers", *threads)
		}
		if err := measure(*path, *node, n, *rounds, *match); err != nil {
			return err
		}
	}
	return nil
}

func measure(path, node string, threads, rounds int, match string) error {
	k, err := native.New(native.Options{Threads: threads})
	if err != nil {
		return err
	}
	defer k.Close()
	d, err := generate.Open(path, generate.OpenOptions{})
	if err != nil {
		return err
	}
	defer d.Close()
	g, err := d.Start(k, generate.Options{Parallel: parallel, Context: 1024})
	if err != nil {
		return err
	}
	defer g.Close()
	l, err := start(node, path, threads)
	if err != nil {
		return fmt.Errorf("llama.cpp: %w", err)
	}
	defer l.close()
	r := rand.New(rand.NewPCG(1, uint64(threads)))
	for _, w := range works {
		if !strings.Contains(w.name, match) {
			continue
		}
		var own, peer, ratios []float64
		for round := range rounds + 1 {
			// Fresh prompts every time: nothing is to be found in a cache.
			prompts := make([][]int32, w.prompts)
			for i := range prompts {
				for range w.length {
					prompts[i] = append(prompts[i], int32(1000+r.IntN(min(20000, d.Model.Config().Vocab-1000))))
				}
			}
			a, err := temper(g, prompts, w)
			if err != nil {
				return err
			}
			b, err := l.run(prompts, w)
			if err != nil {
				return fmt.Errorf("llama.cpp: %w", err)
			}
			if round > 0 { // the first warms both up
				own, peer, ratios = append(own, a), append(peer, b), append(ratios, b/a)
			}
		}
		slices.Sort(ratios)
		fmt.Printf("| %s | %d | %.1f | %.1f | %.2f |\n", w.name, threads, 1000*slices.Min(own), 1000*slices.Min(peer), ratios[len(ratios)/2])
	}
	return nil
}

// temper returns the seconds that count.
func temper(g *generate.Generator, prompts [][]int32, w work) (float64, error) {
	begun := time.Now()
	first := make([]float64, len(prompts))
	errs := make([]error, len(prompts))
	var wg sync.WaitGroup
	for i, p := range prompts {
		wg.Go(func() {
			var r generate.Result
			r, errs[i] = g.Generate(context.Background(), generate.Request{Prompt: p, MaxTokens: w.tokens, IgnoreEnd: true, LogProbs: -1}, func(generate.Piece) error { return nil })
			first[i] = r.PromptSeconds
		})
	}
	wg.Wait()
	if w.first {
		return slices.Max(first), errors.Join(errs...)
	}
	return time.Since(begun).Seconds(), errors.Join(errs...)
}

// llama is the peer's process.
type llama struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(node, model string, threads int) (*llama, error) {
	f, err := os.CreateTemp("", "llama*.mjs")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(script); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if model, err = filepath.Abs(model); err != nil {
		return nil, err
	}
	l := &llama{cmd: exec.Command("node", f.Name(), node, model, strconv.Itoa(threads), strconv.Itoa(parallel))}
	l.cmd.Stderr = os.Stderr
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.out = bufio.NewReader(out)
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := l.answer(); err != nil { // it is ready
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

type answer struct {
	Seconds float64 `json:"seconds"`
	First   float64 `json:"first"`
}

func (l *llama) answer() (answer, error) {
	for {
		line, err := l.out.ReadString('\n')
		if err != nil {
			return answer{}, err
		}
		var a answer
		if strings.HasPrefix(line, "{") {
			return a, json.Unmarshal([]byte(line), &a)
		}
	}
}

func (l *llama) run(prompts [][]int32, w work) (float64, error) {
	raw, err := json.Marshal(map[string]any{"prompts": prompts, "tokens": w.tokens})
	if err != nil {
		return 0, err
	}
	if _, err := l.in.Write(append(raw, '\n')); err != nil {
		return 0, err
	}
	a, err := l.answer()
	if w.first {
		return a.First, err
	}
	return a.Seconds, err
}

func (l *llama) close() error {
	_ = l.in.Close()
	return l.cmd.Wait()
}
