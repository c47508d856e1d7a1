package chat

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// TemplateError is what a template itself complains of, through raise_exception: its message is meant for the user.
type TemplateError struct{ Message string }

func (e *TemplateError) Error() string { return e.Message }

var globalFuncs map[string]function

func init() {
	globalFuncs = map[string]function{
		"raise_exception": func(_ *context, a args) any {
			panic(failure{&TemplateError{text(a.at(0, "message", ""))}})
		},
		"range": func(c *context, a args) any {
			a.need(1, "range")
			lo, hi, step := int64(0), a.int(0, "", 0), int64(1)
			if len(a.pos) > 1 {
				lo, hi = hi, a.int(1, "", 0)
			}
			if len(a.pos) > 2 {
				step = a.int(2, "", 1)
			}
			if step == 0 {
				fail("range() arg 3 must not be zero")
			}
			l := &list{items: []any{}}
			for i := lo; step > 0 && i < hi || step < 0 && i > hi; i += step {
				if len(l.items) >= maxRange {
					fail("range() gives more than %d numbers", maxRange)
				}
				c.spend(2)
				l.items = append(l.items, i)
			}
			return l
		},
		"dict": func(_ *context, a args) any { return dictOf(a) },
		"namespace": func(_ *context, a args) any {
			d := dictOf(a)
			for _, k := range d.keys {
				if s, ok := k.(string); ok && strings.HasPrefix(s, "_") {
					fail("attributes of a namespace cannot begin with an underscore: %q", s)
				}
			}
			return &object{kind: "Namespace", attrs: d, mutable: true}
		},
		"joiner": func(_ *context, a args) any {
			sep, used := a.at(0, "sep", ", "), false
			return function(func(*context, args) any {
				if !used {
					used = true
					return ""
				}
				return sep
			})
		},
		"cycler": func(_ *context, a args) any {
			a.need(1, "cycler")
			at := 0
			o := &object{kind: "Cycler", attrs: newDict()}
			o.attrs.set("current", a.pos[0])
			o.attrs.set("next", function(func(*context, args) any {
				v := a.pos[at]
				at = (at + 1) % len(a.pos)
				o.attrs.set("current", a.pos[at])
				return v
			}))
			o.attrs.set("reset", function(func(*context, args) any { at = 0; return nil }))
			return o
		},
		"strftime_now": func(c *context, a args) any { return c.str(strftime(c.now(), a.str(0, "format", ""))) },
	}
}

func dictOf(a args) *dict {
	d := newDict()
	for _, p := range a.pos {
		switch x := p.(type) {
		case *dict:
			for _, k := range x.keys {
				v, _ := x.get(k)
				d.set(k, v)
			}
		default:
			for _, pair := range items(p) {
				kv := items(pair)
				if len(kv) != 2 {
					fail("dict() expected pairs, got %d values", len(kv))
				}
				d.set(kv[0], kv[1])
			}
		}
	}
	if a.kw != nil {
		for _, k := range a.kw.keys {
			v, _ := a.kw.get(k)
			d.set(k, v)
		}
	}
	return d
}

// strftime knows the directives that templates use.
func strftime(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		plain := format[i] == '-' && i+1 < len(format)
		if plain {
			i++
		}
		num := func(n, width int) {
			if plain {
				width = 1
			}
			fmt.Fprintf(&b, "%0*d", width, n)
		}
		switch format[i] {
		case 'Y':
			num(t.Year(), 4)
		case 'y':
			num(t.Year()%100, 2)
		case 'm':
			num(int(t.Month()), 2)
		case 'd':
			num(t.Day(), 2)
		case 'e':
			fmt.Fprintf(&b, "%2d", t.Day())
		case 'H':
			num(t.Hour(), 2)
		case 'I':
			num((t.Hour()+11)%12+1, 2)
		case 'M':
			num(t.Minute(), 2)
		case 'S':
			num(t.Second(), 2)
		case 'j':
			num(t.YearDay(), 3)
		case 'f':
			fmt.Fprintf(&b, "%06d", t.Nanosecond()/1000)
		case 'B':
			b.WriteString(t.Month().String())
		case 'b', 'h':
			b.WriteString(t.Month().String()[:3])
		case 'A':
			b.WriteString(t.Weekday().String())
		case 'a':
			b.WriteString(t.Weekday().String()[:3])
		case 'w':
			num(int(t.Weekday()), 1)
		case 'p':
			b.WriteString(t.Format("PM"))
		case 'F':
			b.WriteString(t.Format("2006-01-02"))
		case 'T':
			b.WriteString(t.Format("15:04:05"))
		case 'D':
			b.WriteString(t.Format("01/02/06"))
		case 'Z':
			b.WriteString(t.Format("MST"))
		case 'z':
			b.WriteString(t.Format("-0700"))
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '%':
			b.WriteByte('%')
		default:
			b.WriteByte('%')
			b.WriteByte(format[i])
		}
	}
	return b.String()
}

