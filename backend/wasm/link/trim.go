package link

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const sectionData = 11

// zeroRun is the length of a run of zeros that starts a new data segment: engines limit their number (V8 to 100,000), and zeros compress well.
const zeroRun = 256

// Trim removes from a Go module what only serves stack traces: file names, the tables of lines and of arguments, and the names of functions
// outside of the runtime (which looks some of its own up). The tables of stack sizes and pointers, which the collector needs, stay. It knows the layout that
// Go 1.20 and later write (runtime.pcHeader, runtime._func); a module of another layout is refused.
func Trim(module []byte) ([]byte, error) {
	at, end, body, err := findSection(module, sectionData)
	if err != nil {
		return nil, err
	}
	image, base, err := readImage(body)
	if err != nil {
		return nil, err
	}
	if err := trimTables(image); err != nil {
		return nil, err
	}
	data := writeImage(image, base)
	out := append([]byte(nil), module[:at]...)
	out = append(out, sectionData)
	out = binary.AppendUvarint(out, uint64(len(data)))
	out = append(out, data...)
	return append(out, module[end:]...), nil
}

// findSection returns where a section starts and ends, and its body.
func findSection(module []byte, id byte) (start, end int, body []byte, err error) {
	for at := 8; at < len(module); {
		n, used, err := readUint(module[at+1:])
		if err != nil {
			return 0, 0, nil, err
		}
		from := at + 1 + used
		if uint64(n) > uint64(len(module)-from) {
			return 0, 0, nil, fmt.Errorf("section %d of %d bytes ends beyond the module", module[at], n)
		}
		if module[at] == id {
			return at, from + int(n), module[from : from+int(n)], nil
		}
		at = from + int(n)
	}
	return 0, 0, nil, fmt.Errorf("the module has no section %d", id)
}

// readImage lays active segments out as they will lie in memory, from base on.
func readImage(body []byte) (image []byte, base uint32, err error) {
	count, used, err := readUint(body)
	if err != nil {
		return nil, 0, err
	}
	body = body[used:]
	type segment struct {
		at   uint32
		data []byte
	}
	var all []segment
	for i := range count {
		if len(body) < 4 || body[0] != 0 || body[1] != 0x41 { // active, i32.const
			return nil, 0, fmt.Errorf("data segment %d is not a plain one", i)
		}
		off, n := signed(body[2:])
		body = body[2+n:]
		if n == 0 || len(body) < 2 || body[0] != 0x0b {
			return nil, 0, fmt.Errorf("data segment %d has a strange offset", i)
		}
		size, used, err := readUint(body[1:])
		if err != nil {
			return nil, 0, err
		}
		body = body[1+used:]
		if uint64(size) > uint64(len(body)) {
			return nil, 0, fmt.Errorf("data segment %d ends beyond its section", i)
		}
		all = append(all, segment{off, body[:size]})
		body = body[size:]
	}
	slices.SortStableFunc(all, func(a, b segment) int { return cmp.Compare(a.at, b.at) })
	for i, s := range all {
		if i == 0 {
			base = s.at
		}
		at := int(s.at - base)
		if at < len(image) || at > 1<<30 {
			return nil, 0, fmt.Errorf("data segments overlap at %d", s.at)
		}
		image = append(append(image, make([]byte, at-len(image))...), s.data...)
	}
	return image, base, nil
}

// signed reads a LEB128 i32 as an address.
func signed(b []byte) (uint32, int) {
	var v uint64
	for i := 0; i < len(b) && i < 5; i++ {
		v |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return uint32(v), i + 1
		}
	}
	return 0, 0
}

