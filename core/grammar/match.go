package grammar

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Vocab is a vocabulary as a byte trie. It is immutable and safe for concurrent use.
type Vocab struct {
	nodes []node // breadth first, so that children stand side by side; the root is the first
	ids   []int32
	size  int
	eos   []int32
}

// node is a beginning of tokens: the byte that leads to it, the tokens that end here (a range of ids), its children (a range of nodes).
type node struct {
	label             byte
	first, last       int32
	firstKid, lastKid int32
}

// NewVocab builds the trie: bytes[i] is what token i prints; empty entries (control tokens) are never allowed except those of eos, which are
// allowed where the text may end.
func NewVocab(bytes [][]byte, eos []int32) *Vocab {
	v := &Vocab{size: len(bytes), eos: eos}
	for id, b := range bytes {
		if len(b) > 0 && !slices.Contains(eos, int32(id)) {
			v.ids = append(v.ids, int32(id))
		}
	}
	slices.SortFunc(v.ids, func(a, b int32) int { return cmp.Or(slices.Compare(bytes[a], bytes[b]), cmp.Compare(a, b)) })
	type span struct{ lo, hi, depth int } // tokens below a node
	spans := []span{{0, len(v.ids), 0}}
	v.nodes = []node{{}}
	for at := 0; at < len(spans); at++ {
		s := spans[at]
		lo := s.lo
		for lo < s.hi && len(bytes[v.ids[lo]]) == s.depth {
			lo++
		}
		n := node{label: v.nodes[at].label, first: int32(s.lo), last: int32(lo), firstKid: int32(len(spans))}
		for lo < s.hi {
			c, hi := bytes[v.ids[lo]][s.depth], lo+1
			for hi < s.hi && bytes[v.ids[hi]][s.depth] == c {
				hi++
			}
			spans = append(spans, span{lo, hi, s.depth + 1})
			v.nodes = append(v.nodes, node{label: c})
			lo = hi
		}
		n.lastKid = int32(len(spans))
		v.nodes[at] = n
	}
	return v
}

// Matcher follows one text through a grammar. It implements sample.Constraint.
type Matcher struct {
	g      *Grammar
	v      *Vocab
	states []*frame // alternative stacks; nil is the accepted end
	bytes  [][]byte
	known  []known
	done   bool
}

// frame is a place in a rule with what comes after it: an immutable linked stack.
type frame struct {
	rule, alt, el int
	up            *frame
}

// maxStates bounds ambiguity: more alternative stacks than this are an error, not a hang.
const maxStates = 4096

