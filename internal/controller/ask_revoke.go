package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/store"
)

// A RevokeAsk says what is to be revoked.
type RevokeAsk struct {
	Version string `json:"version,omitempty" doc:"id, or the beginning of a leaf's fingerprint; not set: the newest that no target should hold"`
	Reason  string `json:"reason,omitempty" doc:"unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn; not set: superseded"`
	Force   bool   `json:"force,omitempty" doc:"revoke although some endpoints are silent, so that nobody can tell what they serve"`
}

// A Revoking is a version that is on its way to be revoked.
type Revoking struct {
	Version string   `json:"version"`
	Leaves  []string `json:"leaves" doc:"fingerprints"`
	Reason  string   `json:"reason"`
	Done    bool     `json:"done" doc:"nothing is left to be revoked"`
	Served  Served   `json:"served" doc:"what was seen before"`
}

// Revoke has the leaves of a version revoked at the CA, where no endpoint serves
// one and no target should. Every endpoint is asked first, by handshakes. From the
// answer on nothing goes back to the version.
func (c *Controller) Revoke(ctx context.Context, farmName, site string, ask RevokeAsk, by string) (r Revoking, err error) {
	name := ask.Reason
	if name == "" {
		name = "superseded"
	}
	reason, known := issue.ReasonNamed(name)
	if !known {
		return r, &Refusal{"there is no reason " + name, reasonNames()}
	}
	var v farm.Version
	var l lookout
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if v, err = revocable(ctx, tx, farmName, site, ask.Version); err != nil {
			return err
		}
		l, err = lookouts(ctx, tx, farmName, site, v.Leaves)
		return err
	})
	if err != nil {
		return r, err
	}
	r = Revoking{Version: v.ID, Leaves: v.Fingerprints(), Reason: reason.Name}
	if v.Revocation != nil && len(v.Unrevoked(c.Now())) == 0 && !slices.ContainsFunc(v.Leaves, refusedLeaf) {
		r.Done = true // and was before
		return r, nil
	}
	r.Served = c.served(ctx, l, v.Leaves)
	if err := r.mayGo(site, ask.Force); err != nil {
		return r, err
	}
	return r, c.Store.Update(ctx, func(tx *store.Tx) error {
		if v, err = revocable(ctx, tx, farmName, site, v.ID); err != nil {
			return err
		}
		return revoke(ctx, tx, v, r, by)
	})
}

func refusedLeaf(l farm.Leaf) bool { return l.NotRevoked != "" }

func reasonNames() string {
	var names []string
	for _, r := range issue.Reasons() {
		names = append(names, r.Name)
	}
	return "there are " + strings.Join(names, ", ")
}

// mayGo refuses while a leaf is served, or may be.
func (r Revoking) mayGo(site string, force bool) error {
	if len(r.Served.By) > 0 {
		return &Refusal{
			"the certificate is still served by " + list(r.Served.By) + "; clients would refuse it once it is revoked",
			"`certfarm verify " + site + "` shows what is served, `certfarm renew " + site + "` brings another; where the key is known to others, `certfarm compromise " + site + "`",
		}
	}
	silence := r.Served.silence()
	return refuseIf(silence != "" && !force, "it cannot be told whether the certificate is still served: "+silence,
		"wait until they answer, or say --force if they do not serve it")
}

// revocable finds the version that is meant, and refuses one that is needed.
func revocable(ctx context.Context, tx *store.Tx, farmName, site, name string) (v farm.Version, err error) {
	if err := ofSite(ctx, tx, farmName, site); err != nil {
		return v, err
	}
	versions, err := tx.Versions(ctx, farmName, site)
	if err != nil {
		return v, err
	}
	if name == "" {
		return newestUnneeded(ctx, tx, farmName, site, versions)
	}
	if v, err = named(site, versions, name); err != nil {
		return v, err
	}
	why, err := needed(ctx, tx, v)
	switch {
	case err != nil:
		return v, err
	case why != "":
		return v, &Refusal{why, "`certfarm renew " + site + "` brings another certificate first; where the key is known to others, `certfarm compromise " + site + "` does all of it"}
	case !tx.Now().Before(v.NotAfter()):
		return v, &Refusal{"the certificate expired at " + v.NotAfter().UTC().Format("2006-01-02 15:04 MST"), "there is nothing to revoke: nobody accepts it"}
	}
	return v, nil
}

