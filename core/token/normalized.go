package token

import "unicode/utf8"

// span is a half-open range of bytes of the original text.
type span struct{ lo, hi int32 }

// aligned is a piece of text on its way through normalizers and pre-tokenizers. Every byte of text remembers the range of the original
// that it came from, unless at is nil: then offsets are not wanted and nobody pays for them. Slices are never written in place: each change builds
// new ones, so that pieces may share memory.
type aligned struct {
	text []byte
	at   []span
	// start is where the piece begins in the original: characters inserted before everything else point there.
	start int32
}

// newAligned makes the identity alignment. Bytes that are not UTF-8 become U+FFFD, each for itself, as Python's "replace" and Go's range do.
func newAligned(sc *scratch, text string, track bool) aligned {
	a := aligned{}
	b := sc.begin(track)
	if !track && utf8.ValidString(text) {
		b.text = append(b.text, text...)
		a.text, _ = b.done(sc)
		return a
	}
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			b.text = append(b.text, c)
			if track {
				b.at = append(b.at, span{int32(i), int32(i) + 1})
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		b.put(r, span{int32(i), int32(i + n)})
		i += n
	}
	a.text, a.at = b.done(sc)
	return a
}

// builder collects a new text with its alignment.
type builder struct {
	text     []byte
	at       []span
	from, ft int
	track    bool
}

func (b *builder) put(r rune, s span) {
	n := len(b.text)
	b.text = utf8.AppendRune(b.text, r)
	if b.track {
		for range len(b.text) - n {
			b.at = append(b.at, s)
		}
	}
}

// bytes copies text[lo:hi] of a unchanged.
func (b *builder) copy(a *aligned, lo, hi int) {
	b.text = append(b.text, a.text[lo:hi]...)
	if b.track {
		b.at = append(b.at, a.at[lo:hi]...)
	}
}

// str appends s, every byte aligned to where.
func (b *builder) str(s string, where span) {
	b.text = append(b.text, s...)
	if b.track {
		for range len(s) {
			b.at = append(b.at, where)
		}
	}
}

// done hands the text out and gives the memory behind it back to sc, to be appended to by the next builder.
func (b *builder) done(sc *scratch) ([]byte, []span) {
	sc.text, sc.at = b.text, b.at
	text := b.text[b.from:len(b.text):len(b.text)]
	var at []span
	if b.track {
		at = b.at[b.ft:len(b.at):len(b.at)]
	}
	return text, at
}

// begin starts a builder on the arena of sc. Only one may be open at a time.
func (sc *scratch) begin(track bool) builder {
	return builder{text: sc.text, at: sc.at, from: len(sc.text), ft: len(sc.at), track: track}
}

// span is the alignment of byte i, or nothing where it is not tracked.
func (a *aligned) span(i int) span {
	if a.at == nil {
		return span{}
	}
	return a.at[i]
}

// before is the alignment that a character inserted at byte i gets: that of the byte before.
func (a *aligned) before(i int) span {
	if a.at == nil {
		return span{}
	}
	if i < 1 {
		return span{a.start, a.start}
	}
	return a.at[i-1]
}

// slice is text[lo:hi] as a piece of its own.
func (a *aligned) slice(lo, hi int) aligned {
	// Without alignment the start is only good for telling the beginning of the text from the rest.
	s := aligned{text: a.text[lo:hi:hi], start: a.start + int32(lo)}
	if a.at != nil {
		s.at = a.at[lo:hi:hi]
		if s.start = a.start; lo < hi {
			s.start = a.at[lo].lo
		}
	}
	return s
}

// original is the range of the original that bytes lo to hi of the piece came from.
func (a *aligned) original(lo, hi int) span {
	if lo >= hi || hi > len(a.at) {
		return span{a.start + int32(lo), a.start + int32(hi)}
	}
	return span{a.at[lo].lo, a.at[hi-1].hi}
}

// prepend puts s before the text; it takes the alignment of the first character.
func (a *aligned) prepend(sc *scratch, s string) {
	if len(a.text) == 0 {
		return
	}
	b := sc.begin(a.at != nil)
	b.str(s, a.span(0))
	b.copy(a, 0, len(a.text))
	a.text, a.at = b.done(sc)
}

// filter keeps the characters for which keep is true.
func (a *aligned) filter(sc *scratch, keep func(rune) bool) {
	i := 0
	for i < len(a.text) {
		r, n := utf8.DecodeRune(a.text[i:])
		if !keep(r) {
			break
		}
		i += n
	}
	if i == len(a.text) {
		return
	}
	b := sc.begin(a.at != nil)
	b.copy(a, 0, i)
	for i < len(a.text) {
		r, n := utf8.DecodeRune(a.text[i:])
		if keep(r) {
			b.copy(a, i, i+n)
		}
		i += n
	}
	a.text, a.at = b.done(sc)
}

// each rewrites the text character by character: f appends what stands for r, whose alignment is s, to b.
func (a *aligned) each(sc *scratch, f func(b *builder, r rune, s span)) {
	// In sc, so that passing its address costs no allocation.
	sc.build = sc.begin(a.at != nil)
	b := &sc.build
	for i := 0; i < len(a.text); {
		r, n := utf8.DecodeRune(a.text[i:])
		f(b, r, a.span(i))
		i += n
	}
	a.text, a.at = b.done(sc)
}
