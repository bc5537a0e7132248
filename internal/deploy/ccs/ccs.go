// Package ccs puts certificates into an IIS Centralized Certificate Store: a
// folder of PFX files, one for each name, that many web servers read.
//
//	\\files\certs\www.example.com.pfx         what IIS reads: top level, *.pfx
//	\\files\certs\_.example.com.pfx           *.example.com
//	\\files\certs\.certfarm\ID\active         names the folder of the last activation
//	\\files\certs\.certfarm\ID\7-5f3a9c01…\   one staging: epoch and leaf
//	      new.staged                          the PFX, for all names
//	      1f00c4….kept                        what was there before, by its hash
//	      www.example.com.pfx.next            on its way into the root
//
// Its invariant: a file in the root is replaced by one rename and never written
// in place, nothing is renamed before all of it lies on the server and was read
// back, opened and checked, and what was there before is kept outside the root
// byte by byte until Discard. All names are switched or none: what was switched
// before a failure is put back.
//
// A share has no canary of its own: one rename is seen by every reader. So a name
// that no client asks for may go first:
//
//	switch the canary ── every reader serves it? ──yes── switch the live names
//	                          └─ no, within interval + margin: put it back
//
// A rename keeps the rights of the file (on NTFS, those that it inherited where it
// was made). This is why stagings lie in the root by default: there they inherit
// what the readers need.
package ccs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// mendTime is how long setting right what went wrong may take when the time for
// the call itself is over.
const mendTime = 30 * time.Second

// Folders makes folders; see host.Linker.
type Folders interface {
	Mkdir(ctx context.Context, name string, a host.Attr) error
}

// Share is where the store lies: a share over SMB (smb.Host), or a folder that
// the system reaches (local.Host).
type Share interface {
	host.Files
	Folders
}

// Setup is what a Store is made of.
type Setup struct {
	Files    Share
	Password farm.Secret // of every PFX file in the store, as the readers are configured
	Options  Options     // with defaults, found right by Facts
	Names    []string    // of the site, where Options.Names is empty
	Look     deploy.Look // asks the readers; nil: the canary goes live with the rest
	Target   string      // whose store it is; see deploy.Setup
	// Looks asks the readers of another target whose receipt is made live with ours; nil:
	// they are asked as ours are.
	Looks func(ctx context.Context, target string) (deploy.Look, error)
}

// Store is one site's place in a certificate store. It is a deploy.Deployer and
// remembers nothing between calls.
type Store struct {
	files    Share
	password farm.Secret
	options  Options
	names    []string
	readers  deploy.Look
	target   string
	looks    func(ctx context.Context, target string) (deploy.Look, error)
}

var (
	_ deploy.Deployer = (*Store)(nil)
	_ deploy.Auditor  = (*Store)(nil)
)

// New makes the deployer of one site.
func New(s Setup) *Store {
	names := s.Options.Names
	if len(names) == 0 {
		names = s.Names
	}
	return &Store{s.Files, s.Password, s.Options, names, s.Look, s.Target, s.Looks}
}

// Inspect reports what the site's files hold; see deploy.Deployer. A file that
// does not open with the password, or is missing while another is there, is a
// mismatch.
func (d *Store) Inspect(ctx context.Context) (deploy.Installed, error) {
	files, err := filesOf(d.names)
	if err != nil {
		return deploy.Installed{}, err
	}
	var in deploy.Installed
	there := 0
	for _, name := range files {
		data, err := d.live(ctx, d.options.root(), name)
		if err != nil {
			return deploy.Installed{}, err
		}
		if data == nil {
			continue
		}
		there++
		b, err := encode.OpenPFX(data, d.password)
		if err != nil {
			in.Mismatch = true
			continue
		}
		if !slices.Contains(in.Leaves, b.Leaf) {
			in.Leaves = append(in.Leaves, b.Leaf)
		}
	}
	in.Mismatch = in.Mismatch || there > 0 && there < len(files)
	return in, nil
}

// live reads a file in the root; nil: it is not there.
func (d *Store) live(ctx context.Context, root, name string) ([]byte, error) {
	data, err := d.files.Read(ctx, join(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is live: %w", err)
	}
	return data, nil
}

// hashOf is the name of a content; empty: there is none.
func hashOf(data []byte) string {
	if data == nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// join is path.Join for names that may begin with the two slashes of a UNC path,
// which path.Join would make one.
func join(folder string, names ...string) string {
	for _, name := range names {
		folder = strings.TrimSuffix(folder, "/") + "/" + name
	}
	return folder
}

// split takes a path apart at its last slash.
func split(name string) (folder, base string) {
	at := strings.LastIndexByte(name, '/')
	return name[:max(at, 0)], name[at+1:]
}

// mending is a context for setting things right after the call's own has ended.
func mending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), mendTime)
}
