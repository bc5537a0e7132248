package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// tell adds an event to the journal and wakes the notifier.
func tell(ctx context.Context, tx *store.Tx, e farm.Event) error {
	if e.Level == "" {
		e.Level = farm.Info
	}
	if e.Actor == "" {
		e.Actor = "certfarm"
	}
	if err := tx.AddEvent(ctx, e); err != nil {
		return err
	}
	return arm(ctx, tx, e.Farm, "notify", e.Farm, tx.Now())
}

// arm enqueues a job in the lane that its kind and subject call for.
func arm(ctx context.Context, tx *store.Tx, farmName, kind, subject string, at time.Time) error {
	return tx.Enqueue(ctx, farm.Job{Farm: farmName, Kind: kind, Subject: subject, RunAt: at})
}

// kept is how long done jobs and events are kept.
const kept = 90 * 24 * time.Hour

// applyExpire forgets what is old, once a day.
func (c *Controller) applyExpire(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	if err := tx.Expire(ctx, tx.Now().Add(-kept)); err != nil {
		return err
	}
	return arm(ctx, tx, f.Job.Farm, "expire", f.Job.Subject, tx.Now().Add(24*time.Hour))
}

// endEvent tells how a rollout ended.
func endEvent(r farm.Rollout) farm.Event {
	e := farm.Event{
		Farm: r.Farm, Kind: "rollout." + string(r.Outcome), Site: r.Site, Rollout: r.ID, Version: r.To.ID,
		Text: fmt.Sprintf("%s: %s", r.Outcome, r.Why),
	}
	switch r.Outcome {
	case farm.Done, farm.Superseded:
	case farm.DonePartly:
		e.Level, e.Hint = farm.Warn, "what is late is brought up to date by itself when it answers"
		if slices.ContainsFunc(r.Steps, func(s farm.Step) bool { return s.State == farm.Left }) {
			e.Hint = "what serves somebody's valid certificate is left alone: `certfarm rollout approve " + r.Site + "` replaces it"
		}
	default:
		e.Level, e.Hint = farm.Alarm, "the same version is tried again by itself; nothing new is ordered"
		if r.Abort != "" {
			e.Hint = "it is not tried again by itself: `certfarm rollout approve " + r.Site + "` does, `certfarm renew " + r.Site + "` orders a new one"
		}
	}
	return e
}
