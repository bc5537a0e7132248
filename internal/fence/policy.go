// Package fence is what a node says for itself of the calls that reach it: a policy
// that root writes there, a memory of what was called for, and a host that reaches
// no further than the policy.
//
//	call ──▶ lock ──▶ Policy.Allow(ask, memory, now) ──▶ noted, synced ──▶ done on Host ──▶ noted, synced
//	                        │ refused: with the line of the policy that is missing
//
// What holds at all times: who may call a node may do there what the policy says and
// nothing else, whatever the call says; and a call with a lower epoch than one before
// it is refused, also after a power cut.
package fence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/certfarm/certfarm/internal/farm"
)

// File is where a node's policy stands.
const File = "/etc/certfarm/policy.yaml"

// The limits of a policy that says none.
const (
	usualActivations = 60
	maxPolicy        = 1 << 20 // bytes
)

// A Policy is what may be done on a node, as root wrote it there. The zero policy
// allows nothing.
type Policy struct {
	Node     string              `yaml:"node"`      // the name of this node: calls for others are refused
	Farm     string              `yaml:"farm"`      // the farm that may call; empty: any
	Names    []string            `yaml:"names"`     // that certificates may have: NAME, *.NAME (one label more), **.NAME (any more)
	Kinds    []string            `yaml:"kinds"`     // of targets
	Folders  []string            `yaml:"folders"`   // below which files may be read and written
	Commands map[string][]string `yaml:"commands"`  // that may be run, by a name for people: these words and no others
	Sockets  []string            `yaml:"sockets"`   // unix sockets of this machine that may be connected to
	KeyTypes []farm.KeyType      `yaml:"key_types"` // of leaves and of keys made here; empty: all
	// Activations is how many may be made an hour, and twice as many ways back; 0: 60.
	Activations int `yaml:"activations"`
	// Older lets a leaf be installed that is older than the one that is kept.
	Older bool `yaml:"older"`

	file string // where it was read; empty: File
}

// Load reads a policy. One that others than its owner may write is no policy.
func Load(file string) (Policy, error) {
	f, err := os.Open(file)
	if err != nil {
		return Policy{}, fmt.Errorf("the node's policy: %w; `certfarm snippet policy NODE` at a controller writes one", err)
	}
	defer f.Close()
	if err := guarded(f); err != nil {
		return Policy{}, fmt.Errorf("the node's policy %s: %w", file, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPolicy))
	if err != nil {
		return Policy{}, fmt.Errorf("the node's policy %s: %w", file, err)
	}
	p, err := Parse(text)
	p.file = file
	if err == nil {
		err = p.outside(file)
	}
	if err != nil {
		return Policy{}, fmt.Errorf("the node's policy %s: %w", file, err)
	}
	return p, nil
}

// outside refuses a policy that a call could write over.
func (p Policy) outside(file string) error {
	inside, err := p.Covers(file)
	if err == nil && inside {
		err = errors.New("it lies in a folder that it names itself, so that a call could write over it")
	}
	return err
}

// Covers reports whether a file or a folder of this machine lies in one of the folders,
// as it is written or where it is.
func (p Policy) Covers(name string) (bool, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return false, err
	}
	real, err := filepath.EvalSymlinks(name)
	return p.Within(filepath.ToSlash(name)) == nil || p.Within(filepath.ToSlash(real)) == nil, err
}

// Parse reads the text of a policy, strictly.
func Parse(text []byte) (p Policy, err error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return Policy{}, err
	}
	return p, p.check()
}

// pattern is a name in a policy.
var pattern = regexp.MustCompile(`^(\*\*\.|\*\.)?[a-z0-9_]([a-z0-9_.:-]*[a-z0-9])?$`)

func (p Policy) check() error {
	if p.Node == "" {
		return errors.New("node is missing: the name that farm.yaml has for this node")
	}
	for _, n := range p.Names {
		if !pattern.MatchString(n) {
			return fmt.Errorf("names: %q is no name: write www.example.org, *.example.org or **.example.org", n)
		}
	}
	if p.Activations < 0 {
		return errors.New("activations: it is a number of activations an hour")
	}
	return errors.Join(p.checkFolders(), p.checkCommands())
}

func (p Policy) checkFolders() error {
	for _, f := range p.Folders {
		if path.Clean(f) != f || len(strings.Trim(f, "/")) < 2 || !rooted(f) || strings.HasSuffix(f, ":/") {
			return fmt.Errorf("folders: %q is no folder of its own: write a full path with forward slashes, without .. and a slash at its end", f)
		}
	}
	return nil
}

// checkCommands looks at the commands, and at the types of keys.
func (p Policy) checkCommands() error {
	for _, name := range slices.Sorted(maps.Keys(p.Commands)) {
		if argv := p.Commands[name]; len(argv) == 0 || argv[0] == "" {
			return fmt.Errorf("commands: %s has no words: write %s: [/full/path, word, …]", name, name)
		}
	}
	for _, k := range p.KeyTypes {
		if !slices.Contains(farm.KeyTypes, k) {
			return fmt.Errorf("key_types: no key type %q; there are %v", k, farm.KeyTypes)
		}
	}
	return nil
}

// rooted reports a full path: /x, or C:/x.
func rooted(name string) bool {
	return strings.HasPrefix(name, "/") || (len(name) > 3 && name[1:3] == ":/")
}

// takes reports that a pattern stands for a name, or for the wildcard itself.
func takes(pattern, name string) bool {
	name = strings.ToLower(name)
	if base, any := strings.CutPrefix(pattern, "**."); any {
		return strings.HasSuffix(name, "."+base)
	}
	if base, one := strings.CutPrefix(pattern, "*."); one {
		label, of, _ := strings.Cut(name, ".")
		return label != "" && of == base
	}
	return name == pattern
}
