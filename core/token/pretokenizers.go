package token

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// charSplit splits at characters of a class.
type charSplit struct {
	is  func(rune) bool
	how behavior
}

func (s charSplit) pretokenize(sc *scratch, _ int, a *aligned, dst []piece) ([]piece, error) {
	cuts, lo := sc.cuts[:0], 0
	for i := 0; i < len(a.text); {
		r, n := utf8.DecodeRune(a.text[i:])
		if s.is(r) {
			if lo < i {
				cuts = append(cuts, cut{lo: lo, hi: i})
			}
			cuts = append(cuts, cut{lo: i, hi: i + n, match: true})
			lo = i + n
		}
		i += n
	}
	if lo < len(a.text) {
		cuts = append(cuts, cut{lo: lo, hi: len(a.text)})
	}
	sc.cuts = cuts
	return a.split(dst, cuts, s.how), nil
}

// patternSplit splits at the matches of a pattern.
type patternSplit struct {
	finder finder
	how    behavior
	invert bool
}

func (s patternSplit) pretokenize(sc *scratch, _ int, a *aligned, dst []piece) ([]piece, error) {
	cuts, err := s.finder.find(a.text, sc.cuts[:0])
	sc.cuts = cuts
	if err != nil {
		return dst, err
	}
	if s.invert {
		for i := range cuts {
			cuts[i].match = !cuts[i].match
		}
	}
	return a.split(dst, cuts, s.how), nil
}

// byteLevel is GPT-2's pre-tokenizer: cut by a pattern, then write bytes as letters.
type byteLevel struct {
	prefixSpace bool
	scan        scanner // nil: no cutting
}

func (p byteLevel) pretokenize(sc *scratch, _ int, a *aligned, dst []piece) ([]piece, error) {
	in := *a
	if p.prefixSpace && !strings.HasPrefix(view(in.text), " ") {
		in.prepend(sc, " ")
	}
	from := len(dst)
	if p.scan == nil {
		dst = in.part(dst, 0, len(in.text))
	} else {
		for lo := 0; lo < len(in.text); {
			hi := p.scan(in.text, lo)
			dst = in.part(dst, lo, hi)
			lo = hi
		}
	}
	for i := from; i < len(dst); i++ {
		toLetters(sc, &dst[i].aligned)
	}
	return dst, nil
}

// scheme says when Metaspace puts a mark before a piece.
type scheme uint8

const (
	always scheme = iota
	first
	never
)

// metaspace writes spaces as marks, as SentencePiece does.
type metaspace struct {
	mark  string
	when  scheme
	split bool
	marks *replacer
	find  finder
}

func (p metaspace) pretokenize(sc *scratch, _ int, a *aligned, dst []piece) ([]piece, error) {
	in := *a
	p.marks.normalize(sc, &in)
	if (p.when == always || p.when == first && in.start == 0) && !strings.HasPrefix(view(in.text), p.mark) {
		in.prepend(sc, p.mark)
	}
	if !p.split {
		return in.part(dst, 0, len(in.text)), nil
	}
	cuts, _ := p.find.find(in.text, sc.cuts[:0])
	sc.cuts = cuts
	return in.split(dst, cuts, mergedWithNext), nil
}

// fixedLength cuts into parts of so many characters.
type fixedLength struct{ n int }

func (p fixedLength) pretokenize(_ *scratch, _ int, a *aligned, dst []piece) ([]piece, error) {
	lo, count := 0, 0
	for i := 0; i < len(a.text); {
		if count == p.n {
			dst = a.part(dst, lo, i)
			lo, count = i, 0
		}
		_, n := utf8.DecodeRune(a.text[i:])
		i += n
		count++
	}
	return a.part(dst, lo, len(a.text)), nil
}

// unicodeScripts cuts where the script changes; kana count as Han; spaces and characters without a script go with what is before them.
type unicodeScripts struct{}

var scriptNames = func() []string {
	names := make([]string, 0, len(unicode.Scripts))
	for name := range unicode.Scripts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}()

// scriptOf is the name of a character's script, "" for none.
func scriptOf(r rune) string {
	switch {
	case r == ' ':
		return ""
	case r == 'ー':
		return "Han"
	}
	for _, name := range scriptNames {
		if unicode.Is(unicode.Scripts[name], r) {
			if name == "Hiragana" || name == "Katakana" {
				return "Han"
			}
			return name
		}
	}
	return ""
}

