// Package link rewrites a WebAssembly module that defines its memory (a Go program) into one that imports it as env.memory, so that other
// modules can work on the same memory.
package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	sectionImport = 2
	sectionMemory = 5
)

// Memory describes the imported memory.
type Memory struct {
	// Min is the number of 64 KiB pages that the module needs at start: at least what it declares itself.
	Min uint32
	// Max is the limit in pages; 0 means none. A shared memory must have one.
	Max    uint32
	Shared bool
}

type section struct {
	id   byte
	body []byte
}

// ImportMemory returns module with its memory section replaced by an import of env.memory. It returns the limits as written: Min is raised
// to what the module declares.
func ImportMemory(module []byte, m Memory) ([]byte, Memory, error) {
	if len(module) < 8 || !bytes.Equal(module[:8], []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, m, errors.New("not a WebAssembly module of version 1")
	}
	var sections []section
	for rest := module[8:]; len(rest) > 0; {
		id := rest[0]
		n, used, err := readUint(rest[1:])
		if err != nil {
			return nil, m, fmt.Errorf("section %d: %w", id, err)
		}
		rest = rest[1+used:]
		if uint64(n) > uint64(len(rest)) {
			return nil, m, fmt.Errorf("section %d of %d bytes ends beyond the module", id, n)
		}
		sections = append(sections, section{id, rest[:n]})
		rest = rest[n:]
	}
	minimum, err := declaredMemory(sections)
	if err != nil {
		return nil, m, err
	}
	m.Min = max(m.Min, minimum)
	if m.Shared && m.Max == 0 {
		return nil, m, errors.New("a shared memory needs a maximum")
	}
	if m.Max != 0 && m.Max < m.Min {
		return nil, m, fmt.Errorf("maximum of %d pages is below the %d that the module needs", m.Max, m.Min)
	}

	entry := []byte("\x03env\x06memory\x02")
	flags := byte(0)
	if m.Max != 0 {
		flags |= 1
	}
	if m.Shared {
		flags |= 2
	}
	entry = append(entry, flags)
	entry = binary.AppendUvarint(entry, uint64(m.Min))
	if m.Max != 0 {
		entry = binary.AppendUvarint(entry, uint64(m.Max))
	}

	out := append([]byte(nil), module[:8]...)
	written := false
	add := func(id byte, body []byte) {
		out = append(out, id)
		out = binary.AppendUvarint(out, uint64(len(body)))
		out = append(out, body...)
	}
	for _, s := range sections {
		switch {
		case s.id == sectionImport:
			count, used, err := readUint(s.body)
			if err != nil {
				return nil, m, fmt.Errorf("import section: %w", err)
			}
			body := binary.AppendUvarint(nil, uint64(count)+1)
			body = append(body, entry...) // first, so that a loader finds it near the start
			add(s.id, append(body, s.body[used:]...))
			written = true
		case s.id == sectionMemory:
		default:
			if !written && s.id > sectionImport {
				add(sectionImport, append([]byte{1}, entry...))
				written = true
			}
			add(s.id, s.body)
		}
	}
	return out, m, nil
}

func declaredMemory(sections []section) (uint32, error) {
	for _, s := range sections {
		if s.id != sectionMemory {
			continue
		}
		if len(s.body) < 3 || s.body[0] != 1 {
			return 0, errors.New("the module does not declare exactly one memory")
		}
		n, _, err := readUint(s.body[2:])
		return n, err
	}
	return 0, errors.New("the module declares no memory (is it linked already?)")
}

func readUint(b []byte) (uint32, int, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > 1<<32-1 {
		return 0, 0, errors.New("bad number")
	}
	return uint32(v), n, nil
}
