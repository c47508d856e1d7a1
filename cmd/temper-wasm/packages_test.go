//go:build !wasip1

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPackages lists what the page's engine is made of: nothing that only a command, a server or a report needs may slip in.
func TestPackages(t *testing.T) {
	c := exec.Command("go", "list", "-deps", ".")
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	out, err := c.Output()
	require.NoError(t, err)
	packages := strings.Fields(string(out))
	require.Contains(t, packages, "github.com/temper-ml/temper/core/pipeline")
	refused := []string{"html", "html/template", "text/template", "net", "net/http", "net/url", "regexp", "crypto/sha256", "log", "flag", "testing", "image",
		"database", "go/ast", "github.com/parquet-go", "github.com/klauspost", "github.com/spf13", "github.com/charmbracelet", "github.com/tetratelabs",
		"google.golang.org", "gonum.org", "github.com/temper-ml/temper/core/chart", "github.com/temper-ml/temper/core/serve", "github.com/temper-ml/temper/core/hub",
		"github.com/temper-ml/temper/core/attack/report", "github.com/temper-ml/temper/core/harden", "github.com/temper-ml/temper/core/pretrain",
		"github.com/temper-ml/temper/core/distill", "github.com/temper-ml/temper/backend/native", "github.com/temper-ml/temper/plugins/host", "github.com/temper-ml/temper/cmd/temper"}
	var ours []string
	for _, p := range packages {
		for _, r := range refused {
			// The grammars of generate know the syntax of regular expressions, which the linker leaves out.
			require.False(t, p == r || strings.HasPrefix(p, r+"/") && p != "regexp/syntax", "the page's engine holds %s", p)
		}
		if strings.Contains(p, ".") {
			ours = append(ours, strings.TrimPrefix(p, "github.com/temper-ml/temper/"))
		}
	}
	t.Logf("%d packages, beside the standard library's:\n%s", len(packages), strings.Join(ours, "\n"))
}
