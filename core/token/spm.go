package token

import (
	"fmt"
	"unicode/utf8"
)

// spm is SentencePiece's BPE as llama.cpp runs it: neighbours are joined whenever their text is a token, the highest score first.
type spm struct {
	vocab  *vocab
	scores []float32
	bytes  [256]int32
	unk    int32
	// longest token in bytes: longer texts need not be looked up.
	longest int
	breaks  breaks
}

func newSPM(v *vocab, scores []float32, unk int32) *spm {
	m := &spm{vocab: v, scores: scores, unk: unk}
	for c := range m.bytes {
		m.bytes[c] = -1
		if id, ok := v.ids[fmt.Sprintf("<0x%02X>", c)]; ok {
			m.bytes[c] = id
		} else if id, ok := v.ids[string([]byte{byte(c)})]; ok {
			m.bytes[c] = id
		}
	}
	for _, name := range v.names {
		m.longest = max(m.longest, len(name))
		m.breaks.add([]byte(name))
	}
	_, marks := v.ids[metaMark]
	m.breaks.off = !marks
	return m
}

func (m *spm) tokenize(sc *scratch, a *aligned, word int32) error {
	for lo := 0; lo < len(a.text); {
		hi := m.breaks.next(a.text, lo)
		if err := m.word(sc, a, lo, hi, word); err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

// join is a pair of neighbours whose text is a token. size tells whether both are still what they were.
type joining struct {
	score      float32
	left, size int32
	right      int32
}

func (j joining) before(k joining) bool {
	return j.score > k.score || j.score == k.score && j.left < k.left
}

func (m *spm) word(sc *scratch, a *aligned, lo, hi int, word int32) error {
	text := a.text[lo:hi]
	if len(text) == 0 {
		return nil
	}
	track := a.at != nil
	if !track {
		if ids, ok := sc.words.get(text); ok {
			for _, id := range ids {
				sc.out = append(sc.out, tok{id: id, word: word})
			}
			return nil
		}
	}
	// A symbol is named by where it begins: id is that place, len its length.
	syms, links, heap := sc.syms[:0], sc.links[:0], sc.joins[:0]
	for i := 0; i < len(text); {
		_, n := utf8.DecodeRune(text[i:])
		links = append(links, link{int32(len(syms)) - 1, int32(len(syms)) + 1})
		syms = append(syms, symbol{int32(i), int32(n)})
		i += n
	}
	end := int32(len(syms))
	push := func(left, right int32) {
		if left < 0 || right >= end {
			return
		}
		from, size := syms[left].id, syms[left].len+syms[right].len
		if int(size) > m.longest {
			return
		}
		id, ok := m.vocab.ids[string(text[from:from+size])]
		if !ok {
			return
		}
		heap = append(heap, joining{m.scores[id], left, size, right})
		for i := len(heap) - 1; i > 0; {
			up := (i - 1) / 2
			if !heap[i].before(heap[up]) {
				break
			}
			heap[i], heap[up] = heap[up], heap[i]
			i = up
		}
	}
	for i := int32(1); i < end; i++ {
		push(i-1, i)
	}
	for len(heap) > 0 {
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
		l, r := top.left, top.right
		if syms[l].len == 0 || syms[r].len == 0 || syms[l].len+syms[r].len != top.size {
			continue
		}
		syms[l].len += syms[r].len
		syms[r].len = 0
		next := links[r].next
		links[l].next = next
		if next < end {
			links[next].prev = l
		}
		push(links[l].prev, l)
		push(l, next)
	}
	sc.syms, sc.links, sc.joins = syms, links, heap
	from := len(sc.out)
	for i := int32(0); i < end; i = links[i].next {
		s := syms[i]
		k := tok{word: word}
		if track {
			k.at = a.original(lo+int(s.id), lo+int(s.id+s.len))
		}
		part := text[s.id : s.id+s.len]
		if id, ok := m.vocab.ids[string(part)]; ok {
			k.id = id
			sc.out = append(sc.out, k)
			continue
		}
		for _, c := range part {
			if k.id = m.bytes[c]; k.id < 0 {
				if k.id = m.unk; k.id < 0 {
					return fmt.Errorf("token: %q is not in the vocabulary, nor are its bytes or an unknown token", part)
				}
			}
			sc.out = append(sc.out, k)
		}
	}
	if !track {
		sc.words.put(text, sc.out[from:])
	}
	return nil
}