// named finds a version by its id, or the beginning of a fingerprint.
func named(site string, versions []farm.Version, name string) (v farm.Version, err error) {
	is := func(v farm.Version) bool {
		return v.ID == name || len(name) >= 6 && slices.ContainsFunc(v.Fingerprints(), func(f string) bool { return strings.HasPrefix(f, strings.ToLower(name)) })
	}
	i := slices.IndexFunc(versions, is)
	if i < 0 {
		return v, &Refusal{"site " + site + " has no version " + name, "`certfarm describe site " + site + "` lists the versions; give an id, or 6 characters of a fingerprint at least"}
	}
	return versions[i], refuseIf(slices.ContainsFunc(versions[i+1:], func(o farm.Version) bool { return versions[i].ID != name && is(o) }),
		name+" is the beginning of several fingerprints", "give more of it")
}

// newestUnneeded is the newest version that is valid, not revoked, and needed by
// nobody.
func newestUnneeded(ctx context.Context, tx *store.Tx, farmName, site string, versions []farm.Version) (farm.Version, error) {
	for _, v := range versions {
		if v.Revocation != nil && len(v.Unrevoked(tx.Now())) == 0 || !tx.Now().Before(v.NotAfter()) {
			continue
		}
		why, err := needed(ctx, tx, v)
		if err != nil || why == "" {
			return v, err
		}
	}
	return farm.Version{}, &Refusal{
		"site " + site + " has no valid certificate but the one that its targets should hold",
		"`certfarm renew " + site + "` brings another first; where the key is known to others, `certfarm compromise " + site + "` does all of it",
	}
}

// needed says who needs a version, or one of another site with the same leaf; empty:
// nobody.
func needed(ctx context.Context, tx *store.Tx, v farm.Version) (why string, err error) {
	sites, err := sharing(ctx, tx, v.Farm, v.Site, v.Leaves)
	if err != nil {
		return "", err
	}
	for _, site := range sites {
		versions, err := tx.Versions(ctx, v.Farm, site)
		if err != nil {
			return "", err
		}
		for _, o := range versions {
			if !slices.ContainsFunc(o.Fingerprints(), func(f string) bool { return slices.Contains(v.Fingerprints(), f) }) {
				continue
			}
			if why, err := neededAt(ctx, tx, o); err != nil || why != "" {
				return why, err
			}
		}
	}
	return "", nil
}

// neededAt says who of a version's own site needs it.
func neededAt(ctx context.Context, tx *store.Tx, v farm.Version) (why string, err error) {
	short := farm.Short(leafOf(v))
	places, err := everOf(ctx, tx, v.Farm, v.Site)
	if err != nil {
		return "", err
	}
	for _, p := range places {
		if !p.Released && slices.Contains(p.Desired, v.ID) {
			return short + " is what " + p.Target.Name + " should hold", nil
		}
	}
	running, err := tx.RunningRollouts(ctx, v.Farm, v.Site)
	if err != nil {
		return "", err
	}
	if len(running) > 0 {
		return "a rollout of site " + v.Site + " runs, and may need " + short, nil
	}
	s, err := stand(ctx, tx, v.Farm, v.Site)
	if err := unlessGone(err); err != nil {
		return "", err
	}
	if s.good.ID == v.ID && v.ID != "" {
		return short + " is the newest certificate of site " + v.Site + ", and is brought to its targets", nil
	}
	return "", nil
}

// revoke marks a version, of which nothing is needed any more, and has it revoked.
func revoke(ctx context.Context, tx *store.Tx, v farm.Version, r Revoking, by string) error {
	reason, _ := issue.ReasonNamed(r.Reason) // it was found before
	if v.State != farm.VersionCompromised {
		v.State, v.Reason = farm.VersionRevoked, "revoked by "+by+": "+reason.Name
	}
	wish(&v, reason.Code, by, tx)
	for _, l := range v.Leaves {
		if err := tx.SetWord(ctx, v.Farm, wordRevoked+l.Fingerprint, v.Site); err != nil {
			return err
		}
	}
	if err := tx.PutVersion(ctx, v); err != nil {
		return err
	}
	e := farm.Event{
		Farm: v.Farm, Kind: "version.revoked", Site: v.Site, Version: v.ID, Actor: by,
		Text: fmt.Sprintf("%s has %s revoked: %s", by, farm.Short(leafOf(v)), reason.Name),
	}
	if silence := r.Served.silence(); silence != "" {
		e.Level, e.Text = farm.Warn, e.Text+"; "+silence
		e.Hint = "clients refuse what these serve, if it is this certificate"
	}
	if err := tell(ctx, tx, e); err != nil {
		return err
	}
	return arm(ctx, tx, v.Farm, "revoke", v.ID, tx.Now())
}

// wish notes that the leaves of a version are to be revoked; those of which the CA
// would not hear are asked for once more.
func wish(v *farm.Version, reason int, by string, tx *store.Tx) {
	v.Revocation = &farm.Revocation{Reason: reason, By: by, Asked: tx.Now()}
	for i := range v.Leaves {
		v.Leaves[i].NotRevoked = ""
	}
}
