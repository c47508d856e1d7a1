package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/dlclark/regexp2"
)

// regexTime bounds one search: a backtracking engine can be made to run for ever.
const regexTime = 5 * time.Second

type regexFinder struct{ re *regexp2.Regexp }

// compile makes a finder of an Oniguruma pattern.
func compile(pattern string) (finder, error) {
	if s, ok := scanners[pattern]; ok {
		return scanFinder{scan: s, gaps: pattern == patternSpaces}, nil
	}
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("regex of %d bytes: expected at most %d", len(pattern), maxPattern)
	}
	if pattern == PatternNumbers {
		return numbersFinder{}, nil
	}
	if f, ok := classOf(pattern); ok {
		return f, nil
	}
	// ^ and $ stand for the ends of lines, as in Ruby, whose syntax these patterns are in.
	translated, err := translate(pattern)
	if err != nil {
		return nil, fmt.Errorf("regex %.80q: %w", pattern, err)
	}
	re, err := compileSafely(translated)
	if err != nil {
		return nil, fmt.Errorf("regex %.80q: %w", pattern, err)
	}
	re.MatchTimeout = regexTime
	return regexFinder{re}, nil
}

// maxPattern bounds a pattern's length in bytes.
const maxPattern = 1 << 14

// compileSafely turns a panic of the engine, which hostile patterns might find, into an error.
func compileSafely(pattern string) (re *regexp2.Regexp, err error) {
	defer func() {
		if r := recover(); r != nil {
			re, err = nil, fmt.Errorf("the engine refuses it: %v", r)
		}
	}()
	return regexp2.Compile(pattern, regexp2.Unicode|regexp2.Multiline)
}

// wordClass is \w of Oniguruma: letters, marks, digits, connectors, and a few others by age.
const wordClass = `\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\u00B2\u00B3\u00B9\u00BC-\u00BE\u24B6-\u24E9` + "\U0001F130-\U0001F149\U0001F150-\U0001F169\U0001F170-\U0001F189"

// translate rewrites what the two engines spell differently: \w, \h, POSIX classes, code points in braces and possessive quantifiers.
func translate(pattern string) (string, error) {
	var out []byte
	var groups []int
	atom := 0 // where the last atom begins in out
	for i := 0; i < len(pattern); {
		switch c := pattern[i]; c {
		case '\\':
			atom = len(out)
			n, err := translateEscape(&out, pattern[i:], false)
			if err != nil {
				return "", err
			}
			i += n
		case '[':
			atom = len(out)
			n, err := translateClass(&out, pattern[i:])
			if err != nil {
				return "", err
			}
			i += n
		case '(':
			groups = append(groups, len(out))
			out = append(out, c)
			i++
			if strings.HasPrefix(pattern[i:], "?") {
				out = append(out, '?')
				i++
			}
		case ')':
			if len(groups) > 0 {
				atom = groups[len(groups)-1]
				groups = groups[:len(groups)-1]
			}
			out = append(out, c)
			i++
		case '*', '+', '?', '{':
			n := 1
			if c == '{' {
				if n = strings.IndexByte(pattern[i:], '}') + 1; n == 0 || strings.Trim(pattern[i+1:i+n-1], "0123456789,") != "" {
					atom = len(out)
					out = append(out, '\\', c) // not a quantifier
					i++
					break
				}
			}
			out = append(out, pattern[i:i+n]...)
			if i += n; i < len(pattern) && pattern[i] == '+' {
				open := "(?>"
				if c == '{' {
					open = "(?:" // X{n,m}+ repeats
				} else {
					i++
				}
				out = slices.Insert(out, atom, []byte(open)...)
				out = append(out, ')')
			}
		default:
			atom = len(out)
			_, n := utf8.DecodeRuneInString(pattern[i:])
			out = append(out, pattern[i:i+n]...)
			i += n
		}
		if len(out) > 16*len(pattern)+64 {
			return "", errors.New("possessive quantifiers are nested too deep")
		}
	}
	return string(out), nil
}

