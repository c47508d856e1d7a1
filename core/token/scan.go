package token

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// A scanner returns the end of the piece of text that begins at lo. Scanners are the patterns of the big families, written out: the ends are those that a
// backtracking regular-expression engine finds, at a hundred times its speed. Every position belongs to a piece.
type scanner func(text []byte, lo int) int

// scanFinder makes a finder of a scanner.
type scanFinder struct {
	scan scanner
	gaps bool // the scanner tells gaps by negative ends
}

func (f scanFinder) find(text []byte, cuts []cut) ([]cut, error) {
	for lo := 0; lo < len(text); {
		hi := f.scan(text, lo)
		match := true
		if hi < 0 { // a piece that is a gap between matches
			hi, match = -hi, false
		}
		cuts = append(cuts, cut{lo: lo, hi: hi, match: match})
		lo = hi
	}
	return cuts, nil
}

// class of a character, as the patterns tell them apart.
type class uint8

const (
	other class = iota
	letter
	digit
	space
	newline // space too: \r and \n
)

var asciiClass = func() (t [utf8.RuneSelf]class) {
	for c := range t {
		switch {
		case c == '\n', c == '\r':
			t[c] = newline
		case c == ' ', c >= '\t' && c <= '\r':
			t[c] = space
		case c >= '0' && c <= '9':
			t[c] = digit
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			t[c] = letter
		}
	}
	return t
}()

func classAt(text []byte, i int) (class, int) {
	if c := text[i]; c < utf8.RuneSelf {
		return asciiClass[c], 1
	}
	r, n := utf8.DecodeRune(text[i:])
	switch {
	case unicode.IsLetter(r):
		return letter, n
	case unicode.Is(unicode.N, r):
		return digit, n
	case isSpace(r):
		return space, n
	}
	return other, n
}

// run is the end of the run of class c that goes on at i.
func run(text []byte, i int, c class) int {
	for i < len(text) {
		if b := text[i]; b < utf8.RuneSelf {
			if asciiClass[b] != c {
				return i
			}
			i++
			continue
		}
		k, n := classAt(text, i)
		if k != c {
			return i
		}
		i += n
	}
	return i
}

// spaces is the end of \s+(?!\S)|\s+ at i: white space, less its last character when a word follows.
func spaces(text []byte, i int) int {
	lo, last := i, i
	for i < len(text) {
		k, n := classAt(text, i)
		if k != space && k != newline {
			if last > lo {
				return last
			}
			return i
		}
		last = i
		i += n
	}
	return i
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd at i, 0 if there is none.
func contraction(text []byte, i int, fold bool) int {
	if i+1 >= len(text) || text[i] != '\'' {
		return 0
	}
	lower := func(c byte) byte {
		if fold && c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}
	switch lower(text[i+1]) {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if i+2 < len(text) && lower(text[i+2]) == 'e' {
			return 3
		}
	case 'l':
		if i+2 < len(text) && lower(text[i+2]) == 'l' {
			return 3
		}
	case 0xC5: // U+017F, the long s, is an s when case does not count
		if fold && i+2 < len(text) && text[i+2] == 0xBF {
			return 3
		}
	}
	return 0
}

const patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

func scanGPT2(text []byte, lo int) int {
	if n := contraction(text, lo, false); n > 0 {
		return lo + n
	}
	i := lo
	k, n := classAt(text, i)
	if text[i] == ' ' && i+1 < len(text) {
		if next, m := classAt(text, i+1); next < space {
			i++
			k, n = next, m
		}
	}
	if k < space {
		return run(text, i+n, k)
	}
	return spaces(text, lo)
}

// Patterns of the cl100k kind: GPT-4, Llama 3, Qwen, SmolLM3 and others. They differ in how many digits go together.
const (
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

func scanLlama3(text []byte, lo int) int { return scanCL100K(text, lo, 3) }
func scanQwen2(text []byte, lo int) int  { return scanCL100K(text, lo, 1) }

func scanCL100K(text []byte, lo, digits int) int {
	if n := contraction(text, lo, true); n > 0 {
		return lo + n
	}
	k, n := classAt(text, lo)
	switch k {
	case letter:
		return run(text, lo+n, letter)
	case digit:
		i := lo + n
		for d := 1; d < digits && i < len(text); d++ {
			k, n := classAt(text, i)
			if k != digit {
				break
			}
			i += n
		}
		return i
	}
	// Anything else but a line break may stand before letters.
	if i := lo + n; k != newline && i < len(text) {
		if next, m := classAt(text, i); next == letter {
			return run(text, i+m, letter)
		}
	}
	i := lo
	if text[lo] == ' ' && lo+1 < len(text) {
		if next, _ := classAt(text, lo+1); next == other {
			i, k = lo+1, other
		}
	}
	if k == other {
		i = run(text, i, other)
		for i < len(text) && (text[i] == '\r' || text[i] == '\n') {
			i++
		}
		return i
	}
	// White space: up to the last line break in it, if there is one.
	last := -1
	for j := lo; j < len(text); {
		k, n := classAt(text, j)
		if k != space && k != newline {
			break
		}
		j += n
		if k == newline {
			last = j
		}
	}
	if last > 0 {
		return last
	}
	return spaces(text, lo)
}

// scanWhitespace is \w+|[^\w\s]+; gaps between matches are returned as negative ends.
func scanWhitespace(text []byte, lo int) int {
	kind := func(i int) (int, int) {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case isWord(r):
			return 0, n
		case isSpace(r):
			return 1, n
		}
		return 2, n
	}
	k, n := kind(lo)
	i := lo + n
	for i < len(text) {
		next, n := kind(i)
		if next != k {
			break
		}
		i += n
	}
	if k == 1 {
		return -i
	}
	return i
}

// patternSpaces is what many normalizers put one space for.
const patternSpaces = ` {2,}`

func scanSpaces(text []byte, lo int) int {
	i := lo
	for {
		n := bytes.IndexByte(text[i:], ' ')
		if n < 0 {
			return -len(text)
		}
		i += n
		hi := i
		for hi < len(text) && text[hi] == ' ' {
			hi++
		}
		switch {
		case hi-i < 2:
			i = hi
		case i > lo:
			return -i
		default:
			return hi
		}
	}
}

// scanners are the patterns that have one.
var scanners = map[string]scanner{
	patternGPT2:   scanGPT2,
	patternLlama3: scanLlama3,
	patternQwen2:  scanQwen2,
	patternSpaces: scanSpaces,
}
