package rollout_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
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
var equivalent = map[string]string{
	`rollout.go finish: verified == 0 && !slices.ContainsFunc(v.Steps, left) → !slices.ContainsFunc(v.Steps, left)`:            "what is verified was touched, so it is left",
	`rollout.go end: len(d.Acts) > 0 || slices.ContainsFunc(v.Steps, v.unsettled) → slices.ContainsFunc(v.Steps, v.unsettled)`: "whatever an act begins on is unsettled",
	`rollout.go end: len(d.Acts) > 0 → len(d.Acts) < 0`:                                                                        "the same",
	`rollout.go end: 0 → 1`: "the same",
	`rollout.go nextTry: s.Doing == "" && s.Again.After(v.now) → s.Again.After(v.now)`:                                                  "Begin clears Again",
	`wave.go steps: s.State == farm.Planned || s.State != farm.Verified && v.unsettled(s) → s.State != farm.Verified && v.unsettled(s)`: "no wave begins while a step is planned",
	`wave.go steps: Planned → Staged`: "the same",
	`wave.go exposed: s.Touched && (s.Doing != "" || v.undo(s) != "") → (s.Doing != "" || v.undo(s) != "")`: "what failed untouched has no receipt, and nothing is undone on it",
	`wave.go soak: 0 → 1`: "a soak of a nanosecond has passed at the next look",
	`wave.go soak: s.Wave > i || s.State != farm.Verified → s.State != farm.Verified`:              "what is verified in a later wave was seen after this one had soaked",
	`back.go hopeless: return "" → `:                                                               "with a way back, a fault or an abort is a reason to go back, and Next asks that first",
	`back.go undo: return "" → `:                                                                   "the end of the function says the same",
	`back.go discard: s.State == farm.Staged && !s.Touched → s.State == farm.Staged || !s.Touched`: "undo discards nothing but that, and there is room for no restore",
	`back.go discard: s.State == farm.Staged && !s.Touched → s.State == farm.Staged`:               "the same",
	`back.go discard: s.State == farm.Staged && !s.Touched → !s.Touched`:                           "the same",
	`back.go discard: 0 → 1`:                                                                       "what was never touched is not restored",
	`record.go fail: return → `:                                                                    "what is left alone has no tries, so nothing is given up",
	`record.go leave: 0 → 1`:                                                                       "the next act is another one, and counts anew",
	`record.go pause: 10 → 11`:                                                                     "both are longer than the longest pause",
}

