package link

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const sectionData = 11

// zeroRun is the length of a run of zeros that starts a new data segment: engines limit their number (V8 to 100,000), and zeros compress well.
const zeroRun = 256

// Trim removes from a Go module what a page has no use for. Of the tables for stack traces go file names, lines, arguments and the names of
// functions; stack sizes and maps of pointers, which the collector needs, stay. Functions that only serve what cannot happen (see idle) lose
// their bodies, and so does what only they call. Tables that follow from others are left out and made by a start function. It knows the
// layout that Go 1.26 writes (runtime.pcHeader, runtime._func); a module of another layout is refused. Names of functions are read from the
// module's name section, which is dropped.
func Trim(module []byte) ([]byte, error) {
	m, err := parse(module)
	if err != nil {
		return nil, err
	}
	data := m.section(sectionData)
	if data == nil {
		return nil, errors.New("the module has no data")
	}
	image, base, err := readImage(data.body)
	if err != nil {
		return nil, err
	}
	t, err := findTables(image)
	if err != nil {
		return nil, err
	}
	dead, err := m.dropIdle(image, base, t)
	if err != nil {
		return nil, err
	}
	if err := t.trim(dead); err != nil {
		return nil, err
	}
	if err := m.addStart(t.leaveOut(image, base)); err != nil {
		return nil, err
	}
	m.section(sectionData).body = writeImage(image, base)
	m.remove(sectionCustom)
	return m.bytes(), nil
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

// tables are the parts of the function table within a program's memory; all offsets are from its head.
type tables struct {
	image, t                                                   []byte // t begins at the head
	head, functions, names, units, files, values, table, after int
}

func findTables(image []byte) (*tables, error) {
	// Magic of Go 1.20 and later, two zeros, instruction size 1, pointer size 8.
	head := bytes.Index(image, []byte{0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8})
	if head < 0 || len(image)-head < 72 {
		return nil, errLayout
	}
	x := &tables{image: image, t: image[head:], head: head}
	word := func(at int) int { return int(min(binary.LittleEndian.Uint64(x.t[at:]), 1<<40)) }
	x.functions, x.names, x.units, x.files, x.values, x.table = word(8), word(32), word(40), word(48), word(56), word(64)
	if !(x.functions > 0 && 72 <= x.names && x.names <= x.units && x.units <= x.files && x.files <= x.values && x.values <= x.table && x.table+8*x.functions+4 <= len(x.t)) {
		return nil, errLayout
	}
	for i := range x.functions {
		f := x.record(i)
		if f < 0 || f+funcBytes > len(x.t) || f+x.size(f) > len(x.t) || x.u32(f+28) > 64 {
			return nil, errLayout
		}
		x.after = max(x.after, f+x.size(f))
	}
	return x, nil
}

func (x *tables) u32(at int) uint32 { return binary.LittleEndian.Uint32(x.t[at:]) }

// record returns where function i's record begins.
func (x *tables) record(i int) int { return x.table + int(x.u32(x.table+8*i+4)) }

// funcBytes is the fixed part of a record.
const funcBytes = 44

func (x *tables) size(f int) int {
	return funcBytes + 4*(int(min(x.u32(f+28), 1<<20))+int(x.t[f+43]))
}

// trim drops what serves stack traces, and all tables of the functions that are dead.
func (x *tables) trim(dead []bool) error {
	t := x.t
	keep := make([]bool, x.table-x.values)
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
					if t[x.values+p] < 0x80 {
						p++
						break
					}
				}
				if part == 0 && !first && p == start+1 && t[x.values+start] == 0 {
					return nil
				}
			}
		}
	}
	// The runtime wants to know which functions are its own: all of these have one name.
	const own = "runtime.f"
	runtimes := make([]bool, x.functions)
	for i := range x.functions {
		name := int(x.u32(x.record(i) + 4))
		if name >= x.units-x.names {
			return errLayout
		}
		runtimes[i] = bytes.HasPrefix(t[x.names+name:x.units], []byte("runtime."))
	}
	clear(t[x.names:x.values]) // and cutab and filetab
	if x.units-x.names < len(own)+2 {
		return errLayout
	}
	copy(t[x.names+1:], own)
	for i := range x.functions {
		f := x.record(i)
		name := uint32(0)
		if runtimes[i] {
			name = 1
		}
		binary.LittleEndian.PutUint32(t[f+4:], name)
		if dead[i] {
			clear(t[f+8 : f+28])
			clear(t[f+32 : f+40])
			clear(t[f+funcBytes : f+x.size(f)]) // offset 0 is "none" for tables of values; a function that never runs needs no pointers
			continue
		}
		clear(t[f+20 : f+28]) // pcfile and pcln: no table
		clear(t[f+32 : f+40]) // cuOffset and startLine, for these
		if err := mark(x.u32(f + 16)); err != nil {
			return err
		}
		more, data := int(x.u32(f+28)), int(t[f+43])
		for j := range more {
			if j == pcUnsafePoint || j == pcArgLive {
				clear(t[f+funcBytes+4*j : f+funcBytes+4+4*j])
				continue
			}
			if err := mark(x.u32(f + funcBytes + 4*j)); err != nil {
				return err
			}
		}
		for j := range data {
			if j == funcArgInfo || j == funcArgLiveInfo {
				binary.LittleEndian.PutUint32(t[f+funcBytes+4*(more+j):], 1<<32-1) // none
			}
		}
	}
	for i, k := range keep {
		if !k {
			t[x.values+i] = 0
		}
	}
	return nil
}
