package certfarm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/target"
)

// The docs are held to what the code says: links lead somewhere, every farm.yaml
// is one, the tables of fields are made from the structs, and every command and
// flag exists.

var updateDocs = flag.Bool("update", false, "write the tables of docs/ anew")

// A page is a Markdown file, and its parts that are held to something.
type page struct {
	file string
	text string
}

func pages(t *testing.T) (all []page) {
	t.Helper()
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != "." {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(file) != ".md" {
			return err
		}
		text, err := os.ReadFile(file)
		all = append(all, page{filepath.ToSlash(file), string(text)})
		return err
	})
	if err != nil || len(all) < 5 {
		t.Fatalf("%d pages: %v", len(all), err)
	}
	return all
}

// A fence is a block of code with what stands behind its ```.
type fence struct {
	info, text string
	line       int
}

// fences cuts the blocks of code out of a page; prose is what is left.
func (p page) fences() (all []fence, prose string) {
	var b strings.Builder
	var open *fence
	for i, line := range strings.Split(p.text, "\n") {
		info, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && open == nil:
			open = &fence{info: info, line: i + 2}
		case isFence:
			all, open = append(all, *open), nil
		case open != nil:
			open.text += line + "\n"
		default:
			b.WriteString(line + "\n")
		}
	}
	return all, b.String()
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)|<img src="([^"]+)"`)
	inline  = regexp.MustCompile("`[^`\n]+`")
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinks: every relative link leads to a file, and to a heading in it.
func TestLinks(t *testing.T) {
	anchors := map[string][]string{}
	all := pages(t)
	for _, p := range all {
		_, prose := p.fences()
		for _, m := range heading.FindAllStringSubmatch(prose, -1) {
			slug := strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
			anchors[p.file] = append(anchors[p.file], slug)
		}
	}
	for _, p := range all {
		_, prose := p.fences()
		for _, m := range link.FindAllStringSubmatch(inline.ReplaceAllString(prose, ""), -1) {
			to := cmp.Or(m[1], m[2])
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			name, anchor, _ := strings.Cut(to, "#")
			file := p.file
			if name != "" {
				file = filepath.ToSlash(filepath.Join(filepath.Dir(p.file), name))
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: the link %s leads nowhere", p.file, to)
			} else if anchor != "" && !slices.Contains(anchors[file], anchor) {
				t.Errorf("%s: %s has no heading #%s", p.file, file, anchor)
			}
		}
	}
}

// TestFarmBlocks: a block that is marked `yaml farm.yaml` is a whole farm.yaml.
func TestFarmBlocks(t *testing.T) {
	found := 0
	for _, p := range pages(t) {
		blocks, _ := p.fences()
		for _, b := range blocks {
			if b.info != "yaml farm.yaml" {
				continue
			}
			found++
			if _, err := config.Parse([]byte(b.text), fmt.Sprintf("%s, block at line %d", p.file, b.line), words()); err != nil {
				t.Error(err)
			}
		}
	}
	if found < 2 {
		t.Errorf("only %d blocks are marked `yaml farm.yaml`", found)
	}
}

// TestTables: the tables between <!-- table: … --> and <!-- end --> are what the
// structs say. After a change: go test -run TestTables . -update
func TestTables(t *testing.T) {
	block := regexp.MustCompile(`(?s)<!-- table: ([A-Za-z. -]+?) -->\n(.*?)<!-- end -->`)
	tables := optionTables(t)
	maps.Copy(tables, fieldTables(t))
	for _, file := range []string{"docs/farm-yaml.md", "docs/targets.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		is := block.ReplaceAllStringFunc(string(text), func(was string) string {
			name := block.FindStringSubmatch(was)[1]
			table, ok := tables[name]
			if !ok {
				t.Errorf("%s: there is no table %q", file, name)
			}
			tables[name] = "" // shown
			return "<!-- table: " + name + " -->\n" + table + "<!-- end -->"
		})
		switch {
		case is == string(text):
		case *updateDocs:
			if err := os.WriteFile(file, []byte(is), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("a table of %s is not what the structs say: go test -run TestTables . -update", file)
		}
	}
	for name, table := range tables {
		if table != "" {
			t.Errorf("table %q is on no page", name)
		}
	}
}

