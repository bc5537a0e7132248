package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/store"
)

// wordPing is how the place that is pinged stands among the receivers: no receiver can
// have this name.
const wordPing = "ping…"

// pinged is what became of a ping.
type pinged struct {
	at    time.Time
	err   string // why none was sent, or it was not taken; empty: it was
	every time.Duration
}

// workPing sends a sign of life, while there is life: that this job runs shows that work
// is claimed, and the store whether the rest of it is done in time.
func (c *Controller) workPing(ctx context.Context, j farm.Job) farm.Result {
	var p *farm.Ping
	var proxy, ill string
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		settings, err := tx.Settings(ctx, j.Farm)
		if err != nil {
			return err
		}
		if p, proxy = settings.Notifications.Ping, settings.Proxy; p == nil {
			return nil
		}
		ill, err = watchIll(ctx, tx, j.Farm)
		return err
	})
	if err != nil || p == nil {
		return farm.Result{Err: unlessGone(err)}
	}
	d := pinged{err: ill, every: p.Every}
	if ill == "" {
		d.err = c.ping(ctx, j.Farm, *p, proxy)
	}
	d.at = c.Now()
	return farm.Result{Value: d, Again: d.at.Add(p.Every)}
}

func (c *Controller) ping(ctx context.Context, farmName string, p farm.Ping, proxy string) string {
	to, err := c.Secret(ctx, farmName, p.URL)
	if err == nil {
		err = notify.Ping(ctx, to, p.AllowPrivate, proxy)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// watchIll says why the farm is not watched over as it should be; empty: it is.
func watchIll(ctx context.Context, tx *store.Tx, farmName string) (string, error) {
	n, err := tx.CountJobs(ctx, farmName)
	if err != nil || n.Late > 0 {
		return fmt.Sprintf("%d jobs are due for more than a minute, and nobody does them", n.Late), err
	}
	failing, err := tx.Failing(ctx, farmName, failingShown)
	if err != nil {
		return "", err
	}
	for _, j := range failing {
		if j.Kind == "look" && j.Attempt >= failsOften {
			return "what " + j.Subject + " serves could not be looked at: " + j.Error, nil
		}
	}
	return "", nil
}

// applyPing writes what became of it. That it failed is seen by whoever waits for it.
func (c *Controller) applyPing(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	d, ok := f.Result.Value.(pinged)
	if !ok {
		return nil
	}
	h, err := tx.Hearing(ctx, f.Job.Farm, wordPing)
	if err != nil {
		return err
	}
	h.Error, h.Next = d.err, d.at.Add(d.every)
	if d.err == "" {
		h.Heard, h.Tries = d.at, 0
	} else {
		h.Failed, h.Tries = d.at, h.Tries+1
	}
	return tx.PutHearing(ctx, f.Job.Farm, h)
}
