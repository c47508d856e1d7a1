package attack

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is a text under attack: the string, its words, and what became of the words of the original. It is immutable.
type Text struct {
	S     string
	Spans []Span
	// Modified tells, per word, whether the attack changed it.
	Modified []bool
	// Origin gives, per word of the original, its index in this text, or -1 once it is deleted.
	Origin []int
	// Last is the word that the latest replacement touched, or -1.
	Last int
}

// wordMarks are characters inside a word that may not begin or end it.
const wordMarks = "'-_*@"

// extraWordRunes are look-alike signs which count as word characters although Unicode classes them as symbols.
const extraWordRunes = "\u02d7`\u00d7"

func isWordRune(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("'-_*@`", r)
	}
	return unicode.IsLetter(r) || unicode.IsNumber(r) || strings.ContainsRune(extraWordRunes, r)
}

// Words returns the byte spans of the words of s: runs of letters, numbers and inner ' - _ * @, as TextAttack 0.3.11 splits them, but
// that each Han character is a word of its own where TextAttack calls a Chinese segmenter.
func Words(s string) []Span {
	var spans []Span
	start := -1
	flush := func(end int) {
		if start < 0 {
			return
		}
		run := s[start:end]
		left := strings.TrimLeft(run, wordMarks)
		a := start + len(run) - len(left)
		b := a + len(strings.TrimRight(left, wordMarks))
		if b > a {
			spans = append(spans, Span{a, b})
		}
		start = -1
	}
	for i, r := range s {
		switch {
		case unicode.Is(unicode.Han, r):
			flush(i)
			spans = append(spans, Span{i, i + utf8.RuneLen(r)})
		case isWordRune(r):
			if start < 0 {
				start = i
			}
		default:
			flush(i)
		}
	}
	flush(len(s))
	return spans
}

// NewText splits an original text. Invalid UTF-8 is replaced by U+FFFD.
func NewText(s string) *Text {
	s = strings.ToValidUTF8(s, "\ufffd")
	t := &Text{S: s, Spans: Words(s), Last: -1}
	t.Modified = make([]bool, len(t.Spans))
	t.Origin = make([]int, len(t.Spans))
	for i := range t.Origin {
		t.Origin[i] = i
	}
	return t
}

// Len is the number of words.
func (t *Text) Len() int { return len(t.Spans) }

// Word returns word i.
func (t *Text) Word(i int) string { return t.S[t.Spans[i].Start:t.Spans[i].End] }

// Replace returns the text with word i replaced by w, which may hold no word (a deletion, which takes one neighbouring space along) or
// several. Words that come of w count as modified.
func (t *Text) Replace(i int, w string) *Text {
	at := t.Spans[i]
	before, after := t.S[:at.Start], t.S[at.End:]
	inner := Words(w)
	if len(inner) == 0 && after != "" {
		if i == 0 {
			after = strings.TrimPrefix(after, " ")
		} else {
			before = strings.TrimSuffix(before, " ")
		}
	}
	n := &Text{S: before + w + after, Last: i}
	n.Spans = Words(n.S)
	grown := len(inner) - 1
	if len(n.Spans) != len(t.Spans)+grown {
		// w ran together with its neighbours (a mark at its edge, say): compare the words instead.
		return t.align(n.S)
	}
	n.Modified = make([]bool, len(n.Spans))
	for j, m := range t.Modified {
		switch {
		case j < i:
			n.Modified[j] = m
		case j > i:
			n.Modified[j+grown] = m
		}
	}
	if w == t.Word(i) {
		n.Modified[i] = t.Modified[i]
	} else {
		for j := i; j <= i+grown; j++ {
			n.Modified[j] = true
		}
	}
	n.Origin = make([]int, len(t.Origin))
	for o, j := range t.Origin {
		switch {
		case j == i && grown < 0:
			j = -1
		case j == i && grown > 0 && !strings.HasPrefix(w, t.Word(i)):
			j += grown
		case j > i:
			j += grown
		}
		n.Origin[o] = j
	}
	return n
}

