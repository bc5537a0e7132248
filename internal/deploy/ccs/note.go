package ccs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/certfarm/certfarm/internal/deploy"
)

// The names that we give.
var (
	stagingName = regexp.MustCompile(`^[0-9]{1,19}-[0-9a-f]{1,16}(\.[0-9]{1,9})?$`)
	siteName    = regexp.MustCompile(`^[0-9a-f]{16}$`)
	hashName    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

const (
	stagedFile = "new.staged"
	keptSuffix = ".kept"
	nextSuffix = ".next"
	activeFile = "active"
)

// note is a receipt's note. It names paths and hashes, so that it serves in the
// hands of another target of the same group, and no key.
type note struct {
	Root   string  // the folder that IIS reads
	Folder string  // of this staging
	New    string  // hash of what was staged
	Files  []entry // in the order in which they are switched
}

// entry is one file in the root.
type entry struct {
	Name   string
	Prev   string `json:",omitempty"` // hash of what was there at Stage; empty: nothing
	Canary bool   `json:",omitempty"` // no client asks for it
}

func (n note) staged() string           { return join(n.Folder, stagedFile) }
func (n note) kept(e entry) string      { return join(n.Folder, e.Prev+keptSuffix) }
func (n note) next(e entry) string      { return join(n.Folder, e.Name+nextSuffix) }
func (n note) live(e entry) string      { return join(n.Root, e.Name) }
func (n note) site() (folder string)    { folder, _ = split(n.Folder); return folder }
func (n note) generation() (own string) { _, own = split(n.Folder); return own }

// siteFolder is the name of a site's folder in the staging folder. The first file
// is in it, since two farms may have a site of one name on one store.
func siteFolder(site string, first entry) string {
	sum := sha256.Sum256([]byte(site + "\x00" + first.Name))
	return hex.EncodeToString(sum[:8])
}

// read takes a receipt apart. A note can only name folders by names that we give
// and PFX files in a root.
func read(r deploy.Receipt) (note, error) {
	var n note
	if err := json.Unmarshal(r.Note, &n); err != nil {
		return note{}, fmt.Errorf("reading a receipt: %w", err)
	}
	site, own := split(n.Folder)
	_, base := split(site)
	right := absolute(n.Root) && absolute(n.Folder) && stagingName.MatchString(own) && siteName.MatchString(base) && hashName.MatchString(n.New)
	for _, e := range n.Files {
		right = right && isFileName(e.Name) && (e.Prev == "" || hashName.MatchString(e.Prev))
	}
	if !right || len(n.Files) == 0 {
		return note{}, fmt.Errorf("reading a receipt: it is not one of a certificate store: stage anew")
	}
	return n, nil
}

func readAll(rs []deploy.Receipt) ([]note, error) {
	var all []note
	for _, r := range rs {
		n, err := read(r)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}
