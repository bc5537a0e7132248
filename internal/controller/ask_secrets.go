package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// A SecretInfo names a secret, never its value.
type SecretInfo struct {
	Name string    `json:"name"`
	At   time.Time `json:"at" doc:"when it was set"`
}

// SetSecret seals a secret under a name.
func (c *Controller) SetSecret(ctx context.Context, farmName, name string, value farm.Secret, by string) error {
	if value.IsZero() {
		return &Refusal{"secret " + name + " is empty", "give the value on standard input or with --file"}
	}
	sealed, err := c.seal(farmName, sealedSecret, name, value)
	if err != nil {
		return err
	}
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.PutSealed(ctx, farmName, sealedSecret, name, sealed); err != nil {
			return err
		}
		f, err := tx.Farm(ctx, farmName)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := openAgain(ctx, tx, f, func(i farm.Issuer) bool { return i.EAB != nil && i.EAB.HMAC.Secret == name }); err != nil {
			return err
		}
		return tell(ctx, tx, farm.Event{Farm: farmName, Kind: "secret.set", Actor: by, Text: "secret " + name + " was set"})
	})
}

// Secrets lists up to limit of the farm's secrets (0: all) whose names come after the
// given one.
func (c *Controller) Secrets(ctx context.Context, farmName, after string, limit int) (all []SecretInfo, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		infos, err := tx.SealedAfter(ctx, farmName, sealedSecret, after, limit)
		for _, i := range infos {
			all = append(all, SecretInfo{i.Name, i.At})
		}
		return err
	})
	return all, err
}

// RemoveSecret forgets a secret.
func (c *Controller) RemoveSecret(ctx context.Context, farmName, name, by string) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.Sealed(ctx, farmName, sealedSecret, name); err != nil {
			return err
		}
		if err := tx.RemoveSealed(ctx, farmName, sealedSecret, name); err != nil {
			return err
		}
		return tell(ctx, tx, farm.Event{Farm: farmName, Kind: "secret.removed", Actor: by, Text: "secret " + name + " was removed"})
	})
}

// Import makes a certificate that was got elsewhere the site's newest version,
// and rolls it out. Chain and key are PEM.
func (c *Controller) Import(ctx context.Context, farmName, siteName string, chain []byte, key farm.Secret, by string) (v farm.Version, err error) {
	leaf, err := encode.Facts(chain)
	if err != nil {
		return v, &Refusal{"the chain cannot be read: " + err.Error(), "give it as PEM, leaf first"}
	}
	id := store.NewID("key")
	leaf.Key = farm.KeyRef{Sealed: id}
	sealed, err := c.seal(farmName, sealedKey, id, key)
	if err != nil {
		return v, err
	}
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		if err := onlyOne(ctx, tx, farmName, siteName, "one certificate cannot be that of all"); err != nil {
			return err
		}
		site, err := tx.Site(ctx, farmName, siteName)
		if err != nil {
			return err
		}
		b := farm.Bundle{Leaf: leaf.Fingerprint, KeyType: leaf.KeyType, Names: site.Names, Chain: chain, Key: key}
		if err := encode.Check(b, tx.Now()); err != nil {
			return &Refusal{"the certificate does not fit site " + siteName + ": " + err.Error(), "give the chain, leaf first, and the key that belongs to it"}
		}
		if err := welcome(ctx, tx, farmName, leaf); err != nil {
			return err
		}
		if err := share(ctx, tx, farmName, siteName, leaf.Chain); err != nil {
			return err
		}
		v = farm.Version{
			ID: store.NewID("ver"), Farm: farmName, Site: siteName, Names: site.Names, Created: tx.Now(), Leaves: []farm.Leaf{leaf},
		}
		if v.StandsFor, err = asksFor(ctx, tx, farmName, site); err != nil {
			return err
		}
		return errors.Join(tx.PutSealed(ctx, farmName, sealedKey, id, sealed), imported(ctx, tx, v, by))
	})
	return v, err
}

