// Command bench runs temper and its peers (ONNX Runtime, PyTorch, peft) on the same model, inputs and threads, in turn, in one run, and
// prints the ratios. See README.md beside it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/temper-ml/temper/core/data"
)

// row is one line of the table: the same work by temper and by one or more peers.
type row struct {
	Name    string
	Threads int
	// Temper does the work once and returns the time it took.
	Temper func() (time.Duration, error)
	// Peers do it once each; the fastest counts.
	Peers map[string]func() (time.Duration, error)
	// Target is the ratio asked for; 0: none.
	Target float64
	// Slow rows run fewer rounds.
	Slow bool
}

// result is a measured row. Times are milliseconds; Ratio is the median over rounds of peer time over temper time.
type result struct {
	Name      string             `json:"name"`
	Threads   int                `json:"threads"`
	Temper    float64            `json:"temper_best_ms"`
	TemperMed float64            `json:"temper_median_ms"`
	Peers     map[string]float64 `json:"peers_best_ms"`
	Peer      string             `json:"fastest_peer"`
	Ratio     float64            `json:"ratio"`
	Target    float64            `json:"target,omitempty"`
	Error     string             `json:"error,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if dir := os.Getenv(childModel); dir != "" {
		if err := beChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "report" {
		return report(args[1:], os.Stdout)
	}
	cacheDir, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	cacheDir = filepath.Join(cacheDir, "temper-test")
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	dir := fs.String("model", envOr("TEMPER_MINILM", filepath.Join(cacheDir, "minilm")), "Hugging Face folder of a BERT encoder")
	dataDir := fs.String("data", envOr("TEMPER_DATA", filepath.Join("..", "shared", "data")), "folder of data sets (for rows on real texts)")
	python := fs.String("python", filepath.Join(cacheDir, "peers", "bin", "python"), "Python with torch, transformers, peft, onnxruntime, onnx")
	threads := fs.String("threads", "1,2", "thread counts")
	match := fs.String("rows", "", "only rows whose name contains one of these, separated by commas")
	rounds := fs.Int("rounds", 9, "rounds per row (slow rows: a third)")
	cpu := fs.Bool("cpu", false, "count processor time, not wall time: for a shared machine, with one thread only")
	out := fs.String("json", "", "also write the table as JSON to this file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *cpu && *threads != "1" {
		return errors.New("-cpu needs -threads 1: waiting workers spin")
	}
	countCPU = *cpu
	var results []result
	for _, t := range strings.Split(*threads, ",") {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 {
			return fmt.Errorf("-threads %q: expected numbers of 1 or more", *threads)
		}
		p, err := startPeers(*python, *dir, cacheDir, n, *cpu)
		if err != nil {
			return err
		}
		rows, err := plan(p, *dir, *dataDir, n)
		if err != nil {
			p.close()
			return err
		}
		for _, r := range rows {
			if !wanted(r.Name, *match) {
				continue
			}
			k := *rounds
			if r.Slow {
				k = max(3, k/3)
			}
			res := measure(ctx, r, k)
			if ctx.Err() != nil {
				p.close()
				return ctx.Err()
			}
			results = append(results, res)
			print1(res)
		}
		p.close()
	}
	if len(results) == 0 {
		return fmt.Errorf("no row matches %q", *match)
	}
	if *out != "" {
		b, err := json.MarshalIndent(map[string]any{"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "rows": results}, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*out, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	failed := 0
	for _, r := range results {
		if r.Error != "" {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d rows did not run", failed)
	}
	return nil
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// wanted reports whether a row's name contains one of the texts in match, which commas separate.
func wanted(name, match string) bool {
	for m := range strings.SplitSeq(match, ",") {
		if strings.Contains(name, strings.TrimSpace(m)) {
			return true
		}
	}
	return false
}

// measure alternates temper and peers, after one warm-up of each, so that drifts of the machine hit all alike.
func measure(ctx context.Context, r row, rounds int) result {
	res := result{Name: r.Name, Threads: r.Threads, Target: r.Target, Peers: map[string]float64{}}
	names := make([]string, 0, len(r.Peers))
	for n := range r.Peers {
		names = append(names, n)
	}
	slices.Sort(names)
	var mine []float64
	peers := map[string][]float64{}
	for round := -1; round < rounds; round++ {
		if ctx.Err() != nil {
			return res
		}
		d, err := r.Temper()
		if err != nil {
			res.Error = "temper: " + err.Error()
			return res
		}
		if round >= 0 {
			mine = append(mine, ms(d))
		}
		for _, n := range names {
			d, err := r.Peers[n]()
			if err != nil {
				res.Error = n + ": " + err.Error()
				return res
			}
			if round >= 0 {
				peers[n] = append(peers[n], ms(d))
			}
		}
	}
	res.Temper, res.TemperMed = slices.Min(mine), median(mine)
	best := 0.0
	for _, n := range names {
		ratios := make([]float64, len(mine))
		for i := range mine {
			ratios[i] = peers[n][i] / mine[i]
		}
		res.Peers[n] = slices.Min(peers[n])
		if m := median(ratios); res.Peer == "" || m < best {
			res.Peer, best = n, m
		}
	}
	res.Ratio = best
	return res
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n == 0 {
		return 0
	}
	return (s[n/2] + s[(n-1)/2]) / 2
}

func print1(r result) {
	if r.Error != "" {
		fmt.Printf("%-34s %d thr  failed: %s\n", r.Name, r.Threads, r.Error)
		return
	}
	target := ""
	if r.Target > 0 {
		mark := "reached"
		if r.Ratio < r.Target {
			mark = "below"
		}
		target = fmt.Sprintf("  target %.2f %s", r.Target, mark)
	}
	fmt.Printf("%-34s %d thr  temper %9.2f ms (median %9.2f)  %-12s %9.2f ms  ratio %5.2f%s\n",
		r.Name, r.Threads, r.Temper, r.TemperMed, r.Peer, r.Peers[r.Peer], r.Ratio, target)
}

// randomIDs makes a batch of n sequences of the same length: [CLS], random words, [SEP].
func randomIDs(n, length, vocab int, seed uint64) [][]int32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	out := make([][]int32, n)
	for i := range out {
		ids := make([]int32, length)
		for j := range ids {
			ids[j] = 1000 + rng.Int32N(int32(vocab)-1000)
		}
		ids[0], ids[length-1] = 101, 102
		out[i] = ids
	}
	return out
}

// texts reads a data set's texts; absent data is an error that says how to get the rows without it.
func texts(dir, file string, rows string) ([]string, error) {
	o := data.Options{}
	if rows != "" {
		o.RowsFile = filepath.Join(dir, "draws", rows)
	}
	d, err := data.Open(filepath.Join(dir, file), o)
	if err != nil {
		return nil, errors.Join(err, fmt.Errorf("rows on real texts need the data sets: give -data, or choose others with -rows"))
	}
	return d.Texts, nil
}
