package chat

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds on what a template may use: templates come from strangers.
const (
	maxText  = 16 << 20 // bytes of one text, and of the result
	maxFuel  = 8 << 20  // steps; copying eight bytes is one
	maxCalls = 150      // macros within macros
	maxRange = 100_000  // what range() gives, as in Jinja's sandbox
)

// context is one rendering.
type context struct {
	out     *strings.Builder
	fuel    int
	calls   int
	globals map[string]any
	now     func() time.Time
}

// spend counts work, so that no template runs for ever.
func (c *context) spend(n int) {
	if c.fuel -= n + 1; c.fuel < 0 {
		fail("the template does not come to an end: more than %d steps", maxFuel)
	}
}

// str checks and pays for a new text.
func (c *context) str(s string) string {
	if len(s) > maxText {
		fail("a text would be longer than %d bytes", maxText)
	}
	c.spend(len(s) / 8)
	return s
}

func (c *context) write(s string) {
	c.spend(len(s) / 8)
	if c.out.Len()+len(s) > maxText {
		fail("the result would be longer than %d bytes", maxText)
	}
	c.out.WriteString(s)
}

// capture renders into a text of its own.
func (c *context) capture(f func()) string {
	old := c.out
	c.out = &strings.Builder{}
	defer func() { c.out = old }()
	f()
	return c.out.String()
}

// frame is a scope.
type frame struct {
	vars   map[string]any
	parent *frame
}

func (f *frame) inner() *frame { return &frame{parent: f} }

func (f *frame) set(name string, v any) {
	if f.vars == nil {
		f.vars = map[string]any{}
	}
	f.vars[name] = v
}

func (f *frame) get(c *context, name string) any {
	for s := f; s != nil; s = s.parent {
		if v, ok := s.vars[name]; ok {
			return v
		}
	}
	if v, ok := c.globals[name]; ok {
		return v
	}
	if g, ok := globalFuncs[name]; ok {
		return g
	}
	return undefined{name}
}

// jump is how a statement leaves a loop.
type jump uint8

const (
	goOn jump = iota
	breakLoop
	continueLoop
)

type stmt interface {
	run(c *context, f *frame) jump
}

type expr interface {
	eval(c *context, f *frame) any
}

func runAll(c *context, f *frame, body []stmt) jump {
	for _, s := range body {
		c.spend(0)
		if j := s.run(c, f); j != goOn {
			return j
		}
	}
	return goOn
}

type (
	dataStmt   string
	outputStmt struct{ e expr }
	ifStmt     struct {
		conds     []expr
		bodies    [][]stmt
		otherwise []stmt
	}
	forStmt struct {
		target    expr
		over      expr
		filter    expr
		recursive bool
		body      []stmt
		otherwise []stmt
	}
	setStmt      struct{ target, value expr }
	setBlockStmt struct {
		target, filter expr
		body           []stmt
	}
	param struct {
		name string
		def  expr
	}
	macroStmt struct {
		name   string
		params []param
		body   []stmt
	}
	callStmt struct {
		params []param
		call   *callExpr
		body   []stmt
	}
	filterStmt struct {
		filter expr
		body   []stmt
	}
	withStmt struct {
		names, values []expr
		body          []stmt
	}
	jumpStmt string
)

func (s dataStmt) run(c *context, _ *frame) jump {
	c.write(string(s))
	return goOn
}

func (s outputStmt) run(c *context, f *frame) jump {
	c.write(text(s.e.eval(c, f)))
	return goOn
}

func (s ifStmt) run(c *context, f *frame) jump {
	for i, cond := range s.conds {
		if truth(cond.eval(c, f)) {
			return runAll(c, f, s.bodies[i])
		}
	}
	return runAll(c, f, s.otherwise)
}

func (s *forStmt) run(c *context, f *frame) jump {
	s.loop(c, f, items(s.over.eval(c, f)), 0)
	return goOn
}

