package chat

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokData tokenKind = iota
	tokVarBegin
	tokVarEnd
	tokBlockBegin
	tokBlockEnd
	tokName
	tokString
	tokInt
	tokFloat
	tokOp
	tokEOF
)

type lexeme struct {
	kind tokenKind
	text string
	line int
}

// failure travels as a panic from anywhere in this package to the exported function that was called.
type failure struct {
	err error
}

func fail(format string, a ...any) { panic(failure{fmt.Errorf(format, a...)}) }

// lexer cuts a template into tokens, with trim_blocks and lstrip_blocks on, as chat templates are rendered.
type lexer struct {
	src  string
	at   int
	out  []lexeme
	line int
}

func (l *lexer) fail(format string, a ...any) {
	panic(failure{fmt.Errorf("line %d: "+format, append([]any{l.line}, a...)...)})
}

func (l *lexer) emit(kind tokenKind, s string) { l.out = append(l.out, lexeme{kind, s, l.line}) }

func (l *lexer) skip(n int) {
	l.line += strings.Count(l.src[l.at:l.at+n], "\n")
	l.at += n
}

func lex(src string) []lexeme {
	src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	src = strings.TrimSuffix(src, "\n")
	l := &lexer{src: src, line: 1}
	lineStart := true
	for l.at < len(l.src) {
		i := l.nextTag()
		if i < 0 {
			l.emit(tokData, l.src[l.at:])
			break
		}
		data := l.src[l.at:i]
		tag := l.src[i : i+2]
		sign := byte(0)
		if i+2 < len(l.src) && (l.src[i+2] == '-' || l.src[i+2] == '+') {
			sign = l.src[i+2]
		}
		full := data
		switch {
		case sign == '-':
			data = strings.TrimRightFunc(data, unicode.IsSpace)
		case sign != '+' && tag != "{{":
			from := strings.LastIndexByte(data, '\n') + 1
			if (from > 0 || lineStart) && strings.TrimSpace(data[from:]) == "" {
				data = data[:from]
			}
		}
		if data != "" {
			l.emit(tokData, data)
		}
		l.skip(len(full) + 2)
		if sign != 0 {
			l.skip(1)
		}
		begin := l.at
		switch tag {
		case "{#":
			l.comment()
		case "{{":
			l.emit(tokVarBegin, "")
			l.inside(false)
		default:
			if !l.raw() {
				l.emit(tokBlockBegin, "")
				l.inside(true)
			}
		}
		lineStart = l.at > begin && l.src[l.at-1] == '\n'
	}
	l.emit(tokEOF, "")
	return l.out
}

func (l *lexer) nextTag() int {
	for i := l.at; i+1 < len(l.src); i++ {
		if l.src[i] == '{' {
			switch l.src[i+1] {
			case '{', '%', '#':
				return i
			}
		}
	}
	return -1
}

// after eats what a tag's end takes with it: a line break, or all white space.
func (l *lexer) after(sign byte, block bool) {
	rest := l.src[l.at:]
	switch {
	case sign == '-':
		l.skip(len(rest) - len(strings.TrimLeftFunc(rest, unicode.IsSpace)))
	case sign == 0 && block && strings.HasPrefix(rest, "\n"):
		l.skip(1)
	}
}

func (l *lexer) comment() {
	n := strings.Index(l.src[l.at:], "#}")
	if n < 0 {
		l.fail("a comment is not closed")
	}
	sign := byte(0)
	if n > 0 && (l.src[l.at+n-1] == '-' || l.src[l.at+n-1] == '+') {
		sign = l.src[l.at+n-1]
	}
	l.skip(n + 2)
	l.after(sign, true)
}

// word reads "  name  -%}" and says how long it is, and the sign before the end.
func blockWord(s, name string) (n int, sign byte, ok bool) {
	rest := strings.TrimLeftFunc(s, unicode.IsSpace)
	if !strings.HasPrefix(rest, name) {
		return 0, 0, false
	}
	rest = strings.TrimLeftFunc(rest[len(name):], unicode.IsSpace)
	if len(rest) > 0 && (rest[0] == '-' || rest[0] == '+') {
		sign = rest[0]
		rest = rest[1:]
	}
	if !strings.HasPrefix(rest, "%}") {
		return 0, 0, false
	}
	return len(s) - len(rest) + 2, sign, true
}

// raw handles {% raw %}, whose body is text.
func (l *lexer) raw() bool {
	n, sign, ok := blockWord(l.src[l.at:], "raw")
	if !ok {
		return false
	}
	l.skip(n)
	l.after(sign, false)
	for i := l.at; ; {
		k := strings.Index(l.src[i:], "{%")
		if k < 0 {
			l.fail("a raw block is not closed")
		}
		i += k
		body := l.src[i+2:]
		lead := 0
		left := byte(0)
		if len(body) > 0 && (body[0] == '-' || body[0] == '+') {
			left = body[0]
			lead = 1
		}
		if n, sign, ok := blockWord(body[lead:], "endraw"); ok {
			data := l.src[l.at:i]
			if left == '-' {
				data = strings.TrimRightFunc(data, unicode.IsSpace)
			}
			if data != "" {
				l.emit(tokData, data)
			}
			l.skip(i - l.at + 2 + lead + n)
			l.after(sign, true)
			return true
		}
		i += 2
	}
}

