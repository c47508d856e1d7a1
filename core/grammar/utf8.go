package grammar

import (
	"slices"
	"unicode/utf8"
)

// negate is the complement of set within Unicode scalar values.
func negate(set []runeRange) []runeRange {
	slices.SortFunc(set, func(a, b runeRange) int { return int(a.lo - b.lo) })
	var out []runeRange
	next := rune(0)
	for _, r := range set {
		if r.lo > next {
			out = append(out, runeRange{next, r.lo - 1})
		}
		next = max(next, r.hi+1)
	}
	if next <= utf8.MaxRune {
		out = append(out, runeRange{next, utf8.MaxRune})
	}
	return out
}

// set turns a set of characters into one element: a byte range where one byte does, otherwise a rule whose alternatives are the
// sequences of byte ranges that encode the set in UTF-8.
func (p *parser) set(set []runeRange) ([]element, error) {
	if len(set) == 1 && set[0].hi < utf8.RuneSelf {
		return []element{{-1, byte(set[0].lo), byte(set[0].hi)}}, nil
	}
	id := p.fresh("class")
	var alts []seq
	for _, r := range set {
		// Surrogates have no encoding.
		for _, part := range []runeRange{{r.lo, min(r.hi, 0xd7ff)}, {max(r.lo, 0xe000), r.hi}} {
			if part.lo <= part.hi {
				alts = utf8Ranges(alts, part.lo, part.hi)
			}
		}
	}
	p.g.rules[id] = alts
	return []element{{ref: id}}, p.budget(4 * len(alts))
}

// utf8Ranges appends the byte-range sequences of all code points in [lo, hi].
func utf8Ranges(alts []seq, lo, hi rune) []seq {
	for _, last := range []rune{0x7f, 0x7ff, 0xffff} {
		if lo <= last && hi > last {
			alts = utf8Ranges(alts, lo, last)
			return utf8Ranges(alts, last+1, hi)
		}
	}
	// Same length now: split where a leading byte changes before the trailing ones have covered their whole range.
	n := utf8.RuneLen(lo)
	for shift := 6; shift <= 6*(n-1); shift += 6 {
		low := rune(1)<<shift - 1
		if lo>>shift != hi>>shift {
			if lo&low != 0 {
				alts = utf8Ranges(alts, lo, lo|low)
				return utf8Ranges(alts, (lo|low)+1, hi)
			}
			if hi&low != low {
				alts = utf8Ranges(alts, lo, hi&^low-1)
				return utf8Ranges(alts, hi&^low, hi)
			}
		}
	}
	var a, b [utf8.UTFMax]byte
	utf8.EncodeRune(a[:], lo)
	utf8.EncodeRune(b[:], hi)
	s := make(seq, n)
	for i := range n {
		s[i] = element{-1, a[i], b[i]}
	}
	return append(alts, s)
}