func (s *forStmt) loop(c *context, f *frame, over []any, depth int64) {
	if s.filter != nil {
		var kept []any
		for _, item := range over {
			c.spend(1)
			in := f.inner()
			assign(c, in, s.target, item)
			if truth(s.filter.eval(c, in)) {
				kept = append(kept, item)
			}
		}
		over = kept
	}
	if len(over) == 0 {
		runAll(c, f.inner(), s.otherwise)
		return
	}
	n := int64(len(over))
	var changed any = undefined{}
	info := &object{kind: "LoopContext", attrs: newDict()}
	if s.recursive {
		info.call = func(c *context, a args) any {
			a.need(1, "loop")
			return c.capture(func() {
				defer c.enter()()
				s.loop(c, f, items(a.pos[0]), depth+1)
			})
		}
	}
	for i, item := range over {
		c.spend(8)
		in := f.inner()
		at := int64(i)
		cycle := function(func(_ *context, a args) any {
			a.need(1, "loop.cycle")
			return a.pos[at%int64(len(a.pos))]
		})
		set := info.attrs.set
		set("index", at+1)
		set("index0", at)
		set("revindex", n-at)
		set("revindex0", n-at-1)
		set("first", i == 0)
		set("last", at == n-1)
		set("length", n)
		set("depth", depth+1)
		set("depth0", depth)
		set("cycle", cycle)
		set("changed", function(func(_ *context, a args) any {
			now := any(&list{items: a.pos, tuple: true})
			was := changed
			changed = now
			return !equal(was, now)
		}))
		var prev, next any = undefined{"previtem"}, undefined{"nextitem"}
		if i > 0 {
			prev = over[i-1]
		}
		if at < n-1 {
			next = over[i+1]
		}
		set("previtem", prev)
		set("nextitem", next)
		in.set("loop", info)
		assign(c, in, s.target, item)
		if runAll(c, in, s.body) == breakLoop {
			break
		}
	}
}

// enter counts how deep calls nest.
func (c *context) enter() func() {
	if c.calls++; c.calls > maxCalls {
		fail("calls are nested more than %d deep", maxCalls)
	}
	return func() { c.calls-- }
}

func assign(c *context, f *frame, target expr, v any) {
	switch t := target.(type) {
	case nameExpr:
		f.set(string(t), v)
	case *attrExpr:
		o, ok := t.in.eval(c, f).(*object)
		if !ok || !o.mutable {
			fail("cannot assign attribute on non-namespace object")
		}
		if strings.HasPrefix(t.name, "_") {
			fail("attributes of a namespace cannot begin with an underscore: %q", t.name)
		}
		o.attrs.set(t.name, v)
	case *listExpr:
		vs := items(v)
		if len(vs) != len(t.items) {
			fail("expected %d values to unpack, got %d", len(t.items), len(vs))
		}
		for i, one := range t.items {
			assign(c, f, one, vs[i])
		}
	default:
		fail("cannot assign to this")
	}
}

func (s setStmt) run(c *context, f *frame) jump {
	assign(c, f, s.target, s.value.eval(c, f))
	return goOn
}

func (s setBlockStmt) run(c *context, f *frame) jump {
	in := f.inner()
	var v any = c.str(c.capture(func() { runAll(c, in, s.body) }))
	if s.filter != nil {
		in.set(bodyName, v)
		v = s.filter.eval(c, in)
	}
	assign(c, f, s.target, v)
	return goOn
}

func (s filterStmt) run(c *context, f *frame) jump {
	in := f.inner()
	in.set(bodyName, c.str(c.capture(func() { runAll(c, in, s.body) })))
	c.write(text(s.filter.eval(c, in)))
	return goOn
}

func (s withStmt) run(c *context, f *frame) jump {
	in := f.inner()
	for i, name := range s.names {
		assign(c, in, name, s.values[i].eval(c, f))
	}
	return runAll(c, in, s.body)
}

func (s jumpStmt) run(*context, *frame) jump {
	if s == "break" {
		return breakLoop
	}
	return continueLoop
}

