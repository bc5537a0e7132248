package controller

import (
	"context"
	"errors"
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
		Text: fmt.Sprintf("%s: version %s goes to %d targets in %d waves", reason, farm.Short(leafOf(v)), len(r.Steps), len(r.Waves)),
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

// finish writes what follows from a rollout's end: what each target should hold
// from now on, what is late, and what happens next.
func (c *Controller) finish(ctx context.Context, tx *store.Tx, r farm.Rollout) error {
	forward := r.Outcome == farm.Done || r.Outcome == farm.DonePartly || r.Outcome == farm.Halted
	if err := c.finishSteps(ctx, tx, r, forward); err != nil {
		return err
	}
	if err := c.after(ctx, tx, r); err != nil {
		return err
	}
	if err := wasEverywhere(ctx, tx, r); err != nil {
		return err
	}
	if forward {
		if err := errors.Join(eraseOld(ctx, tx, r.Farm, r.Site), eraseKin(ctx, tx, r.Farm, r.Site)); err != nil {
			return err
		}
	}
	look, err := c.nextLook(ctx, tx, r)
	return errors.Join(err,
		wakeSiblings(ctx, tx, r.Farm, r.Site),
		tell(ctx, tx, endEvent(r)),
		armCompromise(ctx, tx, r.Farm, r.Site),
		arm(ctx, tx, r.Farm, "check", r.Site, tx.Now()),
		arm(ctx, tx, r.Farm, "look", r.Site, look),
	)
}

// wasEverywhere writes that a version was everywhere: it is a way back from the next.
func wasEverywhere(ctx context.Context, tx *store.Tx, r farm.Rollout) error {
	if r.Outcome != farm.Done && r.Outcome != farm.DonePartly {
		return nil
	}
	v, err := tx.Version(ctx, r.Farm, r.To.ID)
	if err != nil || !v.Proven.IsZero() {
		return unlessGone(err)
	}
	v.Proven = tx.Now()
	return tx.PutVersion(ctx, v)
}

// finishSteps writes what the targets should hold after the rollout. Those that are gone
// are left out.
func (c *Controller) finishSteps(ctx context.Context, tx *store.Tx, r farm.Rollout, forward bool) error {
	var targets []string
	for _, s := range r.Steps {
		targets = append(targets, s.Target)
	}
	before, err := tx.PlacesOf(ctx, r.Farm, targets)
	if err != nil {
		return err
	}
	var after []farm.Place
	for _, s := range r.Steps {
		if p, there := before[s.Target]; there {
			c.settle(&p, r, s, forward, tx.Now())
			after = append(after, p)
		}
	}
	if err := tx.PutPlaces(ctx, after); err != nil {
		return err
	}
	for _, p := range after {
		if step(r, p.Target.Name).State == farm.Verified {
			if err := tidyUp(ctx, tx, p); err != nil {
				return err
			}
		}
		if forward {
			continue // what is absent was told
		}
		if err := tellReach(ctx, tx, before[p.Target.Name], p); err != nil {
			return err
		}
	}
	return nil
}

// settle says what a target should hold after the rollout.
func (c *Controller) settle(p *farm.Place, r farm.Rollout, s farm.Step, forward bool, now time.Time) {
	switch {
	case s.State == farm.Gone:
		// It is left as it is.
	case s.State == farm.Left:
		if forward { // what is there was written down when it was seen
			p.Desired, p.Late = s.To, r.To.ID
		}
	case s.State == farm.Verified:
		p.Foreign = false
		p.Desired, p.Late, p.Tries, p.Again = s.To, "", 0, time.Time{}
		if r.Reason == reasonDrift { // whatever undoes it may do so again: no hurry then
			p.Again = now.Add(c.Pace.Look)
		}
		p.Reach, p.Drift, p.Since = farm.ReachUp, "", now
	case forward && r.Abort != "" && !s.Touched:
		// A person ended it before its turn came.
	case forward:
		c.setLate(p, r, s, now)
	default:
		c.setBack(p, r, s, now)
	}
}

// setLate says what is known of a target that a rollout left behind: absent, put
// back by itself, or stuck. It is brought there by a rollout of its own.
func (c *Controller) setLate(p *farm.Place, r farm.Rollout, s farm.Step, now time.Time) {
	p.Desired, p.Late = s.To, r.To.ID
	p.Tries++
	p.Again = now.Add(c.pause(r, p.Tries))
	switch {
	case s.State == farm.Absent:
		p.Reach, p.Again = farm.ReachDown, time.Time{}
	case s.Lost && r.Forward: // it serves a key that others know: the first look that reaches it is to mend that
		p.Reach, p.Since = farm.ReachHalf, now
	}
}

// setBack says what is known of a target after a rollout that put all back.
func (c *Controller) setBack(p *farm.Place, r farm.Rollout, s farm.Step, now time.Time) {
	switch {
	case s.State == farm.Stuck:
		p.Drift, p.Since = "could not be put back: "+s.Error, now
		if len(p.Desired) > 0 { // whatever the policy on drift: we left it so
			p.Late = p.Desired[0]
		}
	case s.State == farm.Absent:
		p.Reach, p.Since = farm.ReachDown, now
	case s.Fault != farm.NoFault:
		p.Tries++
		p.Again = now.Add(c.pause(r, p.Tries))
		if s.Lost && p.Tries <= atOnce && p.Reach != farm.ReachDown {
			p.Reach, p.Since = farm.ReachHalf, now // so that the first look that reaches it knows
		}
	}
}

// atOnce is how often in a row a target that the rollout could not reach is tried
// again as soon as a look reaches it, though none saw it away. One that every look
// reaches and no rollout does is tried with the usual pauses.
const atOnce = 3

// backoff is when the same version is tried again after it was restored: an hour,
// then every six.
func (c *Controller) backoff(tries int) time.Duration {
	if tries <= 1 {
		return c.Pace.Retry
	}
	return 6 * c.Pace.Retry
}

// pause is how long what a rollout did not bring about waits: backoff, or less where
// a key that others know is served meanwhile.
func (c *Controller) pause(r farm.Rollout, tries int) time.Duration {
	if r.Forward {
		return min(c.backoff(tries), c.Pace.Look)
	}
	return c.backoff(tries)
}

// after marks the version and plans the next try.
func (c *Controller) after(ctx context.Context, tx *store.Tx, r farm.Rollout) error {
	if len(r.Steps) == 0 {
		return nil
	}
	cert, err := tx.Certificate(ctx, r.Farm, r.Site)
	if err != nil {
		return err
	}
	switch {
	case faulty(r):
		if err := condemn(ctx, tx, r, &cert); err != nil {
			return err
		}
	case aborted(r):
		cert.Aborted, cert.AbortedBy = r.To.ID, r.Abort
		cert.Retries, cert.Retry = 0, time.Time{}
	case r.Superseded && r.Outcome != farm.Done:
		// What became of it says nothing of the newer version that waits.
	case r.Outcome == farm.RolledBack || r.Outcome == farm.RolledBackPart:
		cert.Retries++
		cert.Retry = tx.Now().Add(c.pause(r, cert.Retries))
	default:
		cert.Retries, cert.Retry = 0, time.Time{}
	}
	if err := replacedHow(ctx, tx, r, &cert); err != nil {
		return err
	}
	return tx.PutCertificate(ctx, cert)
}

// faulty reports that a rollout found its version at fault, and did not go on with
// it.
func faulty(r farm.Rollout) bool {
	return (r.Back != "" || r.Outcome == farm.Halted) &&
		slices.ContainsFunc(r.Steps, func(s farm.Step) bool { return s.Fault == farm.VersionFault })
}

// aborted reports that a person ended a rollout before it had done what it could.
func aborted(r farm.Rollout) bool {
	return r.Abort != "" && r.Outcome != farm.Done && r.Outcome != farm.DonePartly
}

// condemn marks a version that no target may serve: it is never rolled out again,
// and a new one is ordered. One that is served well elsewhere is not at fault as
// such, whatever this rollout met.
func condemn(ctx context.Context, tx *store.Tx, r farm.Rollout, cert *farm.Certificate) error {
	places, err := tx.Places(ctx, r.Farm, r.Site)
	if err != nil {
		return err
	}
	for _, p := range places {
		if slices.Contains(p.Desired, r.To.ID) && p.Drift == "" && p.Late == "" {
			return nil
		}
	}
	v, err := tx.Version(ctx, r.Farm, r.To.ID)
	if err != nil || v.State == farm.VersionCompromised || v.State == farm.VersionRevoked {
		return err // which says more
	}
	v.State, v.Reason = farm.VersionFaulty, r.Why
	cert.Failures++
	return tx.PutVersion(ctx, v)
}