// translateEscape handles the escape at the beginning of s and returns its length.
func translateEscape(out *[]byte, s string, class bool) (int, error) {
	if len(s) < 2 {
		return 0, errors.New("ends in a backslash")
	}
	set := func(members string, negate bool) {
		switch {
		case class:
			*out = append(*out, members...)
		case negate:
			*out = append(*out, "[^"+members+"]"...)
		default:
			*out = append(*out, "["+members+"]"...)
		}
	}
	switch s[1] {
	case 'w':
		set(wordClass, false)
		return 2, nil
	case 'h':
		set("0-9a-fA-F", false)
		return 2, nil
	case 'W', 'H':
		if class {
			return 0, fmt.Errorf("%s inside a character class is not supported", s[:2])
		}
		if s[1] == 'W' {
			set(wordClass, true)
		} else {
			set("0-9a-fA-F", true)
		}
		return 2, nil
	case 'x':
		if strings.HasPrefix(s, `\x{`) {
			end := strings.IndexByte(s, '}')
			if end < 0 {
				return 0, errors.New(`\x{ without }`)
			}
			r, err := strconv.ParseUint(s[3:end], 16, 32)
			if err != nil || r > utf8.MaxRune {
				return 0, fmt.Errorf("bad code point %s", s[:end+1])
			}
			if r < utf8.RuneSelf {
				*out = append(*out, fmt.Sprintf(`\x%02x`, r)...)
			} else {
				*out = utf8.AppendRune(*out, rune(r))
			}
			return end + 1, nil
		}
	case 'p', 'P':
		if end := strings.IndexByte(s, '}'); len(s) > 2 && s[2] == '{' && end > 0 {
			name, kind := s[3:end], s[1]
			if strings.HasPrefix(name, "^") {
				name, kind = name[1:], kind^('p'^'P')
			}
			*out = append(*out, '\\', kind)
			*out = append(*out, "{"+name+"}"...)
			return end + 1, nil
		}
	}
	_, n := utf8.DecodeRuneInString(s[1:])
	*out = append(*out, s[:1+n]...)
	return 1 + n, nil
}

var posixClasses = map[string]string{
	"alpha": `\p{L}\p{M}`, "digit": `\p{Nd}`, "alnum": `\p{L}\p{M}\p{Nd}`, "upper": `\p{Lu}`, "lower": `\p{Ll}`, "space": `\s`, "punct": `\p{P}\p{S}`,
	"word": wordClass, "xdigit": "0-9a-fA-F", "cntrl": `\p{Cc}`, "blank": `\p{Zs}\t`,
}

// translateClass handles the character class at the beginning of s and returns its length.
func translateClass(out *[]byte, s string) (int, error) {
	*out = append(*out, '[')
	i := 1
	if strings.HasPrefix(s[i:], "^") {
		*out = append(*out, '^')
		i++
	}
	for first := true; i < len(s); first = false {
		switch {
		case s[i] == ']' && !first:
			*out = append(*out, ']')
			return i + 1, nil
		case s[i] == '\\':
			n, err := translateEscape(out, s[i:], true)
			if err != nil {
				return 0, err
			}
			i += n
		case strings.HasPrefix(s[i:], "[:"):
			end := strings.Index(s[i:], ":]")
			if end < 0 {
				return 0, errors.New("[: without :]")
			}
			members, ok := posixClasses[s[i+2:i+end]]
			if !ok {
				return 0, fmt.Errorf("character class %s is not supported", s[i:i+end+2])
			}
			*out = append(*out, members...)
			i += end + 2
		case strings.HasPrefix(s[i:], "&&"):
			return 0, errors.New("intersections of character classes are not supported")
		case s[i] == '[':
			// A class inside a class is a union; only plain ones are.
			end := strings.IndexByte(s[i:], ']')
			if end < 2 || s[i+1] == '^' || strings.Contains(s[i+1:i+end], "[") {
				*out = append(*out, '\\', '[')
				i++
				break
			}
			for j := i + 1; j < i+end; {
				if s[j] == '\\' {
					n, err := translateEscape(out, s[j:i+end], true)
					if err != nil {
						return 0, err
					}
					j += n
					continue
				}
				*out = append(*out, s[j])
				j++
			}
			i += end + 1
		default:
			_, n := utf8.DecodeRuneInString(s[i:])
			*out = append(*out, s[i:i+n]...)
			i += n
		}
	}
	return 0, errors.New("a character class is not closed")
}

// errSlowPattern is context.DeadlineExceeded with a reason.
var errSlowPattern error = slowPattern{}

type slowPattern struct{}

func (slowPattern) Error() string {
	return "token: a regex of the tokenizer took too long: " + context.DeadlineExceeded.Error()
}
func (slowPattern) Unwrap() error { return context.DeadlineExceeded }

func (f regexFinder) find(text []byte, cuts []cut) ([]cut, error) {
	if len(text) == 0 {
		return cuts, nil
	}
	deadline := time.Now().Add(regexTime)
	done, at, runes := 0, 0, 0
	m, err := f.re.FindStringMatch(string(text))
	for ; err == nil && m != nil; m, err = f.re.FindNextMatch(m) {
		lo := at
		for ; runes < m.Index; runes++ {
			_, n := utf8.DecodeRune(text[lo:])
			lo += n
		}
		hi := lo
		for range m.Length {
			_, n := utf8.DecodeRune(text[hi:])
			hi += n
		}
		at = lo
		if done < lo {
			cuts = append(cuts, cut{lo: done, hi: lo})
		}
		cuts = append(cuts, cut{lo: lo, hi: hi, match: true})
		done = hi
		if time.Now().After(deadline) {
			return cuts, errSlowPattern
		}
	}
	if err != nil {
		return cuts, fmt.Errorf("%w: %v", errSlowPattern, err)
	}
	if done < len(text) {
		cuts = append(cuts, cut{lo: done, hi: len(text)})
	}
	return cuts, nil
}

// view is b as a string, without a copy, for reading only.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
