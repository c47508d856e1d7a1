package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// childTrain makes a child of this program a trainer: "MODE ROWS LENGTH STEPS". It prints the status of its process when it is done.
const childTrain = "TEMPER_BENCH_TRAIN"

// memorySteps is how many steps a process trains before its peak is read: enough for all buffers to have grown.
const memorySteps = 3

// ownRows compare steps of temper with each other: two passes of an adversarial step against the one of an ordinary step.
func ownRows(dir string, threads, vocab int) []row {
	var rows []row
	for _, s := range [][2]int{{16, 64}, {32, 128}} {
		ids := randomIDs(s[0], s[1], vocab, 7)
		r := trainRow(fmt.Sprintf("train fgm f32 %dx%d, own step", s[0], s[1]), "fgm", dir, threads, 0.5, nil, ids)
		r.Peers = map[string]work{"temper_full": trainRow("", "full", dir, threads, 0, nil, ids).Temper}
		rows = append(rows, r)
	}
	return rows
}

// memoryRows compare the peak memory of fresh processes that train, in MiB, where the system tells it.
func memoryRows(dir string, p *peers, threads, vocab int) []row {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		return nil
	}
	var rows []row
	for _, mode := range []string{"lora", "full"} {
		for _, s := range [][2]int{{16, 64}, {32, 128}} {
			mine := func() *exec.Cmd {
				c := exec.Command(self)
				c.Env = append(os.Environ(), childModel+"="+dir, "TEMPER_BENCH_THREADS="+strconv.Itoa(threads),
					fmt.Sprintf("%s=%s %d %d %d", childTrain, mode, s[0], s[1], memorySteps))
				return c
			}
			target := 0.0
			if mode == "lora" {
				target = 3
			}
			rows = append(rows, row{Name: fmt.Sprintf("train %s f32 %dx%d, peak memory, MiB", mode, s[0], s[1]), Threads: threads, Target: target, Slow: true,
				Temper: child(mine, true), Peers: map[string]work{"torch_" + mode: p.trainingMemory(dir, mode, threads, randomIDs(s[0], s[1], vocab, 7))}})
		}
	}
	return rows
}

// trainingMemory runs steps in a fresh process of the peers that loads nothing but what training needs, and returns its peak in MiB.
func (p *peers) trainingMemory(dir, mode string, threads int, ids [][]int32) work {
	return func() (time.Duration, error) {
		cmd := exec.Command(p.python, "-c", peersScript)
		cmd.Env = peersEnv(threads)
		var in strings.Builder
		e := json.NewEncoder(&in)
		for _, q := range []map[string]any{{"op": "begin", "model": dir, "threads": threads},
			{"op": "train", "mode": mode, "batches": [][][]int32{ids}, "repeat": memorySteps}, {"op": "peak"}} {
			if err := e.Encode(q); err != nil {
				return 0, err
			}
		}
		cmd.Stdin = strings.NewReader(in.String())
		out, err := cmd.Output()
		if err != nil {
			return 0, fmt.Errorf("peers: %w", err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		var a struct {
			KiB   float64
			Error string
		}
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &a); err != nil || a.KiB == 0 {
			return 0, fmt.Errorf("peers: no peak memory in %.200q: %s %w", lines[len(lines)-1], a.Error, err)
		}
		return time.Duration(a.KiB / 1024 * float64(time.Millisecond)), nil
	}
}

// trainAsChild is the child of memoryRows.
func trainAsChild(dir, what string, threads int) error {
	var mode string
	var rows, length, steps int
	if _, err := fmt.Sscanf(what, "%s %d %d %d", &mode, &rows, &length, &steps); err != nil {
		return fmt.Errorf("%s=%q: %w", childTrain, what, err)
	}
	t, err := newTrainer(dir, threads, mode)
	if err != nil {
		return err
	}
	step := t.step(randomIDs(rows, length, t.m.Config().Vocab, 7))
	for range steps {
		if _, err := step(); err != nil {
			return err
		}
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}
