package token

import (
	"bytes"
	"slices"
	"sort"
	"unicode/utf8"
)

// AddedToken is a token that is found in the text before the model sees it.
type AddedToken struct {
	ID      int32
	Content string
	// SingleWord finds it only where no letter or digit touches it.
	SingleWord bool
	// Lstrip and Rstrip swallow the white space before and after it.
	Lstrip, Rstrip bool
	// Normalized looks for it in the normalized text, and not in the original.
	Normalized bool
	// Special tokens are left out by Decode when asked to.
	Special bool

	// name is what the token is called when decoded: the normalized content.
	name string
}

// matcher finds added tokens, leftmost first and the longest of those that begin at one place.
type matcher struct {
	patterns [][]byte // sorted
	tokens   []*AddedToken
	begins   [256]bool
	// from and to bound the patterns that begin with a byte.
	from, to [256]int32
}

func newMatcher(tokens []*AddedToken, pattern func(*AddedToken) []byte) *matcher {
	m := &matcher{}
	type entry struct {
		pattern []byte
		token   *AddedToken
	}
	var all []entry
	for _, t := range tokens {
		if p := pattern(t); len(p) > 0 {
			all = append(all, entry{p, t})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return bytes.Compare(all[i].pattern, all[j].pattern) < 0 })
	for i, e := range all {
		if i > 0 && bytes.Equal(e.pattern, all[i-1].pattern) {
			continue // the first of equals wins
		}
		m.patterns = append(m.patterns, e.pattern)
		m.tokens = append(m.tokens, e.token)
		c := e.pattern[0]
		if !m.begins[c] {
			m.begins[c], m.from[c] = true, int32(len(m.patterns)-1)
		}
		m.to[c] = int32(len(m.patterns))
	}
	return m
}

// longest is the longest token that text, which is not empty, begins with.
func (m *matcher) longest(text []byte) (*AddedToken, int) {
	lo, hi := int(m.from[text[0]]), int(m.to[text[0]])
	var found *AddedToken
	size := 0
	for k := 1; lo < hi; k++ {
		if len(m.patterns[lo]) == k {
			found, size = m.tokens[lo], k
			lo++
		}
		if k == len(text) || lo == hi {
			break
		}
		lo, hi = m.narrow(lo, hi, k, text[k])
	}
	return found, size
}

// narrow finds those of patterns lo to hi, all longer than k, whose byte k is c.
func (m *matcher) narrow(lo, hi, k int, c byte) (int, int) {
	if m.patterns[lo][k] == c && m.patterns[hi-1][k] == c {
		return lo, hi
	}
	if m.patterns[lo][k] > c || m.patterns[hi-1][k] < c {
		return lo, lo
	}
	lo += sort.Search(hi-lo, func(i int) bool { return m.patterns[lo+i][k] >= c })
	return lo, lo + sort.Search(hi-lo, func(i int) bool { return m.patterns[lo+i][k] > c })
}

// extract cuts a at the added tokens of m and appends the parts to dst. With asText, special ones are left in the text.
func (m *matcher) extract(a *aligned, dst []piece, asText bool) []piece {
	if len(m.patterns) == 0 {
		return a.part(dst, 0, len(a.text))
	}
	done := 0
	for i := 0; i < len(a.text); {
		if !m.begins[a.text[i]] {
			i++
			continue
		}
		t, n := m.longest(a.text[i:])
		if t == nil {
			i++
			continue
		}
		lo, hi := i, i+n
		i = hi
		if t.Special && asText {
			continue
		}
		if t.SingleWord && (wordBefore(a.text[:lo]) || wordAfter(a.text[hi:])) {
			continue
		}
		if t.Lstrip {
			lo = max(trimSpaceRight(a.text[:lo]), done)
		}
		if t.Rstrip {
			hi += leadingSpace(a.text[hi:])
		}
		if done < lo {
			dst = a.part(dst, done, lo)
		}
		dst = append(dst, piece{aligned: a.slice(lo, hi), id: t.ID})
		done = hi
	}
	return a.part(dst, done, len(a.text))
}

func wordBefore(text []byte) bool {
	r, n := utf8.DecodeLastRune(text)
	return n > 0 && isWord(r)
}

func wordAfter(text []byte) bool {
	r, n := utf8.DecodeRune(text)
	return n > 0 && isWord(r)
}

// trimSpaceRight is the length of text without the white space at its end.
func trimSpaceRight(text []byte) int {
	for len(text) > 0 {
		r, n := utf8.DecodeLastRune(text)
		if !isSpace(r) {
			break
		}
		text = text[:len(text)-n]
	}
	return len(text)
}

// leadingSpace is the length of the white space that text begins with.
func leadingSpace(text []byte) int {
	i := 0
	for i < len(text) {
		r, n := utf8.DecodeRune(text[i:])
		if !isSpace(r) {
			break
		}
		i += n
	}
	return i
}

// addTokens enters added tokens: names that the model knows keep the model's id, others get the id given.
func (t *Tokenizer) addTokens(tokens []AddedToken) {
	for _, a := range tokens {
		if a.Content == "" {
			continue
		}
		if id, ok := t.vocab.ids[a.Content]; ok {
			a.ID = id
		}
		if i := slices.IndexFunc(t.added, func(b *AddedToken) bool { return b.Content == a.Content }); i >= 0 && len(t.added) < 4096 {
			t.added[i] = &a
			continue
		}
		t.added = append(t.added, &a)
	}
	t.indexAdded()
}

func (t *Tokenizer) indexAdded() {
	t.addedByID = make(map[int32]*AddedToken, len(t.added))
	t.addedByName = make(map[string]*AddedToken, len(t.added))
	var plain, normal []*AddedToken
	// Special ones first: among equals the first wins.
	for _, special := range []bool{true, false} {
		for _, a := range t.added {
			if a.Special != special {
				continue
			}
			t.addedByID[a.ID] = a
			t.addedByName[a.Content] = a
			if a.Normalized {
				normal = append(normal, a)
			} else {
				plain = append(plain, a)
			}
		}
	}
	t.plain = newMatcher(plain, func(a *AddedToken) []byte {
		a.name = a.Content
		return []byte(a.Content)
	})
	sc := &scratch{}
	t.normal = newMatcher(normal, func(a *AddedToken) []byte {
		a.name = a.Content
		if t.normalizer == nil {
			return []byte(a.Content)
		}
		sc.reset()
		text := newAligned(sc, a.Content, false)
		t.normalizer.normalize(sc, &text)
		a.name = string(text.text)
		return slices.Clone(text.text)
	})
}