// TestMutants changes the package a little, in every way that it knows, and runs
// the quick tests on each: what they do not notice is not tested. All mutants are
// compiled into one test binary, as copies of their function, and MUTANT says
// which of them lives. It takes minutes, so it runs only with CERTFARM_SOAK set;
// CERTFARM_MUTANTS narrows it to those whose name has that text.
func TestMutants(t *testing.T) {
	if os.Getenv("CERTFARM_SOAK") == "" {
		t.Skip("takes long: CERTFARM_SOAK is not set")
	}
	b := newBreeder(t, "rollout.go", "wave.go", "back.go", "record.go", "new.go")
	all := b.breed()
	if only := os.Getenv("CERTFARM_MUTANTS"); only != "" {
		all = slices.DeleteFunc(all, func(m mutant) bool { return !strings.Contains(m.String(), only) })
	}
	binary := b.compile(all)
	if out, noticed := run(t, binary, 0); noticed {
		t.Fatalf("the tests fail without any mutant:\n%s", out)
	}
	lives := make([]bool, len(all))
	next := make(chan int)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range next {
				_, noticed := run(t, binary, all[i].id)
				lives[i] = !noticed
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	score(t, all, lives)
}

// run runs the quick tests with a mutant, and reports whether they notice it.
func run(t *testing.T, binary string, id int) (out []byte, noticed bool) {
	cmd := exec.CommandContext(t.Context(), binary, "-test.short", "-test.failfast", "-test.timeout=30s", "-rapid.nofailfile", "-rapid.shrinktime=1ms")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CERTFARM_") }), fmt.Sprint("MUTANT=", id))
	out, err := cmd.CombinedOutput()
	return out, err != nil
}

func score(t *testing.T, all []mutant, lives []bool) {
	noticed, same, live := 0, 0, 0
	for i, m := range all {
		switch {
		case !lives[i]:
			noticed++
		case equivalent[m.String()] != "":
			same++
		default:
			live++
			t.Logf("lives: %s:%d %s", m.file, m.line, m)
		}
	}
	share := float64(noticed) / float64(max(1, noticed+live))
	t.Logf("%d mutants: %d noticed, %d live, %d equivalent: score %.1f %%", len(all), noticed, live, same, 100*share)
	if share < leastScore {
		t.Errorf("score %.3f, at least %.2f wanted", share, leastScore)
	}
}

// A mutant is one small change to a function: text instead of what stands from
// offset from to offset to of its file.
type mutant struct {
	id       int
	file     string
	line     int
	f        *ast.FuncDecl
	was      string
	text     string
	from, to int
}

// String names a mutant without its line, which moves.
func (m mutant) String() string {
	return fmt.Sprintf("%s %s: %s → %s", m.file, m.f.Name.Name, oneLine(m.was), oneLine(m.text))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// A breeder makes mutants of a package's files.
type breeder struct {
	*testing.T
	fset  *token.FileSet
	types types.Config
	names []string
	files map[string]*ast.File
	src   map[string][]byte
	name  string        // of the file at hand
	f     *ast.FuncDecl // the function at hand
	found []mutant
}

func newBreeder(t *testing.T, names ...string) *breeder {
	b := &breeder{T: t, fset: token.NewFileSet(), names: names, files: map[string]*ast.File{}, src: map[string][]byte{}}
	b.types.Importer = importer.ForCompiler(b.fset, "source", nil)
	b.types.Error = func(error) {}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b.src[name] = src
		if b.files[name], err = parser.ParseFile(b.fset, name, src, 0); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// breed lists the mutants that compile.
func (b *breeder) breed() []mutant {
	for _, name := range b.names {
		for _, decl := range b.files[name].Decls {
			if f, is := decl.(*ast.FuncDecl); is {
				b.name, b.f = name, f
				ast.Inspect(f.Body, b.node)
			}
		}
	}
	met := map[string]bool{}
	good := slices.DeleteFunc(b.found, func(m mutant) bool {
		double := fmt.Sprint(m.file, m.from, m.to, m.text)
		known := met[double]
		met[double] = true
		return known || !b.compiles(m)
	})
	for i := range good {
		good[i].id = i + 1
	}
	return good
}

func (b *breeder) compiles(m mutant) bool {
	src := slices.Concat(b.src[m.file][:m.from], []byte(m.text), b.src[m.file][m.to:])
	changed, err := parser.ParseFile(b.fset, m.file, src, 0)
	if err != nil {
		return false
	}
	var files []*ast.File
	for _, name := range b.names {
		if name == m.file {
			files = append(files, changed)
		} else {
			files = append(files, b.files[name])
		}
	}
	_, err = b.types.Check("github.com/certfarm/certfarm/internal/rollout", b.fset, files, nil)
	return err == nil
}

// compile makes the test binary that holds all mutants. Each function begins with
// a switch to its mutants.
func (b *breeder) compile(all []mutant) string {
	dir := b.TempDir()
	replace := map[string]string{}
	add := func(name string, text []byte) {
		here, err := filepath.Abs(name)
		if err != nil {
			b.Fatal(err)
		}
		replace[here] = filepath.Join(dir, name)
		if err := os.WriteFile(replace[here], text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for _, name := range b.names {
		add(name, b.merge(name, all))
	}
	add("mutant.go", []byte("package rollout\nimport (\"os\"; \"strconv\")\nvar mutant, _ = strconv.Atoi(os.Getenv(\"MUTANT\"))\n"))
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		b.Fatal(err)
	}
	path, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "rollout.test")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), "go", "test", "-c", "-vet=off", "-overlay", path, "-o", binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// merge returns a file with the mutants of its functions.
func (b *breeder) merge(name string, all []mutant) []byte {
	src := b.src[name]
	at := func(p token.Pos) int { return b.fset.Position(p).Offset }
	var out, copies bytes.Buffer
	done := 0
	for _, decl := range b.files[name].Decls {
		f, is := decl.(*ast.FuncDecl)
		if !is {
			continue
		}
		var cases bytes.Buffer
		for _, m := range all {
			if m.f != f {
				continue
			}
			own := fmt.Sprintf("%s_%d", f.Name.Name, m.id)
			fmt.Fprintf(&copies, "\n%s%s%s%s%s\n", src[at(f.Pos()):at(f.Name.Pos())], own, src[at(f.Name.End()):m.from], m.text, src[m.to:at(f.End())])
			fmt.Fprintf(&cases, "\ncase %d: %s", m.id, call(f, own))
		}
		body := at(f.Body.Lbrace) + 1
		out.Write(src[done:body])
		fmt.Fprintf(&out, "\nswitch mutant {%s\n}\n", cases.Bytes())
		done = body
	}
	out.Write(src[done:])
	out.Write(copies.Bytes())
	return out.Bytes()
}

// call is a call of the function's copy with the same arguments.
func call(f *ast.FuncDecl, name string) string {
	var args []string
	for _, field := range f.Type.Params.List {
		for _, arg := range field.Names {
			args = append(args, arg.Name)
		}
	}
	if f.Recv != nil {
		name = f.Recv.List[0].Names[0].Name + "." + name
	}
	text := fmt.Sprintf("%s(%s)", name, strings.Join(args, ", "))
	if f.Type.Results == nil {
		return text + "; return"
	}
	return "return " + text
}

func (b *breeder) change(from, to token.Pos, text string) {
	i, j := b.fset.Position(from).Offset, b.fset.Position(to).Offset
	b.found = append(b.found, mutant{
		file: b.name, line: b.fset.Position(from).Line, f: b.f, was: string(b.src[b.name][i:j]), text: text, from: i, to: j,
	})
}

func (b *breeder) text(n ast.Node) string {
	return string(b.src[b.name][b.fset.Position(n.Pos()).Offset:b.fset.Position(n.End()).Offset])
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

func (b *breeder) node(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		for _, op := range operators[n.Op] {
			b.change(n.Pos(), n.End(), b.text(n.X)+" "+op+" "+b.text(n.Y))
		}
		if n.Op == token.LAND || n.Op == token.LOR {
			b.change(n.Pos(), n.End(), b.text(n.X))
			b.change(n.Pos(), n.End(), b.text(n.Y))
		}
	case *ast.IfStmt:
		b.change(n.Cond.Pos(), n.Cond.End(), "!("+b.text(n.Cond)+")")
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			b.change(n.Pos(), n.End(), b.text(n.X))
		}
	case *ast.BasicLit:
		if i, err := strconv.Atoi(n.Value); err == nil {
			b.change(n.Pos(), n.End(), strconv.Itoa(i+1))
		}
	case *ast.Ident:
		for _, row := range words {
			if i := slices.Index(row, n.Name); i >= 0 {
				b.change(n.Pos(), n.End(), row[(i+1)%len(row)])
			}
		}
	case *ast.CaseClause:
		if len(n.Body) > 0 {
			b.change(n.Body[0].Pos(), n.Body[len(n.Body)-1].End(), "")
		}
		b.statements(n.Body)
	case *ast.BlockStmt:
		b.statements(n.List)
	}
	return true
}

// statements drops each statement by itself.
func (b *breeder) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				b.change(s.Pos(), s.End(), "")
			}
		case *ast.ExprStmt, *ast.IncDecStmt, *ast.BranchStmt, *ast.ReturnStmt, *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			b.change(s.Pos(), s.End(), "")
		}
	}
}
