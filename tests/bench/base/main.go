// Command base judges temper's built-in encoder beside all-MiniLM-L6-v2 and a bag of words, see docs/base.md:
//
//	go run ./tests/bench/base -data DATA -minilm MINILM -out results.jsonl
//
// Each figure is written to the file as it is found; a second run goes on where the first has stopped.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/train"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "base:", err)
		os.Exit(1)
	}
}

// figure is one result.
type figure struct {
	Part   string  `json:"part"` // few, full, tuned, transfer
	Set    string  `json:"set"`
	Model  string  `json:"model"`
	Method string  `json:"method"`
	Score  float64 `json:"score"`
	// Each are the scores of the draws that Score is the mean of.
	Each       []float64 `json:"each,omitempty"`
	CPUSeconds float64   `json:"cpu_seconds"`
}

func (f figure) key() string { return strings.Join([]string{f.Part, f.Set, f.Model, f.Method}, "|") }

// results is the file of figures.
type results struct {
	path string
	have map[string]figure
	list []figure
	left int // figures to find before the run ends; negative: all
}

// errEnough ends a run that was to find so many figures.
var errEnough = errors.New("enough figures")

func readResults(path string) (*results, error) {
	r := &results{path: path, have: map[string]figure{}}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		var g figure
		if err := json.Unmarshal(sc.Bytes(), &g); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		r.have[g.key()] = g
		r.list = append(r.list, g)
	}
	return r, sc.Err()
}

// do finds a figure unless it is there.
func (r *results) do(g figure, find func(*figure) error) error {
	if _, ok := r.have[g.key()]; ok {
		return nil
	}
	if r.left == 0 {
		return errEnough
	}
	r.left--
	before, _ := train.Usage()
	if err := find(&g); err != nil {
		return fmt.Errorf("%s: %w", g.key(), err)
	}
	after, _ := train.Usage()
	g.CPUSeconds = after - before
	b, err := json.Marshal(g)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(r.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		f.Close()
		return err
	}
	r.have[g.key()] = g
	r.list = append(r.list, g)
	fmt.Fprintf(os.Stderr, "%s %.4f\n", g.key(), g.Score)
	return f.Close()
}

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("base", flag.ContinueOnError)
	cache, _ := os.UserCacheDir()
	env := func(name, def string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return def
	}
	dataDir := fs.String("data", env("TEMPER_DATA", filepath.Join("..", "shared", "data")), "folder of data sets")
	minilm := fs.String("minilm", env("TEMPER_MINILM", filepath.Join(cache, "temper-test", "minilm")), "folder of all-MiniLM-L6-v2")
	mini := fs.String("base", filepath.Join("cmd", "temper", "base"), "folder of the base to judge")
	name := fs.String("name", "temper-mini", "its name in the tables")
	out := fs.String("out", "base-results.jsonl", "file of figures")
	only := fs.String("sets", "", "sets to run, separated by commas (default: all)")
	parts := fs.String("parts", "heads,few,transfer,tuned,tuned-teacher,serving", "parts to run")
	figures := fs.Int("figures", -1, "find so many figures, then print what there is (negative: all)")
	threads := fs.Int("threads", 1, "worker threads")
	if err := fs.Parse(args); err != nil {
		return err
	}
	k, err := native.New(native.Options{Threads: *threads})
	if err != nil {
		return err
	}
	defer k.Close()
	r, err := readResults(*out)
	if err != nil {
		return err
	}
	r.left = *figures
	base := contender{*name, opener(*mini)}
	teacher := contender{"all-MiniLM-L6-v2", opener(*minilm)}
	if err := r.find(ctx, k, strings.Split(*parts, ","), strings.FieldsFunc(*only, func(c rune) bool { return c == ',' }), *dataDir, base, teacher); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return r.print(os.Stdout, base.name, teacher.name)
}

// find runs the parts that are asked for.
func (r *results) find(ctx context.Context, k backend.Kernels, want, only []string, dataDir string, base, teacher contender) error {
	for _, s := range sets {
		if len(only) > 0 && !slices.Contains(only, s.Name) {
			continue
		}
		t, err := readTask(dataDir, s)
		if err != nil {
			return err
		}
		if slices.Contains(want, "heads") {
			if err := headPart(ctx, r, k, t, base, teacher); err != nil {
				return err
			}
		}
		if slices.Contains(want, "few") {
			if err := fewTunedPart(ctx, r, k, t, base); err != nil {
				return err
			}
		}
		if slices.Contains(want, "transfer") && s.Name == "trec6" {
			// Frozen: the embeddings and the lower half of the blocks.
			if err := transferPart(ctx, r, k, t, dataDir, base, 3); err != nil {
				return err
			}
			if err := transferPart(ctx, r, k, t, dataDir, teacher, 4); err != nil {
				return err
			}
		}
		if slices.Contains(want, "tuned") {
			if err := tunedPart(ctx, r, k, t, base); err != nil {
				return err
			}
		}
		if slices.Contains(want, "tuned-teacher") && (s.Name == "sst2" || s.Name == "trec6") { // slow, and the heads tell the same of the others
			if err := tunedPart(ctx, r, k, t, teacher); err != nil {
				return err
			}
		}
	}
	if slices.Contains(want, "serving") {
		if err := servingPart(ctx, r, dataDir, base, teacher); err != nil {
			return err
		}
	}
	return nil
}
