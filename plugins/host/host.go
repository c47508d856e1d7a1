// Package host runs perturbation plugins natively: WebAssembly modules that keep plugins/ABI.md, under wazero. A plugin is compiled once and
// runs in a pool of instances; whatever it does wrong becomes an error that names it.
package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/plugins/abi"
	"github.com/temper-ml/temper/plugins/meter"
)

// Options limit a plugin. The zero value is usable.
type Options struct {
	// MemoryPages caps the guest's memory, in pages of 64 KiB (default 1024: 64 MiB).
	MemoryPages uint32
	// Fuel is the work that one call may do per text, in instructions (default 500 million, some 0.5 s).
	Fuel int64
	// Timeout is the longest that one call may take, questions to the host included (default 5 minutes). It depends on the machine; Fuel
	// is what stops a guest that loops.
	Timeout time.Duration
	// Parallel is the number of instances that work at the same time (default GOMAXPROCS).
	Parallel int
	// CacheDir keeps compiled code between runs; none when empty.
	CacheDir string
	// Log, when set, is told what guests log.
	Log func(message string)
}

const (
	defaultPages   = 1024
	defaultFuel    = 500_000_000
	defaultTimeout = 5 * time.Minute
	// chunk is the number of texts given to an instance at once, so that a batch spreads over the pool and one call stays short.
	chunk = 64
	// stderrLimit bounds what is kept of a guest's last words.
	stderrLimit = 4096
)

