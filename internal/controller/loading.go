package controller

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// loading reads acts of one verb, and what they share once. What many acts take is read
// for all of them together.
type loading struct {
	c        *Controller
	tx       *store.Tx
	farm     string
	verb     farm.Verb
	had      map[string]string         // roots, by issuer
	held     map[string][]farm.Version // that targets of a site may hold
	versions map[string]farm.Version   // by id
	keys     map[string][]byte         // that are sealed, by name
	issuers  map[string]string         // by site
}

// acts loads what acting on steps takes.
func (l loading) acts(ctx context.Context, doing []store.InFlight) (acts []act, err error) {
	l.had = map[string]string{}
	var fresh []store.InFlight // nothing else is read of those
	for _, f := range doing {
		if l.verb != farm.DoDiscard && (l.verb != farm.DoActivate || l.isStale(f)) {
			fresh = append(fresh, f)
		}
	}
	if l.verb == farm.DoStage || l.verb == farm.DoActivate {
		err = l.readHeld(ctx, fresh)
	} else {
		err = l.readVersions(ctx, fresh)
	}
	if err != nil {
		return nil, err
	}
	for _, f := range doing {
		a, err := l.act(ctx, f)
		if err != nil {
			return nil, err
		}
		acts = append(acts, a)
	}
	return acts, nil
}

// isStale reports that what is live on a step's target was looked at so long ago that it
// is looked at again before it is switched.
func (l loading) isStale(f store.InFlight) bool { return l.c.Now().Sub(f.Steps[0].Staged) >= freshFor }

// readHeld reads the versions that targets of the acts' sites may hold, and the keys of
// those that are to be brought.
func (l *loading) readHeld(ctx context.Context, doing []store.InFlight) (err error) {
	sites, to := map[string]bool{}, map[string]bool{}
	for _, f := range doing {
		sites[f.Site], to[f.To.ID] = true, true
	}
	if l.held, err = everHeldBy(ctx, l.tx, l.farm, slices.Sorted(maps.Keys(sites))); err != nil {
		return err
	}
	var imported, names []string
	for _, s := range slices.Sorted(maps.Keys(l.held)) {
		for _, v := range l.held[s] {
			if !to[v.ID] {
				continue
			}
			if v.Issuer == "" {
				imported = append(imported, v.Site)
			}
			names = append(names, sealedNames(v)...)
		}
	}
	if l.verb == farm.DoStage {
		if l.keys, err = l.tx.SealedOf(ctx, l.farm, sealedKey, names); err != nil {
			return err
		}
	}
	l.issuers, err = l.tx.IssuersOf(ctx, l.farm, imported)
	return err
}

// readVersions reads the versions that the acts are to bring, or to bring back.
func (l *loading) readVersions(ctx context.Context, doing []store.InFlight) (err error) {
	ids := map[string]bool{}
	for _, f := range doing {
		ids[f.To.ID] = true
		for _, from := range f.Steps[0].From {
			ids[from.ID] = ids[from.ID] || l.verb == farm.DoRestore
		}
	}
	maps.DeleteFunc(ids, func(_ string, wanted bool) bool { return !wanted })
	if l.versions, err = l.tx.VersionsOf(ctx, l.farm, slices.Sorted(maps.Keys(ids))); err != nil {
		return err
	}
	var imported []string
	for _, id := range slices.Sorted(maps.Keys(l.versions)) {
		if v := l.versions[id]; v.Issuer == "" {
			imported = append(imported, v.Site)
		}
	}
	l.issuers, err = l.tx.IssuersOf(ctx, l.farm, imported)
	return err
}

// act loads what acting on one step takes. What is only switched or taken away goes
// by its receipt.
func (l loading) act(ctx context.Context, f store.InFlight) (a act, err error) {
	a.Rollout, a.step, a.place = f.Rollout, f.Steps[0], f.Place
	switch l.verb {
	case farm.DoDiscard:
		return a, nil
	case farm.DoActivate:
		if a.stale = l.isStale(f); a.stale {
			err = l.findHeld(ctx, &a)
		}
	case farm.DoStage:
		err = l.findHeld(ctx, &a)
	default:
		err = l.find(ctx, &a)
	}
	return a, err
}

// find finds what the act is to bring, and what was there before.
func (l loading) find(ctx context.Context, a *act) (err error) {
	if a.version, err = l.version(a.To.ID); err != nil {
		return err
	}
	for _, f := range a.step.From {
		if l.verb != farm.DoRestore {
			break
		}
		v, err := l.version(f.ID)
		if err != nil {
			return err
		}
		a.from = append(a.from, v)
	}
	a.roots, err = l.rootsFor(ctx, a.version)
	return err
}

// version is one of those that were read.
func (l loading) version(id string) (farm.Version, error) {
	v, there := l.versions[id]
	if !there {
		return v, fmt.Errorf("version %s: %w", id, store.ErrNotFound)
	}
	return v, nil
}

// findHeld finds what the act is to bring, and what else is no stranger's.
func (l loading) findHeld(ctx context.Context, a *act) (err error) {
	for _, v := range l.held[a.Site] {
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
	a.keys = l.keys
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
	issuer, there := l.issuers[v.Site]
	if !there {
		return "", nil
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