// imported makes a version the newest of its site.
func imported(ctx context.Context, tx *store.Tx, v farm.Version, by string) error {
	if err := tx.PutVersion(ctx, v); err != nil {
		return err
	}
	cert, err := tx.Certificate(ctx, v.Farm, v.Site)
	if err != nil {
		return err
	}
	cert.Version, cert.Retries, cert.Retry, cert.ARI = v.ID, 0, time.Time{}, farm.Suggestion{}
	return errors.Join(tx.PutCertificate(ctx, cert), tell(ctx, tx, farm.Event{
		Farm: v.Farm, Kind: "version.imported", Site: v.Site, Version: v.ID, Actor: by,
		Text: fmt.Sprintf("%s imported %s, valid until %s", by, farm.Short(leafOf(v)), v.NotAfter().UTC().Format("2006-01-02 15:04 MST")),
	}), goOn(ctx, tx, v.Farm, v.Site))
}

// asksFor is what farm.yaml asks of a site's certificate now.
func asksFor(ctx context.Context, tx *store.Tx, farmName string, site farm.Site) (*farm.Wanted, error) {
	w := farm.Wanted{KeyTypes: site.KeyTypes, Issuer: site.Issuer, Profile: site.Profile}
	issuer, err := tx.Issuer(ctx, farmName, site.Issuer)
	if w.Profile == "" {
		w.Profile = issuer.Profile
	}
	return &w, err
}

// Rekey makes a new master key, seals everything under it, and forgets the old
// one. It returns how many records were sealed anew. Cut short, it leaves both
// keys in the file, and may be repeated.
func (c *Controller) Rekey(ctx context.Context, by string) (n int, err error) {
	rotated, err := c.keyring().Rotate()
	if err != nil {
		return 0, err
	}
	c.keys.Store(rotated)
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		if n, err = resealAll(ctx, tx, rotated); err != nil {
			return err
		}
		return tellRekeyed(ctx, tx, by)
	})
	if err != nil {
		return 0, err
	}
	// A record that was sealed under the old key while the transaction waited
	// would be lost with it.
	if err := c.Store.View(ctx, func(tx *store.Tx) error { return allUnder(ctx, tx, rotated) }); err != nil {
		return n, err
	}
	retired, err := rotated.Retire()
	if err != nil {
		return n, err
	}
	c.keys.Store(retired)
	return n, nil
}

// resealAll seals under the newest key what is not yet, and counts it.
func resealAll(ctx context.Context, tx *store.Tx, k *secret.Keyring) (n int, err error) {
	for r, err := range tx.AllSealed(ctx) {
		if err != nil {
			return n, err
		}
		again, changed, err := k.Reseal(secret.RecordID(r.Farm, r.Kind, r.Name), r.Sealed)
		if err != nil {
			return n, err
		}
		if !changed {
			continue
		}
		n++
		if err := tx.PutSealed(ctx, r.Farm, r.Kind, r.Name, again); err != nil {
			return n, err
		}
	}
	return n, nil
}

// tellRekeyed tells every farm, since all have the master key in common.
func tellRekeyed(ctx context.Context, tx *store.Tx, by string) error {
	farms, err := tx.Farms(ctx)
	if err != nil {
		return err
	}
	for _, f := range farms {
		if err := tell(ctx, tx, farm.Event{Farm: f, Kind: "keys.rekeyed", Actor: by, Text: by + " changed the master key"}); err != nil {
			return err
		}
	}
	return nil
}

// allUnder refuses where a record is still sealed under an older key.
func allUnder(ctx context.Context, tx *store.Tx, k *secret.Keyring) error {
	for r, err := range tx.AllSealed(ctx) {
		if err != nil {
			return err
		}
		if _, changed, err := k.Reseal(secret.RecordID(r.Farm, r.Kind, r.Name), r.Sealed); err != nil || changed {
			return errors.Join(err, refuseIf(changed, "a secret was written while the master key changed", "run `certfarm rekey` again"))
		}
	}
	return nil
}
