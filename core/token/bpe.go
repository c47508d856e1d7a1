package token

import (
	"fmt"
	"math"
	"unicode/utf8"
)

// bpe joins the characters of a word pair by pair in the order of its merges (Sennrich et al. 2016).
type bpe struct {
	vocab  *vocab
	merges *pairs
	unk    string // "": none
	unkID  int32  // -1: not in the vocabulary
	// prefix begins the names of pieces inside a word, suffix ends those of its last piece.
	prefix, suffix string
	fuseUnk        bool
	byteFallback   bool
	// ignoreMerges takes a word that is in the vocabulary as it is.
	ignoreMerges bool
	bytes        [256]int32 // ids of <0x00> to <0xFF>, -1 for none
	ascii        [utf8.RuneSelf]int32
	breaks       breaks
}

// symbol is a token in the making: len bytes of the word.
type symbol struct{ id, len int32 }

func newBPE(v *vocab, merges [][2]string, m bpe) (*bpe, error) {
	m.vocab, m.unkID = v, -1
	if m.unk != "" {
		if id, ok := v.ids[m.unk]; ok {
			m.unkID = id
		}
	}
	m.merges = newPairs(len(merges))
	var joined []byte
	for rank, pair := range merges {
		a, ok := v.ids[pair[0]]
		if !ok {
			return nil, fmt.Errorf("merge %d: %q is not in the vocabulary", rank, pair[0])
		}
		b, ok := v.ids[pair[1]]
		if !ok {
			return nil, fmt.Errorf("merge %d: %q is not in the vocabulary", rank, pair[1])
		}
		if len(pair[1]) < len(m.prefix) {
			return nil, fmt.Errorf("merge %d: %q is shorter than the prefix %q", rank, pair[1], m.prefix)
		}
		joined = append(append(joined[:0], pair[0]...), pair[1][len(m.prefix):]...)
		id, ok := v.ids[string(joined)]
		if !ok {
			return nil, fmt.Errorf("merge %d: %q is not in the vocabulary", rank, joined)
		}
		m.merges.set(a, b, merge{int32(rank), id})
		m.breaks.add(joined)
	}
	for c := range m.bytes {
		m.bytes[c] = -1
		if id, ok := v.ids[fmt.Sprintf("<0x%02X>", c)]; ok {
			m.bytes[c] = id
		}
	}
	for c := range m.ascii {
		m.ascii[c] = -1
		if id, ok := v.ids[string(rune(c))]; ok {
			m.ascii[c] = id
		}
	}
	_, marks := v.ids[metaMark]
	m.breaks.off = !marks || m.prefix != "" || m.suffix != "" || m.ignoreMerges
	return &m, nil
}