// percent is Python's % on strings, for %s, %r, %d, %i, %f, %x and %%.
func percent(format string, vs []any) string {
	var b strings.Builder
	n := 0
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		j := i + 1
		for j < len(format) && strings.IndexByte("0123456789.-+ #", format[j]) >= 0 {
			j++
		}
		if j == len(format) || j-i > 8 {
			fail("incomplete format")
		}
		spec := format[i:j]
		i = j
		if format[j] == '%' {
			b.WriteByte('%')
			continue
		}
		if n >= len(vs) {
			fail("not enough arguments for format string")
		}
		v := vs[n]
		n++
		switch format[j] {
		case 's':
			fmt.Fprintf(&b, spec+"s", text(v))
		case 'r':
			fmt.Fprintf(&b, spec+"s", repr(v))
		case 'd', 'i', 'x', 'X', 'o':
			x, ok := asFloat(v)
			if !ok {
				fail("%%%c format: a real number is required, not %s", format[j], typeName(v))
			}
			verb := string(format[j])
			if verb == "i" {
				verb = "d"
			}
			if k, ok := asInt(v); ok {
				fmt.Fprintf(&b, spec+verb, k)
			} else {
				fmt.Fprintf(&b, spec+verb, int64(x))
			}
		case 'f', 'F', 'e', 'E', 'g', 'G':
			x, ok := asFloat(v)
			if !ok {
				fail("must be real number, not %s", typeName(v))
			}
			fmt.Fprintf(&b, spec+string(format[j]), x)
		default:
			fail("unsupported format character %q", format[j])
		}
	}
	if n < len(vs) {
		fail("not all arguments converted during string formatting")
	}
	return b.String()
}

// trimSet strips characters as Python's strip does: white space when chars is None.
func trimSet(s string, chars any, left, right bool) string {
	is := unicode.IsSpace
	if set, ok := chars.(string); ok {
		is = func(r rune) bool { return strings.ContainsRune(set, r) }
	} else if chars != nil {
		fail("strip arg must be None or str, not %s", typeName(chars))
	}
	if left {
		s = strings.TrimLeftFunc(s, is)
	}
	if right {
		s = strings.TrimRightFunc(s, is)
	}
	return s
}

func strs(ss []string) *list {
	l := &list{items: make([]any, len(ss))}
	for i, s := range ss {
		l.items[i] = s
	}
	return l
}

// upper is strings.ToUpper with the letters that become several, as Python has them.
func upper(s string) string { return strings.ToUpper(manyUpper.Replace(s)) }

var manyUpper = strings.NewReplacer("ß", "SS", "ŉ", "ʼN", "ǰ", "J̌", "ﬀ", "FF", "ﬁ", "FI", "ﬂ", "FL", "ﬃ", "FFI", "ﬄ", "FFL", "ﬅ", "ST", "ﬆ", "ST", "և", "ԵՒ")

func title(s string) string {
	var b strings.Builder
	start := true
	for _, r := range s {
		if start {
			b.WriteRune(unicode.ToTitle(r))
		} else {
			b.WriteRune(unicode.ToLower(r))
		}
		start = !unicode.IsLetter(r)
	}
	return b.String()
}

func capitalize(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToTitle(r)) + strings.ToLower(s[n:])
}

func every(s string, is func(rune) bool) bool {
	for _, r := range s {
		if !is(r) {
			return false
		}
	}
	return s != ""
}

// cased says whether s has letters and none of the other case.
func cased(s string, same, otherCase func(rune) bool) bool {
	found := false
	for _, r := range s {
		if otherCase(r) {
			return false
		}
		found = found || same(r)
	}
	return found
}

func splitText(c *context, s string, a args, right bool) *list {
	sep, limit := a.at(0, "sep", nil), int(a.int(1, "maxsplit", -1))
	var parts []string
	if sep == nil {
		if limit < 0 {
			parts = strings.Fields(s)
		} else if right {
			rest := strings.TrimRightFunc(s, unicode.IsSpace)
			for n := 0; rest != ""; n++ {
				i := strings.LastIndexFunc(rest, unicode.IsSpace)
				if n == limit || i < 0 {
					parts = append(parts, strings.TrimRightFunc(rest, unicode.IsSpace))
					break
				}
				_, w := utf8.DecodeRuneInString(rest[i:])
				parts = append(parts, rest[i+w:])
				rest = strings.TrimRightFunc(rest[:i], unicode.IsSpace)
			}
			slices.Reverse(parts)
		} else {
			rest := strings.TrimLeftFunc(s, unicode.IsSpace)
			for n := 0; rest != ""; n++ {
				i := strings.IndexFunc(rest, unicode.IsSpace)
				if n == limit || i < 0 {
					if n < limit {
						rest = strings.TrimRightFunc(rest, unicode.IsSpace)
					}
					parts = append(parts, rest)
					break
				}
				parts = append(parts, rest[:i])
				rest = strings.TrimLeftFunc(rest[i:], unicode.IsSpace)
			}
		}
	} else {
		by, ok := sep.(string)
		if !ok || by == "" {
			fail("split: expected a separator that is a string and not empty")
		}
		switch {
		case limit < 0:
			parts = strings.Split(s, by)
		case right:
			rest := s
			for n := 0; n < limit; n++ {
				i := strings.LastIndex(rest, by)
				if i < 0 {
					break
				}
				parts = append(parts, rest[i+len(by):])
				rest = rest[:i]
			}
			parts = append(parts, rest)
			slices.Reverse(parts)
		default:
			parts = strings.SplitN(s, by, limit+1)
		}
	}
	c.spend(len(s)/8 + 4*len(parts))
	return strs(parts)
}

