package controller

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// What is remembered of public keys, by their SHA-256. An issued certificate has a
// key of its own; one that was imported may share it with others.
const (
	wordShared      = "shared key "      // + public key: the sites that a certificate with it was imported to
	wordCompromised = "compromised key " // + public key: the site at which it became known to others
	wordRevoked     = "revoked leaf "    // + fingerprint: the site whose it was
)

// publicKey is the SHA-256 of the public key of a chain's leaf; empty where it
// cannot be read.
func publicKey(chain []byte) string {
	block, _ := pem.Decode(chain)
	if block == nil {
		return ""
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return farm.Fingerprint(leaf.RawSubjectPublicKeyInfo)
}

// share remembers that a certificate with a key was imported to a site.
func share(ctx context.Context, tx *store.Tx, farmName, site string, chain []byte) error {
	word := wordShared + publicKey(chain)
	text, err := tx.Word(ctx, farmName, word)
	if err != nil || slices.Contains(strings.Fields(text), site) {
		return err
	}
	return tx.SetWord(ctx, farmName, word, strings.TrimSpace(text+" "+site))
}

// sharing lists the site and all others that a certificate with the key of one of
// the leaves was imported to.
func sharing(ctx context.Context, tx *store.Tx, farmName, site string, leaves []farm.Leaf) ([]string, error) {
	sites := []string{site}
	for _, l := range leaves {
		text, err := tx.Word(ctx, farmName, wordShared+publicKey(l.Chain))
		if err != nil {
			return nil, err
		}
		for _, s := range strings.Fields(text) {
			if !slices.Contains(sites, s) {
				sites = append(sites, s)
			}
		}
	}
	return sites, nil
}

// welcome refuses a certificate from elsewhere whose key is known to others, or
// that was revoked.
func welcome(ctx context.Context, tx *store.Tx, farmName string, leaf farm.Leaf) error {
	site, err := tx.Word(ctx, farmName, wordCompromised+publicKey(leaf.Chain))
	if err != nil {
		return err
	}
	if site != "" {
		return &Refusal{"the key of this certificate is known to others: `certfarm compromise " + site + "` was said", "get a certificate with a new key"}
	}
	site, err = tx.Word(ctx, farmName, wordRevoked+leaf.Fingerprint)
	if err != nil {
		return err
	}
	return refuseIf(site != "", "this certificate is revoked: `certfarm revoke "+site+"` was said", "get a new one")
}

// eraseKeys erases the keys of a version that are in the store, unless another
// version has the same ones, and has the node forget those that it holds. It reports whether there was anything to erase.
func eraseKeys(ctx context.Context, tx *store.Tx, v *farm.Version) (bool, error) {
	some := false
	for i := range v.Leaves {
		l := &v.Leaves[i]
		if l.Key.Sealed == "" {
			continue
		}
		if err := tx.RemoveSealed(ctx, v.Farm, sealedKey, l.Key.Sealed); err != nil {
			return false, err
		}
		l.Key, some = farm.KeyRef{}, true
	}
	if err := armForget(ctx, tx, *v); err != nil || !some {
		return false, err
	}
	return true, tx.PutVersion(ctx, *v)
}

// eraseOld erases the keys of a site's versions that nobody can go to any more.
// Kept are those that a target should hold or that a rollout deals with, the newest
// two that may be served (the second is the way back of `rollout undo`), and those that a
// revocation may still need; the keys of a compromised version are erased by its
// journey.
func eraseOld(ctx context.Context, tx *store.Tx, farmName, site string) error {
	versions, err := tx.Versions(ctx, farmName, site)
	if err != nil {
		return err
	}
	needed, err := inUse(ctx, tx, farmName, site)
	if err != nil {
		return err
	}
	kept := servable(versions, tx.Now())
	for _, v := range versions {
		if slices.Contains(kept[:min(len(kept), 2)], v.ID) {
			continue
		}
		if slices.Contains(needed, v.ID) || v.State == farm.VersionCompromised || len(v.Unrevoked(tx.Now())) > 0 {
			continue
		}
		if err := eraseVersion(ctx, tx, v); err != nil {
			return err
		}
	}
	return nil
}

// servable are the ids of the versions that may be served, newest first: the newest that is
// good, and before it those that were everywhere once. Where that is not known of any,
// since an earlier Certfarm did not write it down, they are all that are good.
func servable(versions []farm.Version, now time.Time) (ids []string) {
	var good []farm.Version
	for _, v := range versions {
		if v.State == farm.VersionGood && now.Before(v.NotAfter()) && v.HasKeys() {
			good = append(good, v)
		}
	}
	known := len(good) > 1 && slices.ContainsFunc(good[1:], func(v farm.Version) bool { return !v.Proven.IsZero() })
	for i, v := range good {
		if i == 0 || !known || !v.Proven.IsZero() {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// eraseVersion erases the keys of a version, and tells where there were any.
func eraseVersion(ctx context.Context, tx *store.Tx, v farm.Version) error {
	erased, err := eraseKeys(ctx, tx, &v)
	if err != nil || !erased {
		return err
	}
	return tell(ctx, tx, farm.Event{
		Farm: v.Farm, Kind: "keys.erased", Site: v.Site, Version: v.ID,
		Text: fmt.Sprintf("the key of %s is erased here: nothing goes back to that version", farm.Short(leafOf(v))),
	})
}

// inUse lists the versions that targets should hold, or that a rollout deals with.
func inUse(ctx context.Context, tx *store.Tx, farmName, site string) (ids []string, err error) {
	places, err := everOf(ctx, tx, farmName, site)
	if err != nil {
		return nil, err
	}
	sites := map[string]bool{site: true}
	for _, p := range places {
		ids = append(ids, p.Desired...)
		sites[p.Target.Site] = true
	}
	var running []farm.Rollout
	for s := range sites {
		some, err := tx.RunningRollouts(ctx, farmName, s)
		if err != nil {
			return nil, err
		}
		running = append(running, some...)
	}
	for _, r := range running {
		ids = append(ids, r.To.ID)
		for _, s := range r.Steps {
			for _, f := range s.From {
				ids = append(ids, f.ID)
			}
		}
	}
	return ids, nil
}

// unlessGone is an error that is not about something being gone.
func unlessGone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
