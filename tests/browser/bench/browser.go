package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a Chromium with a fresh profile.
type browser struct {
	ctx   context.Context
	close func()
}

func start(path string) (*browser, error) {
	profile, err := os.MkdirTemp("", "temper-bench")
	if err != nil {
		return nil, err
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path),
		chromedp.WSURLReadTimeout(time.Minute), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(profile))...)
	ctx, end := chromedp.NewContext(alloc, chromedp.WithErrorf(func(string, ...any) {}))
	b := &browser{ctx, func() {
		end()
		stop()
		for range 30 { // the browser's helpers may still write for a moment
			if os.RemoveAll(profile) == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}}
	if err := chromedp.Run(ctx, chromedp.Navigate("about:blank")); err != nil {
		b.close()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return b, nil
}

// ask runs the body of an async function in a page and decodes what it returns.
func ask(ctx context.Context, out any, body string) error {
	var raw string
	err := chromedp.Run(ctx, chromedp.Evaluate(`(async () => { try { return JSON.stringify({ok: await (async () => {`+body+`})() ?? null}) } catch (e) { return JSON.stringify({error: String(e?.stack ?? e)}) } })()`, &raw,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if err != nil {
		return err
	}
	var r struct {
		OK    json.RawMessage
		Error string
	}
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		return err
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(r.OK, out)
}

// processes are the browser's own, all of them (Linux only).
func (b *browser) processes() ([]int, error) {
	c := chromedp.FromContext(b.ctx)
	if c == nil || c.Browser == nil || c.Browser.Process() == nil {
		return nil, errors.New("the browser has no process")
	}
	children := map[int][]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, p := range stats {
		s, err := os.ReadFile(p)
		if err != nil {
			continue // it has gone
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(s[strings.LastIndexByte(string(s), ')')+1:]))
		if len(fields) < 2 {
			continue
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			continue
		}
		children[parent] = append(children[parent], pid)
	}
	all := []int{c.Browser.Process().Pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// memory is the proportional set size of all of the browser's processes, in bytes.
func (b *browser) memory() (int64, error) {
	all, err := b.processes()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range all {
		s, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(s), "\n") {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n << 10
			}
		}
	}
	if sum == 0 {
		return 0, errors.New("no memory figures: they need Linux's /proc")
	}
	return sum, nil
}

// cpu is the processor time that all threads of the browser have used, 0 where that cannot be told. Threads that have ended are not counted:
// only differences over a stretch of work mean something.
func (b *browser) cpu() time.Duration {
	all, err := b.processes()
	if err != nil {
		return 0
	}
	var sum time.Duration
	for _, pid := range all {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, p := range threads {
			s, err := os.ReadFile(p)
			if err != nil {
				continue
			}
			if f := strings.Fields(string(s)); len(f) > 0 {
				ns, _ := strconv.ParseInt(f[0], 10, 64)
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}
