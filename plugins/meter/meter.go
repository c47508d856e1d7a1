// Package meter reads a plugin's WebAssembly module and rewrites it so that it pays for the work it does: see "Fuel" in plugins/ABI.md.
// Every host, native or page, runs the rewritten module, so a limit means the same everywhere and a tight loop costs little.
package meter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Names of what the rewriting adds to the exports.
const (
	// FuelGlobal is a mutable i64: what is left. Negative means that the guest trapped for want of fuel.
	FuelGlobal = "temper_fuel"
)

// Import is a function that the module asks for.
type Import struct{ Module, Name string }

// Info is what a module says about itself.
type Info struct {
	Imports []Import
	// Functions, Memories and Globals are exported names.
	Functions, Memories, Globals []string
	// MemoryMin is the initial size in pages of 64 KiB.
	MemoryMin uint32
}

// section ids of the binary format, in the order in which they must appear.
var order = []byte{1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11}

const (
	secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport, secStart, secCode = 1, 2, 3, 4, 5, 6, 7, 8, 10
	maxTable                                                                                      = 1 << 16
	maxFunctions                                                                                  = 1 << 17
)

type module struct {
	Info
	sections map[byte][]byte
	custom   [][]byte // the name section, for traps
	params   []int    // per type
	funcs    []uint32 // type per defined function
	globals  uint32
	pages    uint32
}

// Rewrite checks the module against the contract's limits, caps its memory at pages of 64 KiB, and adds the metering.
func Rewrite(wasm []byte, pages uint32) ([]byte, Info, error) {
	m, err := parse(wasm, pages)
	if err != nil {
		return nil, Info{}, err
	}
	fuel := m.globals
	code, err := m.code(fuel)
	if err != nil {
		return nil, Info{}, err
	}
	m.sections[secCode] = code
	m.sections[secGlobal] = m.addGlobal()
	m.sections[secExport] = m.addExport(fuel)
	out := append([]byte(nil), wasm[:8]...)
	for _, id := range order {
		if b, ok := m.sections[id]; ok {
			out = append(out, id)
			out = appendUint(out, uint64(len(b)))
			out = append(out, b...)
		}
	}
	for _, b := range m.custom {
		out = append(out, 0)
		out = appendUint(out, uint64(len(b)))
		out = append(out, b...)
	}
	return out, m.Info, nil
}

func parse(wasm []byte, pages uint32) (*module, error) {
	if len(wasm) < 8 || string(wasm[:4]) != "\x00asm" {
		return nil, errors.New("not a WebAssembly module")
	}
	if string(wasm[4:8]) != "\x01\x00\x00\x00" {
		return nil, errors.New("not a WebAssembly module of version 1 (a component perhaps)")
	}
	m := &module{sections: map[byte][]byte{}, pages: pages}
	r := &reader{b: wasm, at: 8}
	last := -1
	for r.err == nil && r.at < len(r.b) {
		id := r.byte()
		size := r.uint32()
		body := r.bytes(int(size))
		if r.err != nil {
			break
		}
		if id == 0 {
			n := &reader{b: body}
			if n.name() == "name" && n.err == nil {
				m.custom = append(m.custom, body)
			}
			continue
		}
		place := slices.Index(order, id)
		if place < 0 || id == 13 {
			return nil, fmt.Errorf("section %d is not part of the contract", id)
		}
		if place <= last {
			return nil, fmt.Errorf("section %d is out of order", id)
		}
		last = place
		m.sections[id] = body
	}
	if r.err != nil {
		return nil, r.err
	}
	if _, ok := m.sections[secStart]; ok {
		return nil, errors.New("the module has a start function")
	}
	for _, read := range []func() error{m.readTypes, m.readImports, m.readFunctions, m.readTables, m.readMemory, m.readGlobals, m.readExports} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *module) section(id byte) *reader { return &reader{b: m.sections[id]} }

func (m *module) count(r *reader) int {
	if len(r.b) == 0 {
		return 0
	}
	n := r.uint32()
	if uint64(n) > uint64(len(r.b)) {
		r.fail("a section of %d bytes claims %d entries", len(r.b), n)
		return 0
	}
	return int(n)
}

func (m *module) readTypes() error {
	r := m.section(secType)
	for range m.count(r) {
		if b := r.byte(); b != 0x60 && r.err == nil {
			return fmt.Errorf("type of kind 0x%02x is not part of the contract", b)
		}
		n := r.uint32()
		r.bytes(int(n))
		m.params = append(m.params, int(n))
		r.bytes(int(r.uint32()))
	}
	return r.end("type")
}

func (m *module) readImports() error {
	r := m.section(secImport)
	for range m.count(r) {
		mod, name := r.name(), r.name()
		kind := r.byte()
		if r.err != nil {
			break
		}
		if kind != 0 {
			return fmt.Errorf("import %s.%s is not a function", mod, name)
		}
		r.uint32()
		m.Imports = append(m.Imports, Import{mod, name})
	}
	return r.end("import")
}

