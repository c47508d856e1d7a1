package token

import (
	"encoding/json"
	"fmt"
	"strings"
)

// metaMark is SentencePiece's visible space, U+2581.
const metaMark = "\u2581"

// replacer replaces every match of a pattern.
type replacer struct {
	find    finder
	literal string
	content string
}

// finder lists the matches in a text, left to right and without overlap.
type finder interface {
	find(text []byte, cuts []cut) ([]cut, error)
}

type literalFinder struct{ what string }

func (f literalFinder) find(text []byte, cuts []cut) ([]cut, error) {
	done := 0
	for i := 0; len(f.what) > 0; {
		n := strings.Index(view(text[i:]), f.what)
		if n < 0 {
			break
		}
		lo := i + n
		hi := lo + len(f.what)
		if done < lo {
			cuts = append(cuts, cut{lo: done, hi: lo})
		}
		cuts = append(cuts, cut{lo: lo, hi: hi, match: true})
		done, i = hi, hi
	}
	if done < len(text) {
		cuts = append(cuts, cut{lo: done, hi: len(text)})
	}
	return cuts, nil
}

// loadPattern reads {"String": s} or {"Regex": r}.
func loadPattern(raw json.RawMessage) (finder, string, error) {
	var p struct {
		String *string
		Regex  *string
	}
	if isNull(raw) {
		return nil, "", fmt.Errorf("pattern: missing")
	}
	var plain string
	if json.Unmarshal(raw, &plain) == nil {
		p.String = &plain
	} else if err := json.Unmarshal(raw, &p); err != nil {
		return nil, "", fmt.Errorf("pattern: %w", err)
	}
	switch {
	case p.String != nil:
		return literalFinder{*p.String}, *p.String, nil
	case p.Regex != nil:
		f, err := compile(*p.Regex)
		return f, "", err
	}
	return nil, "", fmt.Errorf("pattern: expected {\"String\": …} or {\"Regex\": …}, got %.60s", raw)
}

func loadReplacer(raw json.RawMessage, content string) (*replacer, error) {
	f, literal, err := loadPattern(raw)
	if err != nil {
		return nil, err
	}
	return &replacer{find: f, literal: literal, content: content}, nil
}

func (r *replacer) normalize(sc *scratch, a *aligned) {
	cuts, err := r.find.find(a.text, sc.cuts[:0])
	sc.cuts = cuts
	if err != nil || len(cuts) == 0 || len(cuts) == 1 && !cuts[0].match {
		return
	}
	b := sc.begin(a.at != nil)
	for _, c := range cuts {
		if c.match {
			b.str(r.content, a.before(c.hi))
		} else {
			b.copy(a, c.lo, c.hi)
		}
	}
	a.text, a.at = b.done(sc)
}

// text is normalize for a plain string.
func (r *replacer) text(s string) string {
	if r.literal != "" {
		return strings.ReplaceAll(s, r.literal, r.content)
	}
	cuts, err := r.find.find([]byte(s), nil)
	if err != nil {
		return s
	}
	var out strings.Builder
	for _, c := range cuts {
		if c.match {
			out.WriteString(r.content)
		} else {
			out.WriteString(s[c.lo:c.hi])
		}
	}
	return out.String()
}
