// Package parity compares temper with the libraries whose files it reads, on fixtures that those libraries wrote.
//
// TestParity walks every folder of the fixtures and hands it to the runner of its kind: models, peft, tokenizers, train, adversarial,
// gguf, chat. A kind without a runner fails, as does a file that nobody looks at: nothing is passed over. To add a kind, write
// parity_KIND_test.go with
//
//	var _ = register("KIND", kind{fixture: func(t *testing.T, dir string) { … }, top: func(t *testing.T, dir string, files []string) { … }})
package parity

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/tests/fixture"
)

// kind is a sort of fixture: a folder at the top of the fixtures.
type kind struct {
	// fixture runs one folder below the kind's; nil when there are none.
	fixture func(t *testing.T, dir string)
	// top runs the files that lie in the kind's own folder; nil when there are none.
	top func(t *testing.T, dir string, files []string)
}

var kinds = map[string]kind{}

func register(name string, k kind) struct{} {
	if _, ok := kinds[name]; ok {
		panic("parity: kind " + name + " is registered twice")
	}
	kinds[name] = k
	return struct{}{}
}

// TestParity runs all fixtures. `go test ./tests/parity -run TestParity/models/bert -v` runs some and prints the table of errors.
func TestParity(t *testing.T) {
	root := fixture.Parity(t)
	defer results.print(t)
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	found := 0
	for _, e := range entries {
		if !e.IsDir() {
			require.Equal(t, "README.md", e.Name(), "a file that no runner looks at")
			continue
		}
		found++
		t.Run(e.Name(), func(t *testing.T) {
			k, ok := kinds[e.Name()]
			require.True(t, ok, "no runner for fixtures of kind %q", e.Name())
			runKind(t, k, filepath.Join(root, e.Name()))
		})
	}
	require.NotZero(t, found, "%s holds no fixtures", root)
	if os.Getenv("TEMPER_PARITY") == "" { // a folder that is named may hold some of them only
		for name := range kinds {
			_, err := os.Stat(filepath.Join(root, name))
			require.NoError(t, err, "fixtures of kind %q are gone", name)
		}
	}
}

func runKind(t *testing.T, k kind, dir string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var files []string
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, e.Name())
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			require.NotNil(t, k.fixture, "no runner for folders of this kind")
			k.fixture(t, filepath.Join(dir, e.Name()))
		})
	}
	if k.top != nil {
		t.Run("top", func(t *testing.T) { k.top(t, dir, files) })
		return
	}
	// What an overview of the other fixtures may be called.
	files = slices.DeleteFunc(files, func(f string) bool { return f == "summary.json" || f == "not_possible.json" })
	require.Empty(t, files, "files that no runner looks at")
}

// results collects the largest error of each fixture for the table that -v prints.
var results table

type table struct {
	mu   sync.Mutex
	rows map[string]map[string]float64
}

// add notes an error of a fixture under a column ("logits", "grad").
func (r *table) add(t *testing.T, column string, err float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rows == nil {
		r.rows = map[string]map[string]float64{}
	}
	name := strings.TrimPrefix(t.Name(), "TestParity/")
	if r.rows[name] == nil {
		r.rows[name] = map[string]float64{}
	}
	r.rows[name][column] = max(r.rows[name][column], err)
}

func (r *table) print(t *testing.T) {
	var names, columns []string
	for name, row := range r.rows {
		names = append(names, name)
		for c := range row {
			if !slices.Contains(columns, c) {
				columns = append(columns, c)
			}
		}
	}
	slices.Sort(names)
	slices.Sort(columns)
	var b strings.Builder
	fmt.Fprintf(&b, "%-50s", "fixture")
	for _, c := range columns {
		fmt.Fprintf(&b, " %10s", c)
	}
	for _, name := range names {
		fmt.Fprintf(&b, "\n%-50s", name)
		for _, c := range columns {
			if v, ok := r.rows[name][c]; ok {
				fmt.Fprintf(&b, " %10.2g", v)
			} else {
				fmt.Fprintf(&b, " %10s", "")
			}
		}
	}
	t.Log("\n" + b.String())
}