func (m *module) readFunctions() error {
	r := m.section(secFunction)
	n := m.count(r)
	if n > maxFunctions {
		return fmt.Errorf("%d functions, expected at most %d", n, maxFunctions)
	}
	for range n {
		t := r.uint32()
		if r.err == nil && int(t) >= len(m.params) {
			return fmt.Errorf("function of type %d, but there are %d types", t, len(m.params))
		}
		m.funcs = append(m.funcs, t)
	}
	return r.end("function")
}

func (m *module) readTables() error {
	r := m.section(secTable)
	for range m.count(r) {
		r.byte()
		flags, least := r.byte(), r.uint32()
		if flags&1 != 0 {
			r.uint32()
		}
		if r.err == nil && (flags > 1 || least > maxTable) {
			return fmt.Errorf("table of %d entries, expected at most %d", least, maxTable)
		}
	}
	return r.end("table")
}

func (m *module) readMemory() error {
	r := m.section(secMemory)
	if n := m.count(r); n != 1 && r.err == nil {
		return fmt.Errorf("%d memories of the module's own, expected 1", n)
	}
	flags := r.byte()
	least := r.uint32()
	most := m.pages
	if flags&1 != 0 {
		most = min(most, r.uint32())
	}
	if err := r.end("memory"); err != nil {
		return err
	}
	if flags > 1 {
		return errors.New("the memory is shared or 64-bit")
	}
	if least > most {
		return fmt.Errorf("the module starts with %d pages of memory, expected at most %d", least, most)
	}
	m.MemoryMin = least
	m.sections[secMemory] = appendUint(appendUint([]byte{1, 1}, uint64(least)), uint64(most))
	return nil
}

func (m *module) readGlobals() error {
	r := m.section(secGlobal)
	m.globals = uint32(m.count(r))
	return r.err // the initialisers are copied as they are; the engine validates them
}

func (m *module) readExports() error {
	r := m.section(secExport)
	for range m.count(r) {
		name, kind := r.name(), r.byte()
		r.uint32()
		if strings.HasPrefix(name, FuelGlobal) {
			return fmt.Errorf("export %s: the name is the host's", name)
		}
		switch kind {
		case 0:
			m.Functions = append(m.Functions, name)
		case 2:
			m.Memories = append(m.Memories, name)
		case 3:
			m.Globals = append(m.Globals, name)
		}
	}
	return r.end("export")
}

func (m *module) addGlobal() []byte {
	out := appendUint(nil, uint64(m.globals)+1)
	if b := m.sections[secGlobal]; len(b) > 0 {
		r := &reader{b: b}
		r.uint32()
		out = append(out, b[r.at:]...)
	}
	return append(out, 0x7e, 1, 0x42, 0, 0x0b) // (global (mut i64) (i64.const 0))
}

func (m *module) addExport(global uint32) []byte {
	r := m.section(secExport)
	n := m.count(r)
	out := appendUint(nil, uint64(n)+1)
	out = append(out, r.b[r.at:]...)
	out = appendUint(out, uint64(len(FuelGlobal)))
	out = append(out, FuelGlobal...)
	return appendUint(append(out, 3), uint64(global))
}

func (m *module) code(fuel uint32) ([]byte, error) {
	r := m.section(secCode)
	n := m.count(r)
	if n != len(m.funcs) && r.err == nil {
		return nil, fmt.Errorf("%d functions have code, expected %d", n, len(m.funcs))
	}
	out := appendUint(make([]byte, 0, len(r.b)*3/2), uint64(n))
	for i := range n {
		body := r.bytes(int(r.uint32()))
		if r.err != nil {
			break
		}
		b, err := rewriteBody(body, m.params[m.funcs[i]], fuel)
		if err != nil {
			return nil, fmt.Errorf("function %d: %w", len(m.Imports)+i, err)
		}
		out = appendUint(out, uint64(len(b)))
		out = append(out, b...)
	}
	if err := r.end("code"); err != nil {
		return nil, err
	}
	return out, nil
}

// patch is a place in a function's instructions and what the rewriting puts there.
type patch struct {
	at   int
	cost uint64
	bulk bool // charge by the length on top of the stack instead
}