func splitLines(s string, keep bool) *list {
	var out []string
	for len(s) > 0 {
		i := strings.IndexAny(s, "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029")
		if i < 0 {
			out = append(out, s)
			break
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		if s[i] == '\r' && i+1 < len(s) && s[i+1] == '\n' {
			n = 2
		}
		if keep {
			out = append(out, s[:i+n])
		} else {
			out = append(out, s[:i])
		}
		s = s[i+n:]
	}
	return strs(out)
}

// method finds a method of a value. Those that would change a list or a dict in place do not exist here, as in Jinja's immutable sandbox.
func method(v any, name string) (function, bool) {
	switch x := v.(type) {
	case string:
		m, ok := stringMethods[name]
		if !ok {
			return nil, false
		}
		return func(c *context, a args) any {
			c.spend(len(x) / 8)
			r := m(c, x, a)
			if s, ok := r.(string); ok {
				return c.str(s)
			}
			return r
		}, true
	case *dict:
		m, ok := dictMethods[name]
		if !ok {
			return nil, false
		}
		return func(c *context, a args) any { c.spend(len(x.keys)); return m(x, a) }, true
	case *list:
		m, ok := listMethods[name]
		if !ok {
			return nil, false
		}
		return func(c *context, a args) any { c.spend(len(x.items)); return m(x, a) }, true
	}
	return nil, false
}

func forbidden(name string) func(*list, args) any {
	return func(*list, args) any {
		fail("access to attribute %q of a list is unsafe", name)
		return nil
	}
}

var listMethods = map[string]func(*list, args) any{
	"append": forbidden("append"), "extend": forbidden("extend"), "insert": forbidden("insert"), "pop": forbidden("pop"), "remove": forbidden("remove"),
	"clear": forbidden("clear"), "sort": forbidden("sort"), "reverse": forbidden("reverse"),
	"copy": func(l *list, _ args) any { return &list{items: append([]any{}, l.items...), tuple: l.tuple} },
	"index": func(l *list, a args) any {
		a.need(1, "index")
		for i, item := range l.items {
			if equal(item, a.pos[0]) {
				return int64(i)
			}
		}
		fail("%s is not in list", repr(a.pos[0]))
		return nil
	},
	"count": func(l *list, a args) any {
		a.need(1, "count")
		n := int64(0)
		for _, item := range l.items {
			n += int64(btoi(equal(item, a.pos[0])))
		}
		return n
	},
}

func forbiddenDict(name string) func(*dict, args) any {
	return func(*dict, args) any {
		fail("access to attribute %q of a dict is unsafe", name)
		return nil
	}
}

var dictMethods = map[string]func(*dict, args) any{
	"update": forbiddenDict("update"), "pop": forbiddenDict("pop"), "popitem": forbiddenDict("popitem"), "clear": forbiddenDict("clear"),
	"setdefault": forbiddenDict("setdefault"),
	"items":      func(d *dict, _ args) any { return pairs(d) },
	"keys":       func(d *dict, _ args) any { return &list{items: append([]any{}, d.keys...)} },
	"values": func(d *dict, _ args) any {
		l := &list{}
		for _, k := range d.keys {
			v, _ := d.get(k)
			l.items = append(l.items, v)
		}
		return l
	},
	"get": func(d *dict, a args) any {
		a.need(1, "get")
		if v, ok := d.get(a.pos[0]); ok {
			return v
		}
		return a.at(1, "", nil)
	},
	"copy": func(d *dict, _ args) any { return dictOf(args{pos: []any{d}}) },
}

func pairs(d *dict) *list {
	l := &list{}
	for _, k := range d.keys {
		v, _ := d.get(k)
		l.items = append(l.items, &list{items: []any{k, v}, tuple: true})
	}
	return l
}

// affixes are the arguments of startswith: a string or a tuple of them.
func affixes(v any) []string {
	if l, ok := v.(*list); ok && l.tuple {
		var out []string
		for _, item := range l.items {
			s, ok := item.(string)
			if !ok {
				fail("expected strings, got %s", typeName(item))
			}
			out = append(out, s)
		}
		return out
	}
	s, ok := v.(string)
	if !ok {
		fail("expected a string or a tuple of them, got %s", typeName(v))
	}
	return []string{s}
}

func runeAt(s string, i int) int64 {
	if i < 0 {
		return -1
	}
	return int64(utf8.RuneCountInString(s[:i]))
}

var stringMethods = map[string]func(c *context, s string, a args) any{
	"strip":      func(_ *context, s string, a args) any { return trimSet(s, a.at(0, "", nil), true, true) },
	"lstrip":     func(_ *context, s string, a args) any { return trimSet(s, a.at(0, "", nil), true, false) },
	"rstrip":     func(_ *context, s string, a args) any { return trimSet(s, a.at(0, "", nil), false, true) },
	"split":      func(c *context, s string, a args) any { return splitText(c, s, a, false) },
	"rsplit":     func(c *context, s string, a args) any { return splitText(c, s, a, true) },
	"splitlines": func(_ *context, s string, a args) any { return splitLines(s, truth(a.at(0, "keepends", false))) },
	"upper":      func(_ *context, s string, _ args) any { return upper(s) },
	"lower":      func(_ *context, s string, _ args) any { return strings.ToLower(s) },
	"title":      func(_ *context, s string, _ args) any { return title(s) },
	"capitalize": func(_ *context, s string, _ args) any { return capitalize(s) },
	"startswith": func(_ *context, s string, a args) any {
		a.need(1, "startswith")
		return slices.ContainsFunc(affixes(a.pos[0]), func(p string) bool { return strings.HasPrefix(s, p) })
	},
	"endswith": func(_ *context, s string, a args) any {
		a.need(1, "endswith")
		return slices.ContainsFunc(affixes(a.pos[0]), func(p string) bool { return strings.HasSuffix(s, p) })
	},
	"removeprefix": func(_ *context, s string, a args) any { return strings.TrimPrefix(s, a.str(0, "prefix", "")) },
	"removesuffix": func(_ *context, s string, a args) any { return strings.TrimSuffix(s, a.str(0, "suffix", "")) },
	"replace": func(c *context, s string, a args) any {
		return replace(c, s, a.str(0, "old", ""), a.str(1, "new", ""), int(a.int(2, "count", -1)))
	},
	"join": func(c *context, s string, a args) any {
		a.need(1, "join")
		var parts []string
		for i, item := range items(a.pos[0]) {
			p, ok := item.(string)
			if !ok {
				fail("sequence item %d: expected str instance, %s found", i, typeName(item))
			}
			parts = append(parts, p)
		}
		return join(c, parts, s)
	},
	"find":  func(_ *context, s string, a args) any { return runeAt(s, strings.Index(s, a.str(0, "sub", ""))) },
	"rfind": func(_ *context, s string, a args) any { return runeAt(s, strings.LastIndex(s, a.str(0, "sub", ""))) },
	"index": func(_ *context, s string, a args) any {
		i := strings.Index(s, a.str(0, "sub", ""))
		if i < 0 {
			fail("substring not found")
		}
		return runeAt(s, i)
	},
	"count": func(_ *context, s string, a args) any {
		return int64(strings.Count(s, a.str(0, "sub", "")))
	},
	"partition": func(_ *context, s string, a args) any {
		sep := a.str(0, "sep", "")
		before, after, ok := strings.Cut(s, sep)
		if !ok {
			sep = ""
		}
		return &list{items: []any{before, sep, after}, tuple: true}
	},
	"rpartition": func(_ *context, s string, a args) any {
		sep := a.str(0, "sep", "")
		if i := strings.LastIndex(s, sep); i >= 0 {
			return &list{items: []any{s[:i], sep, s[i+len(sep):]}, tuple: true}
		}
		return &list{items: []any{"", "", s}, tuple: true}
	},
	"isdigit":   func(_ *context, s string, _ args) any { return every(s, unicode.IsDigit) },
	"isdecimal": func(_ *context, s string, _ args) any { return every(s, unicode.IsDigit) },
	"isnumeric": func(_ *context, s string, _ args) any { return every(s, unicode.IsNumber) },
	"isalpha":   func(_ *context, s string, _ args) any { return every(s, unicode.IsLetter) },
	"isalnum": func(_ *context, s string, _ args) any {
		return every(s, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) })
	},
	"isspace": func(_ *context, s string, _ args) any { return every(s, unicode.IsSpace) },
	"isupper": func(_ *context, s string, _ args) any { return cased(s, unicode.IsUpper, unicode.IsLower) },
	"islower": func(_ *context, s string, _ args) any { return cased(s, unicode.IsLower, unicode.IsUpper) },
	"zfill":   func(_ *context, s string, a args) any { return pad(s, a.int(0, "width", 0), '0', true) },
	"ljust":   func(_ *context, s string, a args) any { return pad(s, a.int(0, "width", 0), ' ', false) },
	"rjust":   func(_ *context, s string, a args) any { return pad(s, a.int(0, "width", 0), ' ', true) },
	"center":  func(_ *context, s string, a args) any { return center(s, a.int(0, "width", 0)) },
	"format":  func(_ *context, s string, a args) any { return braces(s, a) },
}