func appendSigned(b []byte, v uint32) []byte {
	for x := int32(v); ; x >>= 7 {
		c := byte(x & 0x7f)
		if rest := x >> 7; rest == 0 && c&0x40 == 0 || rest == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// writeImage is the inverse of readImage; long runs of zeros are left out, memory starts zeroed.
func writeImage(image []byte, base uint32) []byte {
	var segments []byte
	count := 0
	for at := 0; at < len(image); {
		if image[at] == 0 {
			at++
			continue
		}
		end, zeros := at, 0
		for i := at; i < len(image) && zeros < zeroRun; i++ {
			if image[i] == 0 {
				zeros++
				continue
			}
			zeros, end = 0, i+1
		}
		segments = append(segments, 0, 0x41)
		segments = appendSigned(segments, base+uint32(at))
		segments = append(segments, 0x0b)
		segments = binary.AppendUvarint(segments, uint64(end-at))
		segments = append(segments, image[at:end]...)
		count++
		at = end
	}
	return append(binary.AppendUvarint(nil, uint64(count)), segments...)
}

var errLayout = errors.New("the Go program's function table has an unknown layout")

// Tables and records of a function (internal/abi) that serve the printing of arguments, and preemption by signals, which WebAssembly has not.
const (
	pcUnsafePoint   = 0
	pcArgLive       = 3
	funcArgInfo     = 5
	funcArgLiveInfo = 6
)

func trimTables(image []byte) error {
	// Magic of Go 1.20 and later, two zeros, instruction size 1, pointer size 8.
	head := bytes.Index(image, []byte{0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8})
	if head < 0 || len(image)-head < 72 {
		return errLayout
	}
	t := image[head:]
	word := func(at int) int { return int(min(binary.LittleEndian.Uint64(t[at:]), 1<<40)) }
	functions, names, units, files, values, table := word(8), word(32), word(40), word(48), word(56), word(64)
	if !(72 <= names && names <= units && units <= files && files <= values && values <= table && table+8*functions+4 <= len(t)) {
		return errLayout
	}
	u32 := binary.LittleEndian.Uint32
	keep := make([]bool, table-values)
	keepName := make([]bool, units-names)
	mark := func(at uint32) error {
		if at == 0 {
			return nil
		}
		first := true
		for p := int(at); ; first = false {
			for part := range 2 {
				start := p
				for ; ; p++ {
					if p >= len(keep) {
						return errLayout
					}
					keep[p] = true
					if t[values+p] < 0x80 {
						p++
						break
					}
				}
				if part == 0 && !first && p == start+1 && t[values+start] == 0 {
					return nil
				}
			}
		}
	}
	for i := range functions {
		f := table + int(u32(t[table+8*i+4:]))
		if f+44 > len(t) {
			return errLayout
		}
		name := int(u32(t[f+4:]))
		if name >= len(keepName) {
			return errLayout
		}
		s := t[names+name : units]
		if n := bytes.IndexByte(s, 0); n >= 0 {
			if strings.HasPrefix(string(s[:n]), "runtime.") {
				for j := range n {
					keepName[name+j] = true
				}
			}
		}
		if name != 0 && !keepName[name] {
			clear(t[f+4 : f+8]) // nameOff: the empty name
		}
		clear(t[f+20 : f+28]) // pcfile and pcln: no table
		clear(t[f+32 : f+40]) // cuOffset and startLine, for these
		if err := mark(u32(t[f+16:])); err != nil {
			return err
		}
		more, data := int(u32(t[f+28:])), int(t[f+43])
		if more > 64 || f+44+4*(more+data) > len(t) {
			return errLayout
		}
		for j := range more {
			if j == pcUnsafePoint || j == pcArgLive {
				clear(t[f+44+4*j : f+48+4*j])
				continue
			}
			if err := mark(u32(t[f+44+4*j:])); err != nil {
				return err
			}
		}
		for j := range data {
			if j == funcArgInfo || j == funcArgLiveInfo {
				binary.LittleEndian.PutUint32(t[f+44+4*(more+j):], 1<<32-1) // none
			}
		}
	}
	for i, k := range keep {
		if !k {
			t[values+i] = 0
		}
	}
	for i, k := range keepName {
		if !k {
			t[names+i] = 0
		}
	}
	clear(t[units:values]) // cutab and filetab
	return nil
}
