package token

import (
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// bertNormalizer cleans, sets ideographs apart, strips accents and lower-cases, as BERT's reference code does.
type bertNormalizer struct {
	clean, chinese, strip, lower bool
}

func (n *bertNormalizer) normalize(sc *scratch, a *aligned) {
	if isASCII(a.text) {
		n.ascii(sc, a)
		return
	}
	if n.clean {
		a.filter(sc, func(r rune) bool { return r != 0 && r != utf8.RuneError && !isControl(r) })
		a.each(sc, func(b *builder, r rune, s span) {
			if isSpace(r) {
				r = ' '
			}
			b.put(r, s)
		})
	}
	if n.chinese {
		a.each(sc, func(b *builder, r rune, s span) {
			if isChinese(r) {
				b.put(' ', s)
				b.put(r, s)
				r = ' '
			}
			b.put(r, s)
		})
	}
	if n.strip {
		a.decompose(sc, norm.NFD)
		a.filter(sc, func(r rune) bool { return !isAccent(r) })
	}
	if n.lower {
		a.each(sc, putLower)
	}
}

// ascii does the same for texts of ASCII letters, where accents and ideographs cannot be.
func (n *bertNormalizer) ascii(sc *scratch, a *aligned) {
	if !n.clean && !n.lower {
		return
	}
	b := sc.begin(a.at != nil)
	for i, c := range a.text {
		if n.clean {
			if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
				continue
			}
			if c < ' ' {
				c = ' '
			}
		}
		if n.lower && c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b.text = append(b.text, c)
		if b.track {
			b.at = append(b.at, a.at[i])
		}
	}
	a.text, a.at = b.done(sc)
}

// bertPreTokenizer drops white space and isolates punctuation.
type bertPreTokenizer struct{}

func (bertPreTokenizer) pretokenize(sc *scratch, _ int, a *aligned, dst []piece) ([]piece, error) {
	lo := 0
	for i := 0; i < len(a.text); {
		r, n := rune(a.text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(a.text[i:])
		}
		switch {
		case isSpace(r):
			dst = a.part(dst, lo, i)
			lo = i + n
		case isPunctuation(r):
			dst = a.part(dst, lo, i)
			dst = a.part(dst, i, i+n)
			lo = i + n
		}
		i += n
	}
	return a.part(dst, lo, len(a.text)), nil
}
