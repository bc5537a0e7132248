package controller

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// notified is how far the notifier has come in a farm's journal: ids of events,
// oldest first. All up to the first were told; of those after it, these.
const notified = "notified"

// What is read of the journal at a time.
const (
	notifyAtOnce = 500
	// With several controllers an event may be seen later than one that was made
	// after it: its transaction took longer. So the last while is read again each time.
	// One that is alone writes one transaction after the other.
	notifyAgain = time.Minute
	notifyKnown = 2000 // ids kept of the last while, at most
)

// A told is what was read and decided: the events that were told now or before, and
// what becomes of notices and messages.
type told struct {
	ids   []string
	board noticeBoard
}

// workNotify hands the events since the last time to the log, each once, and decides who
// else is told what.
func (c *Controller) workNotify(ctx context.Context, j farm.Job) farm.Result {
	var known []string
	var events, fresh []farm.Event
	var b noticeBoard
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		text, err := tx.Word(ctx, j.Farm, notified)
		if err != nil {
			return err
		}
		after := ""
		if known = strings.Fields(text); len(known) > 0 {
			after = known[0]
		}
		if events, err = tx.EventsSince(ctx, j.Farm, after, known, notifyAtOnce); err != nil {
			return err
		}
		fresh = untold(events, known)
		b, err = decideNotices(ctx, tx, j.Farm, fresh)
		return err
	})
	if err != nil {
		return farm.Result{Err: err}
	}
	result := farm.Result{Again: b.again}
	if len(fresh) > 0 {
		if err := c.Notifier.Notify(ctx, fresh); err != nil {
			return farm.Result{Err: err}
		}
		known = c.lately(known, events)
	}
	if len(fresh) > 0 || b.changed() {
		result.Value = told{known, b}
	}
	if len(fresh) >= notifyAtOnce {
		result.Again = c.Now() // there may be more
	}
	return result
}

// untold are the events whose ids are not among the known ones.
func untold(events []farm.Event, known []string) (fresh []farm.Event) {
	had := map[string]bool{}
	for _, id := range known {
		had[id] = true
	}
	for _, e := range events {
		if !had[e.ID] {
			fresh = append(fresh, e)
		}
	}
	return fresh
}

// lately is what is kept of events that all were told: the ids of the last while, and
// before them the last that is older. A controller that is alone keeps the last.
func (c *Controller) lately(known []string, events []farm.Event) (ids []string) {
	if !c.Store.Shared() {
		return []string{events[len(events)-1].ID}
	}
	from := events[len(events)-1].At.Add(-notifyAgain)
	if len(known) > 0 {
		ids = known[:1]
	}
	for i, e := range events {
		if e.At.Before(from) || len(events)-i > notifyKnown {
			ids = nil
		}
		ids = append(ids, e.ID)
	}
	return ids
}

func (c *Controller) applyNotify(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	t, ok := f.Result.Value.(told)
	if !ok {
		return nil
	}
	return errors.Join(
		tx.SetWord(ctx, f.Job.Farm, notified, strings.Join(t.ids, " ")),
		t.board.write(ctx, tx, f.Job.Farm))
}
