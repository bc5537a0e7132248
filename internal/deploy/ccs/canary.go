package ccs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/certfarm/certfarm/internal/deploy"
)

// first switches the canaries of all receipts alone and waits until every reader
// serves them: before a client asks for anything new, it is known that they read
// the store, have its password, and take its cipher. If a reader does not, all is
// put back.
//
// After a death it is repeated from the beginning: canaries that are switched stay
// so, and readers that serve them answer at once. When no live name is left to be
// switched, there is nothing to ask for any more.
func (d *Store) first(ctx context.Context, all []note) error {
	looks, err := d.lookouts(ctx, all)
	if err != nil || len(looks) == 0 {
		return err
	}
	left, err := d.forward(ctx, all, func(e entry) bool { return e.Canary })
	if err != nil {
		return fmt.Errorf("the canary: %w", err)
	}
	if left == 0 {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, d.options.patience())
	defer cancel()
	for _, l := range looks {
		if err := l.ask(within, l.note.canary(), []string{l.note.Leaf}); err != nil {
			if ctx.Err() == nil {
				err = d.unseen(l.note, err)
			}
			return errors.Join(err, d.putBack(ctx, stepsOf(all)))
		}
	}
	return nil
}

// A lookout is a staging with a canary, and how its readers are asked for it.
type lookout struct {
	note note
	ask  deploy.Look
}

// lookouts are those of the stagings that have a canary, each with the readers of its
// own target: others may have no binding for that canary.
func (d *Store) lookouts(ctx context.Context, all []note) (looks []lookout, err error) {
	for _, n := range all {
		if n.canary() == "" {
			continue
		}
		ask := d.readers
		if d.looks != nil && n.Target != d.target && n.Target != "" {
			if ask, err = d.looks(ctx, n.Target); err != nil {
				return nil, fmt.Errorf("the readers of %s: %w", n.Target, err)
			}
		}
		if ask != nil {
			looks = append(looks, lookout{n, ask})
		}
	}
	return looks, nil
}

// unseen says that a reader did not take the canary up. What the look says is left
// out of the chain: it is the readers that were too slow, or away, and not the store.
func (d *Store) unseen(n note, err error) error {
	return fmt.Errorf("the canary %s was not served by every reader within %s, so it was put back and no live name was touched: %v "+
		"(each reader needs a binding of that name with SNI and the store, "+
		"New-WebBinding -Name SITE -Protocol https -Port 443 -HostHeader %s -SslFlags 3, "+
		"and a PollingInterval of at most %s; or leave the option canary out)",
		n.canary(), d.options.patience(), err, n.canary(), d.options.lag())
}

// stepsOf are all files of all stagings, for a call that died may have switched any
// of them. Canaries come first: putBack begins at the end, with the live names.
func stepsOf(all []note) []step {
	var steps []step
	for _, n := range all {
		for _, e := range n.Files {
			steps = append(steps, step{n, e})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return order(a.entry) - order(b.entry) })
	return steps
}