func pad(s string, width int64, with byte, left bool) string {
	n := width - int64(utf8.RuneCountInString(s))
	if n <= 0 {
		return s
	}
	if n > maxText {
		fail("a text would be longer than %d bytes", maxText)
	}
	fill := strings.Repeat(string(with), int(n))
	switch {
	case !left:
		return s + fill
	case with == '0' && s != "" && (s[0] == '-' || s[0] == '+'):
		return s[:1] + fill + s[1:]
	}
	return fill + s
}

func center(s string, width int64) string {
	n := width - int64(utf8.RuneCountInString(s))
	if n <= 0 {
		return s
	}
	left := n/2 + (n & width & 1)
	return pad(pad(s, int64(utf8.RuneCountInString(s))+left, ' ', true), width, ' ', false)
}

// braces is str.format for {}, {0} and {name}.
func braces(s string, a args) string {
	var b strings.Builder
	next := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "{{"), strings.HasPrefix(s[i:], "}}"):
			b.WriteByte(s[i])
			i++
		case s[i] == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				fail("expected '}' before end of string")
			}
			name := s[i+1 : i+end]
			i += end
			if name == "" {
				name = strconv.Itoa(next)
				next++
			}
			if k, err := strconv.Atoi(name); err == nil {
				if k < 0 || k >= len(a.pos) {
					fail("replacement index %d out of range", k)
				}
				b.WriteString(text(a.pos[k]))
				break
			}
			if a.kw == nil {
				fail("no argument %q", name)
			}
			v, ok := a.kw.get(name)
			if !ok {
				fail("no argument %q", name)
			}
			b.WriteString(text(v))
		default:
			b.WriteByte(s[i])
		}
		if b.Len() > maxText {
			fail("a text would be longer than %d bytes", maxText)
		}
	}
	return b.String()
}

