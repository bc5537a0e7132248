package certfarm

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// floors is the building, from the ground up: a package may use what is on a
// floor below its own, and in its own folder, and nothing else of ours.
var floors = []string{
	"farm",
	"config plan renew rollout budget snippet adopt",
	"host secret encode store lookup dnsserve outbound heap",
	"prove deploy probe notify job fence access trace",
	"issue audit",
	"controller",
	"api web agent metrics",
	"lab",
	"cmd",
}

func TestFloors(t *testing.T) {
	level := map[string]int{}
	for i, f := range floors {
		for _, p := range strings.Fields(f) {
			level[p] = i
		}
	}
	for _, root := range []string{"internal", "cmd"} {
		if err := filepath.WalkDir(root, check(t, level)); err != nil {
			t.Fatal(err)
		}
	}
}

func check(t *testing.T, level map[string]int) fs.WalkDirFunc {
	return func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		from := room(filepath.ToSlash(path))
		if _, known := level[from]; !known {
			t.Errorf("%s has no floor: say in floors where it belongs", path)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			rest, ours := strings.CutPrefix(name, "github.com/certfarm/certfarm/")
			if to := room(rest); ours && to != from && level[to] >= level[from] {
				t.Errorf("%s (floor %d) uses %s (floor %d)", path, level[from], to, level[to])
			}
		}
		return nil
	}
}

// room is the name in floors of a path: internal/host/ssh/ssh.go is in host.
func room(path string) string {
	path = strings.TrimPrefix(path, "internal/")
	first, _, _ := strings.Cut(path, "/")
	return first
}
