package controller

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

const (
	aliveEvery  = 10 * time.Second // how often a controller says that it lives
	aliveWithin = 30 * time.Second // one that was silent for longer is said to be gone
	leaveWithin = 5 * time.Second  // to take the seat away at the end
)

// stayAlive says every few seconds that this controller lives, and sees whether the
// database still writes the same history, until ctx ends.
func (c *Controller) stayAlive(ctx context.Context, since time.Time) {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		if err := c.beat(ctx, since); err != nil && ctx.Err() == nil {
			c.Log.Warn("say that this controller lives", "error", err)
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
			defer cancel()
			_ = c.Store.Leave(last, c.Owner) // else it is forgotten in a day
			return
		case <-tick.C:
		}
	}
}

// beat is one sign of life. A standby that was promoted while we were connected to
// the database that it followed is met here.
func (c *Controller) beat(ctx context.Context, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, aliveEvery)
	defer cancel()
	name, _ := os.Hostname() // without a name there is still the owner
	err := c.Store.Beat(ctx, store.Seat{Owner: c.Owner, Host: name, Process: os.Getpid(), Version: c.Version, Since: since}, c.Now)
	return errors.Join(err, c.seeHistory(ctx))
}

// seeHistory looks at how safe the database keeps what is written: before the first
// job, and every few seconds, so that nothing goes on for long by what a failover
// may have lost.
func (c *Controller) seeHistory(ctx context.Context) error {
	r, err := c.Store.Replication(ctx)
	if err != nil || r == (store.Replication{}) {
		return err
	}
	fresh := false
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		fresh, err = tx.Remembered(ctx, r)
		return err
	})
	if err != nil || fresh {
		return err
	}
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		moved, changed, err := tx.Remember(ctx, r)
		if err != nil || !moved && !changed {
			return err
		}
		farms, err := tx.Farms(ctx)
		if err != nil {
			return err
		}
		for _, f := range farms {
			if err := tellHistory(ctx, tx, f, r, moved, changed); err != nil {
				return err
			}
		}
		return nil
	})
}

// tellHistory tells a farm what is new of its database, and has its sites looked at
// where the history is another.
func tellHistory(ctx context.Context, tx *store.Tx, farmName string, r store.Replication, moved, changed bool) error {
	if moved {
		if err := tell(ctx, tx, farm.Event{
			Farm: farmName, Kind: "database.moved", Level: farm.Warn,
			Text: "the database writes another history than before: it was restored, or a standby took over, and the last that was written may be lost; every site is looked at first",
			Hint: "`certfarm doctor` shows what is known of the database; a site goes on when its targets were seen",
		}); err != nil {
			return err
		}
		if err := observeAll(ctx, tx, farmName); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	e := farm.Event{Farm: farmName, Kind: "database.safe", Text: "what the database acknowledges is no longer in danger of being lost"}
	if r.Unsafe != "" {
		e.Kind, e.Level, e.Text, e.Hint = "database.unsafe", farm.Warn, r.Unsafe, r.Hint
	}
	return tell(ctx, tx, e)
}
