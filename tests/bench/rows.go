package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/quant"
	"github.com/temper-ml/temper/core/train"
)

type work = func() (time.Duration, error)

// settled runs work once untimed, after a pause, and then for the record. Engines' workers spin for some 30 ms after a call, on the cores that the
// next one needs, and each engine finds its weights pushed out of the caches by the other's: neither belongs to anybody's time.
func settled(w work) work {
	return func() (time.Duration, error) {
		time.Sleep(60 * time.Millisecond)
		if _, err := w(); err != nil {
			return 0, err
		}
		return w()
	}
}

// inferRows are forward passes in each type, on random batches and on real texts.
func inferRows(p *peers, probe *engine, dir, dataDir string, threads int) ([]row, error) {
	kinds := []struct {
		name   string
		peers  []string
		target [4]float64
	}{
		{"f32", []string{"ort_f32", "torch_f32"}, [4]float64{1.15, 1.05, 1.05, 1.05}},
		{"int8", []string{"ort_int8", "torch_int8"}, [4]float64{1.2, 1.3, 1.3, 1.5}},
		{"bf16", []string{"torch_bf16"}, [4]float64{}},
	}
	var rows []row
	arrival, sorted, noTexts := realTexts(probe, dataDir)
	for _, kind := range kinds {
		if kind.name == "bf16" && !offersBF16() {
			continue
		}
		e := probe
		if kind.name != "f32" {
			var err error
			if e, err = open(dir, threads, model.HeadNone, kind.name); err != nil {
				return nil, err
			}
		}
		for i, s := range [][2]int{{1, 16}, {1, 128}, {8, 64}, {32, 128}} {
			ids := randomIDs(s[0], s[1], probe.m.Config().Vocab, uint64(s[0]*s[1]))
			r := row{Name: fmt.Sprintf("infer %s %dx%d", kind.name, s[0], s[1]), Threads: threads, Target: kind.target[i], Slow: s[0] == 32,
				Temper: settled(e.timeForward(ids)), Peers: map[string]work{}}
			for _, name := range kind.peers {
				r.Peers[name] = settled(p.time1(map[string]any{"op": "infer", "engine": name, "ids": ids, "repeat": 1}))
			}
			rows = append(rows, r)
		}
		if noTexts != nil || kind.name == "bf16" {
			continue
		}
		ort := "ort_" + kind.name
		ask := func(batches [][][]int32) map[string]work {
			return map[string]work{ort: p.time1(map[string]any{"op": "texts", "engine": ort, "batches": batches})}
		}
		rows = append(rows,
			row{Name: "infer " + kind.name + " sst2 test, padded", Threads: threads, Target: 1.6, Slow: true, Temper: e.timeForward(arrival...), Peers: ask(arrival)},
			row{Name: "infer " + kind.name + " sst2 test, sorted", Threads: threads, Target: 1.15, Slow: true, Temper: e.timeForward(arrival...), Peers: ask(sorted)})
	}
	return rows, nil
}

// headSentences bounds the head-only row, whose peer takes minutes on all of them.
const headSentences = 256

// headRow tunes the head alone: temper computes features once, tokenization included; the peer runs the frozen encoder in each epoch on ids.
func headRow(p *peers, probe *engine, dir, dataDir string, threads int) (row, error) {
	d, err := data.Open(filepath.Join(dataDir, "sst2/train_sentences.tsv"), data.Options{})
	if err != nil {
		return row{}, err
	}
	at := make([]int, min(headSentences, d.Len()))
	for i := range at {
		at[i] = i
	}
	if d, err = d.Select(at); err != nil {
		return row{}, err
	}
	ids := batchesOf(encode(probe, d.Texts, 128), 32)
	epochs := append(append(append([][][]int32{}, ids...), ids...), ids...)
	return row{Name: fmt.Sprintf("train head f32 %d of sst2", len(at)), Threads: threads, Target: 4, Slow: true,
		Temper: func() (time.Duration, error) {
			elapsed := stopwatch()
			r, err := train.Run(context.Background(), train.Options{Base: dir, Kernels: probe.k, Train: d, Method: "head", Epochs: 3, Seed: 1})
			if err != nil {
				return 0, err
			}
			return elapsed(), r.Bundle.Close()
		},
		Peers: map[string]work{"torch_head": p.time1(map[string]any{"op": "train", "mode": "head", "batches": epochs, "repeat": 1})}}, nil
}

