package controller

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

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
