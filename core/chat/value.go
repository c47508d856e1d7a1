package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Values of templates are Python's, as far as templates need them: nil (None), bool, int64, float64, string, *list, *dict, *object (namespaces, loops),
// function, and undefined.

// undefined is what a missing name or attribute is. It prints as nothing and is false, but has no attributes.
type undefined struct{ name string }

// list is a Python list, or a tuple.
type list struct {
	items []any
	tuple bool
}

// dict keeps the order of its keys, as Python's does: tools are shown to models in the order in which people wrote them.
type dict struct {
	keys []any
	vals map[any]any
}

func newDict() *dict { return &dict{vals: map[any]any{}} }

func (d *dict) get(key any) (any, bool) {
	k, ok := hashable(key)
	if !ok {
		return nil, false
	}
	v, ok := d.vals[k]
	return v, ok
}

func (d *dict) set(key, value any) {
	k, ok := hashable(key)
	if !ok {
		fail("unhashable type: '%s'", typeName(key))
	}
	if _, ok := d.vals[k]; !ok {
		d.keys = append(d.keys, key)
	}
	d.vals[k] = value
}

// hashable makes equal numbers equal keys.
func hashable(key any) (any, bool) {
	switch k := key.(type) {
	case nil, string, int64:
		return k, true
	case bool:
		return int64(btoi(k)), true
	case float64:
		if k == math.Trunc(k) && math.Abs(k) < 1<<53 {
			return int64(k), true
		}
		return k, k == k
	case *list:
		if k.tuple {
			return "\x00tuple" + repr(k), true
		}
	}
	return nil, false
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// object has attributes: namespace() and loop.
type object struct {
	kind  string
	attrs *dict
	// mutable objects take assignments.
	mutable bool
	call    function
}

// function is anything that can be called.
type function func(c *context, a args) any

// args are the arguments of a call.
type args struct {
	pos []any
	kw  *dict
}

// at is argument i, or the one called name, or def.
func (a args) at(i int, name string, def any) any {
	if i < len(a.pos) {
		return a.pos[i]
	}
	if a.kw != nil && name != "" {
		if v, ok := a.kw.get(name); ok {
			return v
		}
	}
	return def
}

func (a args) str(i int, name, def string) string {
	v := a.at(i, name, def)
	s, ok := v.(string)
	if !ok {
		fail("expected a string for %s, got %s", name, typeName(v))
	}
	return s
}

func (a args) int(i int, name string, def int64) int64 {
	v := a.at(i, name, def)
	n, ok := asInt(v)
	if !ok {
		fail("expected an integer for %s, got %s", name, typeName(v))
	}
	return n
}

func (a args) need(n int, who string) {
	if len(a.pos) < n {
		fail("%s takes at least %d arguments, got %d", who, n, len(a.pos))
	}
}

func asInt(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case bool:
		return int64(btoi(n)), true
	}
	return 0, false
}

func asFloat(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case int64:
		return float64(n), true
	case bool:
		return float64(btoi(n)), true
	}
	return 0, false
}

func typeName(v any) string {
	switch x := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *list:
		if x.tuple {
			return "tuple"
		}
		return "list"
	case *dict:
		return "dict"
	case *object:
		return x.kind
	case function:
		return "function"
	case undefined:
		return "Undefined"
	}
	return fmt.Sprintf("%T", v)
}

func truth(v any) bool {
	switch x := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return x
	case int64:
		return x != 0
	case float64:
		return x != 0
	case string:
		return x != ""
	case *list:
		return len(x.items) > 0
	case *dict:
		return len(x.keys) > 0
	}
	return true
}

// text is Python's str().
func text(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case undefined:
		return ""
	}
	return repr(v)
}

// maxShown bounds how deep repr and tojson go.
const maxShown = 200

func repr(v any) string {
	var b strings.Builder
	writeRepr(&b, v, 0)
	return b.String()
}

