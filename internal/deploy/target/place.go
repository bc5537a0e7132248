package target

import (
	"errors"
	"fmt"
	"slices"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// part is what of a leaf a file holds.
type part int

const (
	combined part = iota
	chainOnly
	keyOnly
)

// file is one file of a version: its name in the version's folder and the path
// at which the server reads it.
type file struct {
	name, live string
	part       part
}

// place is where one leaf goes.
type place struct {
	keys  farm.KeyType // empty: whatever no other place takes
	files []file
}

// content is a version's files by name.
type content map[string][]byte

// places gives every path its file.
func places(pairs []typed) []place {
	var all []place
	for _, p := range pairs {
		prefix := ""
		if p.Keys != "" {
			prefix = string(p.Keys) + "."
		}
		var files []file
		if p.PEM != "" {
			files = []file{{prefix + "combined.pem", p.PEM, combined}}
		} else {
			files = []file{{prefix + "chain.pem", p.Chain, chainOnly}, {prefix + "key.pem", p.Key, keyOnly}}
		}
		all = append(all, place{p.Keys, files})
	}
	return all
}

// text is what a part of a bundle looks like.
func (p part) text(b farm.Bundle) ([]byte, error) {
	switch p {
	case chainOnly:
		return encode.ChainPEM(b)
	case keyOnly:
		key, err := encode.KeyPEM(b)
		return key.Reveal(), err
	default:
		both, err := encode.Combined(b)
		return both.Reveal(), err
	}
}

// fill makes the content for a set of bundles: each place gets one, and each
// bundle a place.
func fill(all []place, s deploy.Stage) (content, error) {
	if len(s.Bundles) != len(all) {
		return nil, fmt.Errorf("the site has %d leaves and the target has places for %d: `more` must name one pair of paths for each further key type", len(s.Bundles), len(all))
	}
	left := slices.Clone(s.Bundles)
	c := content{}
	take := func(p place, i int) error {
		b := left[i]
		left = slices.Delete(left, i, i+1)
		if len(b.Names) == 0 {
			b.Names = s.Names
		}
		if err := encode.Fits(b); err != nil {
			return err
		}
		return c.add(p, b)
	}
	for _, p := range all[1:] {
		i := slices.IndexFunc(left, func(b farm.Bundle) bool { return b.KeyType == p.keys })
		if i < 0 {
			return nil, fmt.Errorf("the target has a place for %s, and the site has no such leaf", p.keys)
		}
		if err := take(p, i); err != nil {
			return nil, err
		}
	}
	return c, take(all[0], 0)
}

func (c content) add(p place, b farm.Bundle) error {
	for _, f := range p.files {
		text, err := f.part.text(b)
		if err != nil {
			return err
		}
		c[f.name] = text
	}
	return nil
}

// pairOf is the chain and the key of a place.
func (c content) pairOf(p place) (chain, key []byte) {
	return c[p.files[0].name], c[p.files[len(p.files)-1].name]
}

// matches says whether every place holds a key that belongs to its leaf.
func (c content) matches(all []place) error {
	for _, p := range all {
		chain, key := c.pairOf(p)
		if _, err := encode.Pair(chain, key); err != nil {
			return fmt.Errorf("%s: %w", p.files[0].live, err)
		}
	}
	return nil
}

// see says what a content is good for.
func (c content) see(all []place) deploy.Installed {
	var in deploy.Installed
	for _, p := range all {
		chain, key := c.pairOf(p)
		leaf, err := encode.Leaf(chain)
		switch {
		case err != nil:
			in.Mismatch = in.Mismatch || len(chain)+len(key) > 0
			continue
		case encode.IsPlaceholder(leaf):
			in.Placeholder = true
			continue
		}
		in.Leaves = append(in.Leaves, farm.Fingerprint(leaf.Raw))
		_, err = encode.Pair(chain, key)
		in.Mismatch = in.Mismatch || err != nil
	}
	return in
}

var errGone = errors.New("what was staged is gone: stage anew")
