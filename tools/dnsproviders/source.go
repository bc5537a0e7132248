package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A source is what a provider's Go code tells.
type source struct {
	imports    []string // modules' packages, other than lego's
	sequential bool     // it wants its calls for a zone one after another
	forgets    bool     // its CleanUp goes by what its Present left in memory
}

// stands reports whether all that the provider imports may be linked.
func (s source) stands() bool {
	for _, i := range s.imports {
		if !slices.ContainsFunc(clients, func(m string) bool { return i == m || strings.HasPrefix(i, m+"/") }) {
			return false
		}
	}
	return true
}

// read reads a provider's package, those below it, and what it shares with others.
func read(root, name string) (source, error) {
	var s source
	todo, seen := []string{name}, map[string]bool{}
	for len(todo) > 0 {
		dir := todo[0]
		todo = todo[1:]
		if seen[dir] {
			continue
		}
		seen[dir] = true
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err == nil {
				todo = append(todo, s.learn(file)...)
			}
			return err
		})
		if err != nil {
			return source{}, err
		}
	}
	return s, nil
}

// learn takes in one file, and gives the folders of lego's that it uses.
func (s *source) learn(file *ast.File) (shared []string) {
	for _, i := range file.Imports {
		name, _ := strconv.Unquote(i.Path.Value)
		if own, ok := strings.CutPrefix(name, lego+"/"); ok {
			if dir, ok := strings.CutPrefix(own, "providers/dns/"); ok {
				shared = append(shared, dir)
			}
			continue
		}
		if strings.Contains(strings.Split(name, "/")[0], ".") {
			s.imports = append(s.imports, name)
		}
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv == nil {
			continue
		}
		s.sequential = s.sequential || f.Name.Name == "Sequential"
		s.forgets = s.forgets || f.Name.Name == "CleanUp" && looksUp(f)
	}
	return shared
}

// looksUp reports whether a method looks something up in a map of its receiver:
// d.recordIDs[token].
func looksUp(f *ast.FuncDecl) (found bool) {
	if len(f.Recv.List[0].Names) == 0 {
		return false
	}
	me := f.Recv.List[0].Names[0].Name
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if i, ok := n.(*ast.IndexExpr); ok {
			if sel, ok := i.X.(*ast.SelectorExpr); ok {
				who, ok := sel.X.(*ast.Ident)
				found = found || ok && who.Name == me
			}
		}
		return true
	})
	return found
}
