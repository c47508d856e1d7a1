package attack

import (
	"strings"
	"unicode"
)

const asciiLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// CharOptions limit where in a word a character may change.
type CharOptions struct {
	// All offers a variant for every position instead of one drawn by chance.
	All bool
	// SkipFirst and SkipLast keep the word's outer characters.
	SkipFirst, SkipLast bool
	// Letters are what is inserted or substituted, ASCII letters when empty.
	Letters string
}

func (o CharOptions) letter(r *Rand) rune {
	if o.Letters == "" {
		return rune(asciiLetters[r.IntN(len(asciiLetters))])
	}
	l := []rune(o.Letters)
	return l[r.IntN(len(l))]
}

// at lists the positions in [0, n) to work on, one or all.
func (o CharOptions) at(n int, r *Rand) []int {
	lo, hi := 0, n
	if o.SkipFirst {
		lo = 1
	}
	if o.SkipLast {
		hi--
	}
	if lo >= hi {
		return nil
	}
	if !o.All {
		return []int{lo + r.IntN(hi-lo)}
	}
	out := make([]int, 0, hi-lo)
	for i := lo; i < hi; i++ {
		out = append(out, i)
	}
	return out
}

// chars makes a swap of an edit at one position; span is the number of characters that the edit looks at.
func chars(name string, o CharOptions, span int, edit func(w []rune, i int, r *Rand) string) WordSwap {
	return charVariants(name, o, span, func(w []rune, i int, r *Rand) []string { return []string{edit(w, i, r)} })
}

func charVariants(name string, o CharOptions, span int, edit func(w []rune, i int, r *Rand) []string) WordSwap {
	return WordSwap{Label: name, Variants: func(word string, r *Rand) []string {
		w := []rune(word)
		if len(w) <= 1 {
			return nil
		}
		var out []string
		for _, i := range o.at(len(w)-span+1, r) {
			out = append(out, edit(w, i, r)...)
		}
		return out
	}}
}

// SwapChars swaps two neighbouring characters.
func SwapChars(o CharOptions) WordSwap {
	return chars("swap", o, 2, func(w []rune, i int, _ *Rand) string {
		return string(w[:i]) + string(w[i+1]) + string(w[i]) + string(w[i+2:])
	})
}

// SubstituteChars replaces a character by a letter.
func SubstituteChars(o CharOptions) WordSwap {
	return chars("substitute", o, 1, func(w []rune, i int, r *Rand) string {
		return string(w[:i]) + string(o.letter(r)) + string(w[i+1:])
	})
}

// DeleteChars removes a character.
func DeleteChars(o CharOptions) WordSwap {
	return chars("delete", o, 1, func(w []rune, i int, _ *Rand) string { return string(w[:i]) + string(w[i+1:]) })
}

// InsertChars inserts a letter before a character.
func InsertChars(o CharOptions) WordSwap {
	return chars("insert", o, 1, func(w []rune, i int, r *Rand) string {
		return string(w[:i]) + string(o.letter(r)) + string(w[i:])
	})
}

// RepeatChars doubles a character.
func RepeatChars(o CharOptions) WordSwap {
	return chars("repeat", o, 1, func(w []rune, i int, _ *Rand) string { return string(w[:i+1]) + string(w[i:]) })
}

// keyRows are the letter keys of the American QWERTY layout, each row shifted half a key to the right of the one above.
var keyRows = []string{"1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"}

// keyNeighbours gives, per key, the keys that touch it.
var keyNeighbours = func() map[rune]string {
	m := map[rune]string{}
	at := func(r, c int) string {
		if r < 0 || r >= len(keyRows) || c < 0 || c >= len(keyRows[r]) {
			return ""
		}
		return keyRows[r][c : c+1]
	}
	for r, row := range keyRows {
		for c, k := range row {
			m[k] = at(r, c-1) + at(r, c+1) + at(r-1, c) + at(r-1, c+1) + at(r+1, c-1) + at(r+1, c)
		}
	}
	return m
}()

// keyVariants gives, for characters in either case, those of the neighbouring keys.
var keyVariants = func() map[rune][]rune {
	m := map[rune][]rune{}
	for k, near := range keyNeighbours {
		m[k] = []rune(near)
		if u := unicode.ToUpper(k); u != k {
			m[u] = []rune(strings.ToUpper(near))
		}
	}
	return m
}()

// Keyboard replaces a character by one of a neighbouring key, keeping case: one drawn by chance, or every one at every position.
func Keyboard(o CharOptions) WordSwap {
	return charVariants("keyboard", o, 1, func(w []rune, i int, r *Rand) []string {
		near := keyVariants[w[i]]
		if len(near) == 0 {
			return nil
		}
		if !o.All {
			near = near[r.IntN(len(near)):][:1]
		}
		out := make([]string, len(near))
		for k, c := range near {
			out[k] = string(w[:i]) + string(c) + string(w[i+1:])
		}
		return out
	})
}

