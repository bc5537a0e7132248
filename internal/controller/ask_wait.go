package controller

import (
	"context"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Await waits until the newest rollout of a site that began after the given time
// has ended, and returns it. An alarm that keeps the rollout from beginning at
// all (an order that failed or is held) ends the waiting too: then the rollout's
// ID is empty, and the event says why.
func (c *Controller) Await(ctx context.Context, farmName, site string, after time.Time) (r farm.Rollout, alarm farm.Event, err error) {
	for {
		written := c.Store.Written()
		err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
			r, alarm, err = newest(ctx, tx, farmName, site, after)
			return err
		})
		if err != nil || r.Outcome != farm.Running || r.ID == "" && alarm.ID != "" {
			return r, alarm, err
		}
		select {
		case <-ctx.Done():
			return r, alarm, ctx.Err()
		case <-written:
		case <-time.After(followEvery):
		}
	}
}

func newest(ctx context.Context, tx *store.Tx, farmName, site string, after time.Time) (r farm.Rollout, alarm farm.Event, err error) {
	rollouts, err := tx.Rollouts(ctx, farmName, site, 1)
	if err != nil {
		return r, alarm, err
	}
	if len(rollouts) > 0 && !rollouts[0].Created.Before(after) {
		return rollouts[0], alarm, nil
	}
	events, err := tx.Events(ctx, farmName, store.EventQuery{Site: site, Level: farm.Alarm, Limit: 1, Newest: true})
	if err != nil {
		return r, alarm, err
	}
	if len(events) > 0 && !events[0].At.Before(after) {
		alarm = events[0]
	}
	return r, alarm, nil
}
