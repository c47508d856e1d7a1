package token

import "fmt"

// Strategy says which text of a pair truncation shortens.
type Strategy string

// The names are those of tokenizer.json.
const (
	LongestFirst Strategy = "LongestFirst"
	OnlyFirst    Strategy = "OnlyFirst"
	OnlySecond   Strategy = "OnlySecond"
)

// Truncation cuts encodings to MaxLength tokens, those of the template included. What is cut away is kept in Overflowing, in windows that share Stride
// tokens with their neighbour.
type Truncation struct {
	MaxLength int
	Stride    int
	Strategy  Strategy // "": LongestFirst
	Left      bool     // cut at the beginning
	// Drop forgets what is cut away: Overflowing stays empty, and a single text that is far too long costs little more than its ids.
	Drop bool
}

// Padding fills encodings up.
type Padding struct {
	// Length is the number of tokens; 0 pads to the longest of the batch.
	Length int
	// MultipleOf rounds the length up; 0 does not.
	MultipleOf int
	ID, TypeID int32
	Token      string
	Left       bool
}

// maxPadding bounds what a file may ask for: no model takes a longer sequence.
const maxPadding = 1 << 24

func newEncoding(n int) Encoding {
	return Encoding{
		IDs: make([]int32, n), Tokens: make([]string, n), TypeIDs: make([]int32, n), Offsets: make([]Offset, n), Runes: make([]Offset, n),
		Words: make([]int32, n), Sequences: make([]int8, n), SpecialMask: make([]int32, n), AttentionMask: make([]int32, n),
	}
}

// window copies tokens lo to hi.
func (e *Encoding) window(lo, hi int) Encoding {
	w := newEncoding(hi - lo)
	copy(w.IDs, e.IDs[lo:hi])
	copy(w.Tokens, e.Tokens[lo:hi])
	copy(w.TypeIDs, e.TypeIDs[lo:hi])
	copy(w.Offsets, e.Offsets[lo:hi])
	copy(w.Runes, e.Runes[lo:hi])
	copy(w.Words, e.Words[lo:hi])
	copy(w.Sequences, e.Sequences[lo:hi])
	copy(w.SpecialMask, e.SpecialMask[lo:hi])
	copy(w.AttentionMask, e.AttentionMask[lo:hi])
	return w
}

// extend appends the tokens of o, but not its overflowing windows.
func (e *Encoding) extend(o *Encoding) {
	e.IDs = append(e.IDs, o.IDs...)
	e.Tokens = append(e.Tokens, o.Tokens...)
	e.TypeIDs = append(e.TypeIDs, o.TypeIDs...)
	e.Offsets = append(e.Offsets, o.Offsets...)
	e.Runes = append(e.Runes, o.Runes...)
	e.Words = append(e.Words, o.Words...)
	e.Sequences = append(e.Sequences, o.Sequences...)
	e.SpecialMask = append(e.SpecialMask, o.SpecialMask...)
	e.AttentionMask = append(e.AttentionMask, o.AttentionMask...)
}

// merge joins o to e; the windows become all combinations of a window of one with the other or a window of it.
func (e *Encoding) merge(o *Encoding) {
	var over []Encoding
	join := func(a, b *Encoding) {
		w := a.window(0, a.Len())
		w.extend(b)
		over = append(over, w)
	}
	for i := range e.Overflowing {
		join(&e.Overflowing[i], o)
		for j := range o.Overflowing {
			join(&e.Overflowing[i], &o.Overflowing[j])
		}
	}
	for j := range o.Overflowing {
		join(e, &o.Overflowing[j])
	}
	e.extend(o)
	e.Overflowing = over
}

