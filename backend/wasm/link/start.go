package link

import (
	"encoding/binary"
	"errors"
)

// leaveOut clears tables that follow from others and returns the body of a function that makes them: the index of the function table, the
// functions' own numbers, and the buckets (runtime.findfuncbucket) by which an address finds its function. A wasm address is the number of a
// function, shifted by 16, so each has 16 buckets of 4096 addresses; only the first of them is ever looked at.
func (x *tables) leaveOut(image []byte, base uint32) []byte {
	put := binary.LittleEndian.PutUint32
	next := x.u32(x.table + 4)
	first := next
	for i := range x.functions {
		f := x.record(i)
		if x.u32(x.table+8*i) != uint32(firstFunction+i) || x.u32(x.table+8*i+4) != next || x.u32(f) != uint32(firstFunction+i) {
			return nil
		}
		next += uint32(x.size(f)+7) &^ 7
	}
	buckets := x.buckets(image)
	if buckets < 0 || x.functions < 2 {
		return nil
	}
	last := x.functions - 1 // has no bucket of its own, and stays as it is
	for i := range last {
		put(x.t[x.record(i):], 0)
	}
	clear(x.t[x.table : x.table+8*last])
	clear(image[buckets : buckets+bucketBytes*16*last])

	table := base + uint32(x.head+x.table)
	var b []byte
	op := func(c ...byte) { b = append(b, c...) }
	i32 := func(v uint32) { b = appendSigned(append(b, 0x41), v) }
	store := func(offset uint32) { b = binary.AppendUvarint(append(b, 0x36, 2), uint64(offset)) }
	load := func(offset uint32) { b = binary.AppendUvarint(append(b, 0x28, 2), uint64(offset)) }
	const i, record = 0, 1
	get := func(v byte) { op(0x20, v) }
	op(1, 2, 0x7f) // two locals of i32
	i32(first)
	op(0x21, record)
	op(0x03, 0x40) // loop
	// index[i] = {firstFunction + i, record}
	get(i)
	i32(3)
	op(0x74) // i << 3
	get(i)
	i32(firstFunction)
	op(0x6a)
	store(table)
	get(i)
	i32(3)
	op(0x74)
	get(record)
	store(table + 4)
	// the record's number
	get(record)
	get(i)
	i32(firstFunction)
	op(0x6a)
	store(table)
	// bucket[16 i] = i
	get(i)
	i32(16 * bucketBytes)
	op(0x6c)
	get(i)
	store(base + uint32(buckets))
	// record += (funcBytes + 4 (npcdata + nfuncdata) + 7) &^ 7
	get(record)
	get(record)
	load(table + 28)
	get(record)
	op(0x2d, 0) // i32.load8_u
	b = binary.AppendUvarint(b, uint64(table+43))
	op(0x6a)
	i32(2)
	op(0x74)
	i32(funcBytes + 7)
	op(0x6a)
	i32(1<<32 - 8)
	op(0x71, 0x6a, 0x21, record)
	// until the last
	get(i)
	i32(1)
	op(0x6a, 0x22, i)
	i32(uint32(last))
	op(0x49, 0x0d, 0, 0x0b, 0x0b)
	return b
}

const bucketBytes = 20

// buckets finds runtime.findfunctab in the image: 16 buckets for each function but the last.
func (x *tables) buckets(image []byte) int {
	matches := func(at int) bool {
		for k := range 16 * (x.functions - 1) {
			p := at + bucketBytes*k
			if p+bucketBytes > len(image) || binary.LittleEndian.Uint32(image[p:]) != uint32(k/16) {
				return false
			}
			for _, c := range image[p+4 : p+bucketBytes] {
				if c != 0 {
					return false
				}
			}
		}
		return true
	}
	for at := x.head + x.after; at+bucketBytes*16*2 < len(image); at++ {
		// Cheap looks first: the first bucket of function 1 is where it should be.
		if image[at+bucketBytes*16] == 1 && image[at+bucketBytes*17] == 1 && matches(at) {
			return at
		}
	}
	return -1
}

// addStart adds a function without parameters that runs when the module is made; nil adds nothing.
func (m *module) addStart(body []byte) error {
	if body == nil {
		return nil
	}
	if m.section(sectionStart) != nil {
		return errors.New("the module has a start function already")
	}
	types, _, err := m.counted(sectionType)
	if err != nil {
		return err
	}
	imports, err := m.importedFunctions()
	if err != nil {
		return err
	}
	bodies, err := m.bodies()
	if err != nil {
		return err
	}
	if m.section(sectionType) == nil || m.section(sectionFunction) == nil || len(bodies) == 0 {
		return errors.New("the module has no functions")
	}
	for id, entry := range map[byte][]byte{sectionType: {0x60, 0, 0}, sectionFunction: binary.AppendUvarint(nil, uint64(types))} {
		n, rest, err := m.counted(id)
		if err != nil {
			return err
		}
		m.section(id).body = append(append(binary.AppendUvarint(nil, uint64(n)+1), rest...), entry...)
	}
	index := imports + len(bodies)
	m.setBodies(append(bodies, body))
	at := len(m.sections)
	for i, s := range m.sections {
		if s.id == sectionElement || s.id == sectionCode {
			at = i
			break
		}
	}
	m.sections = append(m.sections[:at], append([]section{{sectionStart, binary.AppendUvarint(nil, uint64(index))}}, m.sections[at:]...)...)
	return nil
}
