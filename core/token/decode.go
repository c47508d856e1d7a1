package token

import (
	"strings"
	"unicode/utf8"
)

// decoder rewrites the names of tokens into the parts of a text.
type decoder interface {
	decode(tokens []string) []string
}

// Decode is the text of ids. Ids without a token are left out, and special ones too when skipSpecial is set.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	if t.llama != nil && t.decoder == nil {
		return t.llama.decode(t, ids, skipSpecial)
	}
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		if a, ok := t.addedByID[id]; ok {
			// One whose name the normalizer changed is not recognised as special, in the original too.
			if !skipSpecial || !a.Special || a.name != a.Content {
				names = append(names, a.name)
			}
			continue
		}
		if name, ok := t.vocab.name(id); ok && !(skipSpecial && t.IsSpecial(id)) {
			names = append(names, name)
		}
	}
	if t.decoder == nil {
		return strings.Join(names, " ")
	}
	text := strings.Join(t.decoder.decode(names), "")
	if !utf8.ValidString(text) { // names in GGUF files may be any bytes
		return lossy([]byte(text))
	}
	return text
}

type decoders []decoder

func (d decoders) decode(tokens []string) []string {
	for _, one := range d {
		tokens = one.decode(tokens)
	}
	return tokens
}

type wordPieceDecoder struct {
	prefix  string
	cleanup bool
}

func (d wordPieceDecoder) decode(tokens []string) []string {
	for i, s := range tokens {
		if i > 0 {
			if strings.HasPrefix(s, d.prefix) {
				s = s[len(d.prefix):]
			} else {
				s = " " + s
			}
		}
		if d.cleanup {
			s = cleanup(s)
		}
		tokens[i] = s
	}
	return tokens
}

// The order of these replacements is that of the original.
var cleanups = [...][2]string{{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" do not", " don't"},
	{" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}}

func cleanup(s string) string {
	for _, c := range cleanups {
		s = strings.ReplaceAll(s, c[0], c[1])
	}
	return s
}

// byteLevelDecoder maps the letters of byte-level tokens back to bytes. A token with a letter that stands for no byte is taken as it is.
type byteLevelDecoder struct{}

func (byteLevelDecoder) decode(tokens []string) []string {
	var out []byte
	for _, s := range tokens {
		out = appendBytes(out, s)
	}
	return []string{lossy(out)}
}

func appendBytes(dst []byte, name string) []byte {
	from := len(dst)
	for _, r := range name {
		b, ok := letterByte(r)
		if !ok {
			return append(dst[:from], name...)
		}
		dst = append(dst, b)
	}
	return dst
}

// lossy makes UTF-8 of b; each maximal invalid part becomes one U+FFFD, as the Unicode standard recommends (and strings.ToValidUTF8 does not do).
func lossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out []byte
	for i := 0; i < len(b); {
		if r, n := utf8.DecodeRune(b[i:]); r != utf8.RuneError || n > 1 {
			out = append(out, b[i:i+n]...)
			i += n
			continue
		}
		i += max(1, truncatedRune(b[i:]))
		out = append(out, "\uFFFD"...)
	}
	return string(out)
}

// truncatedRune is the length of the longest beginning of b that is a proper beginning of a well-formed character, 0 if there is none.
func truncatedRune(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	lo, hi, need := byte(0x80), byte(0xBF), 0
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		need = 1
	case c == 0xE0:
		lo, need = 0xA0, 2
	case c >= 0xE1 && c <= 0xEC, c == 0xEE, c == 0xEF:
		need = 2
	case c == 0xED:
		hi, need = 0x9F, 2
	case c == 0xF0:
		lo, need = 0x90, 3
	case c >= 0xF1 && c <= 0xF3:
		need = 3
	case c == 0xF4:
		hi, need = 0x8F, 3
	default:
		return 0
	}
	n := 1
	for n <= need && n < len(b) && b[n] >= lo && b[n] <= hi {
		lo, hi = 0x80, 0xBF
		n++
	}
	return n
}

// replaceDecoder replaces in each token.
type replaceDecoder struct{ replace func(string) string }

func (d replaceDecoder) decode(tokens []string) []string {
	for i, s := range tokens {
		tokens[i] = d.replace(s)
	}
	return tokens
}

// byteFallback joins runs of <0x..> tokens into text; a run that is not UTF-8 becomes one U+FFFD a byte.
type byteFallback struct{}

func (byteFallback) decode(tokens []string) []string {
	out := tokens[:0:0]
	var run []byte
	flush := func() {
		if len(run) == 0 {
			return
		}
		if utf8.Valid(run) {
			out = append(out, string(run))
		} else {
			for range run {
				out = append(out, "\uFFFD")
			}
		}
		run = run[:0]
	}
	for _, s := range tokens {
		if b, ok := fallbackByte(s); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, s)
	}
	flush()
	return out
}

// fallbackByte reads names such as <0x0A>.
func fallbackByte(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	hi, ok1 := hexDigit(s[3])
	lo, ok2 := hexDigit(s[4])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

type fuse struct{}

func (fuse) decode(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// stripDecoder takes up to start characters off the beginning of each token and stop off its end.
type stripDecoder struct {
	content     rune
	start, stop int
}

func (d stripDecoder) decode(tokens []string) []string {
	c := string(d.content)
	for i, s := range tokens {
		for n := 0; n < d.start && strings.HasPrefix(s, c); n++ {
			s = s[len(c):]
		}
		for n := 0; n < d.stop && strings.HasSuffix(s, c); n++ {
			s = s[:len(s)-len(c)]
		}
		tokens[i] = s
	}
	return tokens
}

// metaspaceDecoder turns the marks for spaces back; those of the first token were put there before the text and go.
type metaspaceDecoder struct {
	mark  string
	never bool
}

func (d metaspaceDecoder) decode(tokens []string) []string {
	for i, s := range tokens {
		if i == 0 && !d.never {
			s = strings.ReplaceAll(s, d.mark, "")
		}
		tokens[i] = strings.ReplaceAll(s, d.mark, " ")
	}
	return tokens
}

type bpeDecoder struct{ suffix string }

func (d bpeDecoder) decode(tokens []string) []string {
	for i, s := range tokens {
		with := " "
		if i == len(tokens)-1 {
			with = ""
		}
		if d.suffix != "" {
			tokens[i] = strings.ReplaceAll(s, d.suffix, with)
		}
	}
	return tokens
}

// ctcDecoder drops repeats, then the blanks between them.
type ctcDecoder struct {
	pad, delimiter string
	cleanup        bool
}

func (d ctcDecoder) decode(tokens []string) []string {
	out := tokens[:0:0]
	for i, s := range tokens {
		if i > 0 && s == tokens[i-1] {
			continue
		}
		s = strings.ReplaceAll(s, d.pad, "")
		if d.cleanup {
			s = strings.ReplaceAll(cleanup(s), d.delimiter, " ")
		}
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
