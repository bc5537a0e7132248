package certfarm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/target"
)

// optionError shows a kind's mistake at its option's line.
type optionError struct{ *deploy.FieldError }

func (e optionError) Option() (field, problem, hint string) { return e.Field, e.Problem, e.Hint }

// words are those of the real kinds.
func words() config.Vocabulary {
	v := config.Vocabulary{
		Kinds:       map[string]config.Kind{},
		Validations: map[string][]string{"http-01": {"gateway"}},
		StartTLS:    []string{"smtp"},
	}
	for name, k := range target.All() {
		v.Kinds[name] = config.Kind{Options: k.Fields(), Check: func(options []byte) (string, string, []byte, error) {
			f, err := k.Check(options)
			if wrong, ok := errors.AsType[*deploy.FieldError](err); ok {
				err = optionError{wrong}
			}
			return f.Identity, f.Group, f.Options, err
		}}
	}
	return v
}

// TestExamples: every example is a farm.yaml without mistakes, with the kinds
// that there are.
func TestExamples(t *testing.T) {
	targets := map[string]int{
		"single-server.yaml": 1, "nginx-farm.yaml": 3, "apache-haproxy.yaml": 3,
		"mixed-private-ca.yaml": 3, "large-by-labels.yaml": 20,
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
