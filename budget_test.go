package certfarm

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// The budgets keep a file readable at one sitting, a function on one screen, and
// an interface in one's head. Tests and generated files are exempt.
const (
	fileLines   = 400
	funcLines   = 60
	portMethods = 5
)

func TestBudgets(t *testing.T) {
	for _, root := range []string{"internal", "cmd", "tools", "bench"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if path == root && err != nil {
				return fs.SkipDir // not there yet
			}
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
			if err == nil && !ast.IsGenerated(file) {
				weigh(t, set, file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func weigh(t *testing.T, set *token.FileSet, file *ast.File) {
	line := func(p token.Pos) int { return set.Position(p).Line }
	if n := line(file.FileEnd); n > fileLines+1 {
		t.Errorf("%s has %d lines, budget %d: it holds two subjects", set.Position(file.Pos()).Filename, n-1, fileLines)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if lines := line(n.End()) - line(n.Pos()) - 1; lines > funcLines {
				t.Errorf("%s: %s has %d lines, budget %d: it does two things", set.Position(n.Pos()), n.Name.Name, lines, funcLines)
			}
		case *ast.TypeSpec:
			if i, ok := n.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > portMethods {
				t.Errorf("%s: %s has %d methods, budget %d: it is two ports", set.Position(n.Pos()), n.Name.Name, i.Methods.NumFields(), portMethods)
			}
		}
		return true
	})
}
