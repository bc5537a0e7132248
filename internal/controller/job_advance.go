package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// applyAdvance lets a rollout decide, and writes down what it decided together
// with the acts that follow. It is all decision, so there is no work outside the
// transaction.
func (c *Controller) applyAdvance(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	r, err := tx.Rollout(ctx, f.Job.Farm, f.Job.Subject)
	if errors.Is(err, store.ErrNotFound) || err == nil && r.Outcome != farm.Running {
		return nil
	}
	if err != nil {
		return err
	}
	if is, err := observing(ctx, tx, r.Farm, r.Site); err != nil || is {
		return errors.Join(err, arm(ctx, tx, r.Farm, "look", r.Site, tx.Now()))
	}
	d, err := decide(ctx, tx, &r)
	if err != nil {
		return err
	}
	next := rollout.Begin(r, d, tx.Now())
	if err := tx.PutRollout(ctx, next); err != nil {
		return err
	}
	if err := announce(ctx, tx, r, next, d); err != nil {
		return err
	}
	if err := c.decided(ctx, tx, r, next); err != nil {
		return err
	}
	if next.Outcome != farm.Running {
		return c.finish(ctx, tx, next)
	}
	return armAll(ctx, tx, next, d)
}

// decide lets a rollout decide by what is known now.
func decide(ctx context.Context, tx *store.Tx, r *farm.Rollout) (rollout.Decision, error) {
	if err := refresh(ctx, tx, r); err != nil {
		return rollout.Decision{}, err
	}
	frozen, err := tx.Word(ctx, r.Farm, wordFrozen)
	if err != nil {
		return rollout.Decision{}, err
	}
	held, err := heldNode(ctx, tx, *r)
	if err != nil {
		return rollout.Decision{}, err
	}
	d := rollout.Next(*r, frozen != "" || held != "", tx.Now())
	shut, err := shut(ctx, tx, *r, d)
	if err != nil {
		return d, err
	}
	if shut {
		r.Superseded = true
		d = rollout.Next(*r, frozen != "" || held != "", tx.Now())
	}
	if d.Outcome != farm.Superseded {
		return d, nil
	}
	s, err := stand(ctx, tx, r.Farm, r.Site)
	if err == nil && s.good.ID == r.To.ID {
		d.Why = "the targets' window is shut: what is left follows when it opens"
	}
	return d, unlessGone(err)
}

// shut reports that a rollout to targets with windows of their own could do nothing
// but wait for the next one. It ends where it is, and what is left of it begins anew
// when that opens: until then it would keep the site's other targets from being healed,
// or from their first certificate.
func shut(ctx context.Context, tx *store.Tx, r farm.Rollout, d rollout.Decision) (bool, error) {
	_, opens := farm.Open(r.Policy.Windows, tx.Now())
	if r.Superseded || opens.IsZero() || len(d.Acts) > 0 || !d.Until.Equal(opens) {
		return false, nil
	}
	p, err := tx.Place(ctx, r.Farm, r.Steps[0].Target)
	return err == nil && len(p.Target.Windows) > 0, unlessGone(err)
}

// armAll enqueues the acts that were decided on, and the next look at the time.
func armAll(ctx context.Context, tx *store.Tx, r farm.Rollout, d rollout.Decision) error {
	for _, act := range d.Acts {
		for _, target := range act.Targets {
			if err := armAct(ctx, tx, r, act.Do, target); err != nil {
				return err
			}
		}
	}
	if d.Until.IsZero() {
		return nil
	}
	return arm(ctx, tx, r.Farm, "advance", r.ID, d.Until)
}

// heldNode names a held node on which the rollout still has something to make
// live. Nothing else is made live then either: that a node is held while a version
// goes out is a reason to wait, and what went back would be no answer to it.
func heldNode(ctx context.Context, tx *store.Tx, r farm.Rollout) (string, error) {
	for _, s := range r.Steps {
		if s.State != farm.Planned && s.State != farm.Staged {
			continue
		}
		node, _, _ := strings.Cut(s.Group, "/")
		held, err := tx.Word(ctx, r.Farm, wordHeld+node)
		if err != nil || held != "" {
			return node, err
		}
	}
	return "", nil
}

// refresh brings what the rollout knows of old versions up to date: one may have
// been revoked since.
func refresh(ctx context.Context, tx *store.Tx, r *farm.Rollout) error {
	known := map[string]farm.VersionState{}
	for i := range r.Steps {
		for j := range r.Steps[i].From {
			from := &r.Steps[i].From[j]
			if _, ok := known[from.ID]; !ok {
				v, err := tx.Version(ctx, r.Farm, from.ID)
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					return err
				}
				known[from.ID] = v.State
			}
			from.State = known[from.ID]
		}
	}
	return nil
}

// armAct enqueues the act of one step with all others that its reload group is
// due for: the job is known by verb and group, and takes what is in flight.
func armAct(ctx context.Context, tx *store.Tx, r farm.Rollout, do farm.Verb, target string) error {
	for _, s := range r.Steps {
		if s.Target != target {
			continue
		}
		lane := laneOf(s.Group)
		if do == farm.DoVerify {
			lane = "" // a look disturbs nobody
		}
		return tx.Enqueue(ctx, farm.Job{
			Farm: r.Farm, Kind: "act", Subject: string(do) + " " + s.Group, Lane: lane, RunAt: tx.Now(),
		})
	}
	return fmt.Errorf("rollout %s has no step for %s", r.ID, target)
}

// announce tells what changes by the decision: the way back begins, or the
// rollout presses on through windows.
func announce(ctx context.Context, tx *store.Tx, was, is farm.Rollout, d rollout.Decision) error {
	e := farm.Event{Farm: is.Farm, Site: is.Site, Rollout: is.ID, Version: is.To.ID}
	if was.Back == "" && is.Back != "" {
		e.Kind, e.Level = "rollout.back", farm.Alarm
		e.Text = "going back: " + is.Back
		e.Hint = "nothing is to be done: every target is put back to what it served; the reason is in `certfarm rollout status " + is.Site + "`"
		if err := tell(ctx, tx, e); err != nil {
			return err
		}
	}
	for _, act := range d.Acts {
		if act.Do == farm.DoActivate && rollout.Pressing(is, tx.Now()) && (len(is.Policy.Windows) > 0 || waitsForApproval(is)) {
			e.Kind, e.Level = "rollout.pressing", farm.Warn
			e.Text = "so little life is left that maintenance windows and approvals give way"
			return tell(ctx, tx, e)
		}
	}
	return nil
}

func waitsForApproval(r farm.Rollout) bool {
	for _, w := range r.Waves {
		if w.Approve && w.Approved == "" {
			return true
		}
	}
	return false
}
