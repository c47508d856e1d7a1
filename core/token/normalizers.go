package token

import (
	"encoding/json"
	"fmt"

	"golang.org/x/text/unicode/norm"
)

type normalizers []normalizer

func (n normalizers) normalize(sc *scratch, a *aligned) {
	for _, one := range n {
		one.normalize(sc, a)
	}
}

// normalizerFunc is a normalizer without settings.
type normalizerFunc func(sc *scratch, a *aligned)

func (f normalizerFunc) normalize(sc *scratch, a *aligned) { f(sc, a) }

func nfc(sc *scratch, a *aligned)  { a.compose(sc, norm.NFD) }
func nfd(sc *scratch, a *aligned)  { a.decompose(sc, norm.NFD) }
func nfkc(sc *scratch, a *aligned) { a.compose(sc, norm.NFKD) }
func nfkd(sc *scratch, a *aligned) { a.decompose(sc, norm.NFKD) }

func lowercase(sc *scratch, a *aligned) { a.each(sc, putLower) }

func stripAccents(sc *scratch, a *aligned) {
	a.filter(sc, func(r rune) bool { return !isMark(r) })
}

// nmt is the clean-up of SentencePiece's nmt rules.
func nmt(sc *scratch, a *aligned) {
	a.filter(sc, func(r rune) bool {
		return !(r >= 0x01 && r <= 0x08 || r == 0x0B || r >= 0x0E && r <= 0x1F || r == 0x7F || r == 0x8F || r == 0x9F)
	})
	a.each(sc, func(b *builder, r rune, s span) {
		switch {
		case r == 0x09, r == 0x0A, r == 0x0C, r == 0x0D, r == 0x1680, r >= 0x200B && r <= 0x200F, r == 0x2028, r == 0x2029, r == 0x2581, r == 0xFEFF, r == 0xFFFD:
			r = ' '
		}
		b.put(r, s)
	})
}

// toLetters writes each byte as its letter of byte-level BPE.
func toLetters(sc *scratch, a *aligned) {
	b := sc.begin(a.at != nil)
	for i, c := range a.text {
		b.put(byteLetter[c], a.span(i))
	}
	a.text, a.at = b.done(sc)
}

type stripNormalizer struct{ left, right bool }

func (n stripNormalizer) normalize(_ *scratch, a *aligned) {
	lo, hi := 0, len(a.text)
	if n.left {
		lo = leadingSpace(a.text)
	}
	if n.right {
		hi = max(lo, trimSpaceRight(a.text))
	}
	a.text = a.text[lo:hi:hi]
	if a.at != nil {
		a.at = a.at[lo:hi:hi]
	}
}

type prependNormalizer struct{ what string }

func (n prependNormalizer) normalize(sc *scratch, a *aligned) { a.prepend(sc, n.what) }

func loadNormalizer(raw json.RawMessage, depth int) (normalizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	k, err := kind(raw, depth)
	if err != nil {
		return nil, err
	}
	var f struct {
		Clean       *bool             `json:"clean_text"`
		Chinese     *bool             `json:"handle_chinese_chars"`
		Accents     *bool             `json:"strip_accents"`
		Lower       *bool             `json:"lowercase"`
		Left        *bool             `json:"strip_left"`
		Right       *bool             `json:"strip_right"`
		Prepend     *string           `json:"prepend"`
		Pattern     json.RawMessage   `json:"pattern"`
		Content     string            `json:"content"`
		Charsmap    []byte            `json:"precompiled_charsmap"`
		Normalizers []json.RawMessage `json:"normalizers"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	switch k {
	case "Sequence":
		var all normalizers
		for i, one := range f.Normalizers {
			n, err := loadNormalizer(one, depth+1)
			if err != nil {
				return nil, fmt.Errorf("sequence, part %d: %w", i, err)
			}
			if n != nil {
				all = append(all, n)
			}
		}
		return all, nil
	case "BertNormalizer":
		lower := orTrue(f.Lower)
		b := &bertNormalizer{clean: orTrue(f.Clean), chinese: orTrue(f.Chinese), lower: lower, strip: lower}
		if f.Accents != nil {
			b.strip = *f.Accents
		}
		return b, nil
	case "NFC":
		return normalizerFunc(nfc), nil
	case "NFD":
		return normalizerFunc(nfd), nil
	case "NFKC":
		return normalizerFunc(nfkc), nil
	case "NFKD":
		return normalizerFunc(nfkd), nil
	case "Lowercase":
		return normalizerFunc(lowercase), nil
	case "StripAccents":
		return normalizerFunc(stripAccents), nil
	case "Nmt":
		return normalizerFunc(nmt), nil
	case "ByteLevel":
		return normalizerFunc(toLetters), nil
	case "Strip":
		return stripNormalizer{orTrue(f.Left), orTrue(f.Right)}, nil
	case "Prepend":
		if f.Prepend == nil {
			return nil, fmt.Errorf("Prepend: \"prepend\" must be given")
		}
		return prependNormalizer{*f.Prepend}, nil
	case "Replace":
		return loadReplacer(f.Pattern, f.Content)
	case "Precompiled":
		if len(f.Charsmap) == 0 {
			return nil, nil
		}
		return newCharsmap(f.Charsmap)
	}
	return nil, fmt.Errorf("type %q is not known", k)
}

func orTrue(b *bool) bool { return b == nil || *b }
