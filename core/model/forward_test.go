package model

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// One forward: a family says how ids enter its first block and what a block does, once each; the order of things, tape or no tape,
// cache or no cache, is the same code for all of them. A second path shows in this test.
func TestOneForward(t *testing.T) {
	fset := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	methods := map[string][]string{} // by receiver
	forwards := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			recv := ""
			if f.Recv != nil {
				recv = typeName(f.Recv.List[0].Type)
				methods[recv] = append(methods[recv], f.Name.Name)
			}
			if returns(f, "Output") {
				forwards++
				assert.Equal(t, "net.Forward", recv+"."+f.Name.Name, "a second forward")
			}
			ast.Inspect(f, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				at := fset.Position(s.Pos())
				assert.NotEqual(t, "Recording", s.Sel.Name, "%s: a forward that asks whether it is recorded", at)
				if s.Sel.Name == "Cache" {
					assert.Equal(t, "network.go", at.Filename, "%s: the cache belongs to the one forward", at)
				}
				return true
			})
		}
	}
	require.Equal(t, 1, forwards)
	networks := 0
	delete(methods, "builder") // it makes layers, it runs none
	for recv, names := range methods {
		embeds, blocks := 0, 0
		for _, n := range names {
			switch {
			case n == "embed":
				embeds++
			case n == "block":
				blocks++
			}
			for _, part := range []string{"forward", "infer", "decode", "generate", "prefill", "step"} {
				assert.False(t, strings.HasPrefix(strings.ToLower(n), part) && recv+n != "netForward", "%s.%s: a second forward", recv, n)
			}
		}
		assert.Equal(t, embeds, blocks, recv)
		assert.LessOrEqual(t, embeds, 1, recv)
		networks += embeds
	}
	// BERT and its kin, DeBERTa, and those with norms before: all families are made of these three.
	assert.Equal(t, 3, networks)
}

func typeName(e ast.Expr) string {
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

func returns(f *ast.FuncDecl, name string) bool {
	if f.Type.Results == nil {
		return false
	}
	for _, r := range f.Type.Results.List {
		if typeName(r.Type) == name {
			return true
		}
	}
	return false
}
