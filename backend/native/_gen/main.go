// Command gen writes the assembly of package native. Run it in its folder: go run . writes the files, go run . -check compares them.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

func main() {
	check := flag.Bool("check", false, "compare the committed files with what would be written, and write nothing")
	flag.Parse()
	if err := run("..", *check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run generates one assembly file and one file of Go prototypes for each level into dir.
func run(dir string, check bool) error {
	files := map[string][]byte{}
	for _, l := range []struct {
		file string
		emit func(c *build.Context)
	}{
		{"avx2", func(c *build.Context) { emitF32(newGen(c, 8, "AVX2")) }},
		{"avx512", func(c *build.Context) { emitF32(newGen(c, 16, "AVX512")) }},
		{"vnni", func(c *build.Context) { emitVNNI(newGen(c, 16, "AVX512")) }},
		{"bf16", func(c *build.Context) { emitBF16(newGen(c, 16, "AVX512")) }},
	} {
		c := build.NewContext()
		c.ConstraintExpr("!purego")
		l.emit(c)
		f, err := c.Result()
		if err != nil {
			return fmt.Errorf("%s: %w", l.file, err)
		}
		if err := pass.Compile.Execute(f); err != nil {
			return fmt.Errorf("%s: %w", l.file, err)
		}
		cfg := printer.Config{Name: "go run . in _gen", Pkg: "native"}
		asm, err := printer.NewGoAsm(cfg).Print(f)
		if err != nil {
			return fmt.Errorf("%s: %w", l.file, err)
		}
		asm = encodeBF16(asm)
		if l.file == "avx2" {
			if high := regexp.MustCompile(`\b[XYZ](1[6-9]|2\d|3[01])\b|\bZ\d`).Find(asm); high != nil {
				return fmt.Errorf("%s: register %s needs AVX-512", l.file, high)
			}
		}
		stubs, err := printer.NewStubs(cfg).Print(f)
		if err != nil {
			return fmt.Errorf("%s: %w", l.file, err)
		}
		files[l.file+"_amd64.s"] = asm
		files["stubs_"+l.file+"_amd64.go"] = stubs
	}
	files["neon_arm64.s"], files["stubs_neon_arm64.go"] = neon()
	files["amx_amd64.s"], files["stubs_amx_amd64.go"] = amx()
	var stale []string
	for name, want := range files {
		path := filepath.Join(dir, name)
		if check {
			if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, want) {
				stale = append(stale, name)
			}
		} else if err := os.WriteFile(path, want, 0o644); err != nil {
			return err
		}
	}
	if stale != nil {
		return fmt.Errorf("generated files differ from their generator, run go run . in backend/native/_gen: %s", strings.Join(stale, ", "))
	}
	return nil
}