func (m *bpe) tokenize(sc *scratch, a *aligned, word int32) error {
	for lo := 0; lo < len(a.text); {
		hi := m.breaks.next(a.text, lo)
		if err := m.word(sc, a, lo, hi, word); err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

// breaks tells where a text can be cut without changing what becomes of it: before a mark U+2581 that follows something else, unless some token holds
// a mark after just that byte. SentencePiece vocabularies have few such tokens, so words can be joined one by one.
type breaks struct {
	off   bool
	never [256]bool
}

// add takes note of a token.
func (b *breaks) add(name []byte) {
	for i := 1; i+3 <= len(name); i++ {
		if isSpaceMark(name[i:]) && !(i >= 3 && isSpaceMark(name[i-3:])) {
			b.never[name[i-1]] = true
		}
	}
}

func isSpaceMark(text []byte) bool {
	return len(text) >= 3 && text[0] == 0xE2 && text[1] == 0x96 && text[2] == 0x81
}

// next is the end of the part that begins at lo.
func (b *breaks) next(text []byte, lo int) int {
	if b.off {
		return len(text)
	}
	marks := true
	for i := lo; i < len(text); {
		if text[i] == 0xE2 && isSpaceMark(text[i:]) {
			if !marks && !b.never[text[i-1]] {
				return i
			}
			marks = true
			i += 3
			continue
		}
		marks = false
		i++
	}
	return len(text)
}

// maxCachedWord bounds the words that the cache holds.
const maxCachedWord = 24

func (m *bpe) word(sc *scratch, a *aligned, lo, hi int, word int32) error {
	text := a.text[lo:hi]
	if len(text) == 0 {
		return nil
	}
	if a.at != nil {
		return m.cut(sc, a, lo, hi, word)
	}
	if ids, ok := sc.words.get(text); ok {
		for _, id := range ids {
			sc.out = append(sc.out, tok{id: id, word: word})
		}
		return nil
	}
	from := len(sc.out)
	if err := m.cut(sc, a, lo, hi, word); err != nil {
		return err
	}
	sc.words.put(text, sc.out[from:])
	return nil
}

// cut cuts a word, without the cache.
func (m *bpe) cut(sc *scratch, a *aligned, lo, hi int, word int32) error {
	text := a.text[lo:hi]
	track := a.at != nil
	if m.ignoreMerges {
		if id, ok := m.vocab.ids[string(text)]; ok {
			sc.out = append(sc.out, tok{id: id, word: word, at: a.original(lo, hi)})
			return nil
		}
	}
	syms, err := m.symbols(sc, text)
	if err != nil {
		return err
	}
	syms = m.join(sc, syms)
	at := lo
	for _, s := range syms {
		k := tok{id: s.id, word: word}
		if track {
			k.at = a.original(at, at+int(s.len))
			at += int(s.len)
		}
		sc.out = append(sc.out, k)
	}
	return nil
}

// symbols cuts a word into characters, or bytes where the vocabulary lacks a character.
func (m *bpe) symbols(sc *scratch, text []byte) ([]symbol, error) {
	syms := sc.syms[:0]
	unk := symbol{id: -1}
	flush := func() {
		if unk.id >= 0 {
			syms = append(syms, unk)
			unk.id = -1
		}
	}
	for i := 0; i < len(text); {
		n := 1
		id := int32(-1)
		if text[i] < utf8.RuneSelf && m.prefix == "" && m.suffix == "" {
			id = m.ascii[text[i]]
		} else {
			_, n = utf8.DecodeRune(text[i:])
			name := text[i : i+n]
			if i > 0 && m.prefix != "" || i+n == len(text) && m.suffix != "" {
				one := sc.one[:0]
				if i > 0 {
					one = append(one, m.prefix...)
				}
				one = append(one, name...)
				if i+n == len(text) {
					one = append(one, m.suffix...)
				}
				sc.one = one
				name = one
			}
			if found, ok := m.vocab.ids[string(name)]; ok {
				id = found
			}
			if id < 0 && m.byteFallback && m.hasBytes(name) {
				flush()
				for _, c := range name {
					syms = append(syms, symbol{m.bytes[c], 1})
				}
				i += n
				continue
			}
		}
		if id < 0 && n == 1 && m.byteFallback && m.bytes[text[i]] >= 0 {
			id = m.bytes[text[i]]
		}
		switch {
		case id >= 0:
			flush()
			syms = append(syms, symbol{id, int32(n)})
		case m.unk != "":
			if m.unkID < 0 {
				sc.syms = syms
				return nil, fmt.Errorf("token: %q is not in the vocabulary and neither is the unknown token %q", text[i:i+n], m.unk)
			}
			if unk.id >= 0 && m.fuseUnk {
				unk.len += int32(n)
			} else {
				flush()
				unk = symbol{m.unkID, int32(n)}
			}
		}
		i += n
	}
	flush()
	sc.syms = syms
	return syms, nil
}

func (m *bpe) hasBytes(name []byte) bool {
	for _, c := range name {
		if m.bytes[c] < 0 {
			return false
		}
	}
	return true
}

const noRank = int32(math.MaxInt32)

// manySymbols is where a heap becomes cheaper than looking through all pairs again.
const manySymbols = 32

// join applies the merges: always the pair of the lowest rank, leftmost first.
func (m *bpe) join(sc *scratch, syms []symbol) []symbol {
	if len(syms) > manySymbols {
		return m.joinMany(sc, syms)
	}
	var found [manySymbols]merge
	rank := func(i int) merge {
		if r, ok := m.merges.get(syms[i].id, syms[i+1].id); ok {
			return r
		}
		return merge{rank: noRank}
	}
	for i := 0; i+1 < len(syms); i++ {
		found[i] = rank(i)
	}
	for len(syms) > 1 {
		best, at := noRank, -1
		for i, f := range found[:len(syms)-1] {
			if f.rank < best {
				best, at = f.rank, i
			}
		}
		if at < 0 {
			break
		}
		syms[at] = symbol{found[at].id, syms[at].len + syms[at+1].len}
		copy(syms[at+1:], syms[at+2:])
		copy(found[at+1:], found[at+2:len(syms)])
		syms = syms[:len(syms)-1]
		if at+1 < len(syms) {
			found[at] = rank(at)
		}
		if at > 0 {
			found[at-1] = rank(at - 1)
		}
	}
	return syms
}

// link is a symbol in a list, candidate a merge that waits for its turn.
type (
	link      struct{ prev, next int32 }
	candidate struct{ rank, at, id int32 }
)

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.at < d.at
}

func (m *bpe) joinMany(sc *scratch, syms []symbol) []symbol {
	links, heap := sc.links[:0], sc.heap[:0]
	for i := range syms {
		links = append(links, link{int32(i) - 1, int32(i) + 1})
	}
	end := int32(len(syms))
	push := func(at int32) {
		next := links[at].next
		if next >= end {
			return
		}
		r, ok := m.merges.get(syms[at].id, syms[next].id)
		if !ok {
			return
		}
		heap = append(heap, candidate{r.rank, at, r.id})
		for i := len(heap) - 1; i > 0; {
			up := (i - 1) / 2
			if !heap[i].before(heap[up]) {
				break
			}
			heap[i], heap[up] = heap[up], heap[i]
			i = up
		}
	}
	pop := func() candidate {
		top := heap[0]
		last := len(heap) - 1
		heap[0] = heap[last]
		heap = heap[:last]
		for i := 0; ; {
			down := 2*i + 1
			if down >= last {
				break
			}
			if down+1 < last && heap[down+1].before(heap[down]) {
				down++
			}
			if !heap[down].before(heap[i]) {
				break
			}
			heap[i], heap[down] = heap[down], heap[i]
			i = down
		}
		return top
	}
	for i := range int32(len(syms)) {
		push(i)
	}
	for len(heap) > 0 {
		c := pop()
		next := links[c.at].next
		if syms[c.at].len == 0 || next >= end {
			continue
		}
		// The pair may have changed since it was pushed.
		if r, ok := m.merges.get(syms[c.at].id, syms[next].id); !ok || r.id != c.id || r.rank != c.rank {
			continue
		}
		syms[c.at] = symbol{c.id, syms[c.at].len + syms[next].len}
		syms[next].len = 0
		after := links[next].next
		links[c.at].next = after
		if after < end {
			links[after].prev = c.at
		}
		if prev := links[c.at].prev; prev >= 0 {
			push(prev)
		}
		push(c.at)
	}
	sc.links, sc.heap = links, heap
	out := syms[:0]
	for _, s := range syms {
		if s.len > 0 {
			out = append(out, s)
		}
	}
	return out
}
