package remote

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
)

// Needs is what a target's deployer reaches on its node, as far as its options say.
// The node's policy is written from it, and a call is held to the policy by it before
// anything is begun.
type Needs struct {
	Places   []string            // in the words of an identity
	Folders  []string            // of the files that are read and written, sorted
	Commands map[string][]string // by the option that names them
	Sockets  []string            // paths of sockets that are connected to
	Bare     bool                // everybody on the node could read its keys
}

// NeedsOf reads options strictly; secrets names those that are given.
func NeedsOf(k deploy.Kind, options []byte, secrets ...string) (n Needs, err error) {
	facts, err := k.Check(options, secrets...)
	if err != nil {
		return n, err
	}
	var o struct {
		Test, Reload, Start, Runtime []string
		Store, Socket, Mode          string
	}
	if err := json.Unmarshal(facts.Options, &o); err != nil {
		return n, fmt.Errorf("options of %s: %w", k.Name, err)
	}
	n.Places, n.Commands = facts.Places, map[string][]string{}
	for name, argv := range map[string][]string{"test": o.Test, "reload": o.Reload, "start": o.Start, "runtime": o.Runtime} {
		if len(argv) > 0 {
			n.Commands[name] = argv
		}
	}
	if mode, err := strconv.ParseUint(o.Mode, 8, 32); err == nil {
		n.Bare = mode&0o007 != 0
	}
	if o.Store != "" {
		n.Folders = append(n.Folders, o.Store)
	}
	if strings.HasPrefix(o.Socket, "/") && len(o.Runtime) == 0 {
		n.Sockets = append(n.Sockets, o.Socket)
	}
	for _, p := range facts.Places {
		if file, ok := strings.CutPrefix(p, "file "); ok {
			n.Folders = append(n.Folders, path.Dir(file))
		}
	}
	slices.Sort(n.Folders)
	n.Folders = slices.Compact(n.Folders)
	return n, nil
}
