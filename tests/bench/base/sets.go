package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"

	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/train"
)

// set is one task.
type set struct {
	Name  string
	train string

	F1 bool // judged by macro-F1
}

var sets = []set{
	{Name: "sms_spam", train: "train", F1: true}, {Name: "sst2", train: "train_sentences"}, {Name: "ag_news", train: "train"},
	{Name: "trec6", train: "train"}, {Name: "banking77", train: "train"}, {Name: "clinc150", train: "train"}, {Name: "spamassassin", train: "train"},
}

// Bounds on rows: what is beyond adds time and no news.
const (
	fullRows  = 5_000
	testRows  = 1_000
	longRows  = 2_000
	tunedRows = 1_000
	seeds     = 3
)

// task is a set read from disk: rows of the training part that any draw uses, and the test part.
type task struct {
	set
	train, test *data.Dataset
	few         [seeds][]int // rows of train, 16 a class
	full        []int
	tuned       []int
}

func readTask(dir string, s set) (*task, error) {
	t := &task{set: s}
	var err error
	if t.train, err = data.Open(filepath.Join(dir, s.Name, s.train+".tsv"), data.Options{}); err != nil {
		return nil, err
	}
	if t.test, err = data.Open(filepath.Join(dir, s.Name, "test.tsv"), data.Options{}); err != nil {
		return nil, err
	}
	if err := t.test.MapLabels(t.train.LabelNames); err != nil {
		return nil, err
	}
	if t.test.Len() > testRows {
		if t.test, err = t.test.Select(some(t.test.Len(), testRows, 1)); err != nil {
			return nil, err
		}
	}
	for seed := range t.few {
		draw := filepath.Join(dir, "draws", fmt.Sprintf("%s-%s-few16-seed%d.txt", s.Name, s.train, seed))
		if t.few[seed], err = data.ReadRows(draw); err != nil { // sets without draws of their own
			t.few[seed] = shots(t.train, 16, uint64(seed))
		}
	}
	most := fullRows
	if s.Name == "spamassassin" { // whole mails: as many tokens in fewer rows
		most = longRows
	}
	t.full = some(t.train.Len(), most, 2)
	t.tuned = some(t.train.Len(), tunedRows, 3)
	return t, nil
}

// some picks at most n of total rows.
func some(total, n int, seed uint64) []int {
	at := rand.New(rand.NewPCG(seed, 0x726f7773)).Perm(total)
	return at[:min(n, total)]
}

func shots(d *data.Dataset, n int, seed uint64) []int {
	taken := map[int]int{}
	var out []int
	for _, i := range some(d.Len(), d.Len(), 100+seed) {
		if taken[d.Labels[i]] < n {
			taken[d.Labels[i]]++
			out = append(out, i)
		}
	}
	return out
}

// score is what the set is judged by.
func (t *task) score(s train.Scores) float64 {
	if t.F1 {
		return s.MacroF1
	}
	return s.Accuracy
}
