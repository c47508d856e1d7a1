package chat

import (
	"fmt"
	"slices"
	"strconv"
)

// maxDepth bounds how deep templates nest expressions and blocks.
const maxDepth = 200

type parser struct {
	toks  []lexeme
	at    int
	depth int
}

func (p *parser) peek() lexeme { return p.toks[p.at] }

func (p *parser) next() lexeme {
	t := p.toks[p.at]
	if t.kind != tokEOF {
		p.at++
	}
	return t
}

func (p *parser) fail(format string, a ...any) {
	panic(failure{fmt.Errorf("line %d: "+format, append([]any{p.peek().line}, a...)...)})
}

func (p *parser) deeper() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested more than %d deep", maxDepth)
	}
	return func() { p.depth-- }
}

func (p *parser) isOp(ops ...string) bool {
	t := p.peek()
	return t.kind == tokOp && slices.Contains(ops, t.text)
}

func (p *parser) isName(names ...string) bool {
	t := p.peek()
	return t.kind == tokName && slices.Contains(names, t.text)
}

func (p *parser) acceptOp(op string) bool {
	if p.isOp(op) {
		p.at++
		return true
	}
	return false
}

func (p *parser) acceptName(name string) bool {
	if p.isName(name) {
		p.at++
		return true
	}
	return false
}

func (p *parser) needOp(op string) {
	if !p.acceptOp(op) {
		p.fail("expected %q, got %s", op, p.shown())
	}
}

func (p *parser) shown() string {
	t := p.peek()
	switch t.kind {
	case tokEOF:
		return "the end of the template"
	case tokVarEnd, tokBlockEnd:
		return "the end of the tag"
	case tokData, tokVarBegin, tokBlockBegin:
		return "text"
	}
	return strconv.Quote(t.text)
}

func (p *parser) needName() string {
	t := p.next()
	if t.kind != tokName {
		p.at--
		p.fail("expected a name, got %s", p.shown())
	}
	return t.text
}

func (p *parser) needEnd() {
	if t := p.next(); t.kind != tokBlockEnd {
		p.at--
		p.fail("expected the end of the tag, got %s", p.shown())
	}
}

// Statements.

// body parses until a block whose first word is one of ends; that word is returned and consumed, the rest of its tag is not.
func (p *parser) body(ends ...string) ([]stmt, string) {
	defer p.deeper()()
	var out []stmt
	for {
		t := p.next()
		switch t.kind {
		case tokEOF:
			if len(ends) > 0 {
				p.fail("a block is not closed: expected %q", ends)
			}
			return out, ""
		case tokData:
			out = append(out, dataStmt(t.text))
		case tokVarBegin:
			e := p.tuple(true)
			if end := p.next(); end.kind != tokVarEnd {
				p.at--
				p.fail("expected the end of the expression, got %s", p.shown())
			}
			out = append(out, outputStmt{e})
		case tokBlockBegin:
			word := p.needName()
			if slices.Contains(ends, word) {
				return out, word
			}
			out = append(out, p.statement(word))
		default:
			p.at--
			p.fail("unexpected %s", p.shown())
		}
	}
}

func (p *parser) closed(ends ...string) []stmt {
	b, _ := p.body(ends...)
	p.needEnd()
	return b
}

func (p *parser) statement(word string) stmt {
	switch word {
	case "if":
		return p.ifStmt()
	case "for":
		return p.forStmt()
	case "set":
		return p.setStmt()
	case "macro":
		name := p.needName()
		params := p.params()
		p.needEnd()
		b, _ := p.body("endmacro")
		if p.peek().kind == tokName {
			p.at++
		}
		p.needEnd()
		return macroStmt{name, params, b}
	case "call":
		var params []param
		if p.isOp("(") {
			params = p.params()
		}
		call, ok := p.expression().(*callExpr)
		if !ok {
			p.fail("expected a call")
		}
		p.needEnd()
		return callStmt{params, call, p.closed("endcall")}
	case "filter":
		name := p.dotted()
		f := &filterExpr{in: bodyExpr{}, name: name}
		if p.isOp("(") {
			f.args = p.callArgs()
		}
		var chain expr = f
		for p.acceptOp("|") {
			g := &filterExpr{in: chain, name: p.dotted()}
			if p.isOp("(") {
				g.args = p.callArgs()
			}
			chain = g
		}
		p.needEnd()
		return filterStmt{chain, p.closed("endfilter")}
	case "with":
		var w withStmt
		for !p.atEnd() {
			if len(w.names) > 0 {
				p.needOp(",")
			}
			w.names = append(w.names, p.target())
			p.needOp("=")
			w.values = append(w.values, p.expression())
		}
		p.needEnd()
		w.body = p.closed("endwith")
		return w
	case "generation":
		p.needEnd()
		return withStmt{body: p.closed("endgeneration")}
	case "break", "continue":
		p.needEnd()
		return jumpStmt(word)
	case "include", "import", "from", "extends", "block":
		p.fail("%q is not supported in chat templates", word)
	}
	p.fail("unknown tag %q", word)
	return nil
}

func (p *parser) dotted() string {
	name := p.needName()
	for p.acceptOp(".") {
		name += "." + p.needName()
	}
	return name
}

