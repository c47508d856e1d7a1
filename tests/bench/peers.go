package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

//go:embed peers.py
var peersScript string

// peers is the Python process that runs the other engines.
type peers struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader

	python, cache string
}

func startPeers(python, model, cache string, threads int, cpu bool) (*peers, error) {
	if _, err := os.Stat(python); err != nil {
		return nil, fmt.Errorf("no Python with the peers at %s: make one with\n  python3 -m venv DIR && DIR/bin/pip install torch transformers peft onnxruntime onnx\nand give it with -python DIR/bin/python", python)
	}
	cmd := exec.Command(python, "-c", peersScript)
	cmd.Env = peersEnv(threads)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if os.Getenv("BENCH_DEBUG") != "" {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peers{cmd: cmd, in: in, out: bufio.NewReaderSize(out, 1<<20), python: python, cache: cache}
	var v struct{ Versions map[string]string }
	if err := p.call(map[string]any{"op": "load", "model": model, "cache": cache, "threads": threads, "cpu": cpu}, &v); err != nil {
		p.close()
		return nil, err
	}
	fmt.Printf("peers, %d threads: %v\n", threads, v.Versions)
	return p, nil
}

// peersEnv keeps the libraries off the network and quiet.
func peersEnv(threads int) []string {
	return append(os.Environ(), "HF_HUB_OFFLINE=1", "TOKENIZERS_PARALLELISM=false", "TRANSFORMERS_VERBOSITY=error", "HF_HUB_DISABLE_PROGRESS_BARS=1",
		fmt.Sprintf("OMP_NUM_THREADS=%d", threads))
}

func (p *peers) close() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

func (p *peers) call(q map[string]any, answer any) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("peers ended (BENCH_DEBUG=1 shows why): %w", err)
	}
	var e struct{ Error string }
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("peers answered %.80q: %w", line, err)
	}
	if e.Error != "" {
		return fmt.Errorf("peers: %s", e.Error)
	}
	return json.Unmarshal(line, answer)
}

// time1 asks for one timed piece of work.
func (p *peers) time1(q map[string]any) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		var a struct{ Ms json.RawMessage }
		if err := p.call(q, &a); err != nil {
			return 0, err
		}
		var one float64
		var many []float64
		if json.Unmarshal(a.Ms, &one) != nil {
			if err := json.Unmarshal(a.Ms, &many); err != nil || len(many) == 0 {
				return 0, fmt.Errorf("peers: no time in the answer")
			}
			one = many[0]
		}
		return time.Duration(one * 1e6), nil
	}
}