// macro makes the function that a macro or a call block is.
func macro(name string, params []param, body []stmt, home *frame, caller any) function {
	return func(c *context, a args) any {
		defer c.enter()()
		c.spend(8)
		in := home.inner()
		used := 0
		for i, p := range params {
			var v any = undefined{p.name}
			switch {
			case i < len(a.pos):
				v = a.pos[i]
			case p.def != nil:
				v = nil
			}
			if a.kw != nil {
				if given, ok := a.kw.get(p.name); ok {
					if i < len(a.pos) {
						fail("macro %q got multiple values for argument %q", name, p.name)
					}
					in.set(p.name, given)
					used++
					continue
				}
			}
			if i >= len(a.pos) && p.def != nil {
				v = p.def.eval(c, in)
			}
			in.set(p.name, v)
		}
		var rest []any
		if len(a.pos) > len(params) {
			rest = a.pos[len(params):]
		}
		in.set("varargs", &list{items: rest, tuple: true})
		kw := newDict()
		if a.kw != nil {
			for _, k := range a.kw.keys {
				known := k == "caller"
				for _, p := range params {
					known = known || p.name == k
				}
				if !known {
					v, _ := a.kw.get(k)
					kw.set(k, v)
				}
			}
			if v, ok := a.kw.get("caller"); ok {
				in.set("caller", v)
			}
		}
		in.set("kwargs", kw)
		return c.str(c.capture(func() { runAll(c, in, body) }))
	}
}

func (s macroStmt) run(c *context, f *frame) jump {
	f.set(s.name, macro(s.name, s.params, s.body, f, nil))
	return goOn
}

func (s callStmt) run(c *context, f *frame) jump {
	a := s.call.args.eval(c, f)
	if a.kw == nil {
		a.kw = newDict()
	}
	a.kw.set("caller", macro("caller", s.params, s.body, f, nil))
	c.write(text(call(c, s.call.fn.eval(c, f), a)))
	return goOn
}

// Expressions.

type (
	constExpr struct{ v any }
	nameExpr  string
	bodyExpr  struct{}
	listExpr  struct {
		items []expr
		tuple bool
	}
	dictExpr  struct{ keys, vals []expr }
	condExpr  struct{ cond, then, otherwise expr }
	logicExpr struct {
		a, b expr
		or   bool
	}
	notExpr     struct{ e expr }
	compareExpr struct {
		first expr
		ops   []string
		rest  []expr
	}
	binaryExpr struct {
		op   string
		a, b expr
	}
	signExpr struct {
		op string
		e  expr
	}
	attrExpr struct {
		in   expr
		name string
	}
	itemExpr  struct{ in, key expr }
	sliceExpr struct{ in, lo, hi, step expr }
	callArgs  struct {
		pos   []expr
		names []string
		named []expr
		star  []expr
		dict  []expr
	}
	callExpr struct {
		fn   expr
		args callArgs
	}
	filterExpr struct {
		in   expr
		name string
		args callArgs
	}
	testExpr struct {
		in     expr
		name   string
		args   callArgs
		negate bool
	}
)

// bodyName is where the text of a filter block is kept; no template can name it.
const bodyName = "\x00body"

func (e constExpr) eval(*context, *frame) any    { return e.v }
func (e nameExpr) eval(c *context, f *frame) any { c.spend(0); return f.get(c, string(e)) }
func (e bodyExpr) eval(c *context, f *frame) any { return f.get(c, bodyName) }
func (e *notExpr) eval(c *context, f *frame) any { return !truth(e.e.eval(c, f)) }

func (e *listExpr) eval(c *context, f *frame) any {
	l := &list{items: make([]any, len(e.items)), tuple: e.tuple}
	c.spend(len(e.items))
	for i, x := range e.items {
		l.items[i] = x.eval(c, f)
	}
	return l
}

func (e *dictExpr) eval(c *context, f *frame) any {
	d := newDict()
	c.spend(4 * len(e.keys))
	for i, k := range e.keys {
		d.set(k.eval(c, f), e.vals[i].eval(c, f))
	}
	return d
}

