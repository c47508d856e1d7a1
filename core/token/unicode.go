package token

import "unicode"

// isSpace is Unicode's White_Space.
func isSpace(r rune) bool { return unicode.IsSpace(r) }

// isOther is the general categories Cc, Cf and Co: not unassigned code points.
func isOther(r rune) bool {
	return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Co, r) || unicode.Is(unicode.Cf, r) && !unicode.Is(laterFormat, r)
}

// isControl is what BERT takes out of texts.
func isControl(r rune) bool {
	switch r {
	case '\t', '\n', '\r':
		return false
	}
	if r < 0x80 {
		return r < 0x20 || r == 0x7f
	}
	return isOther(r)
}

// isPunctuation is BERT's notion: all of ASCII's marks, symbols among them, and the general category P.
func isPunctuation(r rune) bool {
	if r < 0x80 {
		return r >= '!' && r <= '/' || r >= ':' && r <= '@' || r >= '[' && r <= '`' || r >= '{' && r <= '~'
	}
	// U+166D was punctuation once, U+111C9 too.
	return unicode.Is(unicode.P, r) && !unicode.Is(laterPunctuation, r) || r == 0x166D || r == 0x111C9
}

// isChinese holds the ranges of ideographs that BERT sets apart (one of them is 0x100 short, in the original too).
func isChinese(r rune) bool {
	if r < 0x3400 {
		return false
	}
	return r >= 0x4E00 && r <= 0x9FFF || r <= 0x4DBF || r >= 0x20000 && r <= 0x2A6DF || r >= 0x2A700 && r <= 0x2B73F ||
		r >= 0x2B740 && r <= 0x2B81F || r >= 0x2B920 && r <= 0x2CEAF || r >= 0xF900 && r <= 0xFAFF || r >= 0x2F800 && r <= 0x2FA1F
}

// isAccent is what BERT strips after decomposition.
func isAccent(r rune) bool {
	return r >= 0x300 && unicode.Is(unicode.Mn, r) && !unicode.Is(laterNonspacing, r) || r == 0x1734
}

// isMark is what StripAccents strips.
func isMark(r rune) bool {
	return r >= 0x300 && unicode.Is(unicode.M, r) && !unicode.Is(laterMarks, r) || r == 0x1CF2 || r == 0x1CF3
}

// isWord is \w of regular expressions in Unicode mode.
func isWord(r rune) bool {
	if r < 0x80 {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
	}
	return unicode.IsLetter(r) || unicode.Is(unicode.M, r) || unicode.Is(unicode.Nd, r) || unicode.Is(unicode.Nl, r) ||
		unicode.Is(unicode.Pc, r) || unicode.Is(unicode.Other_Alphabetic, r) || unicode.Is(unicode.Join_Control, r)
}

// putLower appends the lower case of r, letter by letter without context.
func putLower(b *builder, r rune, s span) {
	if r == 'İ' {
		b.put('i', s)
		b.put('\u0307', s)
		return
	}
	b.put(unicode.ToLower(r), s)
}
