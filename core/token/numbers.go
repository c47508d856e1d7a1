package token

import (
	"unicode"
	"unicode/utf8"
)

// PatternNumbers matches words with two digits or more, letters and marks among them or not. Letters before and between the first two digits are
// bounded, so that long words cost engines that try one way after another not too much; Load reads it in one pass.
const PatternNumbers = `[\p{L}\p{M}]{0,32}\p{Nd}[\p{L}\p{M}]{0,32}\p{Nd}[\p{L}\p{M}\p{Nd}]*`

const numbersGap = 32

type numbersFinder struct{}

func (numbersFinder) find(text []byte, cuts []cut) ([]cut, error) {
	done := 0
	for i := 0; i < len(text); {
		var ring [numbersGap + 1]int // places of the last characters of this run: a match begins at most numbersGap letters before its first digit
		begin, count := -1, 0        // of the match, if the next digit is near enough; characters of the run so far
		last, after := -1, 0         // number of the last digit among the characters; the first one that the next match may begin with
		found, lo := false, i
		for i < len(text) {
			r, n := rune(text[i]), 1
			if r >= utf8.RuneSelf {
				r, n = utf8.DecodeRune(text[i:])
			}
			isDigit := r >= '0' && r <= '9' || r >= utf8.RuneSelf && unicode.Is(unicode.Nd, r)
			if !isDigit && !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.Is(unicode.M, r))) {
				if i == lo { // no word begins here
					i += n
					lo = i
					continue
				}
				break
			}
			ring[count%len(ring)] = i
			if isDigit && !found {
				if last >= 0 && count-last-1 <= numbersGap {
					found = true
				} else {
					first := max(after, count-numbersGap)
					begin = ring[first%len(ring)]
					last, after = count, count+1
				}
			}
			count++
			i += n
		}
		if found {
			cuts, done = matched(cuts, done, begin, i)
		}
	}
	if done < len(text) {
		cuts = append(cuts, cut{lo: done, hi: len(text)})
	}
	return cuts, nil
}
