// Command pretrain trains the same small network by temper and by PyTorch, from the same weights on the same rows, a step of each in turn, and
// compares losses and speed:
//
//	go run ./tests/bench/pretrain -python PYTHON -data text.txt
//
// PYTHON needs torch and transformers.
package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/temper-ml/temper/backend/native"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pretrain"
	"github.com/temper-ml/temper/core/train"
)

//go:embed peer.py
var peerScript string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pretrain:", err)
		os.Exit(1)
	}
}

type settings struct {
	python, text   string
	steps, threads int
	cpu            bool
	shape          pretrain.Shape
	vocab, batch   int
	length         int
}

func run(ctx context.Context, args []string) error {
	var s settings
	fs := flag.NewFlagSet("pretrain", flag.ContinueOnError)
	cache, _ := os.UserCacheDir()
	data := os.Getenv("TEMPER_DATA")
	if data == "" {
		data = filepath.Join("..", "shared", "data")
	}
	fs.StringVar(&s.python, "python", filepath.Join(cache, "temper-test", "peers", "bin", "python"), "Python with torch and transformers")
	fs.StringVar(&s.text, "data", filepath.Join(data, "text", "wikitext2-valid.txt"), "plain text")
	fs.IntVar(&s.steps, "steps", 300, "steps")
	fs.IntVar(&s.threads, "threads", 1, "threads of both")
	fs.BoolVar(&s.cpu, "cpu", false, "count processor time, not wall time: for a shared machine, with one thread")
	family := fs.String("family", "", "bert or llama only (default: both)")
	fs.IntVar(&s.shape.Hidden, "hidden", 128, "width")
	fs.IntVar(&s.shape.Layers, "layers", 4, "blocks")
	fs.IntVar(&s.shape.Heads, "heads", 4, "heads")
	fs.IntVar(&s.shape.FFN, "ffn", 512, "width of the feed-forward layers")
	fs.IntVar(&s.vocab, "vocab-size", 4000, "tokens of the vocabulary")
	fs.IntVar(&s.batch, "batch", 8, "rows of a step")
	fs.IntVar(&s.length, "length", 128, "tokens of a row")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if s.cpu && s.threads != 1 {
		return fmt.Errorf("-cpu needs -threads 1")
	}
	fmt.Println("| family | parameters | largest difference of the loss | loss at the end | temper tokens/s | PyTorch tokens/s | ratio |\n|---|---|---|---|---|---|---|")
	for _, f := range pretrain.Families {
		if *family != "" && *family != f {
			continue
		}
		s.shape.Family = f
		if err := s.compare(ctx); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

// peer is the Python process.
type peer struct {
	in  io.Writer
	out *bufio.Reader
}

func (p *peer) call(q, answer any) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the peer ended: %w", err)
	}
	return json.Unmarshal(line, answer)
}

func (s settings) compare(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "temper-pretrain-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	k, err := native.New(native.Options{Threads: s.threads})
	if err != nil {
		return err
	}
	defer k.Close()
	// One vocabulary and one set of weights for both.
	o := pretrain.Options{Kernels: k, Text: pretrain.Texts{Files: []string{s.text}, Split: pretrain.ByBlankLine}, Dropout: 0, Seed: 1, Steps: s.steps,
		Batch: s.batch, Length: s.length, SaveEvery: -1}
	kind := map[string]string{"bert": "wordpiece", "llama": "bpe"}[s.shape.Family]
	tok, err := pretrain.TrainTokenizer(ctx, kind, o.Text, s.vocab, false, s.shape.Family == "bert")
	if err != nil {
		return err
	}
	if o.Tokenizer, err = tok.Save(); err != nil {
		return err
	}
	s.shape.Context = s.length
	if o.Config, err = s.shape.Config(tok); err != nil {
		return err
	}
	cfg, err := model.ParseConfig(o.Config)
	if err != nil {
		return err
	}
	m, err := model.New(cfg, nil, model.Options{Random: true, Seed: 7})
	if err != nil {
		return err
	}
	weights := filepath.Join(dir, checkpoint.WeightsFile)
	if err := checkpoint.WriteSafetensors(weights, model.Tensors(m), map[string]string{"format": "pt"}); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, checkpoint.ConfigFile), o.Config, 0o644); err != nil {
		return err
	}
	src, err := checkpoint.OpenSafetensors(weights)
	if err != nil {
		return err
	}
	defer src.Close()
	o.Init = src
	o.Defaults()

	cmd := exec.CommandContext(ctx, s.python, "-c", peerScript)
	cmd.Env = append(os.Environ(), "HF_HUB_OFFLINE=1", "TRANSFORMERS_VERBOSITY=error", "HF_HUB_DISABLE_PROGRESS_BARS=1", fmt.Sprintf("OMP_NUM_THREADS=%d", s.threads))
	if os.Getenv("BENCH_DEBUG") != "" {
		cmd.Stderr = os.Stderr
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w (give -python)", err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	p := &peer{in, bufio.NewReaderSize(out, 1<<20)}
	var hello struct{ Version string }
	if err := p.call(map[string]any{"model": dir, "threads": s.threads, "cpu": s.cpu, "wd": o.WeightDecay, "beta2": o.Beta2}, &hello); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "PyTorch", hello.Version)

	now := func() float64 { return float64(time.Now().UnixNano()) / 1e9 }
	if s.cpu {
		now = func() float64 { c, _ := train.Usage(); return c }
	}
	var failed error
	var theirs struct{ Loss, Ms float64 }
	var mine, peers []float64
	var start, worst float64
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Observe = func(lr float64, rows []train.Example) {
		q := map[string]any{"lr": lr}
		var ids, targets [][]int32
		for _, r := range rows {
			ids, targets = append(ids, r.IDs), append(targets, r.Targets)
		}
		q["ids"], q["targets"] = ids, targets
		if failed == nil {
			if failed = p.call(q, &theirs); failed != nil {
				cancel()
			}
		}
		start = now()
	}
	o.Progress = func(pr train.Progress) {
		mine, peers = append(mine, now()-start), append(peers, theirs.Ms/1000)
		worst = max(worst, math.Abs(pr.Loss-theirs.Loss)/theirs.Loss)
		if pr.Step%50 == 0 {
			fmt.Fprintf(os.Stderr, "%s step %d: loss %.5f, PyTorch %.5f\n", s.shape.Family, pr.Step, pr.Loss, theirs.Loss)
		}
	}
	r, err := pretrain.Run(ctx, o)
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	tokens := float64(s.batch * s.length)
	a, b := tokens/median(mine), tokens/median(peers)
	fmt.Printf("| %s | %d | %.4f %% | %.4f | %.0f | %.0f | %.2f |\n", s.shape.Family, r.Parameters, 100*worst, r.Log.Curve[len(r.Log.Curve)-1].Loss, a, b, a/b)
	if worst > 1e-3 {
		return fmt.Errorf("the loss differs by %.4f %%, more than 0.1 %%", 100*worst)
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
