package token

import "strings"

// Bytes is what a token adds to a text in the middle of it: a space where its name begins with the mark for one, one byte of a character
// for byte tokens. It is nil for special tokens, which add nothing, and for ids without a token. Constrained decoding works on it.
func (t *Tokenizer) Bytes(id int32) []byte {
	if t.IsSpecial(id) {
		return nil
	}
	if a, ok := t.addedByID[id]; ok {
		return []byte(a.Content)
	}
	name, ok := t.vocab.name(id)
	if !ok {
		return nil
	}
	if l := t.llama; l != nil && t.decoder == nil {
		if id < 0 || int(id) >= len(l.types) {
			return nil
		}
		switch l.types[id] {
		case ggufControl, ggufUnknown, ggufUnused:
			return nil
		case ggufUser:
			return []byte(name)
		case ggufByte:
			if b, ok := fallbackByte(name); ok {
				return []byte{b}
			}
		}
		switch {
		case l.letters:
			return appendBytes(nil, name)
		case l.pieces:
			return []byte(strings.ReplaceAll(name, metaMark, " "))
		}
		return []byte(name)
	}
	return decodedBytes(t.decoder, name)
}

// decodedBytes applies what a decoder does to a name that does not stand first.
func decodedBytes(d decoder, name string) []byte {
	switch d := d.(type) {
	case byteLevelDecoder:
		return appendBytes(nil, name)
	case byteFallback:
		if b, ok := fallbackByte(name); ok {
			return []byte{b}
		}
	case replaceDecoder:
		return []byte(d.replace(name))
	case metaspaceDecoder, bpeDecoder, wordPieceDecoder:
		// A name after another one shows what stands before it in a text.
		parts := d.decode([]string{"a", name, "a"})
		if len(parts) == 3 {
			return []byte(parts[1])
		}
	case decoders:
		b := []byte(name)
		for _, one := range d {
			before := string(b)
			b = decodedBytes(one, before)
			if _, ok := one.(byteFallback); ok && len(b) == 1 && before != string(b) {
				return b
			}
		}
		return b
	}
	return []byte(name)
}
