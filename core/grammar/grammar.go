// Package grammar restricts generated text to a language: GBNF-style grammars (as llama.cpp writes them) and JSON schemas, compiled to a
// pushdown automaton over bytes and matched against a vocabulary held as a byte trie.
package grammar

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Grammar is a compiled context-free grammar over bytes. It is immutable and safe for concurrent use.
type Grammar struct {
	rules [][]seq // rule → alternatives
	names []string
	root  int
	rest  [][][]int // bytes of the shortest text from a place in an alternative to its end
}

// seq is one alternative: its elements in order.
type seq []element

// element is a byte range [lo, hi], or a reference to a rule when ref >= 0.
type element struct {
	ref    int
	lo, hi byte
}

// Limits of what a grammar may ask for.
const (
	maxRules    = 20000
	maxElements = 200000
	maxRepeat   = 2000
	maxNesting  = 200
)

// Parse compiles GBNF text; the start rule is "root". Errors name the line.
//
//	root  ::= "yes" | "no" | number
//	number ::= [0-9]+ ("." [0-9]{1,3})?   # comments, groups, * + ? {m,n}, classes, . for any character
func Parse(text string) (*Grammar, error) {
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("grammar: not valid UTF-8")
	}
	p := &parser{text: text, ids: map[string]int{}, defined: map[int]bool{}, g: &Grammar{}}
	if err := p.parse(); err != nil {
		return nil, fmt.Errorf("grammar: line %d: %w", 1+strings.Count(text[:min(p.at, len(text))], "\n"), err)
	}
	return p.g, p.finish()
}

type parser struct {
	text     string
	at       int
	g        *Grammar
	ids      map[string]int
	defined  map[int]bool
	elements int
	depth    int
}

func (p *parser) rule(name string) int {
	id, ok := p.ids[name]
	if !ok {
		id = p.fresh(name)
		p.ids[name] = id
	}
	return id
}

func (p *parser) fresh(name string) int {
	p.g.rules = append(p.g.rules, nil)
	p.g.names = append(p.g.names, name)
	return len(p.g.rules) - 1
}

func (p *parser) budget(n int) error {
	p.elements += n
	if p.elements > maxElements || len(p.g.rules) > maxRules {
		return fmt.Errorf("too large: more than %d rules or %d elements", maxRules, maxElements)
	}
	return nil
}

func (p *parser) parse() error {
	for {
		p.space(true)
		if p.at >= len(p.text) {
			return nil
		}
		name := p.name()
		if name == "" {
			return fmt.Errorf("expected a rule name, found %q", p.rest())
		}
		p.space(true)
		if !strings.HasPrefix(p.text[p.at:], "::=") {
			return fmt.Errorf("expected ::= after %s, found %q", name, p.rest())
		}
		p.at += 3
		id := p.rule(name)
		if p.defined[id] {
			return fmt.Errorf("rule %s is defined twice", name)
		}
		p.defined[id] = true
		alts, err := p.alternatives(false)
		if err != nil {
			return err
		}
		p.g.rules[id] = alts
		p.space(false)
		if p.at < len(p.text) && p.text[p.at] != '\n' && p.text[p.at] != '\r' {
			return fmt.Errorf("expected the end of the rule, found %q", p.rest())
		}
	}
}

func (p *parser) rest() string {
	r := p.text[p.at:]
	if len(r) > 12 {
		r = r[:12]
	}
	if r == "" {
		return "end of text"
	}
	return r
}

func (p *parser) space(lines bool) {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == ' ' || c == '\t' || lines && (c == '\n' || c == '\r'):
			p.at++
		case c == '#':
			for p.at < len(p.text) && p.text[p.at] != '\n' {
				p.at++
			}
		default:
			return
		}
	}
}

func (p *parser) name() string {
	from := p.at
	for p.at < len(p.text) {
		c := p.text[p.at]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			p.at++
		} else {
			break
		}
	}
	return p.text[from:p.at]
}

func (p *parser) alternatives(group bool) ([]seq, error) {
	if p.depth++; p.depth > maxNesting {
		return nil, fmt.Errorf("groups are nested deeper than %d", maxNesting)
	}
	defer func() { p.depth-- }()
	var alts []seq
	for {
		s, err := p.sequence(group)
		if err != nil {
			return nil, err
		}
		alts = append(alts, s)
		// An alternative may go on in the next line when that starts with a bar.
		save := p.at
		p.space(true)
		if p.at < len(p.text) && p.text[p.at] == '|' {
			p.at++
			continue
		}
		if !group {
			p.at = save
		}
		return alts, nil
	}
}

