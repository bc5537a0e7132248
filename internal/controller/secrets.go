package controller

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// The kinds of sealed records.
const (
	sealedKey     = "key"     // a leaf's private key
	sealedAccount = "account" // an ACME account's key
	sealedSecret  = "secret"  // what `certfarm secret set` was given
)

// keyring is the master keys at hand.
func (c *Controller) keyring() *secret.Keyring { return c.keys.Load() }

func (c *Controller) seal(farmName, kind, name string, s farm.Secret) ([]byte, error) {
	sealed, err := c.keyring().Seal(secret.RecordID(farmName, kind, name), s)
	if err != nil {
		return nil, fmt.Errorf("sealing %s %s: %w", kind, name, err)
	}
	return sealed, nil
}

// unseal reads a sealed record.
func (c *Controller) unseal(ctx context.Context, farmName, kind, name string) (farm.Secret, error) {
	var sealed []byte
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		sealed, err = tx.Sealed(ctx, farmName, kind, name)
		return err
	})
	if err != nil {
		return farm.Secret{}, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	return c.keyring().Open(secret.RecordID(farmName, kind, name), sealed)
}

// Secret reads a secret that farm.yaml names.
func (c *Controller) Secret(ctx context.Context, farmName string, ref farm.SecretRef) (farm.Secret, error) {
	switch {
	case ref.IsZero():
		return farm.Secret{}, nil
	case ref.Secret != "":
		s, err := c.unseal(ctx, farmName, sealedSecret, ref.Secret)
		if err != nil {
			return s, fmt.Errorf("%w (give it with `certfarm secret set %s`)", err, ref.Secret)
		}
		return s, nil
	case !c.InPlace:
		return farm.Secret{}, fmt.Errorf("%s: a controller reads only secrets that `certfarm secret set` sealed", ref)
	}
	return readInPlace(ref)
}

// readInPlace reads a secret where farm.yaml says that it is.
func readInPlace(ref farm.SecretRef) (farm.Secret, error) {
	if ref.File != "" {
		b, err := os.ReadFile(ref.File)
		return farm.NewSecret(b), err
	}
	s, ok := os.LookupEnv(ref.Env)
	if !ok {
		return farm.Secret{}, fmt.Errorf("%s is not set", ref)
	}
	return farm.NewSecret([]byte(s)), nil
}

// Node finds a node of a farm.
func (c *Controller) Node(ctx context.Context, farmName, name string) (n farm.Node, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		n, err = tx.Node(ctx, farmName, name)
		return err
	})
	return n, err
}

// bundles opens a version with its keys, but for those that are held on a node. They are
// sealed, by name.
func (c *Controller) bundles(v farm.Version, keys map[string][]byte) ([]farm.Bundle, error) {
	var all []farm.Bundle
	for _, l := range v.Leaves {
		var key farm.Secret // none where the key is held on a node
		if l.Key.Node == "" {
			sealed, there := keys[l.Key.Sealed]
			if !there {
				return nil, fmt.Errorf("%s %s: %w", sealedKey, l.Key.Sealed, store.ErrNotFound)
			}
			var err error
			if key, err = c.keyring().Open(secret.RecordID(v.Farm, sealedKey, l.Key.Sealed), sealed); err != nil {
				return nil, err
			}
		}
		all = append(all, farm.Bundle{
			Version: v.ID, Leaf: l.Fingerprint, KeyType: l.KeyType, Names: v.Names, Chain: l.Chain, Key: key,
		})
	}
	return all, nil
}

// sealedNames are the names of a version's keys, as they are sealed.
func sealedNames(v farm.Version) (names []string) {
	for _, l := range v.Leaves {
		names = append(names, l.Key.Sealed)
	}
	return names
}

// bundle is one leaf of a site's versions with its key, by fingerprint.
func (c *Controller) bundle(ctx context.Context, farmName, site, leaf string) (farm.Bundle, error) {
	var all []farm.Bundle
	var at int
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		versions, err := everHeld(ctx, tx, farmName, site)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(versions, func(v farm.Version) bool { return slices.Contains(v.Fingerprints(), leaf) })
		if i < 0 {
			return fmt.Errorf("the key of %s is not here", farm.Short(leaf))
		}
		keys, err := tx.SealedOf(ctx, farmName, sealedKey, sealedNames(versions[i]))
		if err != nil {
			return err
		}
		at = slices.Index(versions[i].Fingerprints(), leaf)
		all, err = c.bundles(versions[i], keys)
		return err
	})
	if err != nil {
		return farm.Bundle{}, err
	}
	return all[at], nil
}
