//go:build !wasip1

// Package host runs an engine built for WebAssembly under wazero, with the kernels over its memory, as the page does: tests of the browser
// backend need no browser.
package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/temper-ml/temper/backend/wasm"
	"github.com/temper-ml/temper/backend/wasm/link"
)

// Program is what to run and how.
type Program struct {
	Module  []byte // as the Go linker wrote it
	Args    []string
	Env     map[string]string
	Dirs    map[string]string // guest path to folder, read and write
	FS      fs.FS             // at /, when no Dirs are given
	Stdout  io.Writer
	Stderr  io.Writer
	Threads int // above 1: a shared memory
	// MaxPages limits the memory; 0 means 4 GiB.
	MaxPages uint32
	// CacheDir keeps compiled modules; empty means none.
	CacheDir string
}

// BuildTest compiles the tests of a package for wasip1 into dir and returns the module.
func BuildTest(ctx context.Context, dir, pkg string) ([]byte, error) {
	out := filepath.Join(dir, "test.wasm")
	c := exec.CommandContext(ctx, "go", "test", "-c", "-o", out, pkg)
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if b, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build tests of %s for wasip1: %w\n%s", pkg, err, b)
	}
	return os.ReadFile(out)
}

// Run runs the program's main function to its end and returns the exit code.
func Run(ctx context.Context, p Program) (int, error) {
	if p.MaxPages == 0 {
		p.MaxPages = 65536
	}
	module, mem, err := link.ImportMemory(p.Module, link.Memory{Max: p.MaxPages, Shared: p.Threads > 1})
	if err != nil {
		return 0, err
	}
	config := wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesThreads).WithMemoryLimitPages(p.MaxPages)
	if p.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(p.CacheDir)
		if err != nil {
			return 0, err
		}
		defer cache.Close(ctx)
		config = config.WithCompilationCache(cache)
	}
	r := wazero.NewRuntimeWithConfig(ctx, config)
	defer r.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return 0, err
	}
	if _, err := r.InstantiateWithConfig(ctx, memoryModule(mem), wazero.NewModuleConfig().WithName("env")); err != nil {
		return 0, fmt.Errorf("memory: %w", err)
	}
	kernels := wasm.Plain
	if p.Threads > 1 {
		kernels = wasm.PlainThreads
	}
	compiled, err := r.CompileModule(ctx, kernels)
	if err != nil {
		return 0, fmt.Errorf("kernels: %w", err)
	}
	if _, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("temper")); err != nil {
		return 0, fmt.Errorf("kernels: %w", err)
	}
	var workers sync.WaitGroup
	var started error
	start := func(ctx context.Context, ctl, stacks, stack, n uint32) {
		for i := uint32(1); i <= n; i++ {
			m, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(fmt.Sprintf("worker%d", i)))
			if err != nil {
				started = err
				return
			}
			m.ExportedGlobal("__stack_pointer").(api.MutableGlobal).Set(uint64(stacks + i*stack))
			workers.Go(func() { _, _ = m.ExportedFunction("worker").Call(ctx, uint64(ctl), uint64(i)) })
		}
	}
	if _, err := r.NewHostModuleBuilder("temper_host").NewFunctionBuilder().WithFunc(start).Export("start_workers").Instantiate(ctx); err != nil {
		return 0, err
	}

	mc := wazero.NewModuleConfig().WithName("engine").WithArgs(p.Args...).WithStdout(p.Stdout).WithStderr(p.Stderr).
		WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithOsyield(func() {}).WithRandSource(randomSource{})
	for k, v := range p.Env {
		mc = mc.WithEnv(k, v)
	}
	if len(p.Dirs) > 0 {
		f := wazero.NewFSConfig()
		for guest, dir := range p.Dirs {
			f = f.WithDirMount(dir, guest)
		}
		mc = mc.WithFSConfig(f)
	} else if p.FS != nil {
		mc = mc.WithFS(p.FS)
	}
	_, err = r.InstantiateWithConfig(ctx, module, mc)
	workers.Wait()
	if started != nil {
		return 0, fmt.Errorf("worker: %w", started)
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		return int(exit.ExitCode()), nil
	}
	return 0, err
}

// randomSource seeds Go's maps and hashes; nothing here needs to be secret.
type randomSource struct{}

func (randomSource) Read(b []byte) (int, error) {
	x := uint64(time.Now().UnixNano())
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return len(b), nil
}

// memoryModule is a module whose only content is an exported memory.
func memoryModule(m link.Memory) []byte {
	flags := byte(1)
	if m.Shared {
		flags = 3
	}
	body := binary.AppendUvarint([]byte{1, flags}, uint64(m.Min))
	body = binary.AppendUvarint(body, uint64(m.Max))
	out := append([]byte("\x00asm\x01\x00\x00\x00\x05"), byte(len(body)))
	out = append(out, body...)
	return append(out, "\x07\x0a\x01\x06memory\x02\x00"...)
}
