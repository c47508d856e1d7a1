package attack

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// constraintForm is a constraint that can be asked for by name.
type constraintForm struct {
	name, form string
	need       Need
	make       func(v float64) Constraint
	whole      bool // takes a whole number
	bare       bool // takes no value
}

func constraintForms() []constraintForm {
	return []constraintForm{
		{name: "max-words", form: "max-words=N", whole: true, make: func(v float64) Constraint { return MaxWords{Words: int(v)} }},
		{name: "max-share", form: "max-share=0..1", make: func(v float64) Constraint { return MaxWords{Share: v} }},
		{name: "max-edits", form: "max-edits=N", whole: true, make: func(v float64) Constraint { return MaxEdits{int(v)} }},
		{name: "max-growth", form: "max-growth=N", whole: true, make: func(v float64) Constraint { return MaxGrowth{int(v)} }},
		{name: "min-length", form: "min-length=N", whole: true, make: func(v float64) Constraint { return MinLength{int(v)} }},
		{name: "similar", form: "similar=0..1", need: NeedEncoder, make: func(v float64) Constraint { return Similar{Min: v} }},
		{name: "similar-words", form: "similar-words=0..1", need: NeedEncoder, make: func(v float64) Constraint { return SimilarWords{v} }},
		{name: "same-part", form: "same-part", bare: true, make: func(float64) Constraint { return SamePart{} }},
		{name: "plausible", form: "plausible=0..1", need: NeedMasker, make: func(v float64) Constraint { return Plausible{v} }},
		{name: "looks-alike", form: "looks-alike=0..1", make: func(v float64) Constraint { return LooksAlike{v} }},
	}
}

// ConstraintForms lists what ParseConstraint reads.
func ConstraintForms() []string {
	var out []string
	for _, f := range constraintForms() {
		out = append(out, f.form)
	}
	return out
}

// ParseConstraint makes a constraint of "name" or "name=value", and tells what it needs of the run ("" for nothing).
func ParseConstraint(s string) (Constraint, Need, error) {
	name, value, given := strings.Cut(s, "=")
	forms := constraintForms()
	k := slices.IndexFunc(forms, func(f constraintForm) bool { return f.name == name })
	if k < 0 {
		return nil, "", fmt.Errorf("%q: expected one of %s", s, strings.Join(ConstraintForms(), ", "))
	}
	f := forms[k]
	if f.bare {
		if given {
			return nil, "", fmt.Errorf("%q: expected %s, without a value", s, name)
		}
		return f.make(0), f.need, nil
	}
	v, err := strconv.ParseFloat(value, 64)
	if err != nil || !(v >= 0) || f.whole && (v != float64(int(v)) || v > 1e6) || !f.whole && v > 1 {
		return nil, "", fmt.Errorf("%q: expected %s", s, f.form)
	}
	return f.make(v), f.need, nil
}

func searches() []Search {
	return []Search{
		GreedyRanked{By: Delete}, GreedyRanked{By: Unk}, GreedyRanked{By: Gradient}, GreedyRanked{By: Random}, GreedyRanked{By: Saliency},
		Guided{Keep: 2}, Beam{1}, Beam{8}, Genetic{Size: 60, Rounds: 20}, Swarm{Size: 60, Rounds: 20},
	}
}

func searchName(s Search) string {
	if b, ok := s.(Beam); ok {
		return fmt.Sprintf("beam:%d", max(1, b.Width))
	}
	return s.Name()
}

// SearchNames lists what ParseSearch reads.
func SearchNames() []string {
	var out []string
	for _, s := range searches() {
		out = append(out, searchName(s))
	}
	return out
}

// ParseSearch returns a search by name.
func ParseSearch(name string) (Search, error) {
	for _, s := range searches() {
		if searchName(s) == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no search %q, expected one of %s", name, strings.Join(SearchNames(), ", "))
}
