// Command attack runs temper and TextAttack against the same classifier, on the same rows, in turn, in one run, and prints how fast each
// attacks and how often it wins. See README.md beside it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/data"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
}

// settings are what the flags say.
type settings struct {
	model, data, task, rows string
	script, python          string
	recipe                  string
	maxTokens, threads      int
	seed                    uint64
	engines                 []string
}

func run(ctx context.Context, args []string) error {
	cacheDir, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	var s settings
	fs := flag.NewFlagSet("attack", flag.ContinueOnError)
	fs.StringVar(&s.model, "model", "", "Hugging Face folder of the classifier that both attack")
	fs.StringVar(&s.data, "data", envOr("TEMPER_DATA", filepath.Join("..", "shared", "data")), "folder of data sets")
	fs.StringVar(&s.task, "task", "mr", "data set: TASK/test.tsv")
	fs.StringVar(&s.rows, "rows", "", "file of row numbers (default DATA/draws/TASK-test-attack200.txt)")
	fs.StringVar(&s.script, "textattack", envOr("TEMPER_TEXTATTACK", filepath.Join("..", "shared", "tools", "textattack_check.py")), "the script that runs TextAttack")
	fs.StringVar(&s.python, "python", filepath.Join(cacheDir, "temper-test", "peers", "bin", "python"), "Python with textattack, torch, transformers")
	recipes := fs.String("recipes", "deepwordbug", "recipes that both have: deepwordbug, textbugger-chars, pruthi")
	fs.IntVar(&s.maxTokens, "max-tokens", 64, "cut texts at this many tokens")
	fs.IntVar(&s.threads, "threads", 2, "threads of temper; the script fixes TextAttack's at 2")
	fs.Uint64Var(&s.seed, "seed", 1, "seed of temper")
	engines := fs.String("engines", "textattack,f32,int8", "what to run")
	first := fs.Int("first", 0, "first row to attack")
	count := fs.Int("examples", 0, "number of rows (0: all)")
	slice := fs.Int("slice", 50, "rows in a round: every engine attacks the same slice before the next is begun")
	keep := fs.String("keep", "", "file of finished slices: slices in it are not run again, and the table covers all of it")
	profile := fs.String("cpuprofile", "", "write a CPU profile of the whole run to this file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if s.model == "" {
		return errors.New("-model is missing: want the folder of a classifier, from temper tune for example")
	}
	if s.rows == "" {
		s.rows = filepath.Join(s.data, "draws", s.task+"-test-attack200.txt")
	}
	s.engines = strings.Split(*engines, ",")
	numbers, err := data.ReadRows(s.rows)
	if err != nil {
		return err
	}
	numbers = numbers[min(*first, len(numbers)):]
	if *count > 0 && *count < len(numbers) {
		numbers = numbers[:*count]
	}
	done, err := readKept(*keep)
	if err != nil {
		return err
	}
	for _, s.recipe = range strings.Split(*recipes, ",") {
		for at := 0; at < len(numbers); at += *slice {
			part := numbers[at:min(len(numbers), at+*slice)]
			for _, e := range s.engines {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if slices.ContainsFunc(done, func(o outcome) bool { return o.Recipe == s.recipe && o.Engine == e && slices.Equal(o.Rows, part) }) {
					continue
				}
				o, err := s.attack(ctx, e, part)
				if err != nil {
					return fmt.Errorf("%s with %s: %w", s.recipe, e, err)
				}
				fmt.Fprintf(os.Stderr, "%s %s rows %d to %d: %d won, %d held, %.2f s\n", s.recipe, e, *first+at, *first+at+len(part)-1, o.Won, o.Held, o.Seconds)
				done = append(done, o)
				if err := keepOne(*keep, o); err != nil {
					return err
				}
			}
		}
	}
	printTable(done)
	return nil
}

func (s *settings) attack(ctx context.Context, engine string, rows []int) (outcome, error) {
	if engine == "textattack" {
		return s.runPeer(ctx, rows)
	}
	return s.runTemper(ctx, engine, rows)
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func readKept(path string) ([]outcome, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []outcome
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		var o outcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, i+1, err)
		}
		out = append(out, o)
	}
	return out, nil
}

func keepOne(path string, o outcome) error {
	if path == "" {
		return nil
	}
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