// A schema is what of a JSON Schema says what a field is.
type schema struct {
	Type, Description    string
	Ref                  string `json:"$ref"`
	Enum                 []any
	OneOf                []schema
	Items                *schema
	AdditionalProperties json.RawMessage
	Properties           json.RawMessage
	Pattern              string
	Required             []string
	Defs                 map[string]schema `json:"$defs"`
}

// fieldTables makes a table of the fields of each struct of farm.yaml, by the
// struct's name; "farm.yaml" is the file itself.
func fieldTables(t *testing.T) map[string]string {
	t.Helper()
	var whole schema
	if err := json.Unmarshal(config.Schema(), &whole); err != nil {
		t.Fatal(err)
	}
	tables := map[string]string{"farm.yaml": fieldTable(t, whole)}
	for name, s := range whole.Defs {
		tables[name] = fieldTable(t, s)
	}
	return tables
}

func fieldTable(t *testing.T, s schema) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| field | is | meaning |\n|---|---|---|\n")
	in := json.NewDecoder(bytes.NewReader(s.Properties)) // a map would lose the order
	if _, err := in.Token(); err != nil {
		t.Fatal(err)
	}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			t.Fatal(err)
		}
		var f schema
		if err := in.Decode(&f); err != nil {
			t.Fatal(err)
		}
		must := ""
		if slices.Contains(s.Required, name.(string)) {
			must = " **required**"
		}
		fmt.Fprintf(&b, "| `%s`%s | %s | %s |\n", name, must, f.sort(), cell(f.Description))
	}
	return b.String()
}

// sort says in words what a field is.
func (s schema) sort() string {
	var inner schema
	_ = json.Unmarshal(s.AdditionalProperties, &inner) // false is no schema
	switch {
	case s.Ref != "":
		return "[" + anchor(s.Ref) + "](#" + anchor(s.Ref) + ")"
	case len(s.OneOf) == 3:
		return "name, list of names, or labels"
	case len(s.OneOf) == 2 && s.OneOf[0].Type == "integer":
		return "share"
	case len(s.OneOf) == 2 && s.OneOf[0].Ref != "":
		return s.OneOf[0].sort() + " or list"
	case len(s.OneOf) == 2:
		return "text or list"
	case len(s.Enum) > 0:
		return "`" + strings.ReplaceAll(strings.Trim(fmt.Sprint(s.Enum), "[]"), " ", "`, `") + "`"
	case strings.Contains(s.Pattern, " per "):
		return "limit"
	case s.Pattern != "":
		return "duration"
	case s.Type == "array":
		return "list of " + s.Items.sort()
	case s.Type == "integer":
		return "number"
	case s.Type == "boolean":
		return "true or false"
	case s.Type == "object" && bytes.Contains(s.Properties, []byte(`"secret"`)):
		return "[secret](#secrets)"
	case inner.Ref != "", inner.Type != "", len(inner.OneOf) > 0:
		return "name: " + inner.sort()
	case s.Type == "object" && strings.Contains(s.Description, "kind"):
		return "[options](targets.md#options)"
	case s.Type == "object":
		return "options"
	}
	return "text"
}

// anchor is the heading under which a struct stands.
func anchor(ref string) string {
	name := ref[strings.LastIndexByte(ref, '/')+1:]
	return cmp.Or(map[string]string{"sshLine": "ssh", "smbLine": "smb", "dnsWriter": "dns"}[name], name)
}

// optionTables are what each kind of target may be told, with its defaults and
// secrets.
func optionTables(t *testing.T) map[string]string {
	t.Helper()
	tables := map[string]string{}
	for name, kind := range target.All() {
		tables["options of "+name] = optionTable(t, kind)
	}
	return tables
}

