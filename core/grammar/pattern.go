package grammar

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
)

// pattern turns a regular expression into an expression for JSON strings that match it, quotes included. A pattern that is not anchored may stand
// anywhere in the string, as the standard says. What no grammar can say (looking around, references back) is an error, and so is an anchor
// inside.
func pattern(source string) (string, error) {
	re, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return "", fmt.Errorf("pattern %q: %w", source, err)
	}
	body, err := anchored(re)
	if err != nil {
		return "", fmt.Errorf("pattern %q: %w", source, err)
	}
	return `"\"" ` + body + ` "\""`, nil
}

func anchored(re *syntax.Regexp) (string, error) {
	for re.Op == syntax.OpCapture {
		re = re.Sub[0]
	}
	if re.Op == syntax.OpAlternate {
		var alts []string
		for _, sub := range re.Sub {
			s, err := anchored(sub)
			if err != nil {
				return "", err
			}
			alts = append(alts, s)
		}
		return "( " + strings.Join(alts, " | ") + " )", nil
	}
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	before, after := "char* ", " char*"
	if len(parts) > 0 && parts[0].Op == syntax.OpBeginText {
		before, parts = "", parts[1:]
	}
	if n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText {
		after, parts = "", parts[:n-1]
	}
	inner := `""`
	if len(parts) > 0 {
		s, err := sequence(parts)
		if err != nil {
			return "", err
		}
		inner = s
	}
	return before + inner + after, nil
}

func sequence(parts []*syntax.Regexp) (string, error) {
	var out []string
	for _, p := range parts {
		s, err := expression(p)
		if err != nil {
			return "", err
		}
		out = append(out, s)
	}
	return "( " + strings.Join(out, " ") + " )", nil
}

func expression(re *syntax.Regexp) (string, error) {
	repeat := func(suffix string) (string, error) {
		s, err := expression(re.Sub[0])
		return "( " + s + " )" + suffix, err
	}
	switch re.Op {
	case syntax.OpEmptyMatch:
		return `""`, nil
	case syntax.OpLiteral:
		var out []string
		for _, r := range re.Rune {
			set := []rune{r, r}
			if re.Flags&syntax.FoldCase != 0 {
				for _, v := range []string{strings.ToLower(string(r)), strings.ToUpper(string(r))} {
					if u := []rune(v); len(u) == 1 {
						set = append(set, u[0], u[0])
					}
				}
			}
			s, err := class(set)
			if err != nil {
				return "", err
			}
			out = append(out, s)
		}
		return "( " + strings.Join(out, " ") + " )", nil
	case syntax.OpCharClass:
		return class(re.Rune)
	case syntax.OpAnyChar:
		return "char", nil
	case syntax.OpAnyCharNotNL:
		return class([]rune{0x20, 0x10ffff})
	case syntax.OpCapture:
		return expression(re.Sub[0])
	case syntax.OpConcat:
		return sequence(re.Sub)
	case syntax.OpAlternate:
		var alts []string
		for _, sub := range re.Sub {
			s, err := expression(sub)
			if err != nil {
				return "", err
			}
			alts = append(alts, s)
		}
		return "( " + strings.Join(alts, " | ") + " )", nil
	case syntax.OpStar:
		return repeat("*")
	case syntax.OpPlus:
		return repeat("+")
	case syntax.OpQuest:
		return repeat("?")
	case syntax.OpRepeat:
		switch {
		case re.Max < 0:
			return repeat(fmt.Sprintf("{%d,}", re.Min))
		case re.Max == 0:
			return `""`, nil
		}
		return repeat(fmt.Sprintf("{%d,%d}", re.Min, re.Max))
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText:
		return "", fmt.Errorf("^ and $ are supported at its ends only")
	}
	return "", fmt.Errorf("%s is not supported", re)
}

// class is a set of characters, pairs of first and last, as they stand in a JSON string. Of control characters, those with a short escape count.
func class(set []rune) (string, error) {
	var plain strings.Builder
	var alts []string
	for i := 0; i+1 < len(set); i += 2 {
		lo, hi := set[i], set[i+1]
		for r, s := range map[rune]string{'"': `"\\\""`, '\\': `"\\\\"`, '\n': `"\\n"`, '\r': `"\\r"`, '\t': `"\\t"`} {
			if lo <= r && r <= hi {
				alts = append(alts, s)
			}
		}
		// What must be escaped, and halves of pairs, are cut out.
		for _, cut := range [][2]rune{{0x20, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, 0xd7ff}, {0xe000, 0x10ffff}} {
			if a, b := max(lo, cut[0]), min(hi, cut[1]); a <= b {
				fmt.Fprintf(&plain, `\U%08x-\U%08x`, a, b)
			}
		}
	}
	if plain.Len() > 0 {
		alts = append(alts, "["+plain.String()+"]")
	}
	if len(alts) == 0 {
		return "", fmt.Errorf("a set of characters that cannot stand in a text")
	}
	slices.Sort(alts)
	return "( " + strings.Join(slices.Compact(alts), " | ") + " )", nil
}