func (p *parser) atEnd() bool { return p.peek().kind == tokBlockEnd }

func (p *parser) ifStmt() stmt {
	var s ifStmt
	for {
		cond := p.tuple(true)
		p.needEnd()
		b, word := p.body("elif", "else", "endif")
		s.conds = append(s.conds, cond)
		s.bodies = append(s.bodies, b)
		switch word {
		case "elif":
			continue
		case "else":
			p.needEnd()
			s.otherwise = p.closed("endif")
		default:
			p.needEnd()
		}
		return s
	}
}

func (p *parser) forStmt() stmt {
	f := &forStmt{}
	f.target = p.targets()
	if !p.acceptName("in") {
		p.fail("expected \"in\", got %s", p.shown())
	}
	f.over = p.tuple(false)
	if p.acceptName("if") {
		f.filter = p.expression()
	}
	f.recursive = p.acceptName("recursive")
	p.needEnd()
	b, word := p.body("endfor", "else")
	f.body = b
	p.needEnd()
	if word == "else" {
		f.otherwise = p.closed("endfor")
	}
	return f
}

func (p *parser) setStmt() stmt {
	t := p.targets()
	if p.acceptOp("=") {
		v := p.tuple(true)
		p.needEnd()
		return setStmt{t, v}
	}
	var chain expr
	for p.acceptOp("|") {
		if chain == nil {
			chain = bodyExpr{}
		}
		f := &filterExpr{in: chain, name: p.dotted()}
		if p.isOp("(") {
			f.args = p.callArgs()
		}
		chain = f
	}
	p.needEnd()
	return setBlockStmt{t, chain, p.closed("endset")}
}

// target is a name or a namespace's attribute.
func (p *parser) target() expr {
	if p.acceptOp("(") {
		t := p.targets()
		p.needOp(")")
		return t
	}
	name := p.needName()
	if p.acceptOp(".") {
		return &attrExpr{in: nameExpr(name), name: p.needName()}
	}
	return nameExpr(name)
}

func (p *parser) targets() expr {
	defer p.deeper()()
	first := p.target()
	if !p.isOp(",") {
		return first
	}
	t := &listExpr{items: []expr{first}, tuple: true}
	for p.acceptOp(",") {
		if p.isName("in") || p.isOp("=") {
			break
		}
		t.items = append(t.items, p.target())
	}
	return t
}

func (p *parser) params() []param {
	var out []param
	p.needOp("(")
	for !p.acceptOp(")") {
		if len(out) > 0 {
			p.needOp(",")
			if p.acceptOp(")") {
				break
			}
		}
		q := param{name: p.needName()}
		if p.acceptOp("=") {
			q.def = p.expression()
		}
		out = append(out, q)
	}
	return out
}

// Expressions, loosest first.

func (p *parser) tuple(withCond bool) expr {
	one := func() expr {
		if withCond {
			return p.expression()
		}
		return p.or()
	}
	first := one()
	if !p.isOp(",") {
		return first
	}
	t := &listExpr{items: []expr{first}, tuple: true}
	for p.acceptOp(",") {
		if k := p.peek().kind; k == tokVarEnd || k == tokBlockEnd || p.isOp(")") {
			break
		}
		t.items = append(t.items, one())
	}
	return t
}

func (p *parser) expression() expr {
	defer p.deeper()()
	e := p.or()
	for p.acceptName("if") {
		cond := p.or()
		var otherwise expr
		if p.acceptName("else") {
			otherwise = p.expression()
		}
		e = &condExpr{cond, e, otherwise}
	}
	return e
}

func (p *parser) or() expr {
	e := p.and()
	for p.acceptName("or") {
		e = &logicExpr{e, p.and(), true}
	}
	return e
}

func (p *parser) and() expr {
	e := p.not()
	for p.acceptName("and") {
		e = &logicExpr{e, p.not(), false}
	}
	return e
}