// childModel is the environment variable that makes this program a child which opens a model, gives one answer and tells its memory.
const childModel = "TEMPER_BENCH_CHILD"

// processRows compare fresh processes: time from start to the first answer, and peak memory. The peer's answer needs no tokenizer. Memory is read
// from the system's account of the process, where there is one.
func processRows(dir string, p *peers, threads int) []row {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	env := append(os.Environ(), "OMP_NUM_THREADS="+strconv.Itoa(threads))
	var rows []row
	for _, kind := range []string{"f32", "int8"} {
		folder := dir
		if kind == "int8" {
			folder = filepath.Join(p.cache, "bench-int8")
		}
		mine := func() *exec.Cmd {
			c := exec.Command(self)
			c.Env = append(env, childModel+"="+folder, "TEMPER_BENCH_THREADS="+strconv.Itoa(threads))
			return c
		}
		ort := func() *exec.Cmd {
			c := exec.Command(p.python, "-c", ortChild, filepath.Join(p.cache, "bench-"+kind+".onnx"), strconv.Itoa(threads))
			c.Env = env
			return c
		}
		made := func(w work) work {
			return func() (time.Duration, error) {
				if kind == "int8" {
					if err := int8Folder(dir, folder); err != nil {
						return 0, err
					}
				}
				return w()
			}
		}
		rows = append(rows, row{Name: "process " + kind + ", start to answer", Threads: threads, Temper: made(child(mine, false)), Peers: map[string]work{"ort_" + kind: child(ort, false)}})
		if _, err := os.Stat("/proc/self/status"); err == nil {
			rows = append(rows, row{Name: "process " + kind + ", peak memory, MiB", Threads: threads, Slow: true, Temper: made(child(mine, true)), Peers: map[string]work{"ort_" + kind: child(ort, true)}})
		}
	}
	return rows
}

// int8Folder writes the folder of a model with int8 rows, once.
func int8Folder(dir, out string) error {
	if _, err := os.Stat(filepath.Join(out, checkpoint.WeightsFile)); err == nil {
		return nil
	}
	f, err := checkpoint.OpenFolder(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = quant.Int8Folder(context.Background(), f, out, quant.Options{Threads: 1})
	return err
}

const ortChild = `
import sys, numpy as np, onnxruntime as ort
so = ort.SessionOptions(); so.intra_op_num_threads = int(sys.argv[2]); so.log_severity_level = 3
s = ort.InferenceSession(sys.argv[1], so, providers=["CPUExecutionProvider"])
a = np.full((1, 16), 1000, np.int64)
s.run(None, {"input_ids": a, "attention_mask": a * 0 + 1, "token_type_ids": a * 0})
print(open("/proc/self/status").read())
`

// child runs a process to its end: its time, or its peak memory with a MiB for a millisecond. Time is wall time always: a child's processor time
// would leave out what the system does to start it.
func child(cmd func() *exec.Cmd, memory bool) work {
	return func() (time.Duration, error) {
		start := time.Now()
		out, err := cmd().Output()
		if err != nil {
			return 0, err
		}
		if !memory {
			return time.Since(start), nil
		}
		for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
			if f := strings.Fields(s.Text()); len(f) >= 2 && f[0] == "VmHWM:" {
				kib, err := strconv.Atoi(f[1])
				return time.Duration(float64(kib) / 1024 * float64(time.Millisecond)), err
			}
		}
		return 0, fmt.Errorf("no VmHWM in the status of the process")
	}
}

// beChild opens the model at dir, embeds one text and prints the process's status.
func beChild(dir string) error {
	threads, err := strconv.Atoi(os.Getenv("TEMPER_BENCH_THREADS"))
	if err != nil {
		return err
	}
	if what := os.Getenv(childTrain); what != "" {
		return trainAsChild(dir, what, threads)
	}
	k, err := kernels(threads, false)
	if err != nil {
		return err
	}
	p, err := pipeline.Open(dir, k, pipeline.Options{Head: model.HeadNone})
	if err != nil {
		return err
	}
	v, err := p.Embed(context.Background(), []string{"a good film, worth every minute of it"})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(v[0][:4]); err != nil {
		return err
	}
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		_, err = os.Stdout.Write(b)
		return err
	}
	return nil
}
