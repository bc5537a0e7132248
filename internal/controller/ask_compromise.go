package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A CompromiseAsk says what is known of a key that others know.
type CompromiseAsk struct {
	Reason    string `json:"reason,omitempty" maxLength:"500" doc:"what happened, for the journal"`
	RevokeNow bool   `json:"revoke_now,omitempty" doc:"revoke the old certificates at once, though they are served: clients refuse them until the new one is there"`
}

// A Compromised is a site on its way to another key.
type Compromised struct {
	Sites  []string `json:"sites" doc:"the site, and those that a certificate with the same key was imported to"`
	Leaves []string `json:"leaves" doc:"fingerprints of certificates whose keys are known to others"`
	Joined bool     `json:"joined" doc:"the journey was under way already"`
}

// Compromise begins the journey away from a site's keys: all that it ever had count
// as known to others, since they lay side by side on its nodes. A certificate with a
// new key is ordered at once and goes to every target, past maintenance windows and
// approvals; what fails is never put back. Then the old ones are revoked and their
// keys erased. Where the journey is under way it goes on; only RevokeNow is heard.
func (c *Controller) Compromise(ctx context.Context, farmName, site string, ask CompromiseAsk, by string) (r Compromised, err error) {
	names, err := c.namesOf(ctx, farmName, site)
	if err != nil {
		return r, err
	}
	return r, each(names, func(name string) error {
		one, err := c.compromiseOne(ctx, farmName, name, ask, by)
		if err == nil {
			r.Sites, r.Leaves, r.Joined = append(r.Sites, one.Sites...), append(r.Leaves, one.Leaves...), r.Joined || one.Joined
		}
		return err
	})
}

func (c *Controller) compromiseOne(ctx context.Context, farmName, site string, ask CompromiseAsk, by string) (r Compromised, err error) {
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		r = Compromised{}
		if _, err := tx.Site(ctx, farmName, site); err != nil {
			return err
		}
		cert, err := tx.Certificate(ctx, farmName, site)
		if err != nil {
			return err
		}
		versions, err := tx.Versions(ctx, farmName, site)
		if err != nil {
			return err
		}
		if len(versions) == 0 {
			return &Refusal{"site " + site + " has no certificate, so it has no key", "the first one is ordered by itself; `certfarm describe site " + site + "` shows the state"}
		}
		if cert.Compromise.Open() && cert.Compromise.Stage != farm.Erasing {
			r.Joined = true
			r.Sites, r.Leaves = []string{site}, compromisedLeaves(versions)
			return join(ctx, tx, cert, ask, by)
		}
		return r.flee(ctx, tx, farmName, site, versions, ask, by)
	})
	return r, err
}

// flee begins the journeys of a site, of those that its targets were of before, and of
// those that have one of its keys.
func (r *Compromised) flee(ctx context.Context, tx *store.Tx, farmName, site string, versions []farm.Version, ask CompromiseAsk, by string) (err error) {
	if r.Sites, err = sharing(ctx, tx, farmName, site, leavesOf(versions)); err != nil {
		return err
	}
	var keys []string
	for _, l := range leavesOf(versions) {
		keys = append(keys, publicKey(l.Chain))
	}
	before, err := fledBefore(ctx, tx, farmName, site)
	if err != nil {
		return err
	}
	r.Sites = append(r.Sites, before...)
	for _, name := range r.Sites {
		leaves, err := flee(ctx, tx, farmName, name, ask, by, func(l farm.Leaf) bool {
			return name == site || slices.Contains(before, name) || slices.Contains(keys, publicKey(l.Chain))
		})
		if err != nil {
			return err
		}
		r.Leaves = append(r.Leaves, leaves...)
	}
	return nil
}

func leavesOf(versions []farm.Version) (all []farm.Leaf) {
	for _, v := range versions {
		all = append(all, v.Leaves...)
	}
	return all
}

func compromisedLeaves(versions []farm.Version) (all []string) {
	for _, v := range versions {
		if v.State == farm.VersionCompromised {
			all = append(all, v.Fingerprints()...)
		}
	}
	return all
}

// join hears, of one who asks for a journey that is under way, whether they are in
// a greater hurry.
func join(ctx context.Context, tx *store.Tx, cert farm.Certificate, ask CompromiseAsk, by string) error {
	if ask.RevokeNow && !cert.Compromise.Now {
		journey := *cert.Compromise
		journey.Now = true
		cert.Compromise = &journey
		if err := tx.PutCertificate(ctx, cert); err != nil {
			return err
		}
		if err := tell(ctx, tx, farm.Event{
			Farm: cert.Farm, Kind: "compromise.now", Level: farm.Alarm, Site: cert.Site, Actor: by,
			Text: by + ": the old certificates are revoked at once, though they may be served",
		}); err != nil {
			return err
		}
	}
	return armCompromise(ctx, tx, cert.Farm, cert.Site)
}

