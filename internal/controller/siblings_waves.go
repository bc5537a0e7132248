package controller

import (
	"context"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// keepWaves keeps the waves of a member's rollout that changes the shape of its
// certificate: the canary that it would get is another member, and a wave that a person
// must assent to is not to be gone round by it.
func keepWaves(s rollout.Start, site farm.Site) rollout.Start {
	if site.Member != nil && s.Changed {
		s.Changed, s.Policy.Soak = false, max(s.Policy.Soak, rollout.ChangedSoak)
	}
	return s
}

// assents adds to a rollout what a person assented to before it began.
func assents(ctx context.Context, tx *store.Tx, r *farm.Rollout, site farm.Site, v farm.Version) (err error) {
	if r.Assent, err = assented(ctx, tx, r.Farm, site.Name); err != nil {
		return err
	}
	return approvedWave(ctx, tx, r, site, v)
}

// approvedWave gives a member's rollout the assent that a person gave to a sibling of its
// wave since the member's own last turn ended: a person assents to a wave, not to each
// node, and to this time, not to the next. What the sibling has from another does not
// count: that may be of the time before.
func approvedWave(ctx context.Context, tx *store.Tx, r *farm.Rollout, site farm.Site, v farm.Version) error {
	asks := slices.ContainsFunc(r.Waves, func(w farm.Wave) bool { return w.Approve })
	if site.Member == nil || !asks {
		return nil
	}
	since, err := lastTurn(ctx, tx, v)
	if err != nil {
		return err
	}
	siblings, err := tx.Members(ctx, r.Farm, site.Whole())
	if err != nil {
		return err
	}
	for _, s := range siblings {
		if s.Name == site.Name || s.Member.Wave != site.Member.Wave {
			continue
		}
		last, err := tx.Rollouts(ctx, r.Farm, s.Name, 1)
		if err != nil {
			return err
		}
		if len(last) > 0 && last[0].Created.After(since) && inherit(r, last[0]) {
			return nil
		}
	}
	return nil
}

// turnsBack is among how many rollouts of a member its last turn is looked for: a version
// that does not go well is tried again every six hours.
const turnsBack = 32

// lastTurn is when the last rollout ended that brought another version than v; zero:
// there was none.
func lastTurn(ctx context.Context, tx *store.Tx, v farm.Version) (at time.Time, err error) {
	all, err := tx.Rollouts(ctx, v.Farm, v.Site, turnsBack)
	for _, r := range all {
		if r.To.ID != v.ID && r.Ended.After(at) {
			at = r.Ended
		}
	}
	return at, err
}

// inherit takes over the assents that a person gave to another rollout, and reports
// whether there was one.
func inherit(r *farm.Rollout, from farm.Rollout) (some bool) {
	for i := range r.Waves {
		j := slices.IndexFunc(from.Waves, func(w farm.Wave) bool { return w.Name == r.Waves[i].Name })
		if r.Waves[i].Approve && j >= 0 && from.Waves[j].Approved != "" && !from.Waves[j].Inherited {
			r.Waves[i].Approved, r.Waves[i].Inherited, some = from.Waves[j].Approved, true, true
		}
	}
	return some
}

// agrees reports that what was met behind a balancer is one certificate; where each
// node has its own, that it is one of those that the nodes should serve.
func agrees(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, t probe.Tally) (bool, error) {
	if site.Member == nil {
		_, ok := t.Agreed()
		return ok, nil
	}
	places, err := tx.MemberPlaces(ctx, farmName, site.Whole())
	if err != nil {
		return false, err
	}
	own := map[string]bool{}
	for _, p := range places {
		if p.Released {
			continue
		}
		if len(p.Desired) == 0 {
			return true, nil // not every node has one yet: there is nothing to agree on
		}
		for _, id := range p.Desired {
			v, err := tx.Version(ctx, farmName, id)
			if err != nil {
				return false, err
			}
			for _, f := range v.Fingerprints() {
				own[f] = true
			}
		}
	}
	for leaf := range t.Leaves {
		if !own[leaf] {
			return false, nil
		}
	}
	return t.Failed == 0, nil
}