// rewriteBody adds the payments to one function: locals and instructions in, the same with payments out.
func rewriteBody(body []byte, params int, fuel uint32) ([]byte, error) {
	r := &reader{b: body}
	groups := r.uint32()
	locals := uint64(params)
	first := r.at
	for range groups {
		n := r.uint32()
		r.byte()
		locals += uint64(n)
		if r.err != nil || locals > 50000 {
			return nil, errors.New("too many locals, or none where there should be")
		}
	}
	start := r.at
	patches := []patch{{at: start, cost: 1}}
	// open holds, per open block, the patch that its instructions are charged to.
	open := []int{0}
	bulk := false
	for r.err == nil && len(open) > 0 {
		at := r.at
		op := r.byte()
		charge := open[len(open)-1]
		patches[charge].cost++
		switch {
		case op == 0x02 || op == 0x04: // block, if
			r.blockType()
			open = append(open, charge)
		case op == 0x03: // loop
			r.blockType()
			patches = append(patches, patch{at: r.at})
			open = append(open, len(patches)-1)
		case op == 0x0b: // end
			open = open[:len(open)-1]
		case op == 0xfc:
			sub := r.uint32()
			switch {
			case sub <= 7:
			case sub == 8 || sub == 10 || sub == 12 || sub == 14: // memory.init, memory.copy, table.init, table.copy
				r.uint32()
				r.uint32()
			case sub == 9 || sub == 11 || sub == 13 || sub == 16 || sub == 17:
				r.uint32()
			default:
				return nil, fmt.Errorf("instruction 0xfc %d is not part of the contract", sub)
			}
			if sub == 8 || sub == 10 || sub == 11 || sub == 12 || sub == 14 || sub == 17 {
				patches = append(patches, patch{at: at, bulk: true})
				bulk = true
			}
		default:
			if err := r.immediates(op); err != nil {
				return nil, err
			}
		}
	}
	if err := r.end("function body"); err != nil {
		return nil, err
	}
	slices.SortStableFunc(patches, func(a, b patch) int { return a.at - b.at })
	out := make([]byte, 0, len(body)+len(patches)*24)
	if bulk {
		out = appendUint(out, uint64(groups)+1)
		out = append(out, body[first:start]...)
		out = append(out, 1, 0x7f)
	} else {
		out = append(out, body[:start]...)
	}
	from := start
	for _, p := range patches {
		out = append(out, body[from:p.at]...)
		from = p.at
		if p.bulk {
			out = appendUint(append(out, 0x21), locals) // local.set
		}
		out = appendUint(append(out, 0x23), uint64(fuel)) // global.get
		if p.bulk {
			out = appendUint(append(out, 0x20), locals) // local.get
			out = append(out, 0xad, 0x42, 6, 0x88)      // i64.extend_i32_u; i64.const 6; i64.shr_u: one unit per 64 bytes
		} else {
			out = appendInt(append(out, 0x42), int64(p.cost)) // i64.const
		}
		out = appendUint(append(out, 0x7d, 0x24), uint64(fuel))  // i64.sub; global.set
		out = appendUint(append(out, 0x23), uint64(fuel))        // global.get
		out = append(out, 0x42, 0, 0x53, 0x04, 0x40, 0x00, 0x0b) // i64.const 0; i64.lt_s; if; unreachable; end
		if p.bulk {
			out = appendUint(append(out, 0x20), locals)
		}
	}
	return append(out, body[from:]...), nil
}

// reader reads the binary format; the first fault stays in err.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *reader) end(what string) error {
	if r.err == nil && r.at != len(r.b) {
		r.fail("%s section has %d bytes too many", what, len(r.b)-r.at)
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", what, r.err)
	}
	return nil
}

func (r *reader) byte() byte {
	if r.err != nil || r.at >= len(r.b) {
		r.fail("module ends early")
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b)-r.at {
		r.fail("module ends early")
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at : r.at]
}

func (r *reader) name() string { return string(r.bytes(int(r.uint32()))) }

func (r *reader) uint32() uint32 {
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if v > 0xffffffff {
				break
			}
			return uint32(v)
		}
	}
	r.fail("a number does not fit 32 bits")
	return 0
}

// leb skips a signed number of at most n bytes.
func (r *reader) leb(n int) {
	for range n {
		if r.byte() < 0x80 {
			return
		}
	}
	r.fail("a number is too long")
}

func (r *reader) blockType() { r.leb(5) }

func (r *reader) memarg() {
	if align := r.uint32(); align >= 64 {
		r.fail("several memories are not part of the contract")
	}
	r.uint32()
}

// immediates skips what follows an opcode.
func (r *reader) immediates(op byte) error {
	switch {
	case op <= 0x01, op == 0x05, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
	case op == 0x0c, op == 0x0d, op == 0x10, op >= 0x20 && op <= 0x26, op == 0xd2:
		r.uint32()
	case op == 0x0e:
		n := r.uint32()
		for i := uint32(0); i <= n && r.err == nil; i++ {
			r.uint32()
		}
	case op == 0x11:
		r.uint32()
		r.uint32()
	case op == 0x1c:
		r.bytes(int(r.uint32()))
	case op >= 0x28 && op <= 0x3e:
		r.memarg()
	case op == 0x3f, op == 0x40:
		r.byte()
	case op == 0x41, op == 0xd0:
		r.leb(5)
	case op == 0x42:
		r.leb(10)
	case op == 0x43:
		r.bytes(4)
	case op == 0x44:
		r.bytes(8)
	case op == 0xfd:
		sub := r.uint32()
		switch {
		case sub <= 11, sub == 92, sub == 93:
			r.memarg()
		case sub == 12, sub == 13:
			r.bytes(16)
		case sub >= 21 && sub <= 34:
			r.byte()
		case sub >= 84 && sub <= 91:
			r.memarg()
			r.byte()
		case sub > 255:
			return fmt.Errorf("instruction 0xfd %d (relaxed SIMD) is not part of the contract", sub)
		}
	default:
		return fmt.Errorf("instruction 0x%02x is not part of the contract", op)
	}
	return nil
}

func appendUint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendInt(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