// Homoglyphs replaces characters by others that look the same: one, all, or those at each position, as o says.
func Homoglyphs(o CharOptions) WordSwap {
	return table("homoglyph", o, homoglyphs())
}

// Visual replaces characters by accented and otherwise similar ones (Eger et al. 2019), less faithful than Homoglyphs.
func Visual(o CharOptions) WordSwap { return table("visual", o, lookAlikes()) }

// Leet replaces letters by digits and signs.
func Leet(o CharOptions) WordSwap { return table("leetspeak", o, leet()) }

// table offers, for each chosen position, every replacement in the table, and for a whole-word disguise the word with all its characters
// replaced by the first.
func table(name string, o CharOptions, of map[rune][]rune) WordSwap {
	return WordSwap{Label: name, Variants: func(word string, r *Rand) []string {
		w := []rune(word)
		var able []int
		for i, c := range w {
			if len(of[c]) > 0 && !(o.SkipFirst && i == 0) && !(o.SkipLast && i == len(w)-1) {
				able = append(able, i)
			}
		}
		if len(able) == 0 {
			return nil
		}
		if !o.All {
			able = []int{able[r.IntN(len(able))]}
		}
		var out []string
		for _, i := range able {
			for _, c := range of[w[i]] {
				out = append(out, string(w[:i])+string(c)+string(w[i+1:]))
			}
		}
		if len(able) > 1 {
			v := append([]rune(nil), w...)
			for _, i := range able {
				v[i] = of[w[i]][0]
			}
			out = append(out, string(v))
		}
		return out
	}}
}

// invisible are characters that most renderers show as nothing.
var invisible = []rune{'\u200b', '\u200c', '\u200d', '\u2060', '\u00ad', '\ufeff'}

// Invisible inserts characters that cannot be seen (Boucher et al. 2022).
func Invisible(o CharOptions) WordSwap {
	return WordSwap{Label: "invisible", Variants: func(word string, r *Rand) []string {
		w := []rune(word)
		if len(w) < 2 {
			return nil
		}
		var at []int
		for i := 1; i < len(w); i++ {
			at = append(at, i)
		}
		if !o.All {
			at = []int{at[r.IntN(len(at))]}
		}
		var out []string
		for _, i := range at {
			c := invisible[r.IntN(len(invisible))]
			out = append(out, string(w[:i])+string(c)+string(w[i:]))
		}
		all := make([]string, len(w))
		for i, c := range w {
			all[i] = string(c)
		}
		return append(out, strings.Join(all, "\u200b"))
	}}
}

// Reorder hides a swap of two characters behind bidirectional controls, so that the word still reads as before (Boucher et al. 2022).
func Reorder(o CharOptions) WordSwap {
	return chars("reorder", o, 2, func(w []rune, i int, _ *Rand) string {
		return string(w[:i]) + "\u202e" + string(w[i+1]) + string(w[i]) + "\u202c" + string(w[i+2:])
	})
}

// Backspaced puts a character followed by a backspace into the word (Boucher et al. 2022).
func Backspaced(o CharOptions) WordSwap {
	return chars("backspace", o, 1, func(w []rune, i int, r *Rand) string {
		return string(w[:i]) + string(o.letter(r)) + "\b" + string(w[i:])
	})
}

// Spacing splits words: one space inside, a sign between all letters, or all letters apart.
func Spacing() WordSwap {
	return WordSwap{Label: "spacing", Variants: func(word string, r *Rand) []string {
		w := []rune(word)
		if len(w) < 3 {
			return nil
		}
		i := 1 + r.IntN(len(w)-1)
		out := []string{string(w[:i]) + " " + string(w[i:])}
		all := make([]string, len(w))
		for k, c := range w {
			all[k] = string(c)
		}
		for _, sep := range []string{" ", ".", "-", "_"} {
			out = append(out, strings.Join(all, sep))
		}
		return out
	}}
}

// FullWidth writes ASCII as full-width forms.
func FullWidth() WordSwap {
	return WordSwap{Label: "full-width", Variants: func(word string, _ *Rand) []string {
		v := strings.Map(func(r rune) rune {
			if r > ' ' && r < 0x7f {
				return r - '!' + '\uff01'
			}
			return r
		}, word)
		return []string{v}
	}}
}

// Accents puts a combining mark on one vowel or on all.
func Accents() WordSwap {
	marks := []rune{'\u0301', '\u0300', '\u0308', '\u0302', '\u0303'}
	return WordSwap{Label: "accents", Variants: func(word string, r *Rand) []string {
		var some, all strings.Builder
		m := marks[r.IntN(len(marks))]
		left := r.IntN(max(1, strings.Count(strings.ToLower(word), "a")+strings.Count(word, "e")+strings.Count(word, "i")+strings.Count(word, "o")))
		for _, c := range word {
			some.WriteRune(c)
			all.WriteRune(c)
			if strings.ContainsRune("aeiouAEIOU", c) {
				all.WriteRune(m)
				if left == 0 {
					some.WriteRune(m)
				}
				left--
			}
		}
		return []string{some.String(), all.String()}
	}}
}
