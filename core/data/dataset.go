// Package data turns labelled text files (CSV, TSV, JSONL, Parquet) into data sets, and data sets into shuffled batches. Everything
// random is a pure function of a seed: the same seed gives the same splits, draws and batches on every machine.
package data

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Dataset is a table of examples. Slices that the file has no column for are nil; the others have one entry per example.
type Dataset struct {
	// Name is the file's path, for messages.
	Name  string
	Texts []string
	// Pairs is the second text of each example (entailment, similarity).
	Pairs []string
	// Labels index LabelNames.
	Labels     []int
	LabelNames []string
	// Values are the labels as numbers (Options.Numeric); Labels and LabelNames are nil then.
	Values []float32
	// Messages is the dialogue of each example (JSONL with "messages"); Texts are empty strings then.
	Messages [][]Message
	// Rows is the row of each example in its file, from 0, the header not counted.
	Rows []int
}

// Message is a turn of a dialogue.
type Message struct {
	Role    string `json:"role"` // "system", "user" or "assistant"
	Content string `json:"content"`
}

// Len is the number of examples.
func (d *Dataset) Len() int { return len(d.Texts) }

// LabelName is the name of example i's label, "" where there is none.
func (d *Dataset) LabelName(i int) string {
	if d.Labels == nil {
		return ""
	}
	return d.LabelNames[d.Labels[i]]
}

// Counts is the number of examples per label.
func (d *Dataset) Counts() []int {
	n := make([]int, len(d.LabelNames))
	for _, l := range d.Labels {
		n[l]++
	}
	return n
}

// Select returns the examples at the given positions, in that order; it shares strings and LabelNames with d. A position outside the
// data set is an error.
func (d *Dataset) Select(at []int) (*Dataset, error) {
	for _, i := range at {
		if i < 0 || i >= d.Len() {
			return nil, fmt.Errorf("%s: row %d is outside its %d rows (0 to %d)", d.Name, i, d.Len(), d.Len()-1)
		}
	}
	return d.pick(at), nil
}

func (d *Dataset) pick(at []int) *Dataset {
	return &Dataset{
		Name: d.Name, LabelNames: d.LabelNames,
		Texts: choose(d.Texts, at), Pairs: choose(d.Pairs, at), Labels: choose(d.Labels, at), Values: choose(d.Values, at),
		Messages: choose(d.Messages, at), Rows: choose(d.Rows, at),
	}
}

func choose[T any](s []T, at []int) []T {
	if s == nil {
		return nil
	}
	out := make([]T, len(at))
	for i, j := range at {
		out[i] = s[j]
	}
	return out
}

// RequireClasses reports an error unless there are labels of at least two kinds: nothing can be learnt from one.
func (d *Dataset) RequireClasses() error {
	if d.Labels == nil {
		return fmt.Errorf("%s: expected labelled examples, it has no labels", d.Name)
	}
	seen := map[int]bool{}
	for _, l := range d.Labels {
		seen[l] = true
	}
	switch len(seen) {
	case 0:
		return fmt.Errorf("%s: expected examples of at least two labels, it has no examples", d.Name)
	case 1:
		return fmt.Errorf("%s: expected examples of at least two labels, all %d have the label %q", d.Name, d.Len(), d.LabelName(0))
	}
	return nil
}

// MapLabels renumbers the labels to the positions in names, which are a model's (id2label). A label is matched exactly, else
// without regard to case; when the file numbers its labels and the model names them (or calls them LABEL_0, LABEL_1 …), the number is the
// position. A label that the model does not know is an error that lists those it knows.
func (d *Dataset) MapLabels(names []string) error {
	if d.Labels == nil {
		return nil
	}
	used := d.Counts()
	to := make([]int, len(d.LabelNames))
	for i, name := range d.LabelNames {
		if to[i] = findLabel(name, names); to[i] < 0 {
			if used[i] == 0 {
				continue // named by the file's type, on no example
			}
			row := d.Rows[slices.Index(d.Labels, i)]
			return fmt.Errorf("%s: row %d: unknown label %q, the model knows %s", d.Name, row, name, quoteList(names))
		}
	}
	labels := make([]int, len(d.Labels)) // d may share its slice with a selection
	for i, l := range d.Labels {
		labels[i] = to[l]
	}
	d.Labels, d.LabelNames = labels, slices.Clone(names)
	return nil
}

func findLabel(name string, names []string) int {
	if i := slices.Index(names, name); i >= 0 {
		return i
	}
	found := -1
	for i, n := range names {
		if strings.EqualFold(n, name) {
			if found >= 0 {
				return -1 // two labels that differ in case only
			}
			found = i
		}
	}
	if found >= 0 {
		return found
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(names) && strconv.Itoa(i) == name {
		numbered := slices.ContainsFunc(names, func(n string) bool { _, err := strconv.ParseFloat(n, 64); return err == nil })
		if !numbered {
			return i
		}
	}
	return -1
}

func quoteList(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	const most = 40
	q := make([]string, 0, min(len(names), most))
	for _, n := range names[:min(len(names), most)] {
		q = append(q, strconv.Quote(n))
	}
	s := strings.Join(q, ", ")
	if len(names) > most {
		s += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return s
}

// setLabels numbers label names: whole numbers in numeric order, anything else in byte order, so that the numbering depends on the set of
// labels and not on the order of the rows.
func (d *Dataset) setLabels(names []string) {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	d.LabelNames = slices.Collect(maps.Keys(set))
	numeric := true
	for n := range set {
		if v, err := strconv.Atoi(n); err != nil || strconv.Itoa(v) != n {
			numeric = false
		}
	}
	slices.SortFunc(d.LabelNames, func(a, b string) int {
		if numeric {
			x, _ := strconv.Atoi(a)
			y, _ := strconv.Atoi(b)
			return x - y
		}
		return strings.Compare(a, b)
	})
	index := make(map[string]int, len(d.LabelNames))
	for i, n := range d.LabelNames {
		index[n] = i
	}
	d.Labels = make([]int, len(names))
	for i, n := range names {
		d.Labels[i] = index[n]
	}
}

// Concat joins data sets of the same columns; labels are matched by name.
func Concat(sets ...*Dataset) (*Dataset, error) {
	if len(sets) == 0 {
		return nil, errors.New("no data sets to join")
	}
	out := &Dataset{Name: sets[0].Name}
	var names []string
	for _, d := range sets {
		if (d.Labels == nil) != (sets[0].Labels == nil) || (d.Pairs == nil) != (sets[0].Pairs == nil) || (d.Values == nil) != (sets[0].Values == nil) ||
			(d.Messages == nil) != (sets[0].Messages == nil) {
			return nil, fmt.Errorf("cannot join %s and %s: their columns differ", sets[0].Name, d.Name)
		}
		out.Texts = append(out.Texts, d.Texts...)
		out.Pairs = append(out.Pairs, d.Pairs...)
		out.Values = append(out.Values, d.Values...)
		out.Messages = append(out.Messages, d.Messages...)
		out.Rows = append(out.Rows, d.Rows...)
		for i := range d.Labels {
			names = append(names, d.LabelName(i))
		}
	}
	if sets[0].Labels != nil {
		out.setLabels(names)
	}
	return out, nil
}