var operators = []string{"**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", ".", ",", ":", "|", "(", ")", "[", "]", "{", "}", ";"}

// inside reads the expression of a tag up to its end.
func (l *lexer) inside(block bool) {
	end, kind := "}}", tokVarEnd
	if block {
		end, kind = "%}", tokBlockEnd
	}
	var open []byte
	for {
		if l.at >= len(l.src) {
			l.fail("a tag is not closed: expected %q", end)
		}
		rest := l.src[l.at:]
		if r, n := utf8.DecodeRuneInString(rest); unicode.IsSpace(r) {
			l.skip(n)
			continue
		}
		if len(open) == 0 {
			sign := byte(0)
			if (rest[0] == '-' || rest[0] == '+' && block) && strings.HasPrefix(rest[1:], end) {
				sign = rest[0]
				rest = rest[1:]
			}
			if strings.HasPrefix(rest, end) {
				l.emit(kind, "")
				l.skip(len(l.src) - l.at - len(rest) + 2)
				l.after(sign, block)
				return
			}
		}
		c := rest[0]
		switch {
		case c == '\'' || c == '"':
			l.str(c)
		case c >= '0' && c <= '9':
			l.number()
		case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf:
			n := 0
			for i, r := range rest {
				if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
					break
				}
				n = i + utf8.RuneLen(r)
			}
			if n <= 0 || n > len(rest) {
				l.fail("unexpected character %q", c)
			}
			l.emit(tokName, rest[:n])
			l.skip(n)
		default:
			op := ""
			for _, o := range operators {
				if strings.HasPrefix(rest, o) {
					op = o
					break
				}
			}
			switch op {
			case "":
				l.fail("unexpected character %q", c)
			case "(", "[", "{":
				open = append(open, op[0])
			case ")", "]", "}":
				want := map[string]byte{")": '(', "]": '[', "}": '{'}[op]
				if len(open) == 0 || open[len(open)-1] != want {
					l.fail("unexpected %q", op)
				}
				open = open[:len(open)-1]
			}
			l.emit(tokOp, op)
			l.skip(len(op))
		}
	}
}

func (l *lexer) number() {
	rest := l.src[l.at:]
	n := 0
	digits := func() {
		for n < len(rest) && (rest[n] >= '0' && rest[n] <= '9' || rest[n] == '_') {
			n++
		}
	}
	digits()
	kind := tokInt
	// 1.2 is a number, but a.0.1 is two subscripts.
	afterDot := len(l.out) > 0 && l.out[len(l.out)-1].kind == tokOp && l.out[len(l.out)-1].text == "."
	if !afterDot {
		if n+1 < len(rest) && rest[n] == '.' && rest[n+1] >= '0' && rest[n+1] <= '9' {
			kind = tokFloat
			n++
			digits()
		}
		if n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
			m := n + 1
			if m < len(rest) && (rest[m] == '+' || rest[m] == '-') {
				m++
			}
			if m < len(rest) && rest[m] >= '0' && rest[m] <= '9' {
				kind = tokFloat
				n = m
				digits()
			}
		}
	}
	l.emit(kind, strings.ReplaceAll(rest[:n], "_", ""))
	l.skip(n)
}

func (l *lexer) str(quote byte) {
	rest := l.src[l.at:]
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case quote:
			l.emit(tokString, unescape(rest[1:i]))
			l.skip(i + 1)
			return
		}
	}
	l.fail("a string is not closed")
}

// unescape reads Python's escapes; those it does not know stay as they are.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		digits := 0
		switch c := s[i]; c {
		case '\n':
		case '\\', '\'', '"':
			b.WriteByte(c)
		case 'a':
			b.WriteByte(7)
		case 'b':
			b.WriteByte(8)
		case 'f':
			b.WriteByte(12)
		case 'n':
			b.WriteByte(10)
		case 'r':
			b.WriteByte(13)
		case 't':
			b.WriteByte(9)
		case 'v':
			b.WriteByte(11)
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		default:
			if c >= '0' && c <= '7' {
				n, v := 0, rune(0)
				for n < 3 && i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '7' {
					v = v*8 + rune(s[i+n]-'0')
					n++
				}
				b.WriteRune(v)
				i += n - 1
				continue
			}
			b.WriteByte('\\')
			b.WriteByte(c)
		}
		if digits > 0 {
			if i+digits >= len(s)+0 && i+digits > len(s)-1 {
				fail("a string has an escape that is too short")
			}
			v, err := strconv.ParseUint(s[i+1:i+1+digits], 16, 32)
			if err != nil || v > unicode.MaxRune {
				fail("a string has the bad escape \\%s", s[i:i+1+digits])
			}
			b.WriteRune(rune(v))
			i += digits
		}
	}
	return b.String()
}