func (unicodeScripts) pretokenize(_ *scratch, _ int, a *aligned, dst []piece) ([]piece, error) {
	// Spaces before the first script get lost, in the original too.
	lo, last := len(a.text), ""
	for i := 0; i < len(a.text); {
		r, n := utf8.DecodeRune(a.text[i:])
		if s := scriptOf(r); s != "" && s != last {
			if last != "" {
				dst = a.part(dst, lo, i)
			}
			lo, last = i, s
		}
		i += n
	}
	return a.part(dst, lo, len(a.text)), nil
}

func loadBehavior(s string) (behavior, error) {
	switch s {
	case "Removed":
		return removed, nil
	case "Isolated", "":
		return isolated, nil
	case "MergedWithPrevious":
		return mergedWithPrevious, nil
	case "MergedWithNext":
		return mergedWithNext, nil
	case "Contiguous":
		return contiguous, nil
	}
	return 0, fmt.Errorf("behavior: expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, got %q", s)
}

func loadPreTokenizer(dst []preTokenizer, raw json.RawMessage, depth int) ([]preTokenizer, error) {
	if isNull(raw) {
		return dst, nil
	}
	k, err := kind(raw, depth)
	if err != nil {
		return nil, err
	}
	var f struct {
		Pretokenizers []json.RawMessage `json:"pretokenizers"`
		Behavior      string            `json:"behavior"`
		Pattern       json.RawMessage   `json:"pattern"`
		Invert        bool              `json:"invert"`
		Individual    bool              `json:"individual_digits"`
		PrefixSpace   *bool             `json:"add_prefix_space"`
		UseRegex      *bool             `json:"use_regex"`
		Mark          *string           `json:"replacement"`
		Scheme        string            `json:"prepend_scheme"`
		Split         *bool             `json:"split"`
		Delimiter     string            `json:"delimiter"`
		Length        *int              `json:"length"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	how, err := loadBehavior(f.Behavior)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	switch k {
	case "Sequence":
		for i, one := range f.Pretokenizers {
			if dst, err = loadPreTokenizer(dst, one, depth+1); err != nil {
				return nil, fmt.Errorf("sequence, part %d: %w", i, err)
			}
		}
		return dst, nil
	case "BertPreTokenizer":
		return append(dst, bertPreTokenizer{}), nil
	case "ByteLevel":
		p := byteLevel{prefixSpace: orTrue(f.PrefixSpace)}
		if orTrue(f.UseRegex) {
			p.scan = scanGPT2
		}
		return append(dst, p), nil
	case "Metaspace":
		p := metaspace{mark: metaMark, split: orTrue(f.Split)}
		if f.Mark != nil {
			p.mark = *f.Mark
		}
		if utf8.RuneCountInString(p.mark) != 1 {
			return nil, fmt.Errorf("Metaspace: replacement: expected one character, got %q", p.mark)
		}
		p.marks, p.find = marksFor(p.mark), literalFinder{p.mark}
		switch f.Scheme {
		case "always":
		case "first":
			p.when = first
		case "never":
			p.when = never
		case "":
			if !orTrue(f.PrefixSpace) {
				p.when = never
			}
		default:
			return nil, fmt.Errorf("Metaspace: prepend_scheme: expected always, first or never, got %q", f.Scheme)
		}
		return append(dst, p), nil
	case "Split":
		finder, _, err := loadPattern(f.Pattern)
		if err != nil {
			return nil, fmt.Errorf("Split: %w", err)
		}
		return append(dst, patternSplit{finder: finder, how: how, invert: f.Invert}), nil
	case "Whitespace":
		return append(dst, patternSplit{finder: scanFinder{scan: scanWhitespace, gaps: true}, how: removed, invert: true}), nil
	case "WhitespaceSplit":
		return append(dst, charSplit{is: isSpace, how: removed}), nil
	case "Punctuation":
		return append(dst, charSplit{is: isPunctuation, how: how}), nil
	case "Digits":
		how = contiguous
		if f.Individual {
			how = isolated
		}
		return append(dst, charSplit{is: func(r rune) bool { return unicode.Is(unicode.N, r) }, how: how}), nil
	case "CharDelimiterSplit":
		d, n := utf8.DecodeRuneInString(f.Delimiter)
		if n == 0 || n != len(f.Delimiter) {
			return nil, fmt.Errorf("CharDelimiterSplit: delimiter: expected one character, got %q", f.Delimiter)
		}
		return append(dst, charSplit{is: func(r rune) bool { return r == d }, how: removed}), nil
	case "FixedLength":
		n := 5
		if f.Length != nil {
			n = *f.Length
		}
		if n < 1 {
			return nil, fmt.Errorf("FixedLength: length: expected at least 1, got %d", n)
		}
		return append(dst, fixedLength{n}), nil
	case "UnicodeScripts":
		return append(dst, unicodeScripts{}), nil
	}
	return nil, fmt.Errorf("type %q is not known", k)
}