func (p *parser) not() expr {
	defer p.deeper()()
	if p.acceptName("not") {
		return &notExpr{p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	first := p.sum()
	var c *compareExpr
	for {
		op := ""
		switch {
		case p.isOp("==", "!=", "<", "<=", ">", ">="):
			op = p.next().text
		case p.isName("in"):
			p.at++
			op = "in"
		case p.isName("not") && p.toks[p.at+1].kind == tokName && p.toks[p.at+1].text == "in":
			p.at += 2
			op = "not in"
		default:
			if c == nil {
				return first
			}
			return c
		}
		if c == nil {
			c = &compareExpr{first: first}
		}
		c.ops = append(c.ops, op)
		c.rest = append(c.rest, p.sum())
	}
}

func (p *parser) binary(next func() expr, ops ...string) expr {
	e := next()
	for p.isOp(ops...) {
		op := p.next().text
		e = &binaryExpr{op, e, next()}
	}
	return e
}

func (p *parser) sum() expr     { return p.binary(p.concat, "+", "-") }
func (p *parser) concat() expr  { return p.binary(p.product, "~") }
func (p *parser) product() expr { return p.binary(p.power, "*", "/", "//", "%") }
func (p *parser) power() expr {
	return p.binary(func() expr { return p.unary(true) }, "**")
}

func (p *parser) unary(filters bool) expr {
	defer p.deeper()()
	var e expr
	switch {
	case p.isOp("-", "+"):
		op := p.next().text
		e = &signExpr{op, p.unary(false)}
	default:
		e = p.primary()
	}
	e = p.postfix(e)
	if filters {
		e = p.filters(e)
	}
	return e
}

func (p *parser) primary() expr {
	t := p.next()
	switch t.kind {
	case tokName:
		switch t.text {
		case "true", "True":
			return constExpr{true}
		case "false", "False":
			return constExpr{false}
		case "none", "None":
			return constExpr{nil}
		}
		return nameExpr(t.text)
	case tokString:
		s := t.text
		for p.peek().kind == tokString {
			s += p.next().text
		}
		return constExpr{s}
	case tokInt:
		n, err := strconv.ParseInt(t.text, 10, 64)
		if err != nil {
			p.fail("bad number %q", t.text)
		}
		return constExpr{n}
	case tokFloat:
		f, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			p.fail("bad number %q", t.text)
		}
		return constExpr{f}
	case tokOp:
		switch t.text {
		case "(":
			if p.acceptOp(")") {
				return &listExpr{tuple: true}
			}
			e := p.tuple(true)
			p.needOp(")")
			return e
		case "[":
			l := &listExpr{}
			for !p.acceptOp("]") {
				if len(l.items) > 0 {
					p.needOp(",")
					if p.acceptOp("]") {
						break
					}
				}
				l.items = append(l.items, p.expression())
			}
			return l
		case "{":
			d := &dictExpr{}
			for !p.acceptOp("}") {
				if len(d.keys) > 0 {
					p.needOp(",")
					if p.acceptOp("}") {
						break
					}
				}
				d.keys = append(d.keys, p.expression())
				p.needOp(":")
				d.vals = append(d.vals, p.expression())
			}
			return d
		}
	}
	p.at--
	p.fail("expected a value, got %s", p.shown())
	return nil
}

func (p *parser) postfix(e expr) expr {
	for {
		switch {
		case p.acceptOp("."):
			t := p.next()
			switch t.kind {
			case tokName:
				e = &attrExpr{in: e, name: t.text}
			case tokInt:
				n, err := strconv.ParseInt(t.text, 10, 64)
				if err != nil {
					p.fail("bad number %q", t.text)
				}
				e = &itemExpr{e, constExpr{n}}
			default:
				p.at--
				p.fail("expected a name, got %s", p.shown())
			}
		case p.acceptOp("["):
			e = p.subscript(e)
		case p.isOp("("):
			e = &callExpr{e, p.callArgs()}
		default:
			return e
		}
	}
}

func (p *parser) subscript(in expr) expr {
	var parts [3]expr
	slice := false
	n := 0
	for !p.acceptOp("]") {
		switch {
		case p.acceptOp(":"):
			slice = true
			if n++; n > 2 {
				p.fail("a slice has at most two colons")
			}
		case parts[n] == nil:
			parts[n] = p.tuple(true)
		default:
			p.fail("expected %q, got %s", "]", p.shown())
		}
	}
	if slice {
		return &sliceExpr{in, parts[0], parts[1], parts[2]}
	}
	if parts[0] == nil {
		p.fail("expected a subscript")
	}
	return &itemExpr{in, parts[0]}
}

func (p *parser) callArgs() callArgs {
	defer p.deeper()()
	var a callArgs
	p.needOp("(")
	for n := 0; !p.acceptOp(")"); n++ {
		if n > 0 {
			p.needOp(",")
			if p.acceptOp(")") {
				break
			}
		}
		switch {
		case p.acceptOp("**"):
			a.dict = append(a.dict, p.expression())
		case p.acceptOp("*"):
			a.star = append(a.star, p.expression())
		case p.peek().kind == tokName && p.toks[p.at+1].kind == tokOp && p.toks[p.at+1].text == "=":
			name := p.next().text
			p.at++
			a.names = append(a.names, name)
			a.named = append(a.named, p.expression())
		default:
			a.pos = append(a.pos, p.expression())
		}
	}
	return a
}

func (p *parser) filters(e expr) expr {
	for {
		switch {
		case p.acceptOp("|"):
			f := &filterExpr{in: e, name: p.dotted()}
			if p.isOp("(") {
				f.args = p.callArgs()
			}
			e = f
		case p.isName("is"):
			p.at++
			negate := p.acceptName("not")
			t := &testExpr{in: e, name: p.dotted(), negate: negate}
			next := p.peek()
			switch {
			case p.isOp("("):
				t.args = p.callArgs()
			case next.kind == tokName && !slices.Contains([]string{"else", "or", "and", "is", "if", "in", "not", "recursive"}, next.text),
				next.kind == tokString, next.kind == tokInt, next.kind == tokFloat, p.isOp("[", "{"):
				t.args.pos = []expr{p.postfix(p.primary())}
			}
			e = t
		case p.isOp("("):
			e = &callExpr{e, p.callArgs()}
		default:
			return e
		}
	}
}