// NewMatcher starts at the root; bytes as in NewVocab.
func NewMatcher(g *Grammar, v *Vocab, bytes [][]byte) (*Matcher, error) {
	m := &Matcher{g: g, v: v, bytes: bytes}
	var err error
	for alt := range g.rules[g.root] {
		if m.states, err = g.expand(m.states, &frame{g.root, alt, 0, nil}, 0); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// expand appends the stacks reachable from f without reading a byte; nil stands for the end of the text.
func (g *Grammar) expand(out []*frame, f *frame, depth int) ([]*frame, error) {
	if len(out) > maxStates || depth > 10000 {
		return nil, fmt.Errorf("grammar: too ambiguous: more than %d ways to go on", maxStates)
	}
	for f != nil && f.el >= len(g.rules[f.rule][f.alt]) {
		// The rule is complete: go on after its reference.
		if f = f.up; f != nil {
			f = &frame{f.rule, f.alt, f.el + 1, f.up}
		}
	}
	if f == nil {
		for _, o := range out {
			if o == nil {
				return out, nil
			}
		}
		return append(out, nil), nil
	}
	el := g.rules[f.rule][f.alt][f.el]
	if el.ref < 0 {
		for _, o := range out {
			if same(o, f) {
				return out, nil
			}
		}
		return append(out, f), nil
	}
	up := f
	if f.el+1 == len(g.rules[f.rule][f.alt]) {
		up = f.up // tail call: nothing comes after the reference here, so the stack does not grow
	}
	var err error
	for alt := range g.rules[el.ref] {
		if out, err = g.expand(out, &frame{el.ref, alt, 0, up}, depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func same(a, b *frame) bool {
	for a != b {
		if a == nil || b == nil || a.rule != b.rule || a.alt != b.alt || a.el != b.el {
			return false
		}
		a, b = a.up, b.up
	}
	return true
}

// step reads one byte.
func (g *Grammar) step(states []*frame, c byte) ([]*frame, error) {
	var out []*frame
	var err error
	for _, f := range states {
		if f == nil {
			continue
		}
		if el := g.rules[f.rule][f.alt][f.el]; el.lo <= c && c <= el.hi {
			if out, err = g.expand(out, &frame{f.rule, f.alt, f.el + 1, f.up}, 0); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Allow implements sample.Constraint: logits of tokens that the grammar does not let come next become −Inf.
func (m *Matcher) Allow(logits []float32) error { return m.AllowWithin(logits, far) }

// AllowWithin is Allow for a text that may have so many more tokens: what could not be completed within them, at a byte a token, may not
// come. If the text can be completed within them now, and the vocabulary has a token for every byte, as those of decoders do, it will be.
func (m *Matcher) AllowWithin(logits []float32, tokens int) error {
	after, err := m.next()
	if err != nil {
		return err
	}
	if m.Distance() > tokens {
		tokens = far // too late: follow the grammar as far as it goes
	}
	any := false
	for i := range logits {
		if i < len(after) && after[i] > 0 && int(after[i]) <= tokens {
			any = true
		} else {
			logits[i] = float32(math.Inf(-1))
		}
	}
	if !any {
		return fmt.Errorf("grammar: no token of the vocabulary can come next")
	}
	return nil
}

// known is what may come next in one state: for each token 1 + the distance after it, 0 where it may not come.
type known struct {
	states []*frame
	done   bool
	after  []int32
}

// maxKnown bounds the states that are remembered: a string of a JSON text, say, stays in one for many tokens.
const maxKnown = 8

func (m *Matcher) next() ([]int32, error) {
	for i, k := range m.known {
		if k.done == m.done && sameStates(k.states, m.states) {
			copy(m.known[1:i+1], m.known[:i]) // the latest stands first
			m.known[0] = k
			return k.after, nil
		}
	}
	var k known
	if len(m.known) == maxKnown {
		k, m.known = m.known[maxKnown-1], m.known[:maxKnown-1]
		clear(k.after)
	} else {
		k.after = make([]int32, m.v.size)
	}
	k.states, k.done = m.states, m.done
	if !m.done {
		if err := m.walk(k.after, m.states); err != nil {
			return nil, err
		}
	}
	if m.Complete() {
		for _, id := range m.v.eos {
			if id >= 0 && int(id) < len(k.after) {
				k.after[id] = 1
			}
		}
	}
	m.known = slices.Insert(m.known, 0, k)
	return k.after, nil
}

func sameStates(a, b []*frame) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !same(a[i], b[i]) {
			return false
		}
	}
	return true
}

// walk follows all tokens at once, down the trie. Sets of stacks that recur, as those inside a string do after every character, are
// numbered and their transitions remembered for the time of the walk.
func (m *Matcher) walk(after []int32, states []*frame) error {
	t := &table{g: m.g, index: map[uint64][]int32{}}
	t.number(nil) // 0: a dead end
	return m.down(t, after, 0, t.number(states))
}

func (m *Matcher) down(t *table, after []int32, at, state int32) error {
	n := &m.v.nodes[at]
	for kid := n.firstKid; kid < n.lastKid; kid++ {
		k := &m.v.nodes[kid]
		next, err := t.step(state, k.label)
		if err != nil {
			return err
		}
		if next == 0 {
			continue
		}
		if k.first < k.last {
			d := t.after[next]
			for _, id := range m.v.ids[k.first:k.last] {
				after[id] = d
			}
		}
		if k.firstKid < k.lastKid {
			if err := m.down(t, after, kid, next); err != nil {
				return err
			}
		}
	}
	return nil
}

// table is the part of the automaton that a walk has met: numbered sets of stacks.
type table struct {
	g     *Grammar
	sets  [][]*frame
	after []int32 // 1 + distance
	next  []*[256]int32
	index map[uint64][]int32
}

// maxTables bounds the transition tables of a walk, 1 KiB each; sets beyond it are stepped anew each time.
const maxTables = 8192

func (t *table) number(states []*frame) int32 {
	h := uint64(len(states))
	for _, f := range states {
		for k := 0; f != nil && k < 4; k++ { // the upper ends of stacks tell most apart
			h = (h ^ uint64(f.rule)<<32 ^ uint64(f.alt)<<16 ^ uint64(f.el)) * 0x9e3779b97f4a7c15
			f = f.up
		}
		h = h<<7 | h>>57
	}
	for _, i := range t.index[h] {
		if sameStates(t.sets[i], states) {
			return i
		}
	}
	i := int32(len(t.sets))
	t.sets, t.next = append(t.sets, states), append(t.next, nil)
	t.after = append(t.after, int32(min(t.g.distance(states), far-1))+1)
	t.index[h] = append(t.index[h], i)
	return i
}

func (t *table) step(state int32, c byte) (int32, error) {
	row := t.next[state]
	if row != nil && row[c] >= 0 {
		return row[c], nil
	}
	states, err := t.g.step(t.sets[state], c)
	if err != nil {
		return 0, err
	}
	to := t.number(states)
	if row == nil && int(state) < maxTables {
		row = new([256]int32)
		for i := range row {
			row[i] = -1
		}
		t.next[state] = row
	}
	if row != nil {
		row[c] = to
	}
	return to, nil
}

// Accept implements sample.Constraint.
func (m *Matcher) Accept(id int32) error {
	if slices.Contains(m.v.eos, id) {
		if !m.Complete() {
			return fmt.Errorf("grammar: the text may not end here")
		}
		m.done = true
		return nil
	}
	if id < 0 || int(id) >= len(m.bytes) {
		return fmt.Errorf("grammar: token %d is not in the vocabulary", id)
	}
	states := m.states
	var err error
	for _, c := range m.bytes[id] {
		if states, err = m.g.step(states, c); err != nil {
			return err
		}
	}
	if len(states) == 0 {
		return fmt.Errorf("grammar: token %d (%q) may not come here", id, m.bytes[id])
	}
	m.states = states
	return nil
}

// Complete reports whether the text so far is in the language.
func (m *Matcher) Complete() bool { return m.done || slices.Contains(m.states, nil) }

// Forced reports that nothing but the end may come.
func (m *Matcher) Forced() bool { return m.done || len(m.states) == 1 && m.states[0] == nil }

// Matches reports whether a whole text is in the language.
func (g *Grammar) Matches(text string) (bool, error) {
	m, err := NewMatcher(g, &Vocab{}, nil)
	if err != nil {
		return false, err
	}
	for i := range len(text) {
		if m.states, err = g.step(m.states, text[i]); err != nil || len(m.states) == 0 {
			return false, err
		}
	}
	return m.Complete(), nil
}
