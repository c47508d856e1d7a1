// Command serve measures what batching buys: tokens a second over HTTP from temper's server at one connection and at several, the same kernels and
// decoder, in turn, and the ratio.
//
//	go run ./tests/bench/serve -model gemma-3-270m-q4_k_m.gguf -threads 2 -connections 16
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	path := flag.String("model", filepath.Join(dir, "temper-test", "gemma-3-270m-q4_k_m.gguf"), "decoder")
	temper := flag.String("temper", "", "temper's binary (default: built here)")
	threads := flag.Int("threads", 2, "threads")
	most := flag.Int("connections", 16, "connections")
	tokens := flag.Int("tokens", 64, "tokens of an answer")
	rounds := flag.Int("rounds", 5, "rounds")
	flag.Parse()
	if *temper == "" {
		tmp, err := os.MkdirTemp("", "temper-bench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		*temper = filepath.Join(tmp, "temper")
		if out, err := exec.Command("go", "build", "-o", *temper, "./cmd/temper").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	url, stop, err := serve(*temper, *path, *threads, *most)
	if err != nil {
		return err
	}
	defer stop()
	var alone, together, ratios []float64
	for round := range *rounds + 1 {
		a, err := rate(url, 1, *tokens, round)
		if err != nil {
			return err
		}
		b, err := rate(url, *most, *tokens, round)
		if err != nil {
			return err
		}
		if round > 0 { // the first warms up
			alone, together, ratios = append(alone, a), append(together, b), append(ratios, b/a)
		}
	}
	slices.Sort(ratios)
	fmt.Printf("| connections | threads | tokens/s, best | median of ratios to one |\n|---|---|---|---|\n")
	fmt.Printf("| 1 | %d | %.1f | |\n| %d | %d | %.1f | %.2f |\n", *threads, slices.Max(alone), *most, *threads, slices.Max(together), ratios[len(ratios)/2])
	return nil
}

func serve(temper, model string, threads, parallel int) (url string, stop func(), err error) {
	cmd := exec.Command(temper, "serve", "m="+model, "--addr", "127.0.0.1:0", "--parallel", strconv.Itoa(parallel), "--context", "512", "--threads", strconv.Itoa(threads))
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	said, buf := "", make([]byte, 4096)
	for {
		n, err := pipe.Read(buf)
		said += string(buf[:n])
		if _, rest, ok := strings.Cut(said, "listening on "); ok && strings.Contains(rest, "\n") {
			go func() { _, _ = io.Copy(io.Discard, pipe) }()
			return strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), stop, nil
		}
		if err != nil {
			stop()
			return "", nil, fmt.Errorf("the server did not start: %s", said)
		}
	}
}

// rate is the tokens a second that n connections get together. Prompts differ, so that no answer is found in another's cache.
func rate(url string, n, tokens, round int) (float64, error) {
	counts, errs := make([]int, n), make([]error, n)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			body, err := json.Marshal(map[string]any{"model": "m", "max_tokens": tokens, "temperature": 0, "logit_bias": map[string]float64{"1": -100, "106": -100},
				"prompt": fmt.Sprintf("Round %d of %d, report number %d. The weather in the north was", round, n, i)})
			if err != nil {
				errs[i] = err
				return
			}
			r, err := http.Post(url+"/v1/completions", "application/json", bytes.NewReader(body))
			if err != nil {
				errs[i] = err
				return
			}
			defer r.Body.Close()
			var answer struct {
				Usage struct {
					Tokens int `json:"completion_tokens"`
				} `json:"usage"`
				Error any `json:"error"`
			}
			if errs[i] = json.NewDecoder(r.Body).Decode(&answer); answer.Error != nil {
				errs[i] = fmt.Errorf("%v", answer.Error)
			}
			counts[i] = answer.Usage.Tokens
		})
	}
	wg.Wait()
	sum := 0
	for _, c := range counts {
		sum += c
	}
	return float64(sum) / time.Since(begun).Seconds(), errors.Join(errs...)
}