func (p *parser) sequence(group bool) (seq, error) {
	var s seq
	for {
		p.space(group)
		if p.at >= len(p.text) {
			return s, nil
		}
		var item []element
		switch c := p.text[p.at]; {
		case c == '"':
			lit, err := p.literal()
			if err != nil {
				return nil, err
			}
			for i := range len(lit) {
				item = append(item, element{-1, lit[i], lit[i]})
			}
			// A repetition after a literal repeats the whole of it.
		case c == '[':
			set, err := p.class()
			if err != nil {
				return nil, err
			}
			item, err = p.set(set)
			if err != nil {
				return nil, err
			}
		case c == '.':
			p.at++
			var err error
			if item, err = p.set([]runeRange{{0, utf8.MaxRune}}); err != nil {
				return nil, err
			}
		case c == '(':
			p.at++
			alts, err := p.alternatives(true)
			if err != nil {
				return nil, err
			}
			p.space(true)
			if p.at >= len(p.text) || p.text[p.at] != ')' {
				return nil, fmt.Errorf("expected ) to close a group, found %q", p.rest())
			}
			p.at++
			id := p.fresh("group")
			p.g.rules[id] = alts
			item = []element{{ref: id}}
		default:
			save := p.at
			name := p.name()
			if name == "" {
				return s, nil
			}
			// A name followed by ::= begins the next rule.
			look := p.at
			p.space(true)
			next := strings.HasPrefix(p.text[p.at:], "::=")
			p.at = look
			if next {
				p.at = save
				return s, nil
			}
			item = []element{{ref: p.rule(name)}}
		}
		if err := p.budget(len(item)); err != nil {
			return nil, err
		}
		item, err := p.repeat(item)
		if err != nil {
			return nil, err
		}
		s = append(s, item...)
	}
}

// repeat applies a following *, +, ? or {m,n}.
func (p *parser) repeat(item []element) ([]element, error) {
	if p.at >= len(p.text) {
		return item, nil
	}
	lo, hi := 1, 1
	switch p.text[p.at] {
	case '*':
		lo, hi = 0, -1
	case '+':
		lo, hi = 1, -1
	case '?':
		lo, hi = 0, 1
	case '{':
		end := strings.IndexByte(p.text[p.at:], '}')
		if end < 0 {
			return nil, fmt.Errorf("expected } after %q", p.rest())
		}
		body := p.text[p.at+1 : p.at+end]
		a, b, comma := strings.Cut(body, ",")
		var err error
		if lo, err = count(a); err != nil {
			return nil, err
		}
		switch {
		case !comma:
			hi = lo
		case strings.TrimSpace(b) == "":
			hi = -1
		default:
			if hi, err = count(b); err != nil {
				return nil, err
			}
			if hi < lo {
				return nil, fmt.Errorf("repetition {%s}: the upper bound is below the lower one", body)
			}
		}
		p.at += end
	default:
		return item, nil
	}
	p.at++
	return p.times(item, lo, hi)
}

func count(s string) (int, error) {
	s = strings.TrimSpace(s)
	n := 0
	if s == "" {
		return 0, fmt.Errorf("repetition: expected a number")
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("repetition: expected a number, found %q", s)
		}
		if n = n*10 + int(c-'0'); n > maxRepeat {
			return 0, fmt.Errorf("repetition: at most %d", maxRepeat)
		}
	}
	return n, nil
}

// times returns item lo to hi times (hi < 0: without end), through rules: rest_i ::= item rest_(i+1) | "".
func (p *parser) times(item []element, lo, hi int) ([]element, error) {
	if err := p.budget(len(item) * max(lo, hi, 1)); err != nil {
		return nil, err
	}
	var out []element
	for range lo {
		out = append(out, item...)
	}
	switch {
	case hi < 0:
		id := p.fresh("repeat")
		p.g.rules[id] = []seq{append(append(seq{}, item...), element{ref: id}), {}}
		out = append(out, element{ref: id})
	case hi > lo:
		next := -1
		for range hi - lo {
			id := p.fresh("optional")
			s := append(seq{}, item...)
			if next >= 0 {
				s = append(s, element{ref: next})
			}
			p.g.rules[id] = []seq{s, {}}
			next = id
		}
		out = append(out, element{ref: next})
	}
	return out, p.budget(0)
}

func (p *parser) literal() (string, error) {
	p.at++
	var b strings.Builder
	for p.at < len(p.text) {
		switch c := p.text[p.at]; c {
		case '"':
			p.at++
			return b.String(), nil
		case '\n':
			return "", fmt.Errorf("literal is not closed")
		default:
			r, err := p.char()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		}
	}
	return "", fmt.Errorf("literal is not closed")
}

