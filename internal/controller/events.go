package controller

import (
	"context"
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
