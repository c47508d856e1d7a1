package token

import (
	"encoding/json"
	"slices"
	"strings"
)

// apart takes large members out of a JSON object and returns the object without them, for encoding/json, which would read through them once for
// each level that they lie below. It reports false for what it would rather leave to encoding/json: anything but an object whose keys are plain
// and differ. The members are cut out at their brackets, not checked: whoever parses them does that.
func apart(raw []byte, names ...string) (rest []byte, members map[string]json.RawMessage, ok bool) {
	i, n := 0, len(raw)
	space := func() {
		for i < n && (raw[i] == ' ' || raw[i] == '\n' || raw[i] == '\t' || raw[i] == '\r') {
			i++
		}
	}
	is := func(c byte) bool {
		space()
		if i < n && raw[i] == c {
			i++
			return true
		}
		return false
	}
	if !is('{') {
		return nil, nil, false
	}
	members = map[string]json.RawMessage{}
	seen := map[string]bool{}
	rest = append(rest, '{')
	for {
		if !is('"') {
			return nil, nil, false
		}
		from := i
		for i < n && raw[i] != '"' && raw[i] != '\\' && raw[i] >= ' ' && raw[i] < 0x80 {
			i++
		}
		if i >= n || raw[i] != '"' {
			return nil, nil, false
		}
		name := string(raw[from:i])
		low := strings.ToLower(name) // encoding/json matches any case
		if seen[low] {
			return nil, nil, false
		}
		seen[low] = true
		i++
		if !is(':') {
			return nil, nil, false
		}
		space()
		end := memberEnd(raw, i)
		if end < 0 {
			return nil, nil, false
		}
		if slices.Contains(names, name) {
			members[name] = raw[i:end:end]
		} else {
			if len(rest) > 1 {
				rest = append(rest, ',')
			}
			rest = append(rest, raw[from-1:end]...)
		}
		i = end
		if is(',') {
			continue
		}
		if !is('}') {
			return nil, nil, false
		}
		space()
		return append(rest, '}'), members, i == n
	}
}

// memberEnd is the place of the comma or bracket that ends the value that begins at i, spaces before it left out, or -1.
func memberEnd(raw []byte, i int) int {
	from, depth := i, 0
	for i < len(raw) {
		switch raw[i] {
		case '"':
			for i++; i < len(raw) && raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']', ',':
			if depth == 0 {
				end := i
				for end > from && (raw[end-1] == ' ' || raw[end-1] == '\n' || raw[end-1] == '\t' || raw[end-1] == '\r') {
					end--
				}
				if end == from {
					return -1
				}
				return end
			}
			if raw[i] != ',' {
				depth--
			}
		}
		i++
	}
	return -1
}
