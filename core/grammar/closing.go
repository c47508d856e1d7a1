package grammar

import "math"

// far stands for a length that nothing reaches.
const far = math.MaxInt32

// measure computes the length in bytes of the shortest text of each rule and, for each place in an alternative, of the shortest rest.
func (g *Grammar) measure() {
	shortest := make([]int, len(g.rules))
	for i := range shortest {
		shortest[i] = far
	}
	length := func(s seq) int {
		n := 0
		for _, el := range s {
			if el.ref < 0 {
				n++
			} else {
				n += shortest[el.ref]
			}
			n = min(n, far)
		}
		return n
	}
	for changed := true; changed; {
		changed = false
		for id, alts := range g.rules {
			for _, s := range alts {
				if n := length(s); n < shortest[id] {
					shortest[id], changed = n, true
				}
			}
		}
	}
	g.rest = make([][][]int, len(g.rules))
	for id, alts := range g.rules {
		g.rest[id] = make([][]int, len(alts))
		for a, s := range alts {
			rest := make([]int, len(s)+1)
			for i := len(s) - 1; i >= 0; i-- {
				n := 1
				if s[i].ref >= 0 {
					n = shortest[s[i].ref]
				}
				rest[i] = min(rest[i+1]+n, far)
			}
			g.rest[id][a] = rest
		}
	}
}

// distance is the number of bytes of the shortest text that completes one of the stacks.
func (g *Grammar) distance(states []*frame) int {
	best := far
	for _, f := range states {
		n, first := 0, true
		for ; f != nil && n < best; f = f.up {
			at := f.el
			if !first { // above the top, a frame stands at the reference that is under way
				at++
			}
			n, first = min(n+g.rest[f.rule][f.alt][at], far), false
		}
		best = min(best, n)
	}
	return best
}

// Distance is the number of bytes of the shortest text that completes what has been said: 0 where the text may end.
func (m *Matcher) Distance() int {
	if m.done {
		return 0
	}
	return m.g.distance(m.states)
}