// flee begins the journey of one site: it marks the versions with a matching leaf,
// and has another one ordered. It returns the fingerprints of what it marked.
func flee(ctx context.Context, tx *store.Tx, farmName, site string, ask CompromiseAsk, by string, match func(farm.Leaf) bool) (leaves []string, err error) {
	versions, err := tx.Versions(ctx, farmName, site)
	if err != nil {
		return nil, err
	}
	why := "said by " + by
	if ask.Reason != "" {
		why += ": " + ask.Reason
	}
	for _, v := range versions {
		if v.State == farm.VersionCompromised || !slices.ContainsFunc(v.Leaves, match) {
			continue
		}
		v.State, v.Reason = farm.VersionCompromised, why
		leaves = append(leaves, v.Fingerprints()...)
		if err := outlaw(ctx, tx, v); err != nil {
			return nil, err
		}
	}
	if err := leaveBehind(ctx, tx, farmName, site); err != nil {
		return nil, err
	}
	cert, err := tx.Certificate(ctx, farmName, site)
	if err != nil {
		return nil, err
	}
	cert.Retries, cert.Retry, cert.Aborted, cert.AbortedBy = 0, time.Time{}, "", ""
	cert.Compromise = &farm.Compromise{By: by, Reason: ask.Reason, Asked: tx.Now(), Now: ask.RevokeNow, Stage: farm.Replacing}
	if err := tx.PutCertificate(ctx, cert); err != nil {
		return nil, err
	}
	if err := tell(ctx, tx, farm.Event{
		Farm: farmName, Kind: "compromise.began", Level: farm.Alarm, Site: site, Actor: by,
		Text: fmt.Sprintf("the key of %s is known to others (%s): a new one is brought to every target, then %s revoked", site, why, cmp.Or(shortsOf(leaves), "what is old is")),
		Hint: "nothing is to be done; `certfarm describe site " + site + "` shows how far it is",
	}); err != nil {
		return nil, err
	}
	return leaves, orderNow(ctx, tx, cert, by)
}

func shortsOf(leaves []string) string {
	var all []string
	for _, l := range leaves {
		all = append(all, farm.Short(l))
	}
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0] + " is"
	}
	return strings.Join(all, ", ") + " are"
}

// outlaw keeps a compromised version, and remembers its keys for ever.
func outlaw(ctx context.Context, tx *store.Tx, v farm.Version) error {
	for _, l := range v.Leaves {
		if err := tx.SetWord(ctx, v.Farm, wordCompromised+publicKey(l.Chain), v.Site); err != nil {
			return err
		}
	}
	return tx.PutVersion(ctx, v)
}

// leaveBehind keeps everything of a site from going back: rollouts that run end
// where they are, and each target is to lose the copies that lie beside what is live.
func leaveBehind(ctx context.Context, tx *store.Tx, farmName, site string) error {
	running, err := tx.RunningRollouts(ctx, farmName, site)
	if err != nil {
		return err
	}
	for _, r := range running {
		r.Forward, r.Superseded = true, true
		if err := tx.PutRollout(ctx, r); err != nil {
			return err
		}
		if err := arm(ctx, tx, farmName, "advance", r.ID, tx.Now()); err != nil {
			return err
		}
	}
	places, err := tx.Places(ctx, farmName, site)
	if err != nil {
		return err
	}
	for _, p := range places {
		if p.Released {
			continue
		}
		p.Purge, p.Tries, p.Again = tx.Now(), 0, time.Time{}
		if err := tx.PutPlace(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// orderNow has a new certificate ordered. An order that is under way already brings
// a key that was on no node yet, and will do.
func orderNow(ctx context.Context, tx *store.Tx, cert farm.Certificate, by string) error {
	var err error
	if cert.Intent != "" {
		err = hurry(ctx, tx, cert.Farm, cert.Intent)
	} else {
		err = tx.SetWord(ctx, cert.Farm, wordRenew+cert.Site, by)
	}
	if err != nil {
		return err
	}
	if err := goOn(ctx, tx, cert.Farm, cert.Site); err != nil {
		return err
	}
	return armCompromise(ctx, tx, cert.Farm, cert.Site)
}

// armCompromise has the journey of a site go on, if one is under way.
func armCompromise(ctx context.Context, tx *store.Tx, farmName, site string) error {
	cert, err := tx.Certificate(ctx, farmName, site)
	if err != nil || !cert.Compromise.Open() {
		return err
	}
	return arm(ctx, tx, farmName, "compromise", site, tx.Now())
}
