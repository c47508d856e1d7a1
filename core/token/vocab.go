package token

import (
	"fmt"
	"math"
	"slices"
)

// vocab maps names to ids and back. Memory is a small multiple of the names' own: ids may be far apart, so the way back is a slice only where they
// lie densely.
type vocab struct {
	ids   map[string]int32
	names []string         // by id, when dense
	far   map[int32]string // the rest
	whole bool             // names are all there is, one for each
}

// entry is a name with its id.
type entry struct {
	name string
	id   int32
}

// newVocab fails on negative ids. Where two names claim one id, the lesser name is what the id is called.
func newVocab(ids map[string]int32) (*vocab, error) {
	list := make([]entry, 0, len(ids))
	for s, id := range ids {
		list = append(list, entry{s, id})
	}
	return vocabOf(list)
}

// vocabOf is newVocab from a list, of which the last of equal names counts. It fails as newVocab does.
func vocabOf(list []entry) (*vocab, error) {
	ids := make(map[string]int32, len(list))
	for _, e := range list {
		ids[e.name] = e.id
	}
	v := &vocab{ids: ids, far: map[int32]string{}}
	if len(ids) < len(list) { // some name twice
		list = list[:0]
		for s, id := range ids {
			list = append(list, entry{s, id})
		}
	}
	limit := int32(min(2*len(ids)+1024, math.MaxInt32))
	top := int32(-1)
	for _, e := range list {
		s, id := e.name, e.id
		if id < 0 {
			return nil, fmt.Errorf("token: id of %q: expected 0 to %d, got %d", s, math.MaxInt32, id)
		}
		if id < limit {
			top = max(top, id)
		}
	}
	v.names = make([]string, top+1)
	used := make([]bool, top+1)
	for _, e := range list {
		s, id := e.name, e.id
		if id <= top {
			if !used[id] || s < v.names[id] {
				v.names[id], used[id] = s, true
			}
		} else if old, ok := v.far[id]; !ok || s < old {
			v.far[id] = s
		}
	}
	for id := range used {
		if used[id] {
			continue
		}
		// A hole: no name, which is not the same as the empty name.
		v.names[id] = hole
	}
	v.whole = len(v.names) == len(ids) && !slices.Contains(used, false)
	return v, nil
}

// hole is a name that no vocabulary can hold, since it is not UTF-8.
const hole = "\xff\xfe\xff"

func (v *vocab) name(id int32) (string, bool) {
	if id >= 0 && int(id) < len(v.names) {
		s := v.names[id]
		return s, s != hole
	}
	s, ok := v.far[id]
	return s, ok
}
