package token

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A mark is a character on its way through decomposition, with its combining class.
type mark struct {
	r     rune
	class uint8
	// change counts characters as the original library does: 0 replaces one source character, 1 is inserted beside the one before, -n replaces
	// one and swallows the n after it. Alignment follows these counts in the final order, whatever the marks were sorted to.
	change int32
}

// decompose is NFD (or NFKD) with alignments. The library's own normal forms insert joiners into long runs of marks ("stream-safe") and say nothing
// about offsets, so it only serves single characters here; ordering and composing are done in this file.
func (a *aligned) decompose(sc *scratch, form norm.Form) {
	if isASCII(a.text) || plain(a.text, form) {
		return
	}
	marks := sc.decomposed(a, form)
	b := sc.begin(a.at != nil)
	emit(&b, a, marks)
	a.text, a.at = b.done(sc)
}

// compose is NFC (or NFKC, when form is NFKD) with alignments.
func (a *aligned) compose(sc *scratch, form norm.Form) {
	full := norm.NFC
	if form == norm.NFKD {
		full = norm.NFKC
	}
	if isASCII(a.text) || plain(a.text, full) {
		return
	}
	marks := sc.decomposed(a, form)
	// Canonical composition (Unicode, section 3.11): a starter takes up every later mark of its run that is not blocked.
	out := marks[:0]
	starter, last := -1, -1
	for _, m := range marks {
		if starter >= 0 && last < int(m.class) && (last >= 0 || starter == len(out)-1) {
			if c, ok := composePair(out[starter].r, m.r); ok {
				out[starter].r = c
				out[starter].change += m.change - 1
				continue
			}
		}
		if m.class == 0 {
			starter, last = len(out), -1
		} else if starter >= 0 {
			last = int(m.class)
		}
		out = append(out, m)
	}
	b := sc.begin(a.at != nil)
	emit(&b, a, out)
	a.text, a.at = b.done(sc)
}

func emit(b *builder, a *aligned, marks []mark) {
	next := 0 // first byte of the source not consumed yet
	for _, m := range marks {
		if m.change > 0 {
			b.put(m.r, a.before(next))
			continue
		}
		b.put(m.r, a.span(min(next, len(a.text)-1)))
		for n := m.change; n <= 0 && next < len(a.text); n++ {
			_, size := utf8.DecodeRune(a.text[next:])
			next += size
		}
	}
}

// plain is a quick, sure yes: text is in the form already.
func plain(text []byte, form norm.Form) bool { return form.IsNormal(text) }

func isASCII(text []byte) bool {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// decomposed lists the characters of a after decomposition, in canonical order.
func (sc *scratch) decomposed(a *aligned, form norm.Form) []mark {
	marks := sc.marks[:0]
	run := 0 // where the current run of marks, not yet ordered, begins
	for i := 0; i < len(a.text); {
		r, n := utf8.DecodeRune(a.text[i:])
		if r < utf8.RuneSelf {
			orderMarks(marks[run:])
			marks = append(marks, mark{r: r})
			run = len(marks)
			i += n
			continue
		}
		sc.one = appendDecomposed(sc.one[:0], form, r, a.text[i:i+n])
		var change int32
		for j := 0; j < len(sc.one); {
			d, m := utf8.DecodeRune(sc.one[j:])
			class := norm.NFD.Properties(sc.one[j : j+m]).CCC()
			if class == 0 {
				orderMarks(marks[run:])
			}
			marks = append(marks, mark{r: d, class: class, change: change})
			if class == 0 {
				run = len(marks)
			}
			change = 1
			j += m
		}
		i += n
	}
	orderMarks(marks[run:])
	sc.marks = marks
	return marks
}

// appendDecomposed appends the full decomposition of r, whose UTF-8 is text.
func appendDecomposed(dst []byte, form norm.Form, r rune, text []byte) []byte {
	if r >= hangulS && r < hangulS+countL*countV*countT {
		i := r - hangulS
		dst = utf8.AppendRune(dst, hangulL+i/(countV*countT))
		dst = utf8.AppendRune(dst, hangulV+i%(countV*countT)/countT)
		if t := i % countT; t > 0 {
			dst = utf8.AppendRune(dst, hangulT+t)
		}
		return dst
	}
	if d := form.Properties(text).Decomposition(); d != nil && !unicode.Is(laterDecompositions, r) {
		return append(dst, d...)
	}
	return append(dst, text...)
}

// orderMarks sorts by combining class, keeping the order of equals (insertion sort: runs are short; long ones are merged below).
func orderMarks(m []mark) {
	if len(m) > 32 {
		sortMarks(m)
		return
	}
	for i := 1; i < len(m); i++ {
		for j := i; j > 0 && m[j].class < m[j-1].class; j-- {
			m[j], m[j-1] = m[j-1], m[j]
		}
	}
}

const (
	hangulS, hangulL, hangulV, hangulT = 0xAC00, 0x1100, 0x1161, 0x11A7
	countL, countV, countT             = 19, 21, 28
)

// composePair is the primary composite of two characters, if there is one.
func composePair(a, b rune) (rune, bool) {
	if a >= hangulL && a < hangulL+countL && b >= hangulV && b < hangulV+countV {
		return hangulS + ((a-hangulL)*countV+(b-hangulV))*countT, true
	}
	if a >= hangulS && a < hangulS+countL*countV*countT && (a-hangulS)%countT == 0 && b > hangulT && b < hangulT+countT {
		return a + (b - hangulT), true
	}
	if a < utf8.RuneSelf && b < 0x300 {
		return 0, false
	}
	var in, out [2 * utf8.UTFMax]byte
	text := utf8.AppendRune(utf8.AppendRune(in[:0], a), b)
	r, n := utf8.DecodeRune(norm.NFC.Append(out[:0], text...))
	composed := norm.NFC.Append(out[:0], text...)
	if n != len(composed) || n == 0 {
		return 0, false
	}
	return r, true
}