// char reads one character, escapes included.
func (p *parser) char() (rune, error) {
	r, n := utf8.DecodeRuneInString(p.text[p.at:])
	if n == 0 {
		return 0, fmt.Errorf("unexpected end of text")
	}
	p.at += n
	if r != '\\' {
		return r, nil
	}
	if p.at >= len(p.text) {
		return 0, fmt.Errorf("escape is not complete")
	}
	c := p.text[p.at]
	p.at++
	digits := 0
	switch c {
	case 'n':
		return '\n', nil
	case 't':
		return '\t', nil
	case 'r':
		return '\r', nil
	case '\\', '"', '[', ']', '-', '^', '/':
		return rune(c), nil
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	default:
		return 0, fmt.Errorf("unknown escape \\%c", c)
	}
	if p.at+digits > len(p.text) {
		return 0, fmt.Errorf("escape is not complete")
	}
	u, err := strconv.ParseUint(p.text[p.at:p.at+digits], 16, 32)
	v := rune(u)
	if err != nil || u > unicode.MaxRune || !utf8.ValidRune(v) {
		return 0, fmt.Errorf("escape \\%c%s is not a character", c, p.text[p.at:p.at+digits])
	}
	p.at += digits
	return v, nil
}

type runeRange struct{ lo, hi rune }

func (p *parser) class() ([]runeRange, error) {
	p.at++
	negated := p.at < len(p.text) && p.text[p.at] == '^'
	if negated {
		p.at++
	}
	var set []runeRange
	for {
		if p.at >= len(p.text) || p.text[p.at] == '\n' {
			return nil, fmt.Errorf("character class is not closed")
		}
		if p.text[p.at] == ']' {
			p.at++
			break
		}
		lo, err := p.char()
		if err != nil {
			return nil, err
		}
		hi := lo
		if p.at+1 < len(p.text) && p.text[p.at] == '-' && p.text[p.at+1] != ']' {
			p.at++
			if hi, err = p.char(); err != nil {
				return nil, err
			}
		}
		if hi < lo {
			return nil, fmt.Errorf("character range %c-%c is reversed", lo, hi)
		}
		set = append(set, runeRange{lo, hi})
	}
	if negated {
		set = negate(set)
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("character class matches nothing")
	}
	return set, nil
}

func (p *parser) finish() error {
	g := p.g
	root, ok := p.ids["root"]
	if !ok {
		return fmt.Errorf("grammar: expected a rule named root")
	}
	g.root = root
	for name, id := range p.ids {
		if !p.defined[id] {
			return fmt.Errorf("grammar: rule %s is used but not defined", name)
		}
	}
	return g.check()
}

// check refuses left recursion (the automaton would not end) and grammars that no finite text meets.
func (g *Grammar) check() error {
	empty := make([]bool, len(g.rules))  // may match nothing
	finite := make([]bool, len(g.rules)) // matches some finite text
	for changed := true; changed; {
		changed = false
		for id, alts := range g.rules {
			for _, s := range alts {
				e, f := true, true
				for _, el := range s {
					e = e && el.ref >= 0 && empty[el.ref]
					f = f && (el.ref < 0 || finite[el.ref])
				}
				if e && !empty[id] || f && !finite[id] {
					empty[id], finite[id], changed = empty[id] || e, finite[id] || f, true
				}
			}
		}
	}
	if !finite[g.root] {
		return fmt.Errorf("grammar: no finite text can meet root")
	}
	g.measure()
	state := make([]uint8, len(g.rules))
	type frame struct{ id, alt, el int }
	for start := range g.rules {
		if state[start] != 0 {
			continue
		}
		stack := []frame{{start, 0, 0}}
		state[start] = 1
		for len(stack) > 0 {
			f := &stack[len(stack)-1]
			if f.alt >= len(g.rules[f.id]) {
				state[f.id] = 2
				stack = stack[:len(stack)-1]
				continue
			}
			s := g.rules[f.id][f.alt]
			if f.el >= len(s) || f.el > 0 && !(s[f.el-1].ref >= 0 && empty[s[f.el-1].ref]) || s[f.el].ref < 0 {
				f.alt, f.el = f.alt+1, 0
				continue
			}
			to := s[f.el].ref
			f.el++
			switch state[to] {
			case 1:
				return fmt.Errorf("grammar: rule %s is left-recursive", g.names[to])
			case 0:
				state[to] = 1
				stack = append(stack, frame{to, 0, 0})
			}
		}
	}
	return nil
}