func replace(c *context, s, old, with string, n int) string {
	count := strings.Count(s, old)
	if n >= 0 {
		count = min(count, n)
	}
	if len(s)+count*max(len(with)-len(old), 0) > maxText {
		fail("a text would be longer than %d bytes", maxText)
	}
	return c.str(strings.Replace(s, old, with, n))
}

func join(c *context, parts []string, sep string) string {
	n := 0
	for _, p := range parts {
		if n += len(p) + len(sep); n > maxText {
			fail("a text would be longer than %d bytes", maxText)
		}
	}
	return c.str(strings.Join(parts, sep))
}

// str is the text that a filter works on.
func str(v any) string { return text(v) }

// getter makes what attribute= means: a dotted path, or an index.
func getter(c *context, by any) func(any) any {
	switch x := by.(type) {
	case nil:
		return func(v any) any { return v }
	case int64:
		return func(v any) any { return item(c, v, x) }
	case string:
		path := strings.Split(x, ".")
		return func(v any) any {
			for _, p := range path {
				if n, err := strconv.ParseInt(p, 10, 64); err == nil {
					v = item(c, v, n)
				} else {
					v = item(c, v, p)
				}
			}
			return v
		}
	}
	fail("attribute: expected a string or an integer, got %s", typeName(by))
	return nil
}

func sortedBy(c *context, v any, a args, first int) *list {
	key := getter(c, a.at(first+2, "attribute", nil))
	sensitive, down := truth(a.at(first+1, "case_sensitive", false)), truth(a.at(first, "reverse", false))
	in := append([]any{}, items(v)...)
	keys := map[int]any{}
	order := make([]int, len(in))
	for i, item := range in {
		order[i] = i
		k := key(item)
		if s, ok := k.(string); ok && !sensitive {
			k = strings.ToLower(s)
		}
		keys[i] = k
	}
	c.spend(8 * len(in))
	sort.SliceStable(order, func(i, j int) bool {
		c.spend(1)
		x, y := keys[order[i]], keys[order[j]]
		if down {
			x, y = y, x
		}
		return less(x, y)
	})
	out := &list{items: make([]any, len(in))}
	for i, o := range order {
		out.items[i] = in[o]
	}
	return out
}

// choose is select, reject, selectattr and rejectattr.
func choose(c *context, v any, a args, attr, want bool) *list {
	get := func(v any) any { return v }
	if attr {
		a.need(1, "selectattr")
		get = getter(c, a.pos[0])
		a.pos = a.pos[1:]
	}
	is := func(v any) bool { return truth(v) }
	if len(a.pos) > 0 {
		name, ok := a.pos[0].(string)
		if !ok {
			fail("expected the name of a test, got %s", typeName(a.pos[0]))
		}
		rest := args{pos: a.pos[1:], kw: a.kw}
		is = func(v any) bool { return test(c, name, v, rest) }
	}
	out := &list{items: []any{}}
	for _, item := range items(v) {
		c.spend(2)
		if is(get(item)) == want {
			out.items = append(out.items, item)
		}
	}
	return out
}

func toJSON(c *context, v any, a args) any {
	st := &jsonStyle{item: ", ", key: ": "}
	st.ascii = truth(a.at(0, "ensure_ascii", false))
	switch x := a.at(1, "indent", nil).(type) {
	case nil:
	case string:
		st.pretty, st.indent = true, x
	default:
		n, ok := asInt(x)
		if !ok || n > 64 {
			fail("indent: expected a small integer, got %s", repr(x))
		}
		st.pretty, st.indent = true, strings.Repeat(" ", int(max(n, 0)))
	}
	if st.pretty {
		st.item = ","
	}
	if sep, ok := a.at(2, "separators", nil).(*list); ok {
		if len(sep.items) != 2 {
			fail("separators: expected two, got %d", len(sep.items))
		}
		st.item, st.key = text(sep.items[0]), text(sep.items[1])
	}
	st.sorted = truth(a.at(3, "sort_keys", false))
	var b strings.Builder
	writeJSON(&b, v, st, 0)
	return c.str(b.String())
}