func (e *condExpr) eval(c *context, f *frame) any {
	if truth(e.cond.eval(c, f)) {
		return e.then.eval(c, f)
	}
	if e.otherwise == nil {
		return undefined{"the else of an inline if"}
	}
	return e.otherwise.eval(c, f)
}

func (e *logicExpr) eval(c *context, f *frame) any {
	a := e.a.eval(c, f)
	if truth(a) == e.or {
		return a
	}
	return e.b.eval(c, f)
}

func (e *compareExpr) eval(c *context, f *frame) any {
	a := e.first.eval(c, f)
	for i, op := range e.ops {
		b := e.rest[i].eval(c, f)
		c.spend(size(a) + size(b))
		ok := false
		switch op {
		case "==":
			ok = equal(a, b)
		case "!=":
			ok = !equal(a, b)
		case "<":
			ok = less(a, b)
		case ">":
			ok = less(b, a)
		case "<=":
			ok = !less(b, a)
		case ">=":
			ok = !less(a, b)
		case "in":
			ok = contains(b, a)
		case "not in":
			ok = !contains(b, a)
		}
		if !ok {
			return false
		}
		a = b
	}
	return true
}

// size is a rough measure of the work that looking at a value takes.
func size(v any) int {
	switch x := v.(type) {
	case string:
		return len(x) / 8
	case *list:
		return len(x.items)
	case *dict:
		return len(x.keys)
	}
	return 1
}

func (e *binaryExpr) eval(c *context, f *frame) any {
	a, b := e.a.eval(c, f), e.b.eval(c, f)
	c.spend(0)
	return binary(c, e.op, a, b)
}

func binary(c *context, op string, a, b any) any {
	if op == "~" {
		return c.str(text(a) + text(b))
	}
	for _, v := range []any{a, b} {
		if u, ok := v.(undefined); ok {
			fail("'%s' is undefined", u.name)
		}
	}
	if x, ok := asInt(a); ok {
		if y, ok := asInt(b); ok {
			return integers(op, x, y)
		}
	}
	if x, ok := asFloat(a); ok {
		if y, ok := asFloat(b); ok {
			return floats(op, x, y)
		}
	}
	switch op {
	case "+":
		switch x := a.(type) {
		case string:
			if y, ok := b.(string); ok {
				return c.str(x + y)
			}
			fail("can only concatenate str (not \"%s\") to str", typeName(b))
		case *list:
			if y, ok := b.(*list); ok && x.tuple == y.tuple {
				c.spend(4 * (len(x.items) + len(y.items)))
				return &list{items: append(append([]any{}, x.items...), y.items...), tuple: x.tuple}
			}
			fail("can only concatenate %s (not \"%s\") to %s", typeName(a), typeName(b), typeName(a))
		}
	case "*":
		if _, ok := asInt(a); ok {
			a, b = b, a
		}
		if n, ok := asInt(b); ok {
			n = max(n, 0)
			switch x := a.(type) {
			case string:
				if len(x) > 0 && n > int64(maxText/len(x)) {
					fail("a text would be longer than %d bytes", maxText)
				}
				return c.str(strings.Repeat(x, int(n)))
			case *list:
				if len(x.items) > 0 && n > int64(maxRange/len(x.items)) {
					fail("a list would be longer than %d", maxRange)
				}
				c.spend(4 * int(n) * len(x.items))
				l := &list{tuple: x.tuple}
				for range n {
					l.items = append(l.items, x.items...)
				}
				return l
			}
		}
	case "%":
		if s, ok := a.(string); ok {
			vs := []any{b}
			if l, ok := b.(*list); ok && l.tuple {
				vs = l.items
			}
			return c.str(percent(s, vs))
		}
	}
	fail("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
	return nil
}

func integers(op string, x, y int64) any {
	tooBig := func(ok bool) {
		if !ok {
			fail("a number would be beyond 64 bits")
		}
	}
	switch op {
	case "+":
		z := x + y
		tooBig((z > x) == (y > 0))
		return z
	case "-":
		z := x - y
		tooBig((z < x) == (y > 0))
		return z
	case "*":
		z := x * y
		tooBig(x == 0 || z/x == y && !(x == -1 && y == math.MinInt64))
		return z
	case "/":
		if y == 0 {
			fail("division by zero")
		}
		return float64(x) / float64(y)
	case "//", "%":
		if y == 0 {
			fail("integer division or modulo by zero")
		}
		q, r := x/y, x%y
		if r != 0 && (r < 0) != (y < 0) {
			q--
			r += y
		}
		if op == "%" {
			return r
		}
		return q
	}
	if y < 0 {
		return math.Pow(float64(x), float64(y))
	}
	z := int64(1)
	for range min(y, 65) {
		next := z * x
		tooBig(z == 0 || x == 0 || next/x == z)
		if next == z {
			break // 0 and 1
		}
		z = next
	}
	if x == -1 {
		z = 1 - 2*(y%2)
	}
	return z
}

func floats(op string, x, y float64) any {
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "**":
		return math.Pow(x, y)
	}
	if y == 0 {
		fail("float division by zero")
	}
	switch op {
	case "/":
		return x / y
	case "//":
		return math.Floor(x / y)
	}
	r := math.Mod(x, y)
	if r != 0 && (r < 0) != (y < 0) {
		r += y
	}
	return r
}

