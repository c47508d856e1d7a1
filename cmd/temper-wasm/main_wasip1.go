//go:build wasip1

// Temper-wasm is the engine as a WebAssembly reactor, for pages and Node. The JavaScript package in js drives it; link makes its memory an
// import (see backend/wasm).
//
//	alloc(bytes) → address     a buffer that the page may fill: weights, requests
//	free(address)
//	threads(n) → address       kernels for n threads; three uint32: control block, stacks, bytes of a stack
//	started(n)                 n workers have begun
//	call(address, bytes) → address
//	                           answers a JSON request; four uint32: address and bytes of the JSON, address and number of float32
//
// Every call is bounded work. What takes long is a task: "start" makes it, each "step" goes on with it until its next report.
package main

import (
	"errors"
	"math"
	"runtime/debug"
	"unsafe"

	"github.com/temper-ml/temper/backend/wasm"
)

func main() {}

//go:wasmimport temper_page plugin
func pagePluginCall(name unsafe.Pointer, nameLen uint32, request unsafe.Pointer, requestLen uint32) uint32

var (
	e       *engine
	kernels *wasm.Kernels
	// buffers keeps what the page holds addresses of.
	buffers = map[uint32][]byte{}
	control [3]uint32
	last    struct {
		json   []byte
		blob   []float32
		header [4]uint32
	}
	broken error
)

func address[T any](s []T) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(s)))) }

// young collects nothing until a first model has answered: collections would be a tenth of the time to a page's first answer. Its memory beside
// the page's buffers is bounded meanwhile.
var young = struct {
	limit int64 // bytes, 0 when it is over
	calls int   // since there is a model
}{limit: 32 << 20}

func grown() {
	if young.limit == 0 || len(e.models) == 0 {
		return
	}
	if young.calls++; young.calls > 4 { // opened, asked, answered
		young.limit = 0
		debug.SetMemoryLimit(math.MaxInt64)
		// Weights are one large block without pointers; what the rest leaves behind should not wait until as much again is used.
		debug.SetGCPercent(30)
	}
}

//go:wasmexport alloc
func alloc(n uint32) uint32 {
	if young.limit > 0 && n >= 1<<20 {
		young.limit += int64(n)
		debug.SetMemoryLimit(young.limit)
	}
	b := make([]byte, max(n, 1))
	p := address(b)
	buffers[p] = b
	return p
}

//go:wasmexport free
func free(p uint32) { delete(buffers, p) }

//go:wasmexport threads
func threads(n uint32) uint32 {
	debug.SetMemoryLimit(young.limit)
	debug.SetGCPercent(-1)
	if kernels, broken = wasm.New(int(n)); broken != nil {
		return 0
	}
	e = newEngine(kernels)
	e.buffer = func(p uint32) ([]byte, bool) { b, ok := buffers[p]; return b, ok }
	e.plugin = callPlugin
	control[0], control[1], control[2] = kernels.Control()
	return uint32(uintptr(unsafe.Pointer(&control)))
}

//go:wasmexport started
func started(n uint32) { kernels.Workers(int(n)) }

//go:wasmexport call
func call(p, n uint32) uint32 {
	b, ok := buffers[p]
	if !ok || int(n) > len(b) {
		last.json, last.blob = failure(badRequest("no buffer of %d bytes at %d", n, p)), nil
	} else if e == nil {
		last.json, last.blob = failure(errors.Join(errors.New("the engine has no kernels"), broken)), nil
	} else {
		last.json, last.blob = e.handle(b[:n])
		grown()
	}
	last.header = [4]uint32{address(last.json), uint32(len(last.json)), address(last.blob), uint32(len(last.blob))}
	return uint32(uintptr(unsafe.Pointer(&last.header)))
}

// nested answers a plugin's question while the engine waits in the plugin's call: as call, with the question's own buffers.
//
//go:wasmexport nested
func nested(p, n uint32) uint32 {
	b, ok := buffers[p]
	if !ok || int(n) > len(b) {
		return 0
	}
	out := e.asked.answer(b[:n])
	// The page frees it after it has copied it: length first.
	r := make([]byte, 4+len(out))
	r[0], r[1], r[2], r[3] = byte(len(out)), byte(len(out)>>8), byte(len(out)>>16), byte(len(out)>>24)
	copy(r[4:], out)
	buffers[address(r)] = r
	return address(r)
}

// callPlugin lets the page run a plugin on a request. The page answers with a buffer from alloc: one byte that is 0 when all went well,
// then the answer or the error's text; its length stands before it as a uint32.
func callPlugin(name string, request []byte) ([]byte, error) {
	n := []byte(name)
	p := pagePluginCall(unsafe.Pointer(unsafe.SliceData(n)), uint32(len(n)), unsafe.Pointer(unsafe.SliceData(request)), uint32(len(request)))
	b, ok := buffers[p]
	if !ok || len(b) < 5 {
		return nil, errors.New("the page gave no answer")
	}
	delete(buffers, p)
	size := int(b[0]) | int(b[1])<<8 | int(b[2])<<16 | int(b[3])<<24
	if size < 1 || size > len(b)-4 {
		return nil, errors.New("the page's answer is cut short")
	}
	body := b[4 : 4+size]
	if body[0] != 0 {
		return nil, errors.New(string(body[1:]))
	}
	return body[1:], nil
}
