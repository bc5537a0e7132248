package target

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"regexp"

	"github.com/certfarm/certfarm/internal/deploy"
)

// folderName is the name of a version's folder: the epoch, and the beginning of
// the first leaf's fingerprint, "kept" or "placeholder"; a number where the name
// was taken.
var folderName = regexp.MustCompile(`^[0-9]{1,19}-([0-9a-f]{1,16}|kept|placeholder)(\.[0-9]{1,9})?$`)

// note is a receipt's note. It names paths, so that it serves in the hands of
// another target of the same group, and no key.
type note struct {
	Places []place // of the target it was made for
	New    string  // folder of what was staged
	Prev   string  // folder of what was live at Stage, or of a placeholder
	// Old are the folders that were kept when the store was swept at Stage.
	Old     []string `json:",omitempty"`
	First   bool     `json:",omitempty"` // Prev is a placeholder: nothing whole was live
	Convert bool     `json:",omitempty"` // the live paths do not lead into the store yet
	SELinux bool     `json:",omitempty"` // labels are enforced
	// Sums are the SHA-256 of staged and kept files that open with a password, by
	// folder and name: a receipt may be in the hands of a target that has another.
	Sums map[string]string `json:",omitempty"`
	// Was are the SHA-256 of what was live at Stage where that was nothing whole, by
	// live path; a file that was not there has none.
	Was map[string]string `json:",omitempty"`
}

// was notes what was live.
func (n *note) was(live content, a area) {
	for _, f := range a.files() {
		if data, there := live[f.Name]; there {
			if n.Was == nil {
				n.Was = map[string]string{}
			}
			n.Was[f.Live] = digest(data)
		}
	}
}

// sum notes what a folder's files hold that not everyone can open.
func (n *note) sum(folder string, c content, all []place) {
	for _, p := range all {
		for _, f := range p.Files {
			if f.Part.sealed() {
				if n.Sums == nil {
					n.Sums = map[string]string{}
				}
				n.Sums[path.Join(folder, f.Name)] = digest(c[f.Name])
			}
		}
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// stub is a note with its area.
type stub struct {
	note
	area area
}

// read takes a receipt apart. A note can only name folders of the store, by a
// name that we give, and live paths whose hash is the folder that they are
// linked to.
func (e *engine) read(r deploy.Receipt) (stub, error) {
	var n note
	if err := json.Unmarshal(r.Note, &n); err != nil {
		return stub{}, fmt.Errorf("reading a receipt: %w", err)
	}
	if err := checkPlaces(n.Places); err != nil {
		return stub{}, fmt.Errorf("reading a receipt: %w", err)
	}
	for _, name := range append([]string{n.New, n.Prev}, n.Old...) {
		if !folderName.MatchString(name) {
			return stub{}, fmt.Errorf("reading a receipt: %q is no folder of the store", name)
		}
	}
	s := stub{n, newArea(e.Store, n.Places)}
	if s.area.base == folderOf(e.Store, e.places) && !reflect.DeepEqual(e.places, s.area.places) {
		return stub{}, fmt.Errorf("reading a receipt: it is for other paths than the target has now: stage anew")
	}
	if other := s.area.other(e.Store); other != "" {
		return stub{}, fmt.Errorf("reading a receipt: %s lies on another system than the store", other)
	}
	if inside := s.area.inside(e.Store); inside != "" {
		return stub{}, fmt.Errorf("reading a receipt: %s lies in the store", inside)
	}
	return s, nil
}

func (e *engine) readAll(rs []deploy.Receipt) ([]stub, error) {
	var all []stub
	for _, r := range rs {
		s, err := e.read(r)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (n note) receipt() (deploy.Receipt, error) {
	text, err := json.Marshal(n)
	return deploy.Receipt{Note: text}, err
}
