package controller

import (
	"context"
	"fmt"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// replacedHow notes how a rollout of a mass replacement ended, and has the replacement
// looked at when it failed.
func replacedHow(ctx context.Context, tx *store.Tx, r farm.Rollout, cert *farm.Certificate) error {
	p := cert.Replace
	if p == nil || p.Version == r.To.ID || aborted(r) || r.Superseded {
		return nil
	}
	part := *p
	part.Failed = faulty(r) || r.Outcome == farm.RolledBack || r.Outcome == farm.RolledBackPart || r.Outcome == farm.Halted
	cert.Replace = &part
	if !part.Failed {
		return nil
	}
	return arm(ctx, tx, cert.Farm, "replace", part.Campaign, tx.Now())
}

// stopReplacing pauses a mass replacement of which too much fails, and tells of it.
func stopReplacing(ctx context.Context, tx *store.Tx, is farm.Campaign, left []farm.Certificate) error {
	s := CampaignStatus{Campaign: is}
	s.count(left)
	failed, tried := max(0, s.Failed-is.Excused), s.Done+s.Rolling
	if is.Paused != "" || !renew.StopReplacing(failed, max(tried, failed)) {
		return nil
	}
	is.Paused = "certfarm"
	is.Why = fmt.Sprintf("%d rollouts of %d failed", failed, max(tried, failed))
	if err := holdRest(ctx, tx, is, left); err != nil {
		return err
	}
	return tell(ctx, tx, farm.Event{
		Farm: is.Farm, Kind: "replacement.stopped", Level: farm.Alarm,
		Text: fmt.Sprintf("the replacement of %d certificates stopped by itself: %s; %d are not ordered yet and keep what they have", is.Total, is.Why, s.Waiting),
		Hint: "`certfarm get rollouts` says what went wrong; then `certfarm replace resume " + is.ID + "`, or `certfarm replace cancel " + is.ID + "`",
	})
}

// holdRest keeps a mass replacement, and has what is not ordered yet wait while it is
// paused, or go on, in the order of its time, when it is no longer.
func holdRest(ctx context.Context, tx *store.Tx, is farm.Campaign, left []farm.Certificate) error {
	f, err := tx.Farm(ctx, is.Farm)
	if err != nil {
		return err
	}
	limits, of := map[string]farm.Limits{}, map[string]string{}
	for _, i := range f.Issuers {
		limits[i.Name] = budget.LimitsOf(i)
	}
	for _, s := range f.Sites {
		of[s.Name] = s.Issuer
	}
	n := 0
	for _, cert := range left {
		if cert.Intent != "" || cert.Version != cert.Replace.Version {
			continue
		}
		part := *cert.Replace
		if part.Held = is.Paused != ""; part.Held {
			cert.Turn = nil
		} else {
			part.At = later(part.At, tx.Now().Add(budget.Stagger(n, limits[of[cert.Site]])))
			n++
		}
		cert.Replace = &part
		if err := tx.PutCertificate(ctx, cert); err != nil {
			return err
		}
		if err := arm(ctx, tx, is.Farm, "check", cert.Site, tx.Now()); err != nil {
			return err
		}
	}
	return putCampaign(ctx, tx, is)
}

// PauseReplacement stops a mass replacement for now: what has not been ordered yet waits;
// orders and rollouts that run go on.
func (c *Controller) PauseReplacement(ctx context.Context, farmName, id, by string) error {
	return c.steer(ctx, farmName, id, func(ctx context.Context, tx *store.Tx, is farm.Campaign, left []farm.Certificate) error {
		if is.Paused != "" {
			return &Refusal{"mass replacement " + id + " is paused already, by " + is.Paused, "`certfarm replace resume " + id + "` has it go on"}
		}
		is.Paused, is.Why = by, "said by "+by
		return holdRest(ctx, tx, is, left)
	}, farm.Event{Kind: "replacement.paused", Level: farm.Warn, Actor: by, Text: by + " paused the replacement " + id + ": what is not ordered yet waits"})
}

// ResumeReplacement has a mass replacement go on. What failed before counts no more
// against it.
func (c *Controller) ResumeReplacement(ctx context.Context, farmName, id, by string) error {
	return c.steer(ctx, farmName, id, func(ctx context.Context, tx *store.Tx, is farm.Campaign, left []farm.Certificate) error {
		if is.Paused == "" {
			return &Refusal{"mass replacement " + id + " is not paused", "`certfarm get replacements` shows all"}
		}
		s := CampaignStatus{}
		s.count(left)
		is.Paused, is.Why, is.Excused = "", "", s.Failed
		return holdRest(ctx, tx, is, left)
	}, farm.Event{Kind: "replacement.resumed", Actor: by, Text: by + " has the replacement " + id + " go on"})
}

// steer does something to a mass replacement that is not over, and tells of it.
func (c *Controller) steer(ctx context.Context, farmName, id string, do func(context.Context, *store.Tx, farm.Campaign, []farm.Certificate) error, e farm.Event) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		is, err := campaign(ctx, tx, farmName, id)
		if err != nil {
			return err
		}
		if !is.Ended.IsZero() {
			return &Refusal{"mass replacement " + id + " is over", "`certfarm get replacements` shows all"}
		}
		left, err := replacing(ctx, tx, is)
		if err != nil {
			return err
		}
		if err := do(ctx, tx, is, left); err != nil {
			return err
		}
		e.Farm = farmName
		return tell(ctx, tx, e)
	})
}

// Replacement tells how far one mass replacement is, or ErrNotFound.
func (c *Controller) Replacement(ctx context.Context, farmName, id string) (s CampaignStatus, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		is, err := campaign(ctx, tx, farmName, id)
		if err != nil {
			return err
		}
		s, err = statusOf(ctx, tx, is)
		return err
	})
	return s, err
}

// statusOf counts what a mass replacement has done and has still to do.
func statusOf(ctx context.Context, tx *store.Tx, is farm.Campaign) (CampaignStatus, error) {
	s := CampaignStatus{Campaign: is}
	switch {
	case is.Ended.IsZero():
		left, err := replacing(ctx, tx, is)
		if err != nil {
			return s, err
		}
		s.count(left)
	default:
		s.Done = is.Total - is.Left
	}
	return s, nil
}
