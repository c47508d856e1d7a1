package token

import (
	"fmt"
	"math"
	"unicode/utf8"
)

// unigram finds the most likely cut of a text into pieces that each have a log-probability (Kudo 2018), by Viterbi's algorithm.
type unigram struct {
	vocab        *vocab
	scores       []float64 // by id
	trie         *trie
	unkID        int32 // -1: none
	unkScore     float64
	byteFallback bool
	bytes        [256]int32
}

// unkPenalty is how much less likely than the rarest piece an unknown character is.
const unkPenalty = 10

func newUnigram(names []string, scores []float64, unkID int32, byteFallback bool) (*unigram, error) {
	if len(names) >= math.MaxInt32 {
		return nil, fmt.Errorf("vocab: %d pieces are too many", len(names))
	}
	if unkID >= 0 && int(unkID) >= len(names) {
		return nil, fmt.Errorf("unk_id: expected below %d, got %d", len(names), unkID)
	}
	ids := make([]int32, len(names))
	byName := make(map[string]int32, len(names))
	least := math.Inf(1)
	for i, s := range names {
		ids[i] = int32(i)
		byName[s] = int32(i)
		least = min(least, scores[i])
	}
	v := &vocab{ids: byName, names: names, far: map[int32]string{}}
	m := &unigram{vocab: v, scores: scores, trie: newTrie(names, ids), unkID: unkID, unkScore: least - unkPenalty, byteFallback: byteFallback}
	for c := range m.bytes {
		m.bytes[c] = -1
		if id, ok := byName[fmt.Sprintf("<0x%02X>", c)]; ok {
			m.bytes[c] = id
		}
	}
	return m, nil
}

// node is the best way to cut the text up to one place: its last piece, where that began, and the score of all.
type node struct {
	score float64
	id    int32
	start int32 // -1: not reached
}

func (m *unigram) tokenize(sc *scratch, a *aligned, word int32) error {
	text := a.text
	track := a.at != nil
	if !track {
		if ids, ok := sc.words.get(text); ok {
			for _, id := range ids {
				sc.out = append(sc.out, tok{id: id, word: word})
			}
			return nil
		}
	}
	best := sc.nodes[:0]
	for range len(text) + 1 {
		best = append(best, node{start: -1})
	}
	sc.nodes = best
	reach := func(end int, score float64, id int32, start int) {
		if n := &best[end]; n.start < 0 || score > n.score {
			*n = node{score, id, int32(start)}
		}
	}
	for lo := 0; lo < len(text); {
		_, size := utf8.DecodeRune(text[lo:])
		here := best[lo].score
		single := false
		at := int32(0)
		for i := lo; i < len(text); i++ {
			if at = m.trie.child(at, text[i]); at < 0 {
				break
			}
			if id := m.trie.nodes[at].id; id >= 0 {
				reach(i+1, here+m.scores[id], id, lo)
				single = single || i+1-lo == size
			}
		}
		if !single {
			if m.unkID < 0 {
				return fmt.Errorf("token: %q is not in the vocabulary and there is no unknown token", text[lo:lo+size])
			}
			reach(lo+size, here+m.unkScore, m.unkID, lo)
		}
		lo += size
	}
	from := len(sc.out)
	for hi := len(text); hi > 0; {
		n := best[hi]
		lo := int(n.start)
		// Unknown characters in a row are one token.
		for n.id == m.unkID && lo > 0 && best[lo].id == m.unkID {
			lo = int(best[lo].start)
		}
		m.emit(sc, a, lo, hi, n.id, word)
		hi = lo
	}
	for i, j := from, len(sc.out)-1; i < j; i, j = i+1, j-1 {
		sc.out[i], sc.out[j] = sc.out[j], sc.out[i]
	}
	if !track {
		sc.words.put(text, sc.out[from:])
	}
	return nil
}

// emit adds the piece from lo to hi, back to front.
func (m *unigram) emit(sc *scratch, a *aligned, lo, hi int, id, word int32) {
	k := tok{id: id, word: word}
	if a.at != nil {
		k.at = a.original(lo, hi)
	}
	if id == m.unkID {
		text := a.text[lo:hi]
		if known, ok := m.vocab.ids[string(text)]; ok {
			k.id = known
		} else if m.byteFallback && m.allBytes(text) {
			for i := len(text) - 1; i >= 0; i-- {
				k.id = m.bytes[text[i]]
				sc.out = append(sc.out, k)
			}
			return
		}
		if a.at != nil {
			k.text = string(text)
		}
	}
	sc.out = append(sc.out, k)
}

func (m *unigram) allBytes(text []byte) bool {
	for _, c := range text {
		if m.bytes[c] < 0 {
			return false
		}
	}
	return true
}

// wordLevel looks whole words up.
type wordLevel struct {
	vocab *vocab
	unk   string
	unkID int32
}

func (m *wordLevel) tokenize(sc *scratch, a *aligned, word int32) error {
	id, ok := m.vocab.ids[string(a.text)]
	if !ok {
		if id = m.unkID; id < 0 {
			return fmt.Errorf("token: %.60q is not in the vocabulary and neither is the unknown token %q", a.text, m.unk)
		}
	}
	sc.out = append(sc.out, tok{id: id, word: word, at: a.original(0, len(a.text))})
	return nil
}
