// Command serve measures what batching buys: tokens a second over HTTP from temper's server at one connection and at several, the same kernels and
// decoder, in turn, and the ratio; and the same by the server's processor time (where /proc tells it), which other work on the machine disturbs less.
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
	"math"
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
	url, pid, stop, err := serve(*temper, *path, *threads, *most)
	if err != nil {
		return err
	}
	defer stop()
	var wall, busy rates
	for round := range *rounds + 1 {
		a, ca, err := rate(url, pid, 1, *tokens, round)
		if err != nil {
			return err
		}
		b, cb, err := rate(url, pid, *most, *tokens, round)
		if err != nil {
			return err
		}
		if round > 0 { // the first warms up
			wall.add(a, b)
			busy.add(ca, cb)
		}
	}
	fmt.Printf("| connections | threads | tokens/s, best | median of ratios to one | tokens per processor second, best | median of ratios to one |\n|---|---|---|---|---|---|\n")
	fmt.Printf("| 1 | %d | %.1f | | %.1f | |\n| %d | %d | %.1f | %.2f | %.1f | %.2f |\n", *threads, slices.Max(wall.alone), slices.Max(busy.alone),
		*most, *threads, slices.Max(wall.together), wall.ratio(), slices.Max(busy.together), busy.ratio())
	return nil
}

// rates are those of one connection and of several, round by round.
type rates struct{ alone, together, ratios []float64 }

func (r *rates) add(a, b float64) {
	r.alone, r.together, r.ratios = append(r.alone, a), append(r.together, b), append(r.ratios, b/a)
}

func (r *rates) ratio() float64 {
	slices.Sort(r.ratios)
	return r.ratios[len(r.ratios)/2]
}

// processorTime is what the server has used so far, in seconds; NaN where the system does not tell.
func processorTime(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return math.NaN()
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // after the name
	f := strings.Fields(rest)
	if len(f) < 13 {
		return math.NaN()
	}
	user, uerr := strconv.ParseFloat(f[11], 64)
	system, serr := strconv.ParseFloat(f[12], 64)
	if uerr != nil || serr != nil {
		return math.NaN()
	}
	return (user + system) / 100 // Linux counts in hundredths
}

func serve(temper, model string, threads, parallel int) (url string, pid int, stop func(), err error) {
	cmd := exec.Command(temper, "serve", "m="+model, "--addr", "127.0.0.1:0", "--parallel", strconv.Itoa(parallel), "--context", "512", "--threads", strconv.Itoa(threads))
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return "", 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
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
			return strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), cmd.Process.Pid, stop, nil
		}
		if err != nil {
			stop()
			return "", 0, nil, fmt.Errorf("the server did not start: %s", said)
		}
	}
}

// rate is the tokens a second, and a second of the server's processor time, that n connections get together. Prompts differ, so that no answer is found in another's cache.
func rate(url string, pid, n, tokens, round int) (wall, busy float64, err error) {
	counts, errs := make([]int, n), make([]error, n)
	begun, used := time.Now(), processorTime(pid)
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
	return float64(sum) / time.Since(begun).Seconds(), float64(sum) / (processorTime(pid) - used), errors.Join(errs...)
}
