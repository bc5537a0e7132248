package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/store"
)

// A message is tried for this long. Who is away for longer is told how it stands then, and
// not what they missed.
const deliverFor = 3 * 24 * time.Hour

// deliverTold is how often in a row a receiver fails before others are told.
const deliverTold = 3

// deliverAgain is how long a message waits that failed for the n-th time in a row.
func deliverAgain(n int) time.Duration {
	steps := []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}
	return steps[min(max(n, 1), len(steps))-1]
}

// A delivered is what became of a message.
type delivered struct {
	id   string // of the message; empty: there was none
	at   time.Time
	err  string // why it was not taken, in words without secrets; empty: it was
	old  bool   // it is given up
	gone bool   // the receiver is not in farm.yaml any more
}

// workDeliver sends the oldest message that is on its way to a receiver. A receiver that
// fails is no failure of the job: it is the receiver's, and told there.
func (c *Controller) workDeliver(ctx context.Context, j farm.Job) farm.Result {
	var waiting []store.MessageRow
	var settings store.Settings
	err := c.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if err := tx.Hold(ctx, j); err != nil {
			return err
		}
		if settings, err = tx.Settings(ctx, j.Farm); err != nil {
			return err
		}
		if waiting, err = tx.Messages(ctx, j.Farm, j.Subject, 1); err != nil || len(waiting) == 0 {
			return err
		}
		waiting[0].Tries++ // before it is sent: from here on it may have arrived
		return tx.PutMessage(ctx, j.Farm, waiting[0])
	})
	if err != nil {
		return farm.Result{Err: err}
	}
	r, there := settings.Notifications.Receiver(j.Subject)
	if len(waiting) == 0 || !there {
		return farm.Result{Value: delivered{gone: !there}}
	}
	var m notify.Message
	if err := json.Unmarshal(waiting[0].Doc, &m); err != nil {
		return farm.Result{Err: fmt.Errorf("message %s: %w", waiting[0].ID, err)}
	}
	d := delivered{id: m.ID}
	if err := c.tellReceiver(ctx, j.Farm, r, settings.Proxy, m); err != nil {
		d.err = err.Error()
		d.old = c.Now().Sub(m.At) > deliverFor
	}
	d.at = c.Now()
	return farm.Result{Value: d}
}

// tellReceiver sends one message. The error holds no secret.
func (c *Controller) tellReceiver(ctx context.Context, farmName string, r farm.Receiver, proxy string, m notify.Message) error {
	k, known := notify.KindOf(r.Kind)
	if !known {
		return fmt.Errorf("receivers of kind %s are not known here", r.Kind)
	}
	setup := notify.Setup{Proxy: proxy, Helper: c.Shouter, Secrets: map[string]farm.Secret{}}
	for name, ref := range r.Secrets {
		s, err := c.Secret(ctx, farmName, ref)
		if err != nil {
			return fmt.Errorf("the secret %s: %w", name, err)
		}
		setup.Secrets[name] = s
	}
	sender, err := k.Open(r.Options, setup)
	if err != nil {
		return err
	}
	return sender.Send(ctx, m)
}

// applyDeliver writes what became of a message, and goes on with the next.
func (c *Controller) applyDeliver(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	d, ok := f.Result.Value.(delivered)
	if !ok {
		return nil
	}
	farmName, name := f.Job.Farm, f.Job.Subject
	if d.gone {
		return tx.RemoveHearing(ctx, farmName, name)
	}
	if d.id == "" {
		return nil
	}
	h, err := reached(ctx, tx, farmName, name, d.err, d.at)
	if err != nil {
		return err
	}
	again := tx.Now()
	if d.err != "" {
		again = tx.Now().Add(deliverAgain(h.Tries))
		h.Next = again
	}
	if d.old {
		h.Lost++
	}
	if d.err == "" || d.old {
		if err := tx.RemoveMessage(ctx, farmName, name, d.id); err != nil {
			return err
		}
	}
	if err := tx.PutHearing(ctx, farmName, h); err != nil {
		return err
	}
	return arm(ctx, tx, farmName, "deliver", name, again)
}

// reached is how a receiver hears after it took a message, or did not (why). Others are
// told when that lasts, and when it is over.
func reached(ctx context.Context, tx *store.Tx, farmName, name, why string, at time.Time) (farm.Hearing, error) {
	h, err := tx.Hearing(ctx, farmName, name)
	if err != nil {
		return h, err
	}
	was := h.Tries
	h.Error, h.Next = why, time.Time{}
	e := farm.Event{Farm: farmName, About: name}
	if why == "" {
		h.Heard, h.Tries, h.Lost = at, 0, 0
		if was < deliverTold {
			return h, nil
		}
		e.Kind, e.Text = notify.Hears, "receiver "+name+" hears again"
		return h, tell(ctx, tx, e)
	}
	h.Failed, h.Tries = at, was+1
	if h.Tries != deliverTold {
		return h, nil
	}
	e.Kind, e.Level, e.Text = notify.Failing, farm.Warn, "receiver "+name+" cannot be told: "+why
	e.Hint = "it is tried again by itself; `certfarm notify test " + name + "` tries it now"
	return h, tell(ctx, tx, e)
}
