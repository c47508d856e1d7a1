// Package layering holds the rule of DESIGN: an import goes strictly to a lower layer.
package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/tests/fixture"
)

const module = "github.com/temper-ml/temper/"

// layers gives each package (or package tree, ending in "/") its number. The longest match counts.
var layers = map[string]int{
	"core/tensor":         0,
	"core/token":          0,
	"core/chart":          0,
	"core/digest":         0,
	"core/builtin/":       1,
	"core/builtin":        1,
	"core/data":           1,
	"core/data/":          1,
	"core/checkpoint":     1,
	"core/checkpoint/":    1,
	"core/bundle":         2,
	"core/chat":           1,
	"core/sample":         1,
	"core/grammar":        1,
	"core/hub":            1,
	"core/attack":         1,
	"core/attack/":        2,
	"backend":             1,
	"backend/native":      2,
	"backend/native/":     2,
	"backend/wasm":        2,
	"backend/wasm/host":   3,
	"backend/wasm/":       2,
	"backend/backendtest": 2,
	"core/grad":           2,
	"plugins/abi":         2,
	"plugins/meter":       1,
	"plugins/host":        3,
	"plugins/author":      4,
	"core/model":          3,
	"core/peft":           4,
	"core/quant":          4,
	"core/pipeline":       5,
	"core/generate":       5,
	"core/train":          5,
	"core/harden":         6,
	"core/harden/smooth":  2, // votes over a victim, whatever that is
	"core/serve":          6,
	"core/distill":        6,
	"core/pretrain":       6,
	"core/zeroshot":       6,
	"js":                  3,
	"browser-demo":        6,
	"cmd/":                7,
}

// sameLayer lists the pairs inside one layer that may import one another's way, each with its reason in RATIONALE.md.
var sameLayer = map[[2]string]bool{}

type pkg struct {
	ImportPath string
	Imports    []string
}

func layer(path string) (int, bool) {
	best, n := -1, 0
	for p, l := range layers {
		if (path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p)) && len(p) > n {
			best, n = l, len(p)
		}
	}
	return best, best >= 0
}

func list(t *testing.T, env ...string) []pkg {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	cmd.Dir = fixture.Root()
	cmd.Env = append(os.Environ(), env...)
	var errb strings.Builder
	cmd.Stderr = &errb
	out, err := cmd.Output()
	require.NoError(t, err, errb.String())
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else {
			require.NoError(t, err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestImportsGoDown(t *testing.T) {
	for _, env := range [][]string{{"GOOS=linux", "GOARCH=amd64"}, {"GOOS=wasip1", "GOARCH=wasm"}} {
		t.Run(env[0], func(t *testing.T) {
			seen := 0
			for _, p := range list(t, env...) {
				from, ok := strings.CutPrefix(p.ImportPath, module)
				if !ok || strings.HasPrefix(from, "tests/") || strings.HasPrefix(from, "plugins/sdk/") || strings.HasPrefix(from, "plugins/examples/") {
					continue
				}
				lf, ok := layer(from)
				require.True(t, ok, "%s has no layer: add it to the table and say why in RATIONALE.md", from)
				for _, imp := range p.Imports {
					to, ok := strings.CutPrefix(imp, module)
					if !ok {
						continue
					}
					seen++
					lt, ok := layer(to)
					require.True(t, ok, "%s imports %s, which has no layer", from, to)
					if sameLayer[[2]string{from, to}] {
						continue
					}
					require.Less(t, lt, lf, "%s (layer %d) imports %s (layer %d)", from, lf, to, lt)
					if strings.HasPrefix(from, "core/") {
						require.False(t, strings.HasPrefix(to, "backend/") || strings.HasPrefix(to, "plugins/"),
							"%s imports %s: core gets its backend and plugins injected", from, to)
					}
				}
			}
			require.Greater(t, seen, 10, "too few imports seen: is the module path right?")
		})
	}
}