var filters map[string]func(c *context, v any, a args) any

func init() {
	filters = map[string]func(c *context, v any, a args) any{
		"tojson":     toJSON,
		"string":     func(c *context, v any, _ args) any { return c.str(text(v)) },
		"safe":       func(_ *context, v any, _ args) any { return v },
		"trim":       func(_ *context, v any, a args) any { return trimSet(str(v), a.at(0, "chars", nil), true, true) },
		"upper":      func(c *context, v any, _ args) any { return c.str(upper(str(v))) },
		"lower":      func(c *context, v any, _ args) any { return c.str(strings.ToLower(str(v))) },
		"title":      func(c *context, v any, _ args) any { return c.str(title(str(v))) },
		"capitalize": func(c *context, v any, _ args) any { return c.str(capitalize(str(v))) },
		"length":     func(_ *context, v any, _ args) any { return int64(length(v)) },
		"list": func(c *context, v any, _ args) any {
			c.spend(length(v))
			return &list{items: append([]any{}, items(v)...)}
		},
		"items": func(_ *context, v any, _ args) any {
			switch x := v.(type) {
			case undefined:
				return &list{}
			case *dict:
				return pairs(x)
			}
			fail("can only get item pairs from a mapping")
			return nil
		},
		"dictsort": func(c *context, v any, a args) any {
			d, ok := v.(*dict)
			if !ok {
				fail("dictsort: expected a mapping, got %s", typeName(v))
			}
			by := int64(0)
			if text(a.at(1, "by", "key")) == "value" {
				by = 1
			}
			return sortedBy(c, pairs(d), args{pos: []any{a.at(2, "reverse", false), a.at(0, "case_sensitive", false), by}}, 0)
		},
		"first": func(_ *context, v any, _ args) any {
			if in := items(v); len(in) > 0 {
				return in[0]
			}
			return undefined{"the first item of an empty sequence"}
		},
		"last": func(_ *context, v any, _ args) any {
			if in := items(v); len(in) > 0 {
				return in[len(in)-1]
			}
			return undefined{"the last item of an empty sequence"}
		},
		"join": func(c *context, v any, a args) any {
			get := getter(c, a.at(1, "attribute", nil))
			var parts []string
			for _, item := range items(v) {
				c.spend(1)
				parts = append(parts, text(get(item)))
			}
			return join(c, parts, text(a.at(0, "d", "")))
		},
		"default": func(_ *context, v any, a args) any {
			if _, ok := v.(undefined); ok || truth(a.at(1, "boolean", false)) && !truth(v) {
				return a.at(0, "default_value", "")
			}
			return v
		},
		"replace": func(c *context, v any, a args) any {
			n := -1
			if x := a.at(2, "count", nil); x != nil {
				k, ok := asInt(x)
				if !ok {
					fail("replace: expected an integer count, got %s", typeName(x))
				}
				n = int(k)
			}
			return replace(c, str(v), a.str(0, "old", ""), a.str(1, "new", ""), n)
		},
		"reverse": func(c *context, v any, _ args) any {
			if s, ok := v.(string); ok {
				r := []rune(s)
				slices.Reverse(r)
				return c.str(string(r))
			}
			in := append([]any{}, items(v)...)
			slices.Reverse(in)
			return &list{items: in}
		},
		"sort": func(c *context, v any, a args) any { return sortedBy(c, v, a, 0) },
		"unique": func(c *context, v any, a args) any {
			get := getter(c, a.at(1, "attribute", nil))
			seen := map[any]bool{}
			out := &list{items: []any{}}
			for _, item := range items(v) {
				k := get(item)
				if s, ok := k.(string); ok && !truth(a.at(0, "case_sensitive", false)) {
					k = strings.ToLower(s)
				}
				h, ok := hashable(k)
				if !ok {
					fail("unhashable type: '%s'", typeName(k))
				}
				if c.spend(2); !seen[h] {
					seen[h] = true
					out.items = append(out.items, item)
				}
			}
			return out
		},
		"map": func(c *context, v any, a args) any {
			out := &list{items: []any{}}
			if a.kw != nil && len(a.pos) == 0 {
				if by, ok := a.kw.get("attribute"); ok {
					get := getter(c, by)
					for _, item := range items(v) {
						c.spend(2)
						x := get(item)
						if _, missing := x.(undefined); missing {
							x = a.at(0, "default", x)
						}
						out.items = append(out.items, x)
					}
					return out
				}
			}
			a.need(1, "map")
			name, ok := a.pos[0].(string)
			if !ok {
				fail("map: expected the name of a filter, got %s", typeName(a.pos[0]))
			}
			fn, ok := filters[name]
			if !ok {
				fail("no filter named %q", name)
			}
			for _, item := range items(v) {
				c.spend(2 + size(item))
				out.items = append(out.items, fn(c, item, args{pos: a.pos[1:], kw: a.kw}))
			}
			return out
		},
		"select":     func(c *context, v any, a args) any { return choose(c, v, a, false, true) },
		"reject":     func(c *context, v any, a args) any { return choose(c, v, a, false, false) },
		"selectattr": func(c *context, v any, a args) any { return choose(c, v, a, true, true) },
		"rejectattr": func(c *context, v any, a args) any { return choose(c, v, a, true, false) },
		"attr":       func(c *context, v any, a args) any { return attribute(c, v, a.str(0, "name", ""), true) },
		"sum": func(c *context, v any, a args) any {
			get := getter(c, a.at(0, "attribute", nil))
			total := a.at(1, "start", int64(0))
			for _, item := range items(v) {
				c.spend(1)
				total = binary(c, "+", total, get(item))
			}
			return total
		},
		"min": func(c *context, v any, a args) any { return extreme(c, v, a, false) },
		"max": func(c *context, v any, a args) any { return extreme(c, v, a, true) },
		"abs": func(_ *context, v any, _ args) any {
			if n, ok := asInt(v); ok {
				if n < 0 {
					n = -n
				}
				return n
			}
			x, ok := v.(float64)
			if !ok {
				fail("bad operand type for abs(): '%s'", typeName(v))
			}
			return math.Abs(x)
		},
		"int":   toInt,
		"float": toFloat,
		"round": func(_ *context, v any, a args) any {
			x, ok := asFloat(v)
			if !ok {
				fail("round: expected a number, got %s", typeName(v))
			}
			p := math.Pow(10, float64(a.int(0, "precision", 0)))
			switch how := text(a.at(1, "method", "common")); how {
			case "common":
				return math.RoundToEven(x*p) / p
			case "ceil":
				return math.Ceil(x*p) / p
			case "floor":
				return math.Floor(x*p) / p
			default:
				fail("round: method: expected common, ceil or floor, got %q", how)
				return nil
			}
		},
		"escape": func(c *context, v any, _ args) any {
			return c.str(strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`, "&#34;").Replace(str(v)))
		},
		"urlencode": func(c *context, v any, _ args) any {
			return c.str(percentEncode(str(v)))
		},
		"wordcount": func(c *context, v any, _ args) any { return int64(len(strings.Fields(str(v)))) },
		"indent": func(c *context, v any, a args) any {
			by, ok := a.at(0, "width", int64(4)).(string)
			if !ok {
				by = strings.Repeat(" ", int(min(max(a.int(0, "width", 4), 0), 1024)))
			}
			lines := strings.Split(str(v), "\n")
			for i := range lines {
				if i == 0 && !truth(a.at(1, "first", false)) || i > 0 && lines[i] == "" && !truth(a.at(2, "blank", false)) {
					continue
				}
				lines[i] = by + lines[i]
			}
			return join(c, lines, "\n")
		},
		"truncate": func(c *context, v any, a args) any {
			r := []rune(str(v))
			n := a.int(0, "length", 255)
			end := text(a.at(2, "end", "..."))
			if int64(len(r)) <= n+a.int(3, "leeway", 5) {
				return string(r)
			}
			keep := string(r[:max(n-int64(utf8.RuneCountInString(end)), 0)])
			if !truth(a.at(1, "killwords", false)) {
				if i := strings.LastIndexByte(keep, ' '); i >= 0 {
					keep = keep[:i]
				}
			}
			return c.str(keep + end)
		},
		"batch": func(c *context, v any, a args) any {
			n := int(a.int(0, "linecount", 1))
			if n < 1 {
				fail("batch: expected at least 1, got %d", n)
			}
			out := &list{}
			var row []any
			for _, item := range items(v) {
				c.spend(1)
				if row = append(row, item); len(row) == n {
					out.items = append(out.items, &list{items: row})
					row = nil
				}
			}
			if len(row) > 0 {
				out.items = append(out.items, &list{items: row})
			}
			return out
		},
		"groupby": func(c *context, v any, a args) any {
			a.need(1, "groupby")
			get := getter(c, a.pos[0])
			out := &list{}
			var last *list
			for _, item := range sortedBy(c, v, args{pos: []any{false, a.at(2, "case_sensitive", false), a.pos[0]}}, 0).items {
				k := get(item)
				if last == nil || !equal(last.items[0], k) {
					last = &list{items: []any{k, &list{}}, tuple: true}
					out.items = append(out.items, last)
				}
				group := last.items[1].(*list)
				group.items = append(group.items, item)
			}
			return out
		},
		"format": func(c *context, v any, a args) any { return c.str(percent(str(v), a.pos)) },
		"pprint": func(c *context, v any, _ args) any { return c.str(repr(v)) },
	}
	filters["count"], filters["d"], filters["e"] = filters["length"], filters["default"], filters["escape"]
}

func extreme(c *context, v any, a args, greatest bool) any {
	get := getter(c, a.at(1, "attribute", nil))
	var best any = undefined{"the extreme of an empty sequence"}
	for i, item := range items(v) {
		c.spend(1)
		if i == 0 || !greatest && less(get(item), get(best)) || greatest && less(get(best), get(item)) {
			best = item
		}
	}
	return best
}

func toInt(_ *context, v any, a args) any {
	def := a.at(0, "default", int64(0))
	switch x := v.(type) {
	case string:
		s := strings.ReplaceAll(strings.TrimSpace(x), "_", "")
		if base := a.int(1, "base", 10); base != 10 && base >= 2 && base <= 36 {
			n, err := strconv.ParseInt(strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(s), "0x"), "0b"), int(base), 64)
			if err != nil {
				return def
			}
			return n
		}
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < 1<<62 {
			return int64(f)
		}
		return def
	case float64:
		if math.Abs(x) < 1<<62 {
			return int64(x)
		}
		return def
	}
	if n, ok := asInt(v); ok {
		return n
	}
	return def
}

func toFloat(_ *context, v any, a args) any {
	if s, ok := v.(string); ok {
		if f, err := strconv.ParseFloat(strings.TrimSpace(s), 64); err == nil {
			return f
		}
	}
	if f, ok := asFloat(v); ok {
		return f
	}
	return a.at(0, "default", 0.0)
}

var tests map[string]func(c *context, v any, a args) bool

func init() {
	isInt := func(v any) bool { _, ok := v.(int64); return ok }
	number := func(v any) int64 {
		n, ok := asInt(v)
		if !ok {
			fail("expected an integer, got %s", typeName(v))
		}
		return n
	}
	one := func(a args) any {
		a.need(1, "test")
		return a.pos[0]
	}
	tests = map[string]func(c *context, v any, a args) bool{
		"defined":   func(_ *context, v any, _ args) bool { _, ok := v.(undefined); return !ok },
		"undefined": func(_ *context, v any, _ args) bool { _, ok := v.(undefined); return ok },
		"none":      func(_ *context, v any, _ args) bool { return v == nil },
		"boolean":   func(_ *context, v any, _ args) bool { _, ok := v.(bool); return ok },
		"true":      func(_ *context, v any, _ args) bool { return v == true },
		"false":     func(_ *context, v any, _ args) bool { return v == false },
		"integer":   func(_ *context, v any, _ args) bool { return isInt(v) },
		"float":     func(_ *context, v any, _ args) bool { _, ok := v.(float64); return ok },
		"number":    func(_ *context, v any, _ args) bool { _, ok := asFloat(v); return ok },
		"string":    func(_ *context, v any, _ args) bool { _, ok := v.(string); return ok },
		"mapping":   func(_ *context, v any, _ args) bool { _, ok := v.(*dict); return ok },
		"sequence": func(_ *context, v any, _ args) bool {
			switch v.(type) {
			case string, *list, *dict, undefined:
				return true
			}
			return false
		},
		"iterable": func(_ *context, v any, _ args) bool {
			switch v.(type) {
			case string, *list, *dict, undefined:
				return true
			}
			return false
		},
		"callable": func(_ *context, v any, _ args) bool {
			o, isObject := v.(*object)
			_, isFunc := v.(function)
			return isFunc || isObject && o.call != nil
		},
		"even": func(_ *context, v any, _ args) bool { return number(v)%2 == 0 },
		"odd":  func(_ *context, v any, _ args) bool { return number(v)%2 != 0 },
		"divisibleby": func(_ *context, v any, a args) bool {
			n := number(one(a))
			if n == 0 {
				fail("integer modulo by zero")
			}
			return number(v)%n == 0
		},
		"eq":     func(_ *context, v any, a args) bool { return equal(v, one(a)) },
		"ne":     func(_ *context, v any, a args) bool { return !equal(v, one(a)) },
		"lt":     func(_ *context, v any, a args) bool { return less(v, one(a)) },
		"gt":     func(_ *context, v any, a args) bool { return less(one(a), v) },
		"le":     func(_ *context, v any, a args) bool { return !less(one(a), v) },
		"ge":     func(_ *context, v any, a args) bool { return !less(v, one(a)) },
		"in":     func(_ *context, v any, a args) bool { return contains(one(a), v) },
		"sameas": func(_ *context, v any, a args) bool { return typeName(v) == typeName(one(a)) && equal(v, one(a)) },
		"lower":  func(_ *context, v any, _ args) bool { return cased(str(v), unicode.IsLower, unicode.IsUpper) },
		"upper":  func(_ *context, v any, _ args) bool { return cased(str(v), unicode.IsUpper, unicode.IsLower) },
		"filter": func(_ *context, v any, _ args) bool { _, ok := filters[str(v)]; return ok },
		"test":   func(_ *context, v any, _ args) bool { _, ok := tests[str(v)]; return ok },
	}
	for alias, name := range map[string]string{"==": "eq", "equalto": "eq", "!=": "ne", "<": "lt", "lessthan": "lt", ">": "gt", "greaterthan": "gt", "<=": "le", ">=": "ge"} {
		tests[alias] = tests[name]
	}
}

// percentEncode keeps letters, digits and -_.~/ and writes other bytes as %XX.
func percentEncode(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
