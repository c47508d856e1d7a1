package host_test

import "encoding/binary"

// guest assembles tiny modules byte by byte, so that the hostile ones need no compiler.
type guest struct {
	imports []guestImport
	version []byte // bodies; nil is the well-behaved one
	alloc   []byte
	perturb []byte
	init    []byte
	data    []byte // at address 0
	pages   uint64
	maximum uint64
	extra   []byte // further exports, encoded
	extras  uint64
	drop    string // an export to leave out
	start   bool
}

type guestImport struct {
	module, name    string
	params, results int
}

func leb(v uint64) []byte {
	var b []byte
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func sleb(v int64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func str(s string) []byte { return append(leb(uint64(len(s))), s...) }

func section(id byte, body []byte) []byte { return cat([]byte{id}, leb(uint64(len(body))), body) }

func i32c(v int64) []byte { return append([]byte{0x41}, sleb(v)...) }

func i64c(v int64) []byte { return append([]byte{0x42}, sleb(v)...) }

// packed returns where an answer is.
func packed(at, n uint32) []byte { return i64c(int64(uint64(at)<<32 | uint64(n))) }

func (g guest) bytes() []byte {
	or := func(b, d []byte) []byte {
		if b == nil {
			return d
		}
		return b
	}
	if g.data == nil {
		g.data = answer([][]string{{"x"}})
	}
	if g.pages == 0 {
		g.pages = 1
	}
	i32s := func(n int) []byte {
		b := leb(uint64(n))
		for range n {
			b = append(b, 0x7f)
		}
		return b
	}
	types := cat([]byte{0x60, 0, 1, 0x7f}, []byte{0x60, 1, 0x7f, 1, 0x7f}, []byte{0x60, 2, 0x7f, 0x7f, 1, 0x7e}, []byte{0x60, 0, 0})
	n := uint64(4)
	var imports []byte
	for _, i := range g.imports {
		types = cat(types, []byte{0x60}, i32s(i.params), i32s(i.results))
		imports = cat(imports, str(i.module), str(i.name), []byte{0}, leb(n))
		n++
	}
	first := uint64(len(g.imports))
	bodies := [][]byte{
		or(g.version, i32c(1)), or(g.alloc, i32c(4096)), or(g.perturb, packed(0, uint32(len(g.data)))), or(g.init, nil),
	}
	var code []byte
	for _, b := range bodies {
		b = cat([]byte{1, 1, 0x7f}, b, []byte{0x0b}) // one i32 local
		code = cat(code, leb(uint64(len(b))), b)
	}
	var exports []byte
	count := g.extras
	for i, name := range []string{"temper_abi_version", "temper_alloc", "temper_perturb", "_initialize"} {
		if name == g.drop {
			continue
		}
		exports = cat(exports, str(name), []byte{0}, leb(first+uint64(i)))
		count++
	}
	if g.drop != "memory" {
		exports = cat(exports, str("memory"), []byte{2, 0})
		count++
	}
	exports = append(exports, g.extra...)
	memory := cat([]byte{1, 0}, leb(g.pages))
	if g.maximum > 0 {
		memory = cat([]byte{1, 1}, leb(g.pages), leb(g.maximum))
	}
	out := cat([]byte("\x00asm\x01\x00\x00\x00"), section(1, cat(leb(n), types)))
	if len(g.imports) > 0 {
		out = cat(out, section(2, cat(leb(first), imports)))
	}
	out = cat(out, section(3, []byte{4, 0, 1, 2, 3}), section(5, memory), section(7, cat(leb(count), exports)))
	if g.start {
		out = cat(out, section(8, leb(first+3)))
	}
	return cat(out, section(10, cat([]byte{4}, code)), section(11, cat([]byte{1, 0}, i32c(0), []byte{0x0b}, leb(uint64(len(g.data))), g.data)))
}

// answer encodes candidates as the contract has it.
func answer(lists [][]string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(lists)))
	for _, l := range lists {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(l)))
		for _, s := range l {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
	}
	return b
}