func optionTable(t *testing.T, kind deploy.Kind) string {
	t.Helper()
	d := kind.Describe()
	var b strings.Builder
	b.WriteString("| option | meaning | default |\n|---|---|---|\n")
	for _, o := range d.Options {
		if o.Doc == "" {
			t.Errorf("option %s of %s has no doc tag", o.Name, kind.Name)
		}
		value := o.Text()
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.Name, cell(o.Doc), value)
	}
	for _, s := range d.Secrets {
		must := " **required**"
		if s.Optional {
			must = ""
		}
		fmt.Fprintf(&b, "| `%s`%s | %s | under `secrets` |\n", s.Name, must, cell(s.Doc))
	}
	return b.String()
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// TestCommands: every command and flag in the docs is one of the program's.
func TestCommands(t *testing.T) {
	help := helper(t)
	checked := 0
	for _, p := range pages(t) {
		if p.file == "docs/cli.md" || strings.HasPrefix(p.file, "docs/decisions/") || p.file == "CHANGELOG.md" {
			continue // decisions are of their day
		}
		blocks, prose := p.fences()
		text := strings.ReplaceAll(strings.Join(inline.FindAllString(prose, -1), "\n"), "`", "")
		for _, b := range blocks {
			text += "\n" + b.text
		}
		text = strings.ReplaceAll(text, "go run ./cmd/certfarm", "certfarm")
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, " #")
			for _, m := range command.FindAllStringSubmatch(line, -1) {
				checked++
				if problem := help.check(strings.Fields(m[1])); problem != "" {
					t.Errorf("%s: `certfarm%s`: %s", p.file, m[1], problem)
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d commands were found", checked)
	}
}

// command finds what stands behind the program's name where a command begins:
// at the beginning of a line, in cron's table, behind sudo or &&.
var command = regexp.MustCompile(`(?:^ *|\* +|&& +|sudo (?:-u \w+ )?)(?:\./)?certfarm((?: +[^\s|;&)]+)+)`)

// A manual is the program's help, asked once for each command.
type manual struct {
	t       *testing.T
	program string
	known   map[string]string
}

// helper builds the program as `make cross` does, so that little is built anew.
func helper(t *testing.T) *manual {
	t.Helper()
	program := filepath.Join(t.TempDir(), "certfarm")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/certfarm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return &manual{t, program, map[string]string{}}
}

// of is the help of a command.
func (m *manual) of(words []string) string {
	key := strings.Join(words, " ")
	if _, ok := m.known[key]; !ok {
		ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, m.program, append(slices.Clone(words), "--help")...).CombinedOutput()
		if err != nil {
			m.t.Fatalf("certfarm %s --help: %v\n%s", key, err, out)
		}
		m.known[key] = string(out)
	}
	return m.known[key]
}

var commandLine = regexp.MustCompile(`(?m)^  ([a-z-]+) {2,}\S`)

// takes reports whether a command with others below it also takes words of its
// own, as its examples show.
func (m *manual) takes(path, commands []string) bool {
	example := regexp.MustCompile(`(?m)^  certfarm ` + strings.Join(append(slices.Clone(path), `([a-z]+)`), " "))
	for _, shown := range example.FindAllStringSubmatch(m.of(path), -1) {
		if !slices.Contains(commands, shown[1]) {
			return true
		}
	}
	return false
}

// check says what is wrong with the words behind `certfarm`.
func (m *manual) check(words []string) string {
	var path []string
	rest := words
	for len(rest) > 0 {
		var commands []string
		if _, list, hasList := strings.Cut(m.of(path), " COMMAND\n"); hasList {
			for _, c := range commandLine.FindAllStringSubmatch(list, -1) {
				commands = append(commands, c[1])
			}
		}
		if len(commands) == 0 || strings.HasPrefix(rest[0], "-") {
			break
		}
		word := strings.TrimRight(rest[0], "`.,:…")
		if !slices.Contains(commands, word) && m.takes(path, commands) {
			break
		}
		if !slices.Contains(commands, word) {
			return fmt.Sprintf("there is no %q", word)
		}
		path, rest = append(path, word), rest[1:]
	}
	for _, word := range rest {
		name, _, _ := strings.Cut(strings.TrimRight(word, "`.,:…]"), "=")
		name = strings.TrimLeft(name, "[")
		short := len(name) == 2 && name[0] == '-' && name[1] != '-'
		if !short && !strings.HasPrefix(name, "--") || name == "--" {
			continue
		}
		if !regexp.MustCompile(`(?m)(^|\s)` + regexp.QuoteMeta(name) + `(,|\s|$)`).MatchString(m.of(path)) {
			return "it has no flag " + name
		}
	}
	return ""
}
