package token

import "fmt"

// postProcessor turns the encodings of one or two texts into those to be joined.
type postProcessor interface {
	process(parts []Encoding, special bool) ([]Encoding, error)
	// adds is the number of tokens added to one text, or to a pair.
	adds(pair bool) int
	// around are the ids that go before and after a single text.
	around() (before, after []int32)
}

// templatePiece is a text (special == nil) or special tokens.
type templatePiece struct {
	sequence int
	typeID   int32
	ids      []int32
	tokens   []string
}

// template is TemplateProcessing, and BertProcessing and RobertaProcessing as special cases of it.
type template struct {
	single, pair []templatePiece
	// trim is RobertaProcessing's treatment of offsets.
	trim        bool
	prefixSpace bool
	// flat sets all type ids to 0 before the template does its work, for texts without special tokens too.
	flat bool
	// free gives no type ids to texts when no special tokens are asked for.
	free bool
}

func (t *template) pieces(n int) []templatePiece {
	if n == 2 {
		return t.pair
	}
	return t.single
}

func (t *template) adds(pair bool) int {
	n := 0
	for _, p := range t.pieces(1 + btoi(pair)) {
		n += len(p.ids)
	}
	return n
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (t *template) around() (before, after []int32) {
	seen := false
	for _, p := range t.single {
		switch {
		case p.ids == nil:
			seen = true
		case seen:
			after = append(after, p.ids...)
		default:
			before = append(before, p.ids...)
		}
	}
	return before, after
}

func (t *template) process(parts []Encoding, special bool) ([]Encoding, error) {
	if n := len(parts); n != 1 && n != 2 {
		return nil, fmt.Errorf("token: post-processor: a template takes one or two texts, got %d", n)
	}
	if t.trim {
		for i := range parts {
			trimOffsets(&parts[i], t.prefixSpace)
		}
	}
	if t.flat {
		for i := range parts {
			fill(parts[i].TypeIDs, 0)
		}
	}
	if t.free && !special {
		return parts, nil
	}
	var out []Encoding
	for _, p := range t.pieces(len(parts)) {
		if p.ids == nil {
			e := &parts[p.sequence]
			fill(e.TypeIDs, p.typeID)
			out = append(out, *e)
			continue
		}
		if !special {
			continue
		}
		e := newEncoding(len(p.ids))
		copy(e.IDs, p.ids)
		copy(e.Tokens, p.tokens)
		for i := range p.ids {
			e.TypeIDs[i], e.Words[i], e.Sequences[i], e.SpecialMask[i], e.AttentionMask[i] = p.typeID, -1, -1, 1, 1
		}
		out = append(out, e)
	}
	return out, nil
}

func fill(s []int32, v int32) {
	for i := range s {
		s[i] = v
	}
}

// byteLevelProcessor trims the white space off the offsets of byte-level tokens.
type byteLevelProcessor struct{ trim, prefixSpace bool }

func (p byteLevelProcessor) process(parts []Encoding, _ bool) ([]Encoding, error) {
	if p.trim {
		for i := range parts {
			trimOffsets(&parts[i], p.prefixSpace)
		}
	}
	return parts, nil
}

func (byteLevelProcessor) adds(bool) int          { return 0 }
func (byteLevelProcessor) around() (_, _ []int32) { return nil, nil }

// trimOffsets takes white space at both ends of a token out of its range. With prefixSpace the first one was added by the tokenizer, and has no place in
// the text.
func trimOffsets(e *Encoding, prefixSpace bool) {
	for i, name := range e.Tokens {
		lead, trail := 0, 0
		for _, r := range name {
			if r != 'Ġ' && !isSpace(r) {
				break
			}
			lead++
		}
		for _, r := range reversed(name) {
			if r != 'Ġ' && !isSpace(r) {
				break
			}
			trail++
		}
		o := &e.Runes[i]
		if lead > 0 {
			if (i == 0 || o.Start == 0) && prefixSpace {
				lead--
			}
			o.Start = min(o.Start+lead, o.End)
		}
		if trail > 0 && o.End >= trail {
			o.End = max(o.End-trail, o.Start)
		}
	}
	for i := range e.Overflowing {
		trimOffsets(&e.Overflowing[i], prefixSpace)
	}
}

func reversed(s string) []rune {
	r := []rune(s)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return r
}

// addedByTemplate is the number of tokens that the template adds, for truncation to leave room for.
func (t *Tokenizer) addedByTemplate(texts int, opt Options) int {
	if opt.NoSpecial {
		return 0
	}
	n := 0
	for _, p := range t.post {
		n += p.adds(texts == 2)
	}
	return n
}

func (t *Tokenizer) around() (before, after []int32) {
	for _, p := range t.post {
		b, a := p.around()
		if len(b) > 0 {
			before = append(append([]int32{}, b...), before...)
		}
		after = append(after, a...)
	}
	return before, after
}

func (t *Tokenizer) process(parts []Encoding, special bool) (Encoding, error) {
	var err error
	for _, p := range t.post {
		if parts, err = p.process(parts, special); err != nil {
			return Encoding{}, err
		}
	}
	if len(parts) == 0 {
		return newEncoding(0), nil
	}
	e := parts[0]
	for i := range parts[1:] {
		e.merge(&parts[i+1])
	}
	return e, nil
}
