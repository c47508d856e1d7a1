package grammar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// FromSchema compiles a JSON schema: the generated text is one JSON value that meets it. Supported: type (also lists of types), properties in
// their order, required, additionalProperties, items, prefixItems, minItems/maxItems, minLength/maxLength, minimum/maximum and their exclusive forms,
// pattern, enum, const, anyOf, oneOf, allOf of objects, $ref into $defs/definitions, the formats date, time, date-time, uuid, email, hostname, ipv4, ipv6,
// uri. Beside enum, const, anyOf and oneOf a type may stand, beside $ref nothing that restricts. Keywords that would restrict further but cannot be kept (multipleOf, uniqueItems, not …) are an error: output that breaks the schema
// would be worse. An empty schema is any JSON value.
func FromSchema(schema []byte) (*Grammar, error) {
	v, err := parseOrdered(schema)
	if err != nil {
		return nil, fmt.Errorf("json schema: %w", err)
	}
	c := &compiler{root: v, refs: map[string]string{}}
	expr, err := c.value(v, 0)
	if err != nil {
		return nil, fmt.Errorf("json schema: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "root ::= %s\n%s%s", expr, strings.Join(c.rules, ""), jsonRules)
	g, err := Parse(b.String())
	if err != nil {
		return nil, fmt.Errorf("json schema: %w", err)
	}
	return g, nil
}

// White space is limited, so that a model cannot fill its budget with it.
const jsonRules = `
ws ::= [ \n]?
any ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws ( member ( ws "," ws member )* ws )? "}"
member ::= string ws ":" ws any
array ::= "[" ws ( any ( ws "," ws any )* ws )? "]"
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1F] | "\\" ( ["\\/bfnrt] | "u" hex hex hex hex )
hex ::= [0-9a-fA-F]
integer ::= "-"? ( "0" | [1-9] [0-9]{0,15} )
number ::= integer ( "." [0-9]{1,16} )? ( [eE] [-+]? [0-9]{1,2} )?
date ::= [0-9]{4} "-" ( "0" [1-9] | "1" [0-2] ) "-" ( "0" [1-9] | "1" [0-9] | "2" [0-8] )
time ::= ( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9] ":" [0-5] [0-9] ( "." [0-9]{1,6} )? ( "Z" | [-+] ( "0" [0-9] | "1" [0-3] ) ":" [0-5] [0-9] )
host ::= label ( "." label )*
label ::= [a-zA-Z0-9] ( [a-zA-Z0-9-]{0,30} [a-zA-Z0-9] )?
email ::= [a-zA-Z0-9_+-]{1,32} ( "." [a-zA-Z0-9_+-]{1,16} ){0,3} "@" label ( "." label ){1,3}
octet ::= [0-9] | [1-9] [0-9] | "1" [0-9]{2} | "2" [0-4] [0-9] | "25" [0-5]
ipvfour ::= octet "." octet "." octet "." octet
ipvsix ::= hex{1,4} ( ":" hex{1,4} ){7}
uri ::= [a-z] [a-z0-9+.-]{1,15} "://" host ( ":" [1-9] [0-9]{0,3} )? ( "/" [a-zA-Z0-9._~-]{0,64} ){0,8} ( "?" [a-zA-Z0-9._~=&-]{1,128} )?
uuid ::= hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}
`

// ordered is a JSON value whose objects keep the order of their keys.
type ordered struct {
	raw  json.RawMessage
	keys []string
	obj  map[string]*ordered
	arr  []*ordered
	kind byte // '{' '[' or 'v'
}

func parseOrdered(b []byte) (*ordered, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := readOrdered(dec, 0)
	if err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, fmt.Errorf("more text after the value")
	}
	return v, nil
}

func readOrdered(dec *json.Decoder, depth int) (*ordered, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("nested deeper than %d", maxNesting)
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	d, ok := t.(json.Delim)
	if !ok {
		raw, err := json.Marshal(t)
		return &ordered{kind: 'v', raw: raw}, err
	}
	v := &ordered{kind: byte(d)}
	if d == '{' {
		v.obj = map[string]*ordered{}
	}
	var parts []string
	for dec.More() {
		key := ""
		if d == '{' {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			key = k.(string)
			if _, dup := v.obj[key]; dup {
				return nil, fmt.Errorf("key %q is given twice", key)
			}
		}
		e, err := readOrdered(dec, depth+1)
		if err != nil {
			return nil, err
		}
		if d == '{' {
			v.keys, v.obj[key] = append(v.keys, key), e
			k, _ := json.Marshal(key)
			parts = append(parts, string(k)+":"+string(e.raw))
		} else {
			v.arr = append(v.arr, e)
			parts = append(parts, string(e.raw))
		}
	}
	end, err := dec.Token()
	if err != nil {
		return nil, err
	}
	v.raw = json.RawMessage(string(d.String()) + strings.Join(parts, ",") + end.(json.Delim).String())
	return v, nil
}

func (v *ordered) get(key string) *ordered {
	if v == nil || v.kind != '{' {
		return nil
	}
	return v.obj[key]
}

func (v *ordered) str() string {
	var s string
	if v != nil && json.Unmarshal(v.raw, &s) != nil {
		return ""
	}
	return s
}

type compiler struct {
	root  *ordered
	rules []string
	refs  map[string]string
}

// known keywords; others that restrict are refused.
var (
	annotations = []string{"title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions", "deprecated",
		"readOnly", "writeOnly", "nullable", "$anchor"}
	handled = []string{"type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "minLength",
		"maxLength", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "format", "pattern",
		"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)

func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20:
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// compact writes a JSON value the way it will be generated.
func compact(v *ordered) (string, error) {
	var buf bytes.Buffer
	if err := json.Compact(&buf, v.raw); err != nil {
		return "", err
	}
	return quote(buf.String()), nil
}

func (c *compiler) add(expr string) string {
	name := fmt.Sprintf("s%d", len(c.rules))
	c.rules = append(c.rules, fmt.Sprintf("%s ::= %s\n", name, expr))
	return name
}

func (c *compiler) value(v *ordered, depth int) (string, error) {
	if depth > maxNesting || len(c.rules) > maxRules {
		return "", fmt.Errorf("too large or nested deeper than %d", maxNesting)
	}
	if v.kind == 'v' {
		switch string(v.raw) {
		case "true":
			return "any", nil
		}
		return "", fmt.Errorf("expected an object or true, found %s", v.raw)
	}
	if v.kind != '{' {
		return "", fmt.Errorf("expected an object, found %.40s", v.raw)
	}
	for _, k := range v.keys {
		if !slices.Contains(annotations, k) && !slices.Contains(handled, k) {
			return "", fmt.Errorf("keyword %q is not supported", k)
		}
	}
	switch {
	case v.get("$ref") != nil:
		if err := v.alone("$ref"); err != nil {
			return "", err
		}
		return c.ref(v.get("$ref").str(), depth)
	case v.get("const") != nil:
		return v.choice("const", []*ordered{v.get("const")})
	case v.get("enum") != nil:
		if len(v.get("enum").arr) == 0 {
			return "", fmt.Errorf("enum is empty")
		}
		return v.choice("enum", v.get("enum").arr)
	case v.get("anyOf") != nil:
		return c.alternatives(v, "anyOf", depth)
	case v.get("oneOf") != nil:
		return c.alternatives(v, "oneOf", depth)
	case v.get("allOf") != nil:
		return c.all(v, depth)
	}
	t := v.get("type")
	switch {
	case t != nil && t.kind == '[':
		var alts []string
		for _, one := range t.arr {
			s, err := c.typed(v, one.str(), depth)
			if err != nil {
				return "", err
			}
			alts = append(alts, s)
		}
		if len(alts) == 0 {
			return "", fmt.Errorf("type is an empty list")
		}
		return "( " + strings.Join(alts, " | ") + " )", nil
	case t != nil:
		return c.typed(v, t.str(), depth)
	case v.get("properties") != nil || v.get("required") != nil || v.get("additionalProperties") != nil:
		return c.typed(v, "object", depth)
	case v.get("items") != nil || v.get("prefixItems") != nil:
		return c.typed(v, "array", depth)
	case v.get("minLength") != nil || v.get("maxLength") != nil || v.get("format") != nil || v.get("pattern") != nil:
		return c.typed(v, "string", depth)
	case v.get("minimum") != nil || v.get("maximum") != nil || v.get("exclusiveMinimum") != nil || v.get("exclusiveMaximum") != nil:
		return c.typed(v, "number", depth)
	}
	return "any", nil
}

// alone reports a keyword that restricts v beside those named: they would have to be met together.
func (v *ordered) alone(with ...string) error {
	for _, k := range v.keys {
		if !slices.Contains(with, k) && slices.Contains(handled, k) {
			return fmt.Errorf("keyword %q beside %q is not supported", k, with[0])
		}
	}
	return nil
}

// types are the names under type, none when it is not given.
func (v *ordered) types() []string {
	t := v.get("type")
	switch {
	case t == nil:
		return nil
	case t.kind == '[':
		var names []string
		for _, one := range t.arr {
			names = append(names, one.str())
		}
		return names
	}
	return []string{t.str()}
}

// is reports whether a value is of a type.
func (v *ordered) is(t string) bool {
	raw := string(v.raw)
	switch {
	case v.kind == '{':
		return t == "object"
	case v.kind == '[':
		return t == "array"
	case raw == "null":
		return t == "null"
	case raw == "true" || raw == "false":
		return t == "boolean"
	case strings.HasPrefix(raw, `"`):
		return t == "string"
	}
	f, err := strconv.ParseFloat(raw, 64)
	return t == "number" || t == "integer" && err == nil && f == math.Trunc(f)
}

// choice is one of the values given under a keyword, those of the type that stands beside it.
func (v *ordered) choice(key string, values []*ordered) (string, error) {
	if err := v.alone(key, "type"); err != nil {
		return "", err
	}
	types := v.types()
	var alts []string
	for _, x := range values {
		if types != nil && !slices.ContainsFunc(types, x.is) {
			continue
		}
		s, err := compact(x)
		if err != nil {
			return "", err
		}
		alts = append(alts, s)
	}
	if len(alts) == 0 {
		return "", fmt.Errorf("%s: no value is of type %s", key, strings.Join(types, " or "))
	}
	return "( " + strings.Join(alts, " | ") + " )", nil
}

// alternatives are the schemas under anyOf or oneOf; a type beside them is that of each.
func (c *compiler) alternatives(v *ordered, key string, depth int) (string, error) {
	if err := v.alone(key, "type"); err != nil {
		return "", err
	}
	list := v.get(key)
	if len(list.arr) == 0 {
		return "", fmt.Errorf("%s is empty", key)
	}
	var alts []string
	for _, x := range list.arr {
		if v.get("type") != nil {
			own := x.types()
			switch {
			case own == nil && x.kind == '{' && x.get("$ref") == nil:
				typed := &ordered{raw: x.raw, kind: x.kind, keys: append(slices.Clone(x.keys), "type"), obj: maps.Clone(x.obj)}
				typed.obj["type"] = v.get("type")
				x = typed
			case own == nil || slices.ContainsFunc(own, func(t string) bool { return !slices.Contains(v.types(), t) }):
				return "", fmt.Errorf("keyword %q beside %q: want it in each alternative", "type", key)
			}
		}
		s, err := c.value(x, depth+1)
		if err != nil {
			return "", err
		}
		alts = append(alts, s)
	}
	return "( " + strings.Join(alts, " | ") + " )", nil
}

// all merges object schemas; a single entry is itself.
func (c *compiler) all(v *ordered, depth int) (string, error) {
	list := v.get("allOf")
	if len(list.arr) == 1 && v.alone("allOf") == nil {
		return c.value(list.arr[0], depth+1)
	}
	merged := &ordered{kind: '{', obj: map[string]*ordered{}}
	props := &ordered{kind: '{', obj: map[string]*ordered{}}
	req := &ordered{kind: '['}
	for _, part := range append(slices.Clone(list.arr), v) {
		if r := part.get("$ref"); r != nil {
			var err error
			if part, err = c.resolve(r.str()); err != nil {
				return "", err
			}
		}
		if err := part.alone("allOf", "properties", "required", "type"); err != nil && (part == v || part.get("properties") != nil) {
			return "", err
		}
		if t := part.types(); t != nil && !slices.Contains(t, "object") {
			return "", fmt.Errorf("allOf is supported for objects with properties only")
		}
		if p := part.get("properties"); p != nil {
			for _, k := range p.keys {
				if props.obj[k] == nil {
					props.keys = append(props.keys, k)
				}
				props.obj[k] = p.obj[k]
			}
		} else if part != v {
			return "", fmt.Errorf("allOf is supported for objects with properties only")
		}
		if r := part.get("required"); r != nil {
			req.arr = append(req.arr, r.arr...)
		}
	}
	merged.obj["properties"], merged.obj["required"] = props, req
	merged.keys = []string{"properties", "required"}
	return c.typed(merged, "object", depth)
}

func (c *compiler) resolve(ref string) (*ordered, error) {
	path, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil, fmt.Errorf("$ref %q: only references into the same schema are read", ref)
	}
	v := c.root
	for _, part := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		if part == "" {
			continue
		}
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		if v = v.get(part); v == nil {
			return nil, fmt.Errorf("$ref %q points nowhere", ref)
		}
	}
	return v, nil
}

func (c *compiler) ref(ref string, depth int) (string, error) {
	if name, ok := c.refs[ref]; ok {
		return name, nil
	}
	v, err := c.resolve(ref)
	if err != nil {
		return "", err
	}
	// Reserve the rule first: schemas may refer to themselves.
	name := c.add("")
	at := len(c.rules) - 1
	c.refs[ref] = name
	expr, err := c.value(v, depth+1)
	if err != nil {
		return "", err
	}
	c.rules[at] = fmt.Sprintf("%s ::= %s\n", name, expr)
	return name, nil
}

func (c *compiler) bound(v *ordered, key string) (int, bool, error) {
	x := v.get(key)
	if x == nil {
		return 0, false, nil
	}
	var n int
	if err := json.Unmarshal(x.raw, &n); err != nil || n < 0 {
		return 0, false, fmt.Errorf("%s %s: want a whole number of 0 or more", key, x.raw)
	}
	if n > maxRepeat {
		return 0, false, fmt.Errorf("%s %d: at most %d", key, n, maxRepeat)
	}
	return n, true, nil
}

// repeat writes {lo,hi}.
func (c *compiler) repeat(v *ordered, lo, hi string) (string, error) {
	a, _, err := c.bound(v, lo)
	if err != nil {
		return "", err
	}
	b, ok, err := c.bound(v, hi)
	if err != nil {
		return "", err
	}
	switch {
	case ok && b < a:
		return "", fmt.Errorf("%s is below %s", hi, lo)
	case ok:
		return fmt.Sprintf("{%d,%d}", a, b), nil
	case a > 0:
		return fmt.Sprintf("{%d,}", a), nil
	}
	return "*", nil
}

func (c *compiler) typed(v *ordered, t string, depth int) (string, error) {
	switch t {
	case "null":
		return `"null"`, nil
	case "integer", "number":
		return c.number(v, t == "integer")
	case "boolean":
		return `( "true" | "false" )`, nil
	case "string":
		return c.text(v)
	case "array":
		return c.array(v, depth)
	case "object":
		return c.object(v, depth)
	}
	return "", fmt.Errorf("type %q is not one of null, boolean, integer, number, string, array, object", t)
}

// formats of strings, as rules.
var formats = map[string]string{"date": "date", "time": "time", "uuid": "uuid", "date-time": `date "T" time`, "email": "email", "hostname": "host",
	"ipv4": "ipvfour", "ipv6": "ipvsix", "uri": "uri"}

// text is a string: of a format, after a pattern, or of a length.
func (c *compiler) text(v *ordered) (string, error) {
	given := 0
	for _, keys := range [][]string{{"format"}, {"pattern"}, {"minLength", "maxLength"}} {
		for _, k := range keys {
			if v.get(k) != nil {
				given++
				break
			}
		}
	}
	if given > 1 {
		return "", fmt.Errorf("format, pattern and lengths are supported one at a time")
	}
	if f := v.get("format"); f != nil {
		rule, ok := formats[f.str()]
		if !ok {
			return "", fmt.Errorf("format %s is not supported", f.raw)
		}
		return `"\"" ` + rule + ` "\""`, nil
	}
	if p := v.get("pattern"); p != nil {
		if p.kind != 'v' || !strings.HasPrefix(string(p.raw), `"`) {
			return "", fmt.Errorf("pattern %.40s: want a string", p.raw)
		}
		return pattern(p.str())
	}
	r, err := c.repeat(v, "minLength", "maxLength")
	return `"\"" char` + r + ` "\""`, err
}

func (c *compiler) array(v *ordered, depth int) (string, error) {
	if p := v.get("prefixItems"); p != nil {
		if i := v.get("items"); i != nil && string(i.raw) != "false" {
			return "", fmt.Errorf("prefixItems with further items is not supported")
		}
		lo, _, err := c.bound(v, "minItems")
		if err != nil {
			return "", err
		}
		if hi, capped, err := c.bound(v, "maxItems"); err != nil {
			return "", err
		} else if n := len(p.arr); n < lo || capped && n > hi {
			return "", fmt.Errorf("prefixItems has %d items, which minItems or maxItems does not allow", n)
		}
		var parts []string
		for _, x := range p.arr {
			s, err := c.value(x, depth+1)
			if err != nil {
				return "", err
			}
			parts = append(parts, s)
		}
		return `"[" ws ` + strings.Join(parts, ` ws "," ws `) + ` ws "]"`, nil
	}
	item := "any"
	if i := v.get("items"); i != nil {
		s, err := c.value(i, depth+1)
		if err != nil {
			return "", err
		}
		item = c.add(s)
	}
	lo, _, err := c.bound(v, "minItems")
	if err != nil {
		return "", err
	}
	hi, capped, err := c.bound(v, "maxItems")
	if err != nil {
		return "", err
	}
	switch {
	case capped && hi < lo:
		return "", fmt.Errorf("maxItems is below minItems")
	case capped && hi == 0:
		return `"[" ws "]"`, nil
	}
	more := fmt.Sprintf("{%d,}", max(lo-1, 0))
	if capped {
		more = fmt.Sprintf("{%d,%d}", max(lo-1, 0), hi-1)
	}
	list := item + ` ( ws "," ws ` + item + ` )` + more + ` ws`
	if lo == 0 {
		list = "( " + list + " )?"
	}
	return `"[" ws ` + list + ` "]"`, nil
}

// object writes the properties in their order; optional ones may be left out. rest(i, first) is what may come from property i on.
func (c *compiler) object(v *ordered, depth int) (string, error) {
	required := map[string]bool{}
	if r := v.get("required"); r != nil {
		for _, x := range r.arr {
			required[x.str()] = true
		}
	}
	props := v.get("properties")
	extra := v.get("additionalProperties")
	open := extra != nil && string(extra.raw) != "false"
	if props == nil || len(props.keys) == 0 {
		if len(required) > 0 {
			return "", fmt.Errorf("required names properties that are not described")
		}
		if extra == nil {
			return "object", nil
		}
	}
	member := ""
	if open {
		val := "any"
		if extra.kind == '{' {
			s, err := c.value(extra, depth+1)
			if err != nil {
				return "", err
			}
			val = c.add(s)
		}
		member = c.add(`string ws ":" ws ` + val)
	}
	var keys []string
	if props != nil {
		keys = props.keys
	}
	for k := range required {
		if !slices.Contains(keys, k) {
			return "", fmt.Errorf("required property %q is not described", k)
		}
	}
	pairs := make([]string, len(keys))
	for i, k := range keys {
		s, err := c.value(props.obj[k], depth+1)
		if err != nil {
			return "", fmt.Errorf("property %q: %w", k, err)
		}
		kj, err := json.Marshal(k)
		if err != nil {
			return "", err
		}
		pairs[i] = c.add(quote(string(kj)) + ` ws ":" ws ` + s)
	}
	// From the last property to the first: after[i] when something was written before, first[i] when nothing was.
	after, first := "", ""
	if open {
		after = fmt.Sprintf(`( ws "," ws %s )*`, member)
		first = fmt.Sprintf(`( %s ( ws "," ws %s )* )?`, member, member)
	}
	for i := len(keys) - 1; i >= 0; i-- {
		tail := after
		if tail != "" {
			tail = c.add(tail)
		}
		with := pairs[i] + " " + tail
		if required[keys[i]] {
			after, first = `ws "," ws `+with, with
			continue
		}
		skip := first
		if skip == "" {
			skip = `""`
		}
		skipAfter := after
		if skipAfter == "" {
			skipAfter = `""`
		} else {
			skipAfter = tail
		}
		after, first = fmt.Sprintf(`( ws "," ws %s | %s )`, with, skipAfter), fmt.Sprintf(`( %s | %s )`, with, skip)
	}
	return `"{" ws ` + first + ` ws "}"`, nil
}
