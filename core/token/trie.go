package token

import "slices"

// trie finds all entries that a text begins with. Children of a node lie side by side, in the order of their bytes; a node takes 12 bytes, and there are
// never more nodes than bytes of the entries.
type trie struct {
	nodes []trieNode
}

type trieNode struct {
	id       int32 // -1: no entry ends here
	children int32 // first child
	count    uint16
	label    byte
}

// newTrie builds a trie; ids[i] is found for names[i]. Of equal names the last one counts. Empty names are left out.
func newTrie(names []string, ids []int32) *trie {
	order := make([]int32, 0, len(names))
	for i, s := range names {
		if s != "" {
			order = append(order, int32(i))
		}
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case names[a] < names[b]:
			return -1
		case names[a] > names[b]:
			return 1
		}
		return 0
	})
	t := &trie{nodes: []trieNode{{id: -1}}}
	// Breadth first: each queued range of the sorted entries shares its first depth bytes and belongs to one node.
	type group struct{ node, lo, hi, depth int32 }
	queue := []group{{0, 0, int32(len(order)), 0}}
	for len(queue) > 0 {
		g := queue[0]
		queue = queue[1:]
		lo := g.lo
		for lo < g.hi && int32(len(names[order[lo]])) == g.depth {
			t.nodes[g.node].id = ids[order[lo]]
			lo++
		}
		t.nodes[g.node].children = int32(len(t.nodes))
		for lo < g.hi {
			c := names[order[lo]][g.depth]
			hi := lo + 1
			for hi < g.hi && names[order[hi]][g.depth] == c {
				hi++
			}
			queue = append(queue, group{int32(len(t.nodes)), lo, hi, g.depth + 1})
			t.nodes = append(t.nodes, trieNode{id: -1, label: c})
			t.nodes[g.node].count++
			lo = hi
		}
	}
	return t
}

// child is the node below node for byte c, -1 for none.
func (t *trie) child(node int32, c byte) int32 {
	n := &t.nodes[node]
	lo, hi := n.children, n.children+int32(n.count)
	for lo < hi {
		mid := (lo + hi) / 2
		if t.nodes[mid].label < c {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < n.children+int32(n.count) && t.nodes[lo].label == c {
		return lo
	}
	return -1
}
