package token

import (
	"fmt"
	"unicode/utf8"
)

// wordPiece cuts a word greedily into the longest pieces of the vocabulary (Schuster and Nakajima 2012; BERT).
type wordPiece struct {
	vocab    *vocab
	unk      string
	unkID    int32 // -1: not in the vocabulary
	prefix   string
	maxChars int
	// longest is the length in bytes of the longest entry, the prefix of continuing pieces left out: no longer piece need be tried.
	longest int
	first   map[string]int32 // pieces that begin a word
	next    map[string]int32 // pieces that continue one, without their prefix
	typos   *Typos           // nil: misspellings are in the vocabulary, if anywhere
}

func (m *wordPiece) setTypos(t *Typos) {
	if m.typos = t; t == nil {
		return
	}
	for _, w := range t.Words {
		m.longest = max(m.longest, len(w)+1)
	}
}

func newWordPiece(v *vocab, unk, prefix string, maxChars int) *wordPiece {
	m := &wordPiece{vocab: v, unk: unk, unkID: -1, prefix: prefix, maxChars: maxChars, first: v.ids}
	if id, ok := v.ids[unk]; ok {
		m.unkID = id
	}
	m.next = make(map[string]int32, len(v.ids)/4)
	add := func(s string, id int32) {
		if len(s) > len(prefix) && s[:len(prefix)] == prefix {
			m.next[s[len(prefix):]] = id
		}
		m.longest = max(m.longest, len(s))
	}
	if v.whole { // quicker than a walk over the map
		for id, s := range v.names {
			add(s, int32(id))
		}
		return m
	}
	for s, id := range v.ids {
		add(s, id)
	}
	return m
}

func (m *wordPiece) tokenize(sc *scratch, a *aligned, word int32) error {
	from := len(sc.out)
	track := a.at != nil
	if len(a.text) > m.maxChars && utf8.RuneCount(a.text) > m.maxChars {
		return m.unknown(sc, a, from, word)
	}
	for lo := 0; lo < len(a.text); {
		table := m.next
		if lo == 0 {
			table = m.first
		}
		hi := min(len(a.text), lo+m.longest)
		for hi < len(a.text) && !utf8.RuneStart(a.text[hi]) {
			hi--
		}
		id, ok := int32(0), false
		for hi > lo {
			if id, ok = table[string(a.text[lo:hi])]; ok {
				break
			}
			if m.typos != nil && (lo == 0 || m.prefix == "") {
				if id, ok = m.typos.read(a.text[lo:hi]); ok {
					break
				}
			}
			for hi--; hi > lo && !utf8.RuneStart(a.text[hi]); hi-- {
			}
		}
		if !ok {
			return m.unknown(sc, a, from, word)
		}
		t := tok{id: id, word: word}
		if track {
			t.at = a.original(lo, hi)
		}
		sc.out = append(sc.out, t)
		lo = hi
	}
	return nil
}

func (m *wordPiece) unknown(sc *scratch, a *aligned, from int, word int32) error {
	if m.unkID < 0 {
		return fmt.Errorf("token: a word is not in the vocabulary and neither is the unknown token %q", m.unk)
	}
	sc.out = append(sc.out[:from], tok{id: m.unkID, word: word, at: a.original(0, len(a.text))})
	return nil
}
