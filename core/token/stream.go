package token

import "strings"

// Stream decodes ids as they come. What it returns, put together, is what Decode returns for all ids at once, and every part is whole characters: bytes of
// one that is not complete yet are held back. One difference cannot be helped: where a run of byte tokens (<0x..>) turns out not to be UTF-8, Decode gives
// up all of it, also what was good so far, as the original does; that has been shown by then.
type Stream struct {
	t    *Tokenizer
	skip bool
	// ids from the last text that was given out on: those before done have been.
	ids  []int32
	done int
}

// maxPending bounds how many ids may wait for a character to become whole. One takes at most four; more than that are bytes that never will.
const maxPending = 64

// Stream starts decoding. With skipSpecial, special tokens are left out.
func (t *Tokenizer) Stream(skipSpecial bool) *Stream { return &Stream{t: t, skip: skipSpecial} }

// Next takes the next id and returns the text that has become certain, often but not always that of the id.
func (s *Stream) Next(id int32) string {
	s.ids = append(s.ids, id)
	before, after := s.texts()
	if len(after) <= len(before) {
		// Nothing new; special tokens that were skipped must not pile up.
		if len(s.ids)-s.done > maxPending {
			s.done = len(s.ids)
			s.trim()
		}
		return ""
	}
	if strings.HasSuffix(after, "\uFFFD") && len(s.ids)-s.done < maxPending {
		return ""
	}
	s.trim()
	return fresh(before, after)
}

// Flush returns what is held back, as Decode shows it, and ends the stream: the next id begins a new one.
func (s *Stream) Flush() string {
	before, after := s.texts()
	s.ids, s.done = s.ids[:0], 0
	return fresh(before, after)
}

func (s *Stream) texts() (before, after string) {
	return s.t.Decode(s.ids[:s.done], s.skip), s.t.Decode(s.ids, s.skip)
}

// trim forgets all ids but those that the next text may depend on.
func (s *Stream) trim() {
	n := copy(s.ids, s.ids[s.done:])
	s.ids = s.ids[:n]
	s.done = n
}

// fresh is what after adds to before.
func fresh(before, after string) string {
	n := 0
	for n < len(before) && n < len(after) && before[n] == after[n] {
		n++
	}
	for n > 0 && n < len(after) && after[n]&0xC0 == 0x80 {
		n--
	}
	return after[n:]
}
