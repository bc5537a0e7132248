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
// an interface and the ways through a function in one's head. Tests and generated
// files are exempt; contract suites and test doubles may have more ways.
const (
	fileLines   = 400
	funcLines   = 60
	portMethods = 5
	funcWays    = 12
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
	name := filepath.ToSlash(set.Position(file.Pos()).Filename)
	double := strings.Contains(name, "test/") // as .golangci.yml has it
	line := func(p token.Pos) int { return set.Position(p).Line }
	if n := line(file.FileEnd); n > fileLines+1 {
		t.Errorf("%s has %d lines, budget %d: it holds two subjects", name, n-1, fileLines)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if lines := line(n.End()) - line(n.Pos()) - 1; lines > funcLines {
				t.Errorf("%s: %s has %d lines, budget %d: it does two things", set.Position(n.Pos()), n.Name.Name, lines, funcLines)
			}
			if sum := ways(n); sum > funcWays && !double {
				t.Errorf("%s: %s has a cyclomatic complexity of %d, budget %d: it decides two things", set.Position(n.Pos()), n.Name.Name, sum, funcWays)
			}
		case *ast.TypeSpec:
			if i, ok := n.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > portMethods {
				t.Errorf("%s: %s has %d methods, budget %d: it is two ports", set.Position(n.Pos()), n.Name.Name, i.Methods.NumFields(), portMethods)
			}
		}
		return true
	})
}

// ways is the cyclomatic complexity of a function as cyclop of golangci-lint counts
// it: one, and one for each if, loop, case (default too), && and ||, those of the
// functions inside included.
func ways(f *ast.FuncDecl) int {
	sum := 1
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt, *ast.CaseClause, *ast.CommClause:
			sum++
		case *ast.BinaryExpr:
			if n.Op == token.LAND || n.Op == token.LOR {
				sum++
			}
		}
		return true
	})
	return sum
}

func TestWays(t *testing.T) {
	for body, want := range map[string]int{
		"":                                       1,
		"if a && b || c {} else if d {} else {}": 5,
		"for range 3 { for {} }":                 3,
		"switch a { case 1, 2: case 3: default: }": 4,
		"switch a.(type) { case int: }":            2,
		"select { case <-a: default: }":            3,
		"a(func() { if b {} }); return b && !c":    3,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "f.go", "package p\nfunc f() {"+body+"}", 0)
		if err != nil {
			t.Fatal(err)
		}
		if sum := ways(file.Decls[0].(*ast.FuncDecl)); sum != want {
			t.Errorf("%s: %d, want %d", body, sum, want)
		}
	}
}
