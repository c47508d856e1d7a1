package checkpoint

import "slices"

// plainHeader reads a header as writers make it, many times as fast as token by token: opening a file of some hundred tensors is much of the
// time to a page's first answer. It reports false, with s as it was, for anything else: escapes, unusual numbers, repeated or unknown keys and
// every mistake, which parseHeader names.
func (s *Safetensors) plainHeader(header []byte) bool {
	r := plainReader{header, 0}
	entries, metadata := map[string]safetensorsEntry{}, map[string]string{}
	var names []string
	seenMetadata := false
	ok := r.object(func(key []byte) bool {
		if string(key) == metadataKey {
			if seenMetadata {
				return false
			}
			seenMetadata = true
			return r.object(func(key []byte) bool {
				name := string(key)
				value, ok := r.string()
				if _, twice := metadata[name]; !ok || twice {
					return false
				}
				metadata[name] = string(value)
				return true
			})
		}
		e := safetensorsEntry{name: string(key)}
		if _, twice := entries[e.name]; twice {
			return false
		}
		seen := 0
		ok := r.object(func(key []byte) bool {
			what := slices.Index([]string{"dtype", "shape", "data_offsets"}, string(key))
			if what < 0 || seen&(1<<what) != 0 {
				return false
			}
			seen |= 1 << what
			switch what {
			case 0:
				name, ok := r.string()
				if ok {
					e.typ, ok = safetensorsTypeByName(string(name))
				}
				return ok
			case 1:
				var ok bool
				e.shape, ok = r.ints(maxDims)
				return ok
			}
			o, ok := r.ints(2)
			if !ok || len(o) != 2 {
				return false
			}
			e.begin, e.end = o[0], o[1]
			return true
		})
		if !ok || seen != 7 {
			return false
		}
		entries[e.name] = e
		names = append(names, e.name)
		return true
	})
	if r.space(); !ok || r.at != len(header) {
		return false
	}
	s.entries, s.metadata, s.names = entries, metadata, names
	return true
}

// plainReader reads JSON without escapes in strings and with whole numbers only. What it takes for valid is.
type plainReader struct {
	b  []byte
	at int
}

func (r *plainReader) space() {
	for r.at < len(r.b) && (r.b[r.at] == ' ' || r.b[r.at] == '\n' || r.b[r.at] == '\t' || r.b[r.at] == '\r') {
		r.at++
	}
}

// is takes c, and spaces before it, if it comes next.
func (r *plainReader) is(c byte) bool {
	r.space()
	if r.at == len(r.b) || r.b[r.at] != c {
		return false
	}
	r.at++
	return true
}

func (r *plainReader) string() ([]byte, bool) {
	if !r.is('"') {
		return nil, false
	}
	from := r.at
	for ; r.at < len(r.b); r.at++ {
		switch c := r.b[r.at]; {
		case c == '"':
			r.at++
			return r.b[from : r.at-1], true
		case c == '\\' || c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// ints reads a list of at most limit whole numbers of at most 18 digits.
func (r *plainReader) ints(limit int) ([]int, bool) {
	if !r.is('[') {
		return nil, false
	}
	out := []int{}
	if r.is(']') {
		return out, true
	}
	for {
		r.space()
		from, v := r.at, uint64(0)
		for r.at < len(r.b) && r.b[r.at] >= '0' && r.b[r.at] <= '9' && r.at-from < 18 {
			v = v*10 + uint64(r.b[r.at]-'0')
			r.at++
		}
		if r.at == from || r.b[from] == '0' && r.at > from+1 || uint64(int(v)) != v || int(v) < 0 || len(out) == limit {
			return nil, false
		}
		out = append(out, int(v))
		if r.is(']') {
			return out, true
		}
		if !r.is(',') { // also longer numbers, fractions and exponents
			return nil, false
		}
	}
}

// object calls member for each key, with the value next to be read.
func (r *plainReader) object(member func(key []byte) bool) bool {
	if !r.is('{') {
		return false
	}
	if r.is('}') {
		return true
	}
	for {
		key, ok := r.string()
		if !ok || !r.is(':') || !member(key) {
			return false
		}
		if r.is('}') {
			return true
		}
		if !r.is(',') {
			return false
		}
	}
}
