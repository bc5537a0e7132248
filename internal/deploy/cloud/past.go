package cloud

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
)

// A past is what a vault keeps of a shelf by itself: its versions through time.
type past interface {
	// versions lists those that there are. It changes nothing.
	versions(ctx context.Context) ([]version, error)
	// shut takes versions, none of which is current, from readers as far as the vault can.
	shut(ctx context.Context, refs []string) error
	// left says what the vault has of keys all the same: in the versions that are shut,
	// and in others that it does not show. Empty: nothing.
	left(shut, hidden []string) string
}

// A version is one of a shelf's, as its past tells.
type version struct {
	ref    string   // in the shelf's words
	keys   []string // SHA-256 of the public keys that it has, or has the private ones of
	shut   bool     // readers do not get it any more
	hidden bool     // it is deleted and can be brought back, and until then nobody sees what is in it
}

// Forget is deploy.Forgetter's.
func (k *keeper) Forget(ctx context.Context, keys []string) (deploy.Forgotten, error) {
	f, err := k.forget(ctx, keys)
	return f, k.told("taking old versions out of", err)
}

// forget lists the versions before it looks at what is current: all but that one are
// older, then, and none of them is ever current again.
func (k *keeper) forget(ctx context.Context, keys []string) (f deploy.Forgotten, err error) {
	all, err := k.past.versions(ctx)
	if err != nil || len(all) == 0 {
		return f, err
	}
	now, err := k.look(ctx)
	if err != nil {
		return f, err
	}
	old, hidden, err := earlier(all, now, keys)
	if err != nil {
		return f, err
	}
	var shown []string
	for _, v := range old {
		f.Versions = append(f.Versions, v.ref)
		if !v.shut {
			shown = append(shown, v.ref)
		}
	}
	if len(shown) > 0 {
		if err := k.past.shut(ctx, shown); err != nil {
			return deploy.Forgotten{}, err
		}
	}
	f.Left = k.past.left(f.Versions, hidden)
	return f, nil
}

// earlier picks, of all versions but the current one, those with one of the keys, and
// those that are hidden. That the current one has such a key is an error.
func earlier(all []version, now held, keys []string) (old []version, hidden []string, err error) {
	known := func(key string) bool { return slices.Contains(keys, key) }
	switch {
	case now.leaf == "":
		return nil, nil, errors.New("what is current there is of no use, so nothing is taken away: it may be that an older version is still read")
	case known(now.key):
		return nil, nil, fmt.Errorf("what is current there, %s, has the old key, and is left alone", farm.Short(now.leaf))
	}
	for _, v := range all {
		switch has := slices.ContainsFunc(v.keys, known); {
		case v.ref == now.ref && has:
			return nil, nil, errors.New("what is current there has the old key in a field that is none of the target's: take that out")
		case v.ref == now.ref:
		case v.hidden:
			hidden = append(hidden, v.ref)
		case has:
			old = append(old, v)
		}
	}
	return old, hidden, nil
}

// keyOf is the SHA-256 of a certificate's public key.
func keyOf(leaf *x509.Certificate) string { return farm.Fingerprint(leaf.RawSubjectPublicKeyInfo) }

// ofVersions names versions in a sentence.
func ofVersions(refs []string) string {
	if len(refs) == 1 {
		return "version " + refs[0]
	}
	return "versions " + strings.Join(refs, ", ")
}
