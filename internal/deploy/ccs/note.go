package ccs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

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
	Root   string   // the folder that IIS reads
	Folder string   // of this staging
	New    string   // hash of what was staged
	Leaf   string   // fingerprint of its leaf: what readers of the canary must serve
	Files  []entry  // in the order in which they are switched
	Target string   `json:",omitempty"` // whose readers serve it
	Former []string `json:",omitempty"` // folders of the site from before its first name changed
}

// entry is one file in the root.
type entry struct {
	Name   string
	Prev   string `json:",omitempty"` // hash of what was there at Stage; empty: nothing
	Canary bool   `json:",omitempty"` // no client asks for it
}

func (n note) staged() string      { return join(n.Folder, stagedFile) }
func (n note) kept(e entry) string { return join(n.Folder, e.Prev+keptSuffix) }
func (n note) next(e entry) string { return join(n.Folder, e.Name+nextSuffix) }
func (n note) live(e entry) string { return join(n.Root, e.Name) }

// canary is the name whose file is switched first; empty: there is none.
func (n note) canary() string {
	for _, e := range n.Files {
		if e.Canary {
			return hostOf(e.Name) // the first form of a name is the one that clients ask for
		}
	}
	return ""
}

func (n note) site() (folder string)    { folder, _ = split(n.Folder); return folder }
func (n note) generation() (own string) { _, own = split(n.Folder); return own }

// siteFolder is the name of a site's folder in the staging folder: its first half is of
// the site alone. The first file is in the other, since two farms may have a site of one
// name on one store.
func siteFolder(site string, first entry) string {
	sum, both := sha256.Sum256([]byte(site)), sha256.Sum256([]byte(site+"\x00"+first.Name))
	return hex.EncodeToString(sum[:siteHalf]) + hex.EncodeToString(both[:siteHalf])
}

// siteHalf is the bytes of each half.
const siteHalf = 4

// read takes a receipt apart. A note can only name folders by names that we give
// and PFX files in a root.
func read(r deploy.Receipt) (note, error) {
	var n note
	if err := json.Unmarshal(r.Note, &n); err != nil {
		return note{}, fmt.Errorf("reading a receipt: %w", err)
	}
	if !n.right() {
		return note{}, errors.New("reading a receipt: it is not one of a certificate store: stage anew")
	}
	return n, nil
}

func (n note) right() bool {
	site, own := split(n.Folder)
	_, base := split(site)
	wrong := func(e entry) bool { return !isFileName(e.Name) || e.Prev != "" && !hashName.MatchString(e.Prev) }
	return absolute(n.Root) && absolute(n.Folder) && stagingName.MatchString(own) && siteName.MatchString(base) &&
		hashName.MatchString(n.New) && hashName.MatchString(n.Leaf) && len(n.Files) > 0 && !slices.ContainsFunc(n.Files, wrong) &&
		!slices.ContainsFunc(n.Former, func(f string) bool { return !siteName.MatchString(f) || f == base })
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
