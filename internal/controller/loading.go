package controller

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// loading reads acts of one verb, and what they share once.
type loading struct {
	c    *Controller
	tx   *store.Tx
	farm string
	verb farm.Verb
	had  map[string]string // roots, by issuer
}

// act loads what acting on one step takes. What is only switched or taken away goes
// by its receipt.
func (l loading) act(ctx context.Context, f store.InFlight) (a act, err error) {
	a.Rollout, a.step, a.place = f.Rollout, f.Steps[0], f.Place
	switch l.verb {
	case farm.DoDiscard:
		return a, nil
	case farm.DoActivate:
		if a.stale = l.c.Now().Sub(a.step.Staged) >= freshFor; a.stale {
			err = l.versions(ctx, &a)
		}
	case farm.DoStage:
		err = l.versions(ctx, &a)
	default:
		err = l.version(ctx, &a)
	}
	return a, err
}

// version reads what the act is to bring, and what was there before.
func (l loading) version(ctx context.Context, a *act) (err error) {
	if a.version, err = l.tx.Version(ctx, l.farm, a.To.ID); err != nil {
		return err
	}
	for _, f := range a.step.From {
		if l.verb != farm.DoRestore {
			break
		}
		v, err := l.tx.Version(ctx, l.farm, f.ID)
		if err != nil {
			return err
		}
		a.from = append(a.from, v)
	}
	a.roots, err = l.rootsFor(ctx, a.version)
	return err
}

// versions reads what the act is to bring, and what else is no stranger's.
func (l loading) versions(ctx context.Context, a *act) error {
	all, err := everHeld(ctx, l.tx, l.farm, a.Site)
	if err != nil {
		return err
	}
	for _, v := range all {
		a.kin.leaves = append(a.kin.leaves, v.Leaves...)
		if v.ID == a.To.ID {
			a.version = v
		}
		if slices.Contains(a.place.Desired, v.ID) {
			a.kin.holds = v
		}
	}
	if a.version.ID == "" {
		return fmt.Errorf("version %s of %s: %w", a.To.ID, a.Site, store.ErrNotFound)
	}
	if a.roots, err = l.rootsFor(ctx, a.version); err != nil {
		return err
	}
	a.kin.roots = a.roots
	if a.kin.holds.Issuer != "" {
		a.kin.roots, err = l.rootsOf(ctx, a.kin.holds.Issuer)
	}
	return err
}

// rootsFor are the private roots that a version is judged by.
func (l loading) rootsFor(ctx context.Context, v farm.Version) (string, error) {
	if v.Issuer != "" {
		return l.rootsOf(ctx, v.Issuer)
	}
	issuer, err := l.tx.IssuerOf(ctx, l.farm, v.Site)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	private, err := l.rootsOf(ctx, issuer)
	return l.c.vouched.rootsOfImported(v, private), err
}

func (l loading) rootsOf(ctx context.Context, issuer string) (string, error) {
	if r, ok := l.had[issuer]; ok {
		return r, nil
	}
	r, err := roots(ctx, l.tx, l.farm, issuer)
	if err == nil {
		l.had[issuer] = r
	}
	return r, err
}

// vouched remembers which roots vouch for what was imported, since that takes
// signatures to find out.
type vouched struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]string
}

// vouchedMost is how much is remembered.
const vouchedMost = 4096

// rootsOfImported is the function of that name, remembered.
func (k *vouched) rootsOfImported(v farm.Version, private string) string {
	if private == "" || len(v.Leaves) == 0 {
		return ""
	}
	id := sha256.Sum256(slices.Concat(v.Leaves[0].Chain, []byte{0}, []byte(private)))
	k.mu.Lock()
	r, ok := k.known[id]
	k.mu.Unlock()
	if ok {
		return r
	}
	r = rootsOfImported(v, private)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil || len(k.known) >= vouchedMost {
		k.known = map[[sha256.Size]byte]string{}
	}
	k.known[id] = r
	return r
}

// rootsOfImported are the private roots of a site's issuer, where they vouch for a
// version that was imported; else it is judged by the system's.
func rootsOfImported(v farm.Version, private string) string {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	if len(v.Leaves) == 0 || !pool.AppendCertsFromPEM([]byte(private)) {
		return ""
	}
	block, rest := pem.Decode(v.Leaves[0].Chain)
	if block == nil {
		return ""
	}
	between.AppendCertsFromPEM(rest)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: leaf.NotBefore}); err != nil {
		return ""
	}
	return private
}

// roots are the private roots of an issuer; what came from one that is gone from
// farm.yaml is judged by the system's roots.
func roots(ctx context.Context, tx *store.Tx, farmName, issuer string) (string, error) {
	i, err := tx.Issuer(ctx, farmName, issuer)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return i.Roots, err
}
