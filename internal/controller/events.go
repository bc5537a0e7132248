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

// notified is how far the notifier has come in a farm's journal.
const notified = "notified"

type told struct{ last string }

// workNotify hands the events since the last time to the notifier.
func (c *Controller) workNotify(ctx context.Context, j farm.Job) farm.Result {
	var events []farm.Event
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		after, err := tx.Word(ctx, j.Farm, notified)
		if err != nil {
			return err
		}
		events, err = tx.Events(ctx, j.Farm, store.EventQuery{After: after, Limit: 500})
		return err
	})
	if err != nil || len(events) == 0 {
		return farm.Result{Err: err}
	}
	if err := c.Notifier.Notify(ctx, events); err != nil {
		return farm.Result{Err: err}
	}
	return farm.Result{Value: told{events[len(events)-1].ID}}
}

func (c *Controller) applyNotify(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	t, ok := f.Result.Value.(told)
	if !ok {
		return nil
	}
	return tx.SetWord(ctx, f.Job.Farm, notified, t.last)
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
