package rollout_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// leastScore is the share of mutants that the tests must notice.
const leastScore = 0.95

// equivalent are mutants that change nothing which anybody could see, and why.
var equivalent = map[string]string{}

// TestMutants changes the package a little, in every way that it knows, and runs
// the quick tests on each: what they do not notice is not tested. It takes long,
// so it runs only with CERTFARM_SOAK set; CERTFARM_MUTANTS narrows it to those
// whose name has that text.
func TestMutants(t *testing.T) {
	if os.Getenv("CERTFARM_SOAK") == "" {
		t.Skip("takes long: CERTFARM_SOAK is not set")
	}
	var all []mutant
	for _, file := range []string{"rollout.go", "wave.go", "back.go", "record.go", "new.go"} {
		all = append(all, mutantsOf(t, file)...)
	}
	if only := os.Getenv("CERTFARM_MUTANTS"); only != "" {
		all = slices.DeleteFunc(all, func(m mutant) bool { return !strings.Contains(m.String(), only) })
	}
	verdicts := make([]string, len(all))
	var wg sync.WaitGroup
	next := make(chan int)
	for range 2 {
		wg.Go(func() {
			for i := range next {
				verdicts[i] = all[i].try(t)
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	score(t, all, verdicts)
}

func score(t *testing.T, all []mutant, verdicts []string) {
	count := map[string]int{}
	for i, m := range all {
		verdict := verdicts[i]
		if reason := equivalent[m.String()]; reason != "" && verdict == "lives" {
			verdict = "equivalent"
		}
		count[verdict]++
		if verdict == "lives" {
			t.Logf("lives: %s:%d %s", m.file, m.line, m)
		}
	}
	noticed := count["noticed"]
	share := float64(noticed) / float64(max(1, noticed+count["lives"]))
	t.Logf("mutants: %d noticed, %d live, %d equivalent, %d do not compile: score %.1f %%",
		noticed, count["lives"], count["equivalent"], count["does not compile"], 100*share)
	if share < leastScore {
		t.Errorf("score %.3f, at least %.2f wanted", share, leastScore)
	}
}

// A mutant is one small change to a file: text instead of what stands from
// offset from to offset to.
type mutant struct {
	file     string
	line     int
	place    string // the function
	was      string
	text     string
	from, to int
}

// String names a mutant without its line, which moves.
func (m mutant) String() string {
	return fmt.Sprintf("%s %s: %s → %s", m.file, m.place, oneLine(m.was), oneLine(m.text))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// try runs the quick tests on the mutant.
func (m mutant) try(t *testing.T) string {
	src, err := os.ReadFile(m.file)
	if err != nil {
		t.Error(err)
		return ""
	}
	dir := t.TempDir()
	here, err1 := filepath.Abs(m.file)
	changed, overlay := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
	src = slices.Concat(src[:m.from], []byte(m.text), src[m.to:])
	replace, err2 := json.Marshal(map[string]any{"Replace": map[string]string{here: changed}})
	if err := errors.Join(err1, err2, os.WriteFile(changed, src, 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil {
		t.Error(err)
		return ""
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-short", "-failfast", "-vet=off", "-count=1", "-timeout=60s",
		"-overlay", overlay, ".", "-rapid.nofailfile")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CERTFARM_") }), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "lives"
	case bytes.Contains(out, []byte("[build failed]")):
		return "does not compile"
	}
	return "noticed"
}

// mutantsOf lists the mutants of a file.
func mutantsOf(t *testing.T, name string) []mutant {
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &mutator{fset: fset, src: src}
	for _, decl := range file.Decls {
		if f, is := decl.(*ast.FuncDecl); is {
			w.place = f.Name.Name
		} else if g := decl.(*ast.GenDecl); g.Tok == token.CONST {
			w.place = "const"
		} else {
			continue
		}
		ast.Inspect(decl, w.node)
	}
	for i := range w.found {
		w.found[i].file = name
	}
	return w.found
}

type mutator struct {
	fset  *token.FileSet
	src   []byte
	place string
	found []mutant
}

func (w *mutator) change(from, to token.Pos, text string) {
	i, j := w.fset.Position(from).Offset, w.fset.Position(to).Offset
	w.found = append(w.found, mutant{
		line: w.fset.Position(from).Line, place: w.place, was: string(w.src[i:j]), text: text, from: i, to: j,
	})
}

func (w *mutator) text(n ast.Node) string {
	return string(w.src[w.fset.Position(n.Pos()).Offset:w.fset.Position(n.End()).Offset])
}

// operators are what an operator may be confused with.
var operators = map[token.Token][]string{
	token.EQL: {"!="}, token.NEQ: {"=="},
	token.LSS: {"<=", ">"}, token.LEQ: {"<", ">"}, token.GTR: {">=", "<"}, token.GEQ: {">", "<"},
	token.LAND: {"||"}, token.LOR: {"&&"},
	token.ADD: {"-"}, token.SUB: {"+"}, token.MUL: {"/"}, token.QUO: {"*"}, token.SHL: {">>"},
}

// words are what a word may be confused with: the next in its row.
var words = [][]string{
	{"true", "false"}, {"min", "max"}, {"calm", "hurried", "pressing"}, {"AbsentMax", "FailureBudget", "Canary"},
	{"Planned", "Staged", "Active", "Verified", "Absent", "Failed", "Restored", "Stuck"},
	{"DoStage", "DoActivate", "DoVerify", "DoRestore", "DoDiscard"}, {"NoFault", "NodeFault", "VersionFault"},
	{"Running", "Done", "DonePartly", "RolledBack", "RolledBackPart", "Superseded", "Halted"},
	{"Second", "Minute"}, {"unsure", "left", "planned", "active"}, {"Before", "After"}, {"Verified", "Seen", "Again"},
}

func (w *mutator) node(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		for _, op := range operators[n.Op] {
			w.change(n.Pos(), n.End(), w.text(n.X)+" "+op+" "+w.text(n.Y))
		}
		if n.Op == token.LAND || n.Op == token.LOR {
			w.change(n.Pos(), n.End(), w.text(n.X))
			w.change(n.Pos(), n.End(), w.text(n.Y))
		}
	case *ast.IfStmt:
		w.change(n.Cond.Pos(), n.Cond.End(), "!("+w.text(n.Cond)+")")
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			w.change(n.Pos(), n.End(), w.text(n.X))
		}
	case *ast.BasicLit:
		if i, err := strconv.Atoi(n.Value); err == nil {
			w.change(n.Pos(), n.End(), strconv.Itoa(i+1))
		}
	case *ast.Ident:
		for _, row := range words {
			if i := slices.Index(row, n.Name); i >= 0 {
				w.change(n.Pos(), n.End(), row[(i+1)%len(row)])
			}
		}
	case *ast.CaseClause:
		if len(n.Body) > 0 {
			w.change(n.Body[0].Pos(), n.Body[len(n.Body)-1].End(), "")
		}
		w.statements(n.Body)
	case *ast.BlockStmt:
		w.statements(n.List)
	}
	return true
}

// statements drops each statement by itself.
func (w *mutator) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				w.change(s.Pos(), s.End(), "")
			}
		case *ast.ExprStmt, *ast.IncDecStmt, *ast.BranchStmt, *ast.ReturnStmt, *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			w.change(s.Pos(), s.End(), "")
		}
	}
}