// align makes a Text of s, a free-form change of t: words outside the longest common subsequence count as modified.
func (t *Text) align(s string) *Text {
	n := &Text{S: s, Spans: Words(s), Last: -1}
	n.Modified = make([]bool, len(n.Spans))
	to := alignWords(t, n) // per word of t its index in n, or -1
	kept := make([]bool, len(n.Spans))
	for i, j := range to {
		if j < 0 {
			continue
		}
		if t.Word(i) == n.Word(j) {
			kept[j] = true
			n.Modified[j] = t.Modified[i]
		}
	}
	for j := range n.Modified {
		if !kept[j] {
			n.Modified[j] = true
			if n.Last < 0 {
				n.Last = j
			}
		}
	}
	n.Origin = make([]int, len(t.Origin))
	for o, i := range t.Origin {
		n.Origin[o] = -1
		if i >= 0 {
			n.Origin[o] = to[i]
		}
	}
	return n
}

// alignWords pairs the words of a with those of b by minimal edit distance; a substituted word is paired too.
func alignWords(a, b *Text) []int {
	to := make([]int, a.Len())
	lo, ha, hb := 0, a.Len(), b.Len()
	for lo < ha && lo < hb && a.Word(lo) == b.Word(lo) {
		to[lo] = lo
		lo++
	}
	for ha > lo && hb > lo && a.Word(ha-1) == b.Word(hb-1) {
		ha, hb = ha-1, hb-1
		to[ha] = hb
	}
	n, m := ha-lo, hb-lo
	if n == 0 {
		return to
	}
	if n == m || n*m > 1<<22 { // position by position: exact for substitutions, and bounds the table's memory
		for i := range n {
			to[lo+i] = -1
			if i < m {
				to[lo+i] = lo + i
			}
		}
		return to
	}
	w := m + 1
	d := make([]int32, (n+1)*w)
	for i := 0; i <= n; i++ {
		for j := 0; j <= m; j++ {
			switch {
			case i == 0:
				d[j] = int32(j)
			case j == 0:
				d[i*w] = int32(i)
			default:
				c := int32(1)
				if a.Word(lo+i-1) == b.Word(lo+j-1) {
					c = 0
				}
				d[i*w+j] = min(d[(i-1)*w+j]+1, d[i*w+j-1]+1, d[(i-1)*w+j-1]+c)
			}
		}
	}
	for i, j := n, m; i > 0; {
		c := int32(1)
		if j > 0 && a.Word(lo+i-1) == b.Word(lo+j-1) {
			c = 0
		}
		switch {
		case j > 0 && d[i*w+j] == d[(i-1)*w+j-1]+c:
			i, j = i-1, j-1
			to[lo+i] = lo + j
		case d[i*w+j] == d[(i-1)*w+j]+1:
			i--
			to[lo+i] = -1
		default:
			j--
		}
	}
	return to
}

// Changed counts the word positions at which two texts differ; where the number of words differs, the words are aligned first and inserted
// and deleted words count.
func Changed(a, b *Text) int {
	n := 0
	if a.Len() == b.Len() {
		for i := range a.Spans {
			if a.Word(i) != b.Word(i) {
				n++
			}
		}
		return n
	}
	paired := 0
	for i, j := range alignWords(a, b) {
		switch {
		case j < 0:
			n++
		default:
			paired++
			if a.Word(i) != b.Word(j) {
				n++
			}
		}
	}
	return n + b.Len() - paired
}

// EditDistance is the Levenshtein distance in code points, or limit+1 as soon as it is known to exceed limit (no limit when negative).
func EditDistance(a, b string, limit int) int {
	for a != "" && b != "" { // common ends cost nothing
		ra, na := utf8.DecodeRuneInString(a)
		rb, nb := utf8.DecodeRuneInString(b)
		if ra != rb || na != nb {
			break
		}
		a, b = a[na:], b[nb:]
	}
	for a != "" && b != "" {
		ra, na := utf8.DecodeLastRuneInString(a)
		rb, nb := utf8.DecodeLastRuneInString(b)
		if ra != rb || na != nb {
			break
		}
		a, b = a[:len(a)-na], b[:len(b)-nb]
	}
	x, y := []rune(a), []rune(b)
	if limit >= 0 && (len(x)-len(y) > limit || len(y)-len(x) > limit) {
		return limit + 1
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i, r := range x {
		diag := row[0]
		row[0] = i + 1
		least := row[0]
		for j, q := range y {
			c := diag
			if r != q {
				c = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], c
			least = min(least, c)
		}
		if limit >= 0 && least > limit {
			return limit + 1
		}
	}
	if d := row[len(y)]; limit < 0 || d <= limit {
		return d
	}
	return limit + 1
}
