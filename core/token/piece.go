package token

// noToken marks a piece that the model has yet to cut.
const noToken = -1

// piece is a part of the input between added-token extraction and the model: either text still to be cut, or an added token.
type piece struct {
	aligned
	id int32
}

// cut is a match (or a gap between matches) in a piece.
type cut struct {
	lo, hi int
	match  bool
}

// tok is a token with the bytes of the original that it stands for.
type tok struct {
	id   int32
	word int32
	at   span
	// text is what the token is called where that is not the vocabulary's name for id.
	text string
}

// behavior says what becomes of the delimiters when a text is split at them.
type behavior uint8

const (
	removed behavior = iota
	isolated
	mergedWithPrevious
	mergedWithNext
	contiguous
)

// split cuts a at cuts, which cover it without gaps, and appends the parts to dst.
func (a *aligned) split(dst []piece, cuts []cut, how behavior) []piece {
	switch how {
	case removed, isolated:
		for _, c := range cuts {
			if how == isolated || !c.match {
				dst = a.part(dst, c.lo, c.hi)
			}
		}
	case contiguous:
		for i := 0; i < len(cuts); {
			j := i + 1
			for j < len(cuts) && cuts[j].match == cuts[i].match {
				j++
			}
			dst = a.part(dst, cuts[i].lo, cuts[j-1].hi)
			i = j
		}
	case mergedWithPrevious:
		lo := 0
		for i, c := range cuts {
			// A delimiter ends its part, unless another delimiter stands right before it: that one is a part by itself.
			joins := c.match && i > 0 && !cuts[i-1].match
			if !joins && i > 0 {
				dst = a.part(dst, lo, c.lo)
				lo = c.lo
			}
		}
		dst = a.part(dst, lo, len(a.text))
	case mergedWithNext:
		lo := 0
		for i, c := range cuts {
			joined := i > 0 && cuts[i-1].match && !c.match
			if !joined && i > 0 {
				dst = a.part(dst, lo, c.lo)
				lo = c.lo
			}
		}
		dst = a.part(dst, lo, len(a.text))
	}
	return dst
}

func (a *aligned) part(dst []piece, lo, hi int) []piece {
	if lo >= hi {
		return dst
	}
	return append(dst, piece{aligned: a.slice(lo, hi), id: noToken})
}