func writeRepr(b *strings.Builder, v any, depth int) {
	if depth > maxShown {
		fail("values are nested more than %d deep", maxShown)
	}
	if b.Len() > maxText {
		fail("a text would be longer than %d bytes", maxText)
	}
	switch x := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		if x {
			b.WriteString("True")
		} else {
			b.WriteString("False")
		}
	case int64:
		b.WriteString(strconv.FormatInt(x, 10))
	case float64:
		b.WriteString(floatText(x))
	case string:
		writeQuoted(b, x)
	case *list:
		open, end := "[", "]"
		if x.tuple {
			open, end = "(", ")"
			if len(x.items) == 1 {
				end = ",)"
			}
		}
		b.WriteString(open)
		for i, item := range x.items {
			if i > 0 {
				b.WriteString(", ")
			}
			writeRepr(b, item, depth+1)
		}
		b.WriteString(end)
	case *dict:
		b.WriteByte('{')
		for i, k := range x.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			writeRepr(b, k, depth+1)
			b.WriteString(": ")
			item, _ := x.get(k)
			writeRepr(b, item, depth+1)
		}
		b.WriteByte('}')
	case undefined:
		b.WriteString("Undefined")
	default:
		b.WriteString("<" + typeName(v) + ">")
	}
}

// floatText is Python's repr of a float.
func floatText(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func writeQuoted(b *strings.Builder, s string) {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b.WriteByte(quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0x100 && !unicode.IsPrint(r):
			fmt.Fprintf(b, `\x%02x`, r)
		case r >= 0x100 && !unicode.IsPrint(r) && r < 0x10000:
			fmt.Fprintf(b, `\u%04x`, r)
		case r >= 0x10000 && !unicode.IsPrint(r):
			fmt.Fprintf(b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte(quote)
}

// jsonStyle is how tojson writes: json.dumps' parameters.
type jsonStyle struct {
	item, key string
	indent    string // per level, "" for one line
	pretty    bool
	ascii     bool
	sorted    bool
}

func writeJSON(b *strings.Builder, v any, st *jsonStyle, depth int) {
	if depth > maxShown {
		fail("values are nested more than %d deep", maxShown)
	}
	if b.Len() > maxText {
		fail("a text would be longer than %d bytes", maxText)
	}
	line := func(depth int) {
		if st.pretty {
			b.WriteByte('\n')
			for range depth {
				b.WriteString(st.indent)
			}
		}
	}
	switch x := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(x))
	case int64:
		b.WriteString(strconv.FormatInt(x, 10))
	case float64:
		switch {
		case math.IsInf(x, 1):
			b.WriteString("Infinity")
		case math.IsInf(x, -1):
			b.WriteString("-Infinity")
		case math.IsNaN(x):
			b.WriteString("NaN")
		default:
			b.WriteString(floatText(x))
		}
	case string:
		writeJSONString(b, x, st.ascii)
	case *list:
		if len(x.items) == 0 {
			b.WriteString("[]")
			return
		}
		b.WriteByte('[')
		for i, item := range x.items {
			if i > 0 {
				b.WriteString(st.item)
			}
			line(depth + 1)
			writeJSON(b, item, st, depth+1)
		}
		line(depth)
		b.WriteByte(']')
	case *dict:
		if len(x.keys) == 0 {
			b.WriteString("{}")
			return
		}
		keys := x.keys
		if st.sorted {
			keys = append([]any{}, keys...)
			sort.SliceStable(keys, func(i, j int) bool { return less(keys[i], keys[j]) })
		}
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteString(st.item)
			}
			line(depth + 1)
			switch k := k.(type) {
			case string:
				writeJSONString(b, k, st.ascii)
			case nil, bool, int64, float64:
				b.WriteByte('"')
				writeJSON(b, k, st, depth+1)
				b.WriteByte('"')
			default:
				fail("keys must be str, int, float, bool or None, not %s", typeName(k))
			}
			b.WriteString(st.key)
			item, _ := x.get(k)
			writeJSON(b, item, st, depth+1)
		}
		line(depth)
		b.WriteByte('}')
	default:
		fail("Object of type %s is not JSON serializable", typeName(v))
	}
}

