package controller

import (
	"context"
	"slices"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/store"
)

// When a site's strategy changes, its targets go to other sites: from SITE to its
// members SITE@NODE, or back. What they hold then are versions of the site that they
// were of. These are kept, and stay a way back, until they have expired.

// everHeld are the versions that targets of a site may hold: its own, newest first, and
// those of before its strategy changed.
func everHeld(ctx context.Context, tx *store.Tx, farmName, site string) ([]farm.Version, error) {
	own, err := tx.Versions(ctx, farmName, site)
	if err != nil {
		return nil, err
	}
	before, err := heldBefore(ctx, tx, farmName, site)
	return append(own, before...), err
}

// everHeldBy is everHeld of many sites, by their names.
func everHeldBy(ctx context.Context, tx *store.Tx, farmName string, sites []string) (map[string][]farm.Version, error) {
	var wholes []string
	for _, s := range sites {
		if farm.WholeOf(s) == s {
			wholes = append(wholes, s)
		}
	}
	held, err := tx.VersionsOfSites(ctx, farmName, sites)
	if err != nil {
		return nil, err
	}
	before, err := tx.MembersVersions(ctx, farmName, wholes)
	if err != nil {
		return nil, err
	}
	for _, s := range sites {
		if farm.WholeOf(s) != s {
			if before[s], err = heldBefore(ctx, tx, farmName, s); err != nil {
				return nil, err
			}
		}
		held[s] = append(held[s], before[s]...)
	}
	return held, nil
}

// versionOf is a version by its id, which is among the known or read.
func versionOf(ctx context.Context, tx *store.Tx, farmName, id string, known []farm.Version) (farm.Version, error) {
	if i := slices.IndexFunc(known, func(v farm.Version) bool { return v.ID == id }); i >= 0 {
		return known[i], nil
	}
	return tx.Version(ctx, farmName, id)
}

// heldBefore are the versions of before a site's strategy changed.
func heldBefore(ctx context.Context, tx *store.Tx, farmName, site string) ([]farm.Version, error) {
	if whole := farm.WholeOf(site); whole != site {
		return tx.Versions(ctx, farmName, whole)
	}
	return tx.MemberVersions(ctx, farmName, site)
}

// everOf are the places that may hold versions of a site: its own, and those that
// went to its members, or to the site that it was a member of.
func everOf(ctx context.Context, tx *store.Tx, farmName, site string) ([]farm.Place, error) {
	own, err := tx.Places(ctx, farmName, site)
	if err != nil {
		return nil, err
	}
	var others []farm.Place
	if whole := farm.WholeOf(site); whole != site {
		others, err = tx.Places(ctx, farmName, whole)
	} else {
		others, err = tx.MemberPlaces(ctx, farmName, site)
	}
	return append(own, others...), err
}

// ofOthers reports that a place should hold a version of a site that it was of before.
func ofOthers(ctx context.Context, tx *store.Tx, p farm.Place) (bool, error) {
	own, err := tx.Versions(ctx, p.Farm, p.Target.Site)
	return len(p.Desired) > 0 && !slices.ContainsFunc(own, func(v farm.Version) bool { return slices.Contains(p.Desired, v.ID) }), err
}

// eraseKin erases the keys that nobody can go to any more of the sites that a site's
// targets were of before.
func eraseKin(ctx context.Context, tx *store.Tx, farmName, site string) error {
	versions, err := heldBefore(ctx, tx, farmName, site)
	if err != nil {
		return err
	}
	var done []string
	for _, v := range versions {
		if slices.Contains(done, v.Site) {
			continue
		}
		done = append(done, v.Site)
		if err := eraseOld(ctx, tx, farmName, v.Site); err != nil {
			return err
		}
	}
	return nil
}

// mayMove refuses to change a site's strategy while a rollout of it runs: what is live
// on its targets is not known then, and is what the next rollout goes back to.
func mayMove(ctx context.Context, tx *store.Tx, farmName string, changes []plan.Change) error {
	for _, ch := range changes {
		if !ch.Moves() {
			continue
		}
		for _, site := range append(ch.Sites(), ch.Name) {
			running, err := tx.RunningRollouts(ctx, farmName, site)
			if err != nil {
				return err
			}
			if len(running) > 0 {
				return &Refusal{
					"the strategy of site " + ch.Name + " cannot change while a rollout of it runs (" + site + ")",
					"wait for its end, or `certfarm rollout abort " + ch.Name + "`",
				}
			}
		}
	}
	return nil
}

// waysBack are the versions among which a person goes back: a site's own, and for a
// member those of before its strategy changed. A whole site cannot go back to what each
// of its nodes had.
func waysBack(ctx context.Context, tx *store.Tx, farmName, site string) ([]farm.Version, error) {
	own, err := tx.Versions(ctx, farmName, site)
	if err != nil || farm.WholeOf(site) == site || len(own) == 0 {
		return own, err
	}
	before, err := heldBefore(ctx, tx, farmName, site)
	return append(own, before...), err
}

// fledBefore are the sites that a site's targets were of before its strategy changed,
// and whose keys lay on its nodes, too: those with a version that clients still accept.
func fledBefore(ctx context.Context, tx *store.Tx, farmName, site string) (sites []string, err error) {
	versions, err := heldBefore(ctx, tx, farmName, site)
	for _, v := range versions {
		if v.State != farm.VersionCompromised && tx.Now().Before(v.NotAfter()) && !slices.Contains(sites, v.Site) {
			sites = append(sites, v.Site)
		}
	}
	return sites, err
}