func (e *signExpr) eval(c *context, f *frame) any {
	v := e.e.eval(c, f)
	if n, ok := asInt(v); ok {
		if e.op == "-" {
			return -n
		}
		return n
	}
	x, ok := v.(float64)
	if !ok {
		fail("bad operand type for unary %s: '%s'", e.op, typeName(v))
	}
	if e.op == "-" {
		return -x
	}
	return x
}

func (e *attrExpr) eval(c *context, f *frame) any {
	c.spend(0)
	return attribute(c, e.in.eval(c, f), e.name, true)
}

// attribute is v.name (methods go first) or v[name].
func attribute(c *context, v any, name string, dotted bool) any {
	if u, ok := v.(undefined); ok {
		fail("'%s' is undefined", u.name)
	}
	if dotted {
		if m, ok := method(v, name); ok {
			return m
		}
	}
	switch x := v.(type) {
	case *dict:
		if item, ok := x.get(name); ok {
			return item
		}
	case *object:
		if item, ok := x.attrs.get(name); ok {
			return item
		}
	}
	if !dotted {
		if m, ok := method(v, name); ok {
			return m
		}
	}
	return undefined{typeName(v) + " object has no attribute '" + name + "'"}
}

func (e *itemExpr) eval(c *context, f *frame) any {
	c.spend(0)
	return item(c, e.in.eval(c, f), e.key.eval(c, f))
}

func item(c *context, v, key any) any {
	if s, ok := key.(string); ok {
		return attribute(c, v, s, false)
	}
	switch x := v.(type) {
	case undefined:
		fail("'%s' is undefined", x.name)
	case *list:
		if n, ok := asInt(key); ok {
			if n < 0 {
				n += int64(len(x.items))
			}
			if n >= 0 && n < int64(len(x.items)) {
				return x.items[n]
			}
		}
	case string:
		if n, ok := asInt(key); ok {
			c.spend(len(x) / 8)
			r := []rune(x)
			if n < 0 {
				n += int64(len(r))
			}
			if n >= 0 && n < int64(len(r)) {
				return string(r[n])
			}
		}
	case *dict:
		if found, ok := x.get(key); ok {
			return found
		}
	}
	return undefined{typeName(v) + " object has no element " + repr(key)}
}

