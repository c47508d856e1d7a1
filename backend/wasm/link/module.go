package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	sectionCustom   = 0
	sectionType     = 1
	sectionFunction = 3
	sectionExport   = 7
	sectionStart    = 8
	sectionElement  = 9
	sectionCode     = 10
)

// module is a module taken apart into its sections.
type module struct{ sections []section }

func parse(b []byte) (*module, error) {
	if len(b) < 8 || !bytes.Equal(b[:8], []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, errors.New("not a WebAssembly module of version 1")
	}
	m := &module{}
	for rest := b[8:]; len(rest) > 0; {
		id := rest[0]
		n, used, err := readUint(rest[1:])
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", id, err)
		}
		rest = rest[1+used:]
		if uint64(n) > uint64(len(rest)) {
			return nil, fmt.Errorf("section %d of %d bytes ends beyond the module", id, n)
		}
		m.sections = append(m.sections, section{id, rest[:n]})
		rest = rest[n:]
	}
	return m, nil
}

func (m *module) section(id byte) *section {
	for i := range m.sections {
		if m.sections[i].id == id {
			return &m.sections[i]
		}
	}
	return nil
}

func (m *module) remove(id byte) {
	m.sections = slices.DeleteFunc(m.sections, func(s section) bool { return s.id == id })
}

func (m *module) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range m.sections {
		out = append(out, s.id)
		out = binary.AppendUvarint(out, uint64(len(s.body)))
		out = append(out, s.body...)
	}
	return out
}

// counted splits a section's body into its number of entries and the entries.
func (m *module) counted(id byte) (n uint32, rest []byte, err error) {
	s := m.section(id)
	if s == nil {
		return 0, nil, nil
	}
	n, used, err := readUint(s.body)
	if err != nil {
		return 0, nil, fmt.Errorf("section %d: %w", id, err)
	}
	return n, s.body[used:], nil
}

// bodies returns the bodies of the code section.
func (m *module) bodies() ([][]byte, error) {
	n, rest, err := m.counted(sectionCode)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for range n {
		size, used, err := readUint(rest)
		if err != nil || uint64(size) > uint64(len(rest)-used) {
			return nil, errors.New("the code section is cut short")
		}
		out = append(out, rest[used:used+int(size)])
		rest = rest[used+int(size):]
	}
	return out, nil
}

func (m *module) setBodies(bodies [][]byte) {
	out := binary.AppendUvarint(nil, uint64(len(bodies)))
	for _, b := range bodies {
		out = binary.AppendUvarint(out, uint64(len(b)))
		out = append(out, b...)
	}
	m.section(sectionCode).body = out
}

// importedFunctions counts them: they have the first indices.
func (m *module) importedFunctions() (int, error) {
	n, b, err := m.counted(sectionImport)
	if err != nil {
		return 0, err
	}
	count := 0
	for range n {
		for range 2 {
			size, used, err := readUint(b)
			if err != nil || uint64(size) > uint64(len(b)-used) {
				return 0, errors.New("the import section is cut short")
			}
			b = b[used+int(size):]
		}
		if len(b) < 2 {
			return 0, errors.New("the import section is cut short")
		}
		if b[0] != 0 {
			return 0, fmt.Errorf("an import of kind %d, expected functions only", b[0])
		}
		count++
		_, used, err := readUint(b[1:])
		if err != nil {
			return 0, err
		}
		b = b[1+used:]
	}
	return count, nil
}

// exported returns the indices of exported functions.
func (m *module) exported() ([]int, error) {
	n, b, err := m.counted(sectionExport)
	if err != nil {
		return nil, err
	}
	var out []int
	for range n {
		size, used, err := readUint(b)
		if err != nil || uint64(size)+1 > uint64(len(b)-used) {
			return nil, errors.New("the export section is cut short")
		}
		b = b[used+int(size):]
		kind := b[0]
		index, used, err := readUint(b[1:])
		if err != nil {
			return nil, err
		}
		if kind == 0 {
			out = append(out, int(index))
		}
		b = b[1+used:]
	}
	return out, nil
}

// functionNames reads the name section.
func (m *module) functionNames() (map[int]string, error) {
	for _, s := range m.sections {
		name, ok := bytes.CutPrefix(s.body, []byte("\x04name"))
		if s.id != sectionCustom || !ok {
			continue
		}
		for len(name) > 0 {
			kind := name[0]
			size, used, err := readUint(name[1:])
			if err != nil || uint64(size) > uint64(len(name)-1-used) {
				return nil, errors.New("the name section is cut short")
			}
			part := name[1+used : 1+used+int(size)]
			name = name[1+used+int(size):]
			if kind != 1 {
				continue
			}
			n, used, err := readUint(part)
			if err != nil {
				return nil, err
			}
			part = part[used:]
			out := map[int]string{}
			for range n {
				index, a, err := readUint(part)
				if err != nil {
					return nil, err
				}
				size, b, err := readUint(part[a:])
				if err != nil || uint64(size) > uint64(len(part)-a-b) {
					return nil, errors.New("the name section is cut short")
				}
				out[int(index)] = string(part[a+b : a+b+int(size)])
				part = part[a+b+int(size):]
			}
			return out, nil
		}
	}
	return nil, errors.New("the module has no names of functions (link it without -s)")
}

// uses walks over a function's instructions: call gets the indices of functions called, constant the 64-bit constants. It knows what Go's
// compiler writes: no vectors, no threads.
func uses(body []byte, call func(int), constant func(int64)) error {
	bad := errors.New("an instruction that Go does not write")
	at := 0
	uint := func() uint32 {
		v, n := binary.Uvarint(body[min(at, len(body)):])
		if n <= 0 {
			at = len(body) + 1
			return 0
		}
		at += n
		return uint32(v)
	}
	sint := func() int64 {
		var v int64
		for shift := 0; at < len(body) && shift < 70; shift += 7 {
			c := body[at]
			at++
			v |= int64(c&0x7f) << shift
			if c < 0x80 {
				if c&0x40 != 0 && shift+7 < 64 {
					v |= -1 << (shift + 7)
				}
				return v
			}
		}
		at = len(body) + 1
		return 0
	}
	for n := uint(); n > 0 && at < len(body); n-- { // locals
		uint()
		at++
	}
	for at < len(body) {
		op := body[at]
		at++
		switch {
		case op >= 0x02 && op <= 0x04: // block, loop, if
			sint()
		case op == 0x0c, op == 0x0d, op >= 0x20 && op <= 0x24: // branches, variables
			uint()
		case op == 0x0e:
			for n := uint(); at <= len(body); n-- {
				uint()
				if n == 0 {
					break
				}
			}
		case op == 0x10:
			call(int(uint()))
		case op == 0x11:
			uint()
			uint()
		case op >= 0x28 && op <= 0x3e: // loads and stores
			uint()
			uint()
		case op == 0x3f, op == 0x40: // size and growth of memory
			at++
		case op == 0x41:
			sint()
		case op == 0x42:
			constant(sint())
		case op == 0x43:
			at += 4
		case op == 0x44:
			at += 8
		case op == 0xfc:
			switch sub := uint(); {
			case sub <= 7: // saturating conversions
			case sub == 10: // memory.copy
				at += 2
			case sub == 11: // memory.fill
				at++
			default:
				return bad
			}
		case op <= 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4:
		default:
			return bad
		}
	}
	if at != len(body) {
		return errors.New("a function's body is cut short")
	}
	return nil
}
