package attack

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
)

// Journal makes a run resumable: a file of JSON lines, first what the run was, then one line per finished example. A nil Journal keeps
// nothing. A last line cut short by a crash is dropped.
type Journal struct {
	path string
	file *os.File
	head *journalHead
	done map[journalKey]Result
}

type journalHead struct {
	Journal int      `json:"attack_journal"`
	Recipe  string   `json:"recipe"`
	Version int      `json:"recipe_version"`
	Goal    string   `json:"goal"`
	Seed    uint64   `json:"seed"`
	Budget  int      `json:"budget"`
	Labels  []string `json:"labels"`
	// Victim names the model, so that a journal of another is refused.
	Victim string            `json:"victim,omitempty"`
	Params map[string]string `json:"params,omitempty"`
}

type journalKey struct {
	row, label int
	text       string
}

// OpenJournal opens or makes the file. victim names the model attacked, a checksum for example; a journal of another is refused.
func OpenJournal(path, victim string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{path: path, file: f, done: map[journalKey]Result{}}
	if err := j.load(victim); err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

func (j *Journal) load(victim string) error {
	data, err := io.ReadAll(j.file)
	if err != nil {
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	lines := bufio.NewScanner(bytes.NewReader(data[:whole]))
	lines.Buffer(nil, 64<<20)
	for n := 1; lines.Scan(); n++ {
		if n == 1 {
			j.head = &journalHead{}
			if err := json.Unmarshal(lines.Bytes(), j.head); err != nil || j.head.Journal != 1 {
				return fmt.Errorf("journal %s: line 1 is not the head of an attack journal of version 1", j.path)
			}
			if j.head.Victim != victim {
				return fmt.Errorf("journal %s belongs to model %q, not %q: remove it to start anew", j.path, j.head.Victim, victim)
			}
			continue
		}
		var r Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("journal %s: line %d: %w", j.path, n, err)
		}
		j.done[journalKey{r.Row, r.Label, r.Text}] = r
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	if err := j.file.Truncate(int64(whole)); err != nil {
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	if _, err := j.file.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	if j.head == nil {
		j.head = &journalHead{Victim: victim}
	}
	return nil
}

func (j *Journal) begin(recipe Recipe, opts Options, labels []string, goal Goal) error {
	if j == nil {
		return nil
	}
	want := journalHead{1, recipe.Name, recipe.Version, goal.Name(), opts.Seed, opts.Budget, labels, j.head.Victim, opts.Params}
	if j.head.Journal == 0 {
		*j.head = want
		return j.write(want)
	}
	if !reflect.DeepEqual(*j.head, want) {
		return fmt.Errorf("journal %s is of another run (recipe %s, seed %d, budget %d): remove it to start anew", j.path, j.head.Recipe, j.head.Seed, j.head.Budget)
	}
	return nil
}

func (j *Journal) find(e Example) (Result, bool) {
	if j == nil {
		return Result{}, false
	}
	r, ok := j.done[journalKey{e.Row, e.Label, e.Text}]
	return r, ok
}

func (j *Journal) add(r Result) error {
	if j == nil {
		return nil
	}
	return j.write(r)
}

func (j *Journal) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	return nil
}

// Finished is the number of examples that an earlier run left.
func (j *Journal) Finished() int { return len(j.done) }

// Close closes the file.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	if err := j.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	return nil
}