func (t *Truncation) apply(parts []Encoding, template int) error {
	if t.Drop {
		defer func() {
			for i := range parts {
				parts[i].Overflowing = nil
			}
		}()
	}
	limit := t.MaxLength
	if limit < 0 || t.Stride < 0 {
		return fmt.Errorf("token: truncation to %d tokens with a stride of %d: neither may be negative", t.MaxLength, t.Stride)
	}
	if template > 0 {
		if limit < template {
			return fmt.Errorf("token: truncation to %d tokens leaves no room for the %d that the template adds", limit, template)
		}
		limit -= template
	}
	total := 0
	for i := range parts {
		total += parts[i].Len()
	}
	if total <= limit && limit > 0 {
		return nil
	}
	if limit == 0 {
		for i := range parts {
			if err := parts[i].truncate(0, t.Stride, t.Left); err != nil {
				return err
			}
		}
		return nil
	}
	switch t.Strategy {
	case LongestFirst, "":
		if len(parts) == 1 {
			return parts[0].truncate(limit, t.Stride, t.Left)
		}
		n1, n2 := parts[0].Len(), parts[1].Len()
		swap := n1 > n2
		if swap {
			n1, n2 = n2, n1
		}
		if n1 > limit {
			n2 = n1
		} else {
			n2 = max(n1, limit-n1)
		}
		if n1+n2 > limit {
			n1 = limit / 2
			n2 = n1 + limit%2
		}
		if swap {
			n1, n2 = n2, n1
		}
		if err := parts[0].truncate(n1, t.Stride, t.Left); err != nil {
			return err
		}
		return parts[1].truncate(n2, t.Stride, t.Left)
	case OnlyFirst, OnlySecond:
		target := 0
		if t.Strategy == OnlySecond {
			if target = 1; len(parts) < 2 {
				return fmt.Errorf("token: truncation of the second text was asked for, but there is none")
			}
		}
		keep := parts[target].Len() - (total - limit)
		if keep <= 0 {
			return fmt.Errorf("token: truncation to %d tokens (%s) needs %d tokens cut from a text of %d", t.MaxLength, t.Strategy, total-limit, parts[target].Len())
		}
		return parts[target].truncate(keep, t.Stride, t.Left)
	}
	return fmt.Errorf("token: truncation strategy: expected %s, %s or %s, got %q", LongestFirst, OnlyFirst, OnlySecond, t.Strategy)
}

// maxWindowTokens bounds the memory that windows which overlap almost wholly would take.
const maxWindowTokens = 1 << 26

func (e *Encoding) truncate(limit, stride int, left bool) error {
	n := e.Len()
	if limit >= n {
		return nil
	}
	if limit == 0 {
		o := *e
		*e = newEncoding(0)
		e.Overflowing = append(e.Overflowing, o)
		return nil
	}
	if stride >= limit {
		return fmt.Errorf("token: truncation: the stride of %d must be below the %d tokens left for the text", stride, limit)
	}
	step := limit - stride
	if (n/step+1)*limit > maxWindowTokens {
		return fmt.Errorf("token: truncation: %d tokens in windows of %d with a stride of %d are more than %d tokens", n, limit, stride, maxWindowTokens)
	}
	var windows []Encoding
	if left {
		for hi := n; hi > 0; hi -= step {
			lo := max(0, hi-limit)
			windows = append(windows, e.window(lo, hi))
			if lo == 0 {
				break
			}
		}
	} else {
		for lo := 0; lo < n; lo += step {
			hi := min(lo+limit, n)
			windows = append(windows, e.window(lo, hi))
			if hi == n {
				break
			}
		}
	}
	over := append(windows[1:len(windows):len(windows)], e.Overflowing...)
	*e = windows[0]
	e.Overflowing = over
	return nil
}

func (p *Padding) apply(batch []Encoding) error {
	length := p.Length
	if length <= 0 {
		for i := range batch {
			length = max(length, batch[i].Len())
		}
	}
	if m := p.MultipleOf; m > 0 && length%m > 0 {
		length += m - length%m
	}
	if length > maxPadding {
		return fmt.Errorf("token: padding to %d tokens: expected at most %d", length, maxPadding)
	}
	for i := range batch {
		p.fill(&batch[i], length)
	}
	return nil
}

func (p *Padding) fill(e *Encoding, length int) {
	for i := range e.Overflowing {
		p.fill(&e.Overflowing[i], length)
	}
	n := length - e.Len()
	if n <= 0 {
		return
	}
	pad := newEncoding(n)
	for i := range n {
		pad.IDs[i], pad.TypeIDs[i], pad.Tokens[i] = p.ID, p.TypeID, p.Token
		pad.Words[i], pad.Sequences[i], pad.SpecialMask[i] = -1, -1, 1
	}
	over := e.Overflowing
	if p.Left {
		pad.extend(e)
		*e = pad
	} else {
		e.extend(&pad)
	}
	e.Overflowing = over
}