func writeJSONString(b *strings.Builder, s string, ascii bool) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < ' ':
			fmt.Fprintf(b, `\u%04x`, r)
		case ascii && r > 0xFFFF:
			r -= 0x10000
			fmt.Fprintf(b, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		case ascii && r > 0x7E:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// decode reads JSON into values, keeping the order of keys and telling integers from floats.
func decode(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("more than one value")
	}
	return v, nil
}

func decodeValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxShown {
		return nil, fmt.Errorf("values are nested more than %d deep", maxShown)
	}
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch x := tok.(type) {
	case json.Number:
		s := x.String()
		if !strings.ContainsAny(s, ".eE") {
			if n, err := strconv.ParseInt(s, 10, 64); err == nil {
				return n, nil
			}
		}
		return strconv.ParseFloat(s, 64)
	case json.Delim:
		if x == '[' {
			l := &list{items: []any{}}
			for d.More() {
				item, err := decodeValue(d, depth+1)
				if err != nil {
					return nil, err
				}
				l.items = append(l.items, item)
			}
			_, err := d.Token()
			return l, err
		}
		m := newDict()
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			item, err := decodeValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			m.set(key, item)
		}
		_, err := d.Token()
		return m, err
	}
	return tok, nil // string, bool, nil
}

func equal(a, b any) bool {
	if x, ok := asFloat(a); ok {
		y, ok := asFloat(b)
		if !ok {
			return false
		}
		if i, ok := asInt(a); ok {
			if j, ok := asInt(b); ok {
				return i == j
			}
		}
		return x == y
	}
	switch x := a.(type) {
	case nil:
		return b == nil
	case string:
		y, ok := b.(string)
		return ok && x == y
	case undefined:
		_, ok := b.(undefined)
		return ok
	case *list:
		y, ok := b.(*list)
		if !ok || x.tuple != y.tuple || len(x.items) != len(y.items) {
			return false
		}
		for i := range x.items {
			if !equal(x.items[i], y.items[i]) {
				return false
			}
		}
		return true
	case *dict:
		y, ok := b.(*dict)
		if !ok || len(x.keys) != len(y.keys) {
			return false
		}
		for _, k := range x.keys {
			v, _ := x.get(k)
			w, ok := y.get(k)
			if !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case *object:
		y, ok := b.(*object)
		return ok && x == y
	}
	return false
}

func less(a, b any) bool {
	if x, ok := asFloat(a); ok {
		if y, ok := asFloat(b); ok {
			return x < y
		}
	}
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return x < y // UTF-8 sorts as code points do
		}
	case *list:
		if y, ok := b.(*list); ok && x.tuple == y.tuple {
			for i := range min(len(x.items), len(y.items)) {
				if !equal(x.items[i], y.items[i]) {
					return less(x.items[i], y.items[i])
				}
			}
			return len(x.items) < len(y.items)
		}
	}
	fail("'<' not supported between instances of '%s' and '%s'", typeName(a), typeName(b))
	return false
}

// items lists what a loop over v goes through.
func items(v any) []any {
	switch x := v.(type) {
	case *list:
		return x.items
	case *dict:
		return x.keys
	case string:
		out := make([]any, 0, utf8.RuneCountInString(x))
		for _, r := range x {
			out = append(out, string(r))
		}
		return out
	case undefined:
		return nil
	}
	fail("'%s' object is not iterable", typeName(v))
	return nil
}

func length(v any) int {
	switch x := v.(type) {
	case *list:
		return len(x.items)
	case *dict:
		return len(x.keys)
	case string:
		return utf8.RuneCountInString(x)
	case undefined:
		return 0
	}
	fail("object of type '%s' has no len()", typeName(v))
	return 0
}

func contains(in, what any) bool {
	switch x := in.(type) {
	case string:
		s, ok := what.(string)
		if !ok {
			fail("'in <string>' requires string as left operand, not %s", typeName(what))
		}
		return strings.Contains(x, s)
	case *dict:
		_, ok := x.get(what)
		return ok
	}
	for _, item := range items(in) {
		if equal(item, what) {
			return true
		}
	}
	return false
}
