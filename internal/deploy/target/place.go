package target

import (
	"errors"
	"fmt"
	"slices"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// file is one file of a version: its name in the version's folder and the path
// at which the server reads it. Receipts hold it.
type file struct {
	Name, Live string
	Part       part
}

// place is where one leaf goes. Receipts hold it.
type place struct {
	Keys  farm.KeyType `json:",omitempty"` // empty: whatever no other place takes
	Files []file
}

// newPlace gives every path its file; the parts are in the order of the paths.
func newPlace(keys farm.KeyType, live []string, parts ...part) place {
	p := place{Keys: keys}
	for i, part := range parts {
		p.Files = append(p.Files, file{Name: nameOf(keys, part), Live: live[i], Part: part})
	}
	return p
}

func nameOf(keys farm.KeyType, p part) string {
	if keys == "" {
		return string(p)
	}
	return string(keys) + "." + string(p)
}

// content is a version's files by name.
type content map[string][]byte

// checkPlaces holds the places of a receipt to what a target can have.
func checkPlaces(all []place) error {
	if len(all) == 0 || len(all) > maxPairs {
		return fmt.Errorf("%d places for leaves; at most %d", len(all), maxPairs)
	}
	var seen []string
	for i, p := range all {
		if (i == 0) != (p.Keys == "") || (i > 0 && !slices.Contains(farm.KeyTypes, p.Keys)) {
			return fmt.Errorf("place %d is for keys %q", i, p.Keys)
		}
		var parts []part
		for _, f := range p.Files {
			parts = append(parts, f.Part)
			if f.Name != nameOf(p.Keys, f.Part) {
				return fmt.Errorf("%q is no file of a version", f.Name)
			}
			if err := checkPath("path", f.Live); err != nil {
				return err
			}
			seen = append(seen, f.Name, fold(f.Live))
		}
		if !slices.ContainsFunc(layouts, func(known []part) bool { return slices.Equal(known, parts) }) {
			return fmt.Errorf("no target has the files %q", parts)
		}
	}
	slices.Sort(seen)
	if n := len(seen); len(slices.Compact(seen)) != n {
		return errors.New("two files in one place")
	}
	return nil
}

// fill makes the content for a set of bundles: each place gets one, and each
// bundle a place.
func (o format) fill(all []place, s deploy.Stage) (content, error) {
	if len(s.Bundles) != len(all) {
		return nil, fmt.Errorf("the site has %d leaves and the target has places for %d: `more`, where the kind has it, must name paths for each further key type", len(s.Bundles), len(all))
	}
	left := slices.Clone(s.Bundles)
	c := content{}
	take := func(p place, i int) error {
		b := left[i]
		left = slices.Delete(left, i, i+1)
		if len(b.Names) == 0 {
			b.Names = s.Names
		}
		if err := o.known.Fits(b); err != nil {
			return err
		}
		return o.add(c, p, b)
	}
	for _, p := range all[1:] {
		i := slices.IndexFunc(left, func(b farm.Bundle) bool { return b.KeyType == p.Keys })
		if i < 0 {
			return nil, fmt.Errorf("the target has a place for %s, and the site has no such leaf", p.Keys)
		}
		if err := take(p, i); err != nil {
			return nil, err
		}
	}
	return c, take(all[0], 0)
}

// add puts a bundle's files for a place into a content.
func (o format) add(c content, p place, b farm.Bundle) error {
	for _, f := range p.Files {
		text, err := o.text(f.Part, b)
		if err != nil {
			return err
		}
		c[f.Name] = text
	}
	return nil
}

// matches says whether every place holds a key that belongs to its leaf.
func (o format) matches(c content, all []place) error {
	for _, p := range all {
		chain, key, err := o.pair(c, p)
		if err == nil {
			_, err = o.known.Pair(chain, key)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Files[0].Live, err)
		}
	}
	return nil
}

// see says what a content is good for.
func (o format) see(c content, all []place) deploy.Installed {
	var in deploy.Installed
	for _, p := range all {
		chain, key, err := o.pair(c, p)
		if err != nil {
			in.Mismatch = true
			continue
		}
		leaf, mismatch := o.known.Pair(chain, key)
		if leaf == nil {
			leaf, err = encode.Leaf(chain)
		}
		switch {
		case err != nil:
			in.Mismatch = in.Mismatch || len(chain)+len(key) > 0
			continue
		case encode.IsPlaceholder(leaf):
			in.Placeholder = true
			continue
		}
		in.Leaves = append(in.Leaves, farm.Fingerprint(leaf.Raw))
		in.Mismatch = in.Mismatch || mismatch != nil
	}
	return in
}

var errGone = errors.New("what was staged is gone: stage anew")
