package certfarm

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/target"
)

// words are those of the real kinds.
func words() config.Vocabulary { return controller.Vocabulary(target.All(), false) }

// TestExamples: every example is a farm.yaml without mistakes, with the kinds
// that there are.
func TestExamples(t *testing.T) {
	targets := map[string]int{
		"single-server.yaml": 1, "nginx-farm.yaml": 3, "apache-haproxy.yaml": 3,
		"mixed-private-ca.yaml": 3, "large-by-labels.yaml": 20,
		"redirect.yaml": 2, "stateless.yaml": 2, "distribute.yaml": 3, "mixed-validation.yaml": 2,
		"dns-rfc2136.yaml": 2, "dns-builtin.yaml": 2, "dns-provider.yaml": 4, "iis-ccs.yaml": 3, "apache-windows.yaml": 2, "iis-bindings.yaml": 3, "iis-share.yaml": 1, "drain.yaml": 2, "receiver.yaml": 2, "per-node.yaml": 3, "edge.yaml": 2,
	}
	files, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(files) != len(targets) {
		t.Fatalf("%d examples, want %d: name each here with the number of its targets (%v)", len(files), len(targets), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, err := config.Parse(text, file, words())
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, s := range p.Farm.Sites {
				n += len(s.Targets)
			}
			if want := targets[filepath.Base(file)]; n != want {
				t.Errorf("%d targets, want %d", n, want)
			}
		})
	}
}
