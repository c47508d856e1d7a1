package token

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// charsmap is SentencePiece's precompiled character map: a double-array trie (Darts-clone) from strings to places in a list of replacements.
type charsmap struct {
	units []uint32
	texts []byte // each ends with a zero byte
}

func newCharsmap(raw []byte) (*charsmap, error) {
	if len(raw) < 4 {
		return nil, fmt.Errorf("precompiled_charsmap: %d bytes are too few", len(raw))
	}
	size := binary.LittleEndian.Uint32(raw)
	rest := raw[4:]
	if size%4 != 0 || uint64(size) > uint64(len(rest)) {
		return nil, fmt.Errorf("precompiled_charsmap: a trie of %d bytes in %d", size, len(rest))
	}
	m := &charsmap{units: make([]uint32, size/4), texts: rest[size:]}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(rest[4*i:])
	}
	return m, nil
}

// find is the replacement of the shortest entry that key begins with.
func (m *charsmap) find(key []byte) ([]byte, bool) {
	at := func(i uint32) (uint32, bool) {
		if i >= uint32(len(m.units)) {
			return 0, false
		}
		return m.units[i], true
	}
	unit, ok := at(0)
	if !ok {
		return nil, false
	}
	jump := func(unit uint32) uint32 { return (unit >> 10) << ((unit & (1 << 9)) >> 6) }
	node := jump(unit)
	for _, c := range key {
		if c == 0 {
			break
		}
		node ^= uint32(c)
		if unit, ok = at(node); !ok || unit&(1<<31|0xFF) != uint32(c) {
			return nil, false
		}
		node ^= jump(unit)
		if unit>>8&1 == 1 {
			leaf, ok := at(node)
			lo := leaf & (1<<31 - 1)
			if !ok || lo > uint32(len(m.texts)) {
				return nil, false
			}
			hi := lo
			for hi < uint32(len(m.texts)) && m.texts[hi] != 0 {
				hi++
			}
			if !utf8.Valid(m.texts[lo:hi]) {
				return nil, false
			}
			return m.texts[lo:hi], true
		}
	}
	return nil, false
}

// normalize replaces whole grapheme clusters of fewer than six bytes where the map has them (or a beginning of them: so the original), and else
// character by character.
func (m *charsmap) normalize(sc *scratch, a *aligned) {
	marks, changed := sc.marks[:0], false
	replace := func(old int, with []byte) {
		changed = true
		fresh := 0
		for len(with) > 0 {
			r, n := utf8.DecodeRune(with)
			with = with[n:]
			k := mark{r: r}
			if fresh++; fresh > old {
				k.change = 1
			}
			marks = append(marks, k)
		}
		// What vanishes is counted with the character before it, and lost count of when there is none; offsets are off by it, as the original's are.
		if fresh < old && len(marks) > 0 {
			marks[len(marks)-1].change -= int32(old - fresh)
		}
	}
	rest, state := a.text, -1
	for len(rest) > 0 {
		var cluster []byte
		if len(rest) > 1 && rest[0] < utf8.RuneSelf && rest[1] < utf8.RuneSelf && rest[0] != '\r' {
			// Between two ASCII characters there is always a boundary, CR LF aside.
			cluster, rest, state = rest[:1], rest[1:], -1
		} else {
			cluster, rest, _, state = uniseg.FirstGraphemeCluster(rest, state)
		}
		if len(cluster) < 6 {
			if with, ok := m.find(cluster); ok {
				replace(utf8.RuneCount(cluster), with)
				continue
			}
		}
		for len(cluster) > 0 {
			r, n := utf8.DecodeRune(cluster)
			if with, ok := m.find(cluster[:n]); ok {
				replace(1, with)
			} else {
				marks = append(marks, mark{r: r})
			}
			cluster = cluster[n:]
		}
	}
	sc.marks = marks
	if changed {
		b := sc.begin(a.at != nil)
		emit(&b, a, marks)
		a.text, a.at = b.done(sc)
	}
}
