package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// The words that the store keeps for a farm.
const (
	wordFrozen = "frozen" // who froze it; empty: not frozen
	wordHeld   = "held "  // + node: who holds it; nothing is changed on it
	wordSites  = "sites"  // how many there are
)

// reasonDrift is the reason of a rollout that heals drift.
const reasonDrift = "drift healed"

// start begins a rollout of a version to targets of a site. While another runs
// for the site it does nothing but to supersede one that brings something older;
// the site's check goes on when that has ended.
func start(ctx context.Context, tx *store.Tx, site farm.Site, farmName string, v farm.Version, places []farm.Place, reason string) (started bool, err error) {
	running, err := tx.RunningRollouts(ctx, farmName, site.Name)
	if err != nil {
		return false, err
	}
	if len(running) > 0 || len(places) == 0 {
		return false, supersede(ctx, tx, running, v)
	}
	s := rollout.Start{
		ID: store.NewID("ro"), Farm: farmName, Site: site.Name, Reason: reason,
		Policy: site.Policy, To: facts(v), Now: tx.Now(),
	}
	if own := places[0].Target.Windows; len(own) > 0 { // all have the same; see turn
		s.Policy.Windows = own
	}
	if err := addTargets(ctx, tx, &s, places, v); err != nil {
		return false, err
	}
	if s.Forward {
		s.Policy = urgent(s.Policy)
	}
	r, err := rollout.New(keepWaves(s, site))
	if err != nil {
		return false, err
	}
	r.Changed = s.Changed
	if err := assents(ctx, tx, &r, site, v); err != nil {
		return false, err
	}
	if err := tx.PutRollout(ctx, r); err != nil {
		return false, err
	}
	if err := tell(ctx, tx, farm.Event{
		Farm: farmName, Kind: "rollout.started", Site: site.Name, Rollout: r.ID, Version: v.ID,
		Text: fmt.Sprintf("%s: version %s goes to %s in %s", reason, farm.Short(leafOf(v)), farm.Count(len(r.Steps), "target"), farm.Count(len(r.Waves), "wave")),
	}); err != nil {
		return false, err
	}
	return true, arm(ctx, tx, farmName, "advance", r.ID, tx.Now())
}

// supersede lets rollouts end that bring something older than v.
func supersede(ctx context.Context, tx *store.Tx, running []farm.Rollout, v farm.Version) error {
	for _, r := range running {
		if r.To.ID == v.ID || r.Superseded {
			continue
		}
		r.Superseded = true
		if err := tx.PutRollout(ctx, r); err != nil {
			return err
		}
		if err := arm(ctx, tx, r.Farm, "advance", r.ID, tx.Now()); err != nil {
			return err
		}
	}
	return nil
}

// urgentSoak is the most that a wave is watched where every minute counts.
const urgentSoak = time.Minute

// urgent is a policy for leaving a key that others know: still wave by wave, since
// an outage helps nobody, but no window, assent or settling holds it.
func urgent(p farm.Policy) farm.Policy {
	p.Windows, p.Settle, p.Soak = nil, 0, min(p.Soak, urgentSoak)
	p.Waves = slices.Clone(p.Waves)
	for i := range p.Waves {
		p.Waves[i].Approve = false
	}
	return p
}

// addTargets adds the targets of a site to a rollout that begins.
func addTargets(ctx context.Context, tx *store.Tx, s *rollout.Start, places []farm.Place, v farm.Version) error {
	held, err := everHeld(ctx, tx, s.Farm, s.Site)
	if err != nil {
		return err
	}
	for _, p := range places {
		if err := addTarget(ctx, tx, s, p, v, held); err != nil {
			return err
		}
	}
	return nil
}

// addTarget adds a target to a rollout that begins. Held are the versions that its site
// ever had.
func addTarget(ctx context.Context, tx *store.Tx, s *rollout.Start, p farm.Place, v farm.Version, held []farm.Version) error {
	for _, id := range p.Desired {
		old, err := versionOf(ctx, tx, p.Farm, id, held)
		if err != nil {
			return fmt.Errorf("version that %s should hold: %w", p.Target.Name, err)
		}
		s.Changed = s.Changed || shape(old) != shape(v)
	}
	if flees(p, held, tx.Now()) {
		s.Forward = true
		if p.Purge.IsZero() {
			p.Purge = tx.Now() // what is live is kept beside the new one until then
			if err := tx.PutPlace(ctx, p); err != nil {
				return err
			}
		}
	}
	s.Targets = append(s.Targets, rollout.Target{Target: p.Target, From: liveOf(p, held)})
	return nil
}

// live is what a target goes back to: what it should hold, or where it was seen to
// serve something else, that. It is nothing where that is none of our versions. One
// that did not answer when it was last asked was seen to serve nothing else: what
// it is put back to must be seen, too.
func live(ctx context.Context, tx *store.Tx, p farm.Place) (from []farm.VersionFacts, err error) {
	held, err := everHeld(ctx, tx, p.Farm, p.Target.Site)
	return liveOf(p, held), err
}

// liveOf is live, by the versions that the target's site ever had.
func liveOf(p farm.Place, held []farm.Version) (from []farm.VersionFacts) {
	holds := p.Desired
	elsewhere := p.Drift != "" && !probe.Silent(p.Sights)
	if elsewhere || p.Late != "" || len(holds) == 0 {
		holds = []string{servedVersion(held, p.Sights)}
	}
	for _, v := range held {
		if slices.Contains(holds, v.ID) {
			from = append(from, facts(v))
		}
	}
	return from
}

func facts(v farm.Version) farm.VersionFacts {
	return farm.VersionFacts{ID: v.ID, NotBefore: v.NotBefore(), NotAfter: v.NotAfter(), State: v.State}
}

// shape is what clients may depend on, of all leaves in order.
func shape(v farm.Version) (s string) {
	for _, l := range v.Leaves {
		s += fmt.Sprintf("%s %s %s %s\n", l.KeyType, l.Shape.Root, l.Shape.EKU, l.Shape.Names)
	}
	return s
}

func leafOf(v farm.Version) string {
	if len(v.Leaves) == 0 {
		return ""
	}
	return v.Leaves[0].Fingerprint
}
