package token

import (
	"unicode/utf8"
)

// fast appends the ids of a normalized text without ever making pieces of it. The two most frequent kinds of tokenizers have one; results are those of
// the general way, and a test compares them.
type fast func(sc *scratch, dst []int32, text []byte) ([]int32, error)

// fastWay finds the short cut of a tokenizer, nil if there is none.
func (t *Tokenizer) fastWay() fast {
	switch m := t.model.(type) {
	case *wordPiece:
		if len(t.pre) == 1 {
			if _, ok := t.pre[0].(bertPreTokenizer); ok {
				return m.appendWords
			}
		}
	case *bpe:
		scan := byteScanner(t.pre)
		if scan == nil || m.prefix != "" || m.suffix != "" {
			return nil
		}
		return func(sc *scratch, dst []int32, text []byte) ([]int32, error) {
			var err error
			for lo := 0; lo < len(text) && err == nil; {
				hi := scan(text, lo)
				dst, err = m.appendBytes(sc, dst, text[lo:hi])
				lo = hi
			}
			return dst, err
		}
	}
	return nil
}

// byteScanner is the scanner of a byte-level pre-tokenizer that is nothing but a scanner.
func byteScanner(pre []preTokenizer) scanner {
	last, ok := byteLevel{}, false
	if len(pre) > 0 {
		last, ok = pre[len(pre)-1].(byteLevel)
	}
	switch {
	case !ok || last.prefixSpace:
		return nil
	case len(pre) == 1:
		return last.scan
	case len(pre) == 2 && last.scan == nil:
		if s, ok := pre[0].(patternSplit); ok && s.how == isolated {
			if f, ok := s.finder.(scanFinder); ok && !f.gaps {
				return f.scan
			}
		}
	}
	return nil
}

// appendWords is bertPreTokenizer and tokenize in one.
func (m *wordPiece) appendWords(sc *scratch, dst []int32, text []byte) ([]int32, error) {
	var err error
	lo := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			switch bertClass[c] {
			case bertLetter:
				i++
				continue
			case bertSpace:
				if lo < i {
					dst, err = m.appendWord(sc, dst, text[lo:i])
				}
			default:
				if lo < i {
					dst, err = m.appendWord(sc, dst, text[lo:i])
				}
				if err == nil {
					dst, err = m.appendWord(sc, dst, text[i:i+1])
				}
			}
			if err != nil {
				return dst, err
			}
			i++
			lo = i
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		space := isSpace(r)
		if space || isPunctuation(r) {
			if lo < i {
				dst, err = m.appendWord(sc, dst, text[lo:i])
			}
			if err == nil && !space {
				dst, err = m.appendWord(sc, dst, text[i:i+n])
			}
			if err != nil {
				return dst, err
			}
			lo = i + n
		}
		i += n
	}
	if lo < len(text) {
		dst, err = m.appendWord(sc, dst, text[lo:])
	}
	return dst, err
}

const (
	bertLetter = iota
	bertSpace
	bertMark
)

var bertClass = func() (t [utf8.RuneSelf]uint8) {
	for c := range t {
		switch {
		case isSpace(rune(c)):
			t[c] = bertSpace
		case isPunctuation(rune(c)):
			t[c] = bertMark
		}
	}
	return t
}()

func (m *wordPiece) appendWord(sc *scratch, dst []int32, word []byte) ([]int32, error) {
	if ids, ok := sc.words.get(word); ok {
		return append(dst, ids...), nil
	}
	sc.out = sc.out[:0]
	if err := m.tokenize(sc, &aligned{text: word}, 0); err != nil {
		return dst, err
	}
	return sc.take(dst, word), nil
}

func (m *bpe) appendBytes(sc *scratch, dst []int32, word []byte) ([]int32, error) {
	if ids, ok := sc.words.get(word); ok {
		return append(dst, ids...), nil
	}
	letters := sc.letters[:0]
	for _, c := range word {
		letters = utf8.AppendRune(letters, byteLetter[c])
	}
	sc.letters = letters
	sc.out = sc.out[:0]
	// The general way cuts a word with breaks too.
	for lo := 0; lo < len(letters); {
		hi := m.breaks.next(letters, lo)
		if err := m.cut(sc, &aligned{text: letters}, lo, hi, 0); err != nil {
			return dst, err
		}
		lo = hi
	}
	return sc.take(dst, word), nil
}

// take appends what a word became and remembers it.
func (sc *scratch) take(dst []int32, word []byte) []int32 {
	sc.words.put(word, sc.out)
	for i := range sc.out {
		dst = append(dst, sc.out[i].id)
	}
	return dst
}