// Error is what went wrong in a plugin.
type Error struct {
	// Plugin is the file, Op what was being done.
	Plugin, Op string
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("plugin %s: %s: %v", e.Plugin, e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// ErrFuel, ErrTimeout and ErrTrap classify how a guest failed.
var (
	ErrFuel    = errors.New("used up its fuel (an endless loop, or too much work)")
	ErrTimeout = errors.New("took too long")
	ErrTrap    = errors.New("trapped")
)

// Plugin is an opened plugin. It implements attack.Perturber and may be used from several goroutines.
type Plugin struct {
	file, name string
	opts       Options
	info       meter.Info
	runtime    wazero.Runtime
	cache      wazero.CompilationCache
	compiled   wazero.CompiledModule

	mu     sync.Mutex
	idle   []*instance
	closed bool
}

// Open reads and compiles the plugin in file, and calls it once to learn its name.
func Open(ctx context.Context, file string, opts Options) (*Plugin, error) {
	if info, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	} else if info.Size() > abi.MaxModule {
		return nil, &Error{file, "open", fmt.Errorf("the file has %d bytes, expected at most %d", info.Size(), abi.MaxModule)}
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	return OpenBytes(ctx, file, wasm, opts)
}

// OpenBytes is Open for a module in memory; file is the name that errors give.
func OpenBytes(ctx context.Context, file string, wasm []byte, opts Options) (_ *Plugin, err error) {
	if opts.MemoryPages == 0 {
		opts.MemoryPages = defaultPages
	}
	opts.MemoryPages = min(opts.MemoryPages, 65536)
	if opts.Fuel <= 0 {
		opts.Fuel = defaultFuel
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Parallel <= 0 {
		opts.Parallel = runtime.GOMAXPROCS(0)
	}
	p := &Plugin{file: file, opts: opts}
	if len(wasm) > abi.MaxModule {
		return nil, p.fail("open", fmt.Errorf("the module has %d bytes, expected at most %d", len(wasm), abi.MaxModule))
	}
	metered, info, err := meter.Rewrite(wasm, opts.MemoryPages)
	if err != nil {
		return nil, p.fail("open", err)
	}
	p.info = info
	if err := checkNames(info); err != nil {
		return nil, p.fail("open", err)
	}
	config := wazero.NewRuntimeConfig().WithMemoryLimitPages(opts.MemoryPages)
	if opts.CacheDir != "" {
		if p.cache, err = wazero.NewCompilationCacheWithDir(opts.CacheDir); err != nil {
			return nil, p.fail("compile cache", err)
		}
		config = config.WithCompilationCache(p.cache)
	}
	p.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if err := provide(ctx, p.runtime); err != nil {
		return nil, p.fail("open", err)
	}
	if p.compiled, err = p.runtime.CompileModule(ctx, metered); err != nil {
		return nil, p.fail("compile", err)
	}
	if err := checkTypes(p.compiled); err != nil {
		return nil, p.fail("open", err)
	}
	in, err := p.take(ctx)
	if err != nil {
		return nil, err
	}
	p.name, err = p.readName(ctx, in)
	if err != nil {
		in.close()
		return nil, err
	}
	p.give(in)
	return p, nil
}

// checkNames looks at what is imported and exported before anything is compiled.
func checkNames(info meter.Info) error {
	for _, i := range info.Imports {
		if !accepted(i.Module, i.Name) {
			return fmt.Errorf("import %s.%s is not part of the contract", i.Module, i.Name)
		}
	}
	if slices.Contains(info.Functions, "_start") {
		return errors.New("the module is a program with _start, expected a library (a reactor)")
	}
	if !slices.Contains(info.Memories, "memory") {
		return errors.New("the module does not export its memory")
	}
	for _, f := range []string{"temper_abi_version", "temper_alloc", "temper_perturb"} {
		if !slices.Contains(info.Functions, f) {
			return fmt.Errorf("the module does not export %s", f)
		}
	}
	return nil
}

func checkTypes(c wazero.CompiledModule) error {
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	for name, want := range map[string][2][]api.ValueType{
		"temper_abi_version": {nil, {i32}}, "temper_alloc": {{i32}, {i32}}, "temper_perturb": {{i32, i32}, {i64}}, "temper_name": {nil, {i64}},
		"_initialize": {nil, nil},
	} {
		f, ok := c.ExportedFunctions()[name]
		if ok && (!slices.Equal(f.ParamTypes(), want[0]) || !slices.Equal(f.ResultTypes(), want[1])) {
			return fmt.Errorf("%s has another type than the contract's", name)
		}
	}
	return nil
}

func (p *Plugin) fail(op string, err error) error { return &Error{p.file, op, err} }

// Name is what the plugin calls itself, or its file's base name.
func (p *Plugin) Name() string { return p.name }

// File is the path that the plugin was opened from.
func (p *Plugin) File() string { return p.file }

// Imports lists the functions that the plugin asks for.
func (p *Plugin) Imports() []meter.Import { return slices.Clone(p.info.Imports) }

// Close frees all instances. Calls in flight fail.
func (p *Plugin) Close() error {
	p.mu.Lock()
	p.closed = true
	p.idle = nil
	p.mu.Unlock()
	var err error
	if p.runtime != nil {
		err = p.runtime.Close(context.Background())
	}
	if p.cache != nil {
		err = errors.Join(err, p.cache.Close(context.Background()))
	}
	return err
}

// instance is one instantiated guest.
type instance struct {
	mod            api.Module
	alloc, perturb api.Function
	fuel           api.MutableGlobal
	state          *callState
}

func (in *instance) close() { in.mod.Close(context.Background()) }

// take returns an idle instance or makes one.
func (p *Plugin) take(ctx context.Context) (*instance, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, p.fail("call", errors.New("the plugin is closed"))
	}
	if n := len(p.idle); n > 0 {
		in := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return in, nil
	}
	p.mu.Unlock()
	return p.instantiate(ctx)
}

func (p *Plugin) give(in *instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= p.opts.Parallel {
		in.close()
		return
	}
	p.idle = append(p.idle, in)
}

func (p *Plugin) instantiate(ctx context.Context) (*instance, error) {
	st := &callState{plugin: p}
	ctx = context.WithValue(ctx, stateKey{}, st)
	mod, err := p.runtime.InstantiateModule(ctx, p.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, p.fail("instantiate", err)
	}
	in := &instance{mod: mod, state: st, alloc: mod.ExportedFunction("temper_alloc"), perturb: mod.ExportedFunction("temper_perturb")}
	var ok bool
	if in.fuel, ok = mod.ExportedGlobal(meter.FuelGlobal).(api.MutableGlobal); !ok {
		in.close()
		return nil, p.fail("instantiate", errors.New("the metering is missing"))
	}
	st.fuel = in.fuel
	in.refuel(p.opts.Fuel)
	if init := mod.ExportedFunction("_initialize"); init != nil {
		if _, err := p.call(ctx, in, "_initialize", init); err != nil {
			in.close()
			return nil, err
		}
	}
	version, err := p.call(ctx, in, "temper_abi_version", mod.ExportedFunction("temper_abi_version"))
	if err == nil && uint32(version[0]) != abi.Version {
		err = p.fail("temper_abi_version", fmt.Errorf("the plugin is made for version %d of the contract, this host has version %d", uint32(version[0]), abi.Version))
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

func (in *instance) refuel(n int64) { in.fuel.Set(uint64(n)) }

// call runs f and turns what a guest can do wrong into an error.
func (p *Plugin) call(ctx context.Context, in *instance, op string, f api.Function, args ...uint64) (_ []uint64, err error) {
	defer func() {
		// wazero turns guest faults into errors; a panic here would be a fault of a host function.
		if r := recover(); r != nil {
			err = p.fail(op, fmt.Errorf("%w: %v", ErrTrap, r))
		}
	}()
	out, err := f.Call(ctx, args...)
	if err == nil {
		return out, nil
	}
	if int64(in.fuel.Get()) < 0 {
		return nil, p.fail(op, ErrFuel)
	}
	what := err.Error()
	if k := strings.Index(what, "\n"); k >= 0 {
		what = what[:k]
	}
	if last := strings.TrimSpace(in.state.lastWords()); last != "" {
		what += ": " + last
	}
	return nil, p.fail(op, fmt.Errorf("%w: %s", ErrTrap, what))
}

func (p *Plugin) readName(ctx context.Context, in *instance) (string, error) {
	base := strings.TrimSuffix(filepath.Base(p.file), ".wasm")
	f := in.mod.ExportedFunction("temper_name")
	if f == nil {
		return base, nil
	}
	in.refuel(p.opts.Fuel)
	out, err := p.call(context.WithValue(ctx, stateKey{}, in.state), in, "temper_name", f)
	if err != nil {
		return "", err
	}
	at, n := uint32(out[0]>>32), uint32(out[0])
	if n == 0 || n > abi.MaxName {
		return "", p.fail("temper_name", fmt.Errorf("the name has %d bytes, expected 1 to %d", n, abi.MaxName))
	}
	b, ok := in.mod.Memory().Read(at, n)
	if !ok || !utf8.Valid(b) {
		return "", p.fail("temper_name", errors.New("the name is outside the memory, or not UTF-8"))
	}
	return string(b), nil
}

// Perturb answers the requests, spread over the pool. v may be nil; its optional capabilities are what the guest can ask for.
func (p *Plugin) Perturb(ctx context.Context, reqs []attack.Request, v attack.Victim) ([][]string, error) {
	type part struct{ from, to int }
	var parts []part
	for from := 0; from < len(reqs); {
		to := from + 1
		for to < len(reqs) && to-from < chunk && sameContext(reqs[from], reqs[to]) {
			to++
		}
		parts = append(parts, part{from, to})
		from = to
	}
	out := make([][]string, len(reqs))
	errs := make([]error, len(parts))
	work := func(k int) {
		a, b := parts[k].from, parts[k].to
		got, err := p.batch(ctx, reqs[a:b], a, v)
		if err != nil {
			errs[k] = err
			return
		}
		copy(out[a:b], got)
	}
	if len(parts) == 1 || p.opts.Parallel == 1 {
		for k := range parts {
			if work(k); errs[k] != nil {
				break
			}
		}
	} else {
		var wait sync.WaitGroup
		next := make(chan int)
		for range min(p.opts.Parallel, len(parts)) {
			wait.Go(func() {
				for k := range next {
					work(k)
				}
			})
		}
		for k := range parts {
			next <- k
		}
		close(next)
		wait.Wait()
	}
	for _, err := range errs { // the first in order, whatever came first in time
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sameContext(a, b attack.Request) bool {
	return slices.Equal(a.Labels, b.Labels) && reflect.DeepEqual(a.Params, b.Params)
}

// batch is one call of a guest. The instance is thrown away unless all went well.
func (p *Plugin) batch(ctx context.Context, reqs []attack.Request, first int, v attack.Victim) ([][]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	message, err := abi.EncodeRequest(reqs)
	if err != nil {
		return nil, p.fail("request", err)
	}
	in, err := p.take(ctx)
	if err != nil {
		return nil, err
	}
	call, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	in.state.begin(reqs, first, v)
	call = context.WithValue(call, stateKey{}, in.state)
	in.refuel(p.opts.Fuel * int64(len(reqs)))

	type answer struct {
		out [][]string
		err error
	}
	done := make(chan answer, 1)
	go func() {
		out, err := p.exchange(call, in, message, reqs)
		if err != nil {
			in.close()
		} else {
			in.state.end()
			p.give(in)
		}
		done <- answer{out, err}
	}()
	select {
	case a := <-done:
		if a.err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return a.out, a.err
	case <-call.Done():
		// The guest ends by itself when its fuel does; nobody waits for it.
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, p.fail("temper_perturb", fmt.Errorf("%w: more than %v", ErrTimeout, p.opts.Timeout))
	}
}

func (p *Plugin) exchange(ctx context.Context, in *instance, message []byte, reqs []attack.Request) ([][]string, error) {
	ptr, err := p.call(ctx, in, "temper_alloc", in.alloc, uint64(len(message)))
	if err != nil {
		return nil, err
	}
	at := uint32(ptr[0])
	if at == 0 {
		return nil, p.fail("temper_alloc", fmt.Errorf("no room for a request of %d bytes in %d pages of memory", len(message), p.opts.MemoryPages))
	}
	if !in.mod.Memory().Write(at, message) {
		return nil, p.fail("temper_alloc", fmt.Errorf("%d bytes at %d are outside the memory of %d bytes", len(message), at, in.mod.Memory().Size()))
	}
	packed, err := p.call(ctx, in, "temper_perturb", in.perturb, uint64(at), uint64(len(message)))
	if err != nil {
		return nil, err
	}
	at, n := uint32(packed[0]>>32), uint32(packed[0])
	if n > abi.MaxAnswer {
		return nil, p.fail("temper_perturb", fmt.Errorf("the answer has %d bytes, expected at most %d", n, abi.MaxAnswer))
	}
	b, ok := in.mod.Memory().Read(at, n)
	if !ok {
		return nil, p.fail("temper_perturb", fmt.Errorf("the answer, %d bytes at %d, is outside the memory of %d bytes", n, at, in.mod.Memory().Size()))
	}
	out, err := abi.DecodeAnswer(b, reqs)
	if err != nil {
		return nil, p.fail("temper_perturb", err)
	}
	return out, nil
}
