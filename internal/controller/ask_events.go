package controller

import (
	"context"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Events reads the journal.
func (c *Controller) Events(ctx context.Context, farmName string, q store.EventQuery) (all []farm.Event, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		all, err = tx.Events(ctx, farmName, q)
		return err
	})
	return all, err
}

// followEvery is how long a follower waits at most: another process may write to
// the same store.
const followEvery = 2 * time.Second

// overlap is read again each time, since ids are not in the order of commits on
// PostgreSQL; what is known already is dropped.
const overlap = 200

// Follow calls f with each event after the given id, once, until the context
// ends or f returns an error.
func (c *Controller) Follow(ctx context.Context, farmName string, q store.EventQuery, f func(farm.Event) error) error {
	known := map[string]bool{}
	var recent []string
	for {
		written := c.Store.Written()
		events, err := c.Events(ctx, farmName, q)
		if err != nil {
			return err
		}
		for _, e := range events {
			if known[e.ID] {
				continue
			}
			known[e.ID] = true
			recent = append(recent, e.ID)
			if err := f(e); err != nil {
				return err
			}
		}
		if len(recent) > 2*overlap {
			for _, id := range recent[:len(recent)-overlap] {
				delete(known, id)
			}
			recent = recent[len(recent)-overlap:]
			q.After = recent[0]
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-written:
		case <-time.After(followEvery):
		}
	}
}