func (e *sliceExpr) eval(c *context, f *frame) any {
	v := e.in.eval(c, f)
	bound := func(x expr) (int64, bool) {
		if x == nil {
			return 0, false
		}
		b := x.eval(c, f)
		if b == nil {
			return 0, false
		}
		n, ok := asInt(b)
		if !ok {
			fail("slice indices must be integers or None, got %s", typeName(b))
		}
		return n, true
	}
	step, ok := bound(e.step)
	if !ok {
		step = 1
	}
	if step == 0 {
		fail("slice step cannot be zero")
	}
	lo, hasLo := bound(e.lo)
	hi, hasHi := bound(e.hi)
	pick := func(n int) []int {
		size := int64(n)
		clamp := func(i int64, has bool, def int64) int64 {
			if !has {
				return def
			}
			if i < 0 {
				i += size
			}
			if step > 0 {
				return min(max(i, 0), size)
			}
			return min(max(i, -1), size-1)
		}
		var out []int
		if step > 0 {
			for i := clamp(lo, hasLo, 0); i < clamp(hi, hasHi, size); {
				out = append(out, int(i))
				if step >= size {
					break
				}
				i += step
			}
			return out
		}
		for i := clamp(lo, hasLo, size-1); i > clamp(hi, hasHi, -1); {
			out = append(out, int(i))
			if -step >= size {
				break
			}
			i += step
		}
		return out
	}
	c.spend(size(v))
	switch x := v.(type) {
	case string:
		if step == 1 && utf8.RuneCountInString(x) == len(x) {
			idx := pick(len(x))
			if len(idx) == 0 {
				return ""
			}
			return x[idx[0] : idx[len(idx)-1]+1]
		}
		r := []rune(x)
		var b strings.Builder
		for _, i := range pick(len(r)) {
			b.WriteRune(r[i])
		}
		return b.String()
	case *list:
		l := &list{items: []any{}, tuple: x.tuple}
		for _, i := range pick(len(x.items)) {
			l.items = append(l.items, x.items[i])
		}
		return l
	case undefined:
		fail("'%s' is undefined", x.name)
	}
	return undefined{typeName(v) + " object cannot be sliced"}
}

func (a *callArgs) eval(c *context, f *frame) args {
	var out args
	for _, e := range a.pos {
		out.pos = append(out.pos, e.eval(c, f))
	}
	for _, e := range a.star {
		out.pos = append(out.pos, items(e.eval(c, f))...)
	}
	c.spend(len(out.pos))
	if len(a.names) == 0 && len(a.dict) == 0 {
		return out
	}
	out.kw = newDict()
	for i, name := range a.names {
		out.kw.set(name, a.named[i].eval(c, f))
	}
	for _, e := range a.dict {
		d, ok := e.eval(c, f).(*dict)
		if !ok {
			fail("argument after ** must be a mapping")
		}
		for _, k := range d.keys {
			v, _ := d.get(k)
			out.kw.set(k, v)
		}
	}
	return out
}

func (e *callExpr) eval(c *context, f *frame) any {
	fn := e.fn.eval(c, f)
	return call(c, fn, e.args.eval(c, f))
}

func call(c *context, fn any, a args) any {
	c.spend(4)
	switch x := fn.(type) {
	case function:
		return x(c, a)
	case *object:
		if x.call != nil {
			return x.call(c, a)
		}
	case undefined:
		fail("'%s' is undefined", x.name)
	}
	fail("'%s' object is not callable", typeName(fn))
	return nil
}

func (e *filterExpr) eval(c *context, f *frame) any {
	v := e.in.eval(c, f)
	fn, ok := filters[e.name]
	if !ok {
		fail("no filter named %q", e.name)
	}
	a := e.args.eval(c, f)
	c.spend(size(v))
	return fn(c, v, a)
}

func (e *testExpr) eval(c *context, f *frame) any {
	v := e.in.eval(c, f)
	a := e.args.eval(c, f)
	c.spend(size(v))
	return test(c, e.name, v, a) != e.negate
}

func test(c *context, name string, v any, a args) bool {
	fn, ok := tests[name]
	if !ok {
		fail("no test named %q", name)
	}
	return fn(c, v, a)
}
