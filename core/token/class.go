package token

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// classFinder finds the characters of a plain class such as [абв\u200b-\u200f], one after another. Models that undo disguises have dozens of
// them, which an engine for patterns would each take through the whole text.
type classFinder struct {
	ranges [][2]rune // sorted, apart
	ascii  [2]uint64 // those below 128, a bit each
	low    bool      // there are such
}

// classOf reads a class without escapes, negation, nesting, intersection or anything around it.
func classOf(pattern string) (*classFinder, bool) {
	inner, ok := strings.CutPrefix(pattern, "[")
	if !ok {
		return nil, false
	}
	if inner, ok = strings.CutSuffix(inner, "]"); !ok || inner == "" || strings.ContainsAny(inner, `\[]^&`) || !utf8.ValidString(inner) {
		return nil, false
	}
	f := &classFinder{}
	all := []rune(inner)
	for i := 0; i < len(all); i++ {
		lo, hi := all[i], all[i]
		if lo == '-' { // a range without an end, or a hyphen: left to the engine
			return nil, false
		}
		if i+2 < len(all) && all[i+1] == '-' {
			hi = all[i+2]
			i += 2
		}
		if hi < lo || hi == '-' {
			return nil, false
		}
		f.ranges = append(f.ranges, [2]rune{lo, hi})
	}
	slices.SortFunc(f.ranges, func(a, b [2]rune) int { return int(a[0]) - int(b[0]) })
	apart := f.ranges[:1]
	for _, r := range f.ranges[1:] {
		if last := &apart[len(apart)-1]; r[0] <= last[1]+1 {
			last[1] = max(last[1], r[1])
		} else {
			apart = append(apart, r)
		}
	}
	f.ranges = apart
	for c := rune(0); c < utf8.RuneSelf; c++ {
		if f.has(c) {
			f.ascii[c/64] |= 1 << (c % 64)
			f.low = true
		}
	}
	return f, true
}

func (f *classFinder) has(r rune) bool {
	lo, hi := 0, len(f.ranges)
	for lo < hi {
		if mid := (lo + hi) / 2; f.ranges[mid][1] < r {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(f.ranges) && f.ranges[lo][0] <= r
}

func (f *classFinder) find(text []byte, cuts []cut) ([]cut, error) {
	done := 0
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			if !f.low {
				if i = plainUntil(text, i+1); i == len(text) {
					break
				}
				continue
			}
			if f.ascii[c/64]>>(c%64)&1 == 0 {
				i++
				continue
			}
			cuts, done = matched(cuts, done, i, i+1)
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if f.has(r) {
			cuts, done = matched(cuts, done, i, i+n)
		}
		i += n
	}
	if done < len(text) {
		cuts = append(cuts, cut{lo: done, hi: len(text)})
	}
	return cuts, nil
}

// matched adds a match, and what lies before it.
func matched(cuts []cut, done, lo, hi int) ([]cut, int) {
	if done < lo {
		cuts = append(cuts, cut{lo: done, hi: lo})
	}
	return append(cuts, cut{lo: lo, hi: hi, match: true}), hi
}

// plainUntil is the place of the first byte from i on that is not ASCII.
func plainUntil(text []byte, i int) int {
	for ; i+8 <= len(text); i += 8 {
		t := text[i : i+8 : i+8]
		if (t[0]|t[1]|t[2]|t[3]|t[4]|t[5]|t[6]|t[7])&0x80 != 0 {
			break
		}
	}
	for i < len(text) && text[i] < utf8.RuneSelf {
		i++
	}
	return i
}
