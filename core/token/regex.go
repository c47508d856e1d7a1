package token

import (
	"context"
	"fmt"
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
		return scanFinder{s}, nil
	}
	re, err := regexp2.Compile(translate(pattern), regexp2.Unicode)
	if err != nil {
		return nil, fmt.Errorf("regex %.80q: %w", pattern, err)
	}
	re.MatchTimeout = regexTime
	return regexFinder{re}, nil
}

// translate rewrites what the two engines spell differently.
func translate(pattern string) string { return pattern }

var errSlowPattern = fmt.Errorf("token: a regex of the tokenizer took too long: %w", context.DeadlineExceeded)

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
