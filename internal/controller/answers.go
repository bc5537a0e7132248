package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// solver makes what answers for a name of the order.
func (c *Controller) solver(ctx context.Context, o ordering, name string) (prove.Solver, error) {
	return c.Solver(ctx, Proving{
		Farm: o.order.Farm, Validation: farm.ValidationOf(o.order.Validations, name), Settings: o.settings, Thumbprint: o.account.Thumbprint,
		Commands: c.Commands, Helper: c.Helper,
	}, c)
}

// known reports that the CA has said what it asks.
func known(o farm.Order) bool {
	for _, a := range o.Authz {
		if !a.Valid && a.Challenge.URL == "" {
			return false
		}
	}
	return len(o.Authz) > 0
}

// present puts up the answers, and once the world can see them says so.
func (c *Controller) present(ctx context.Context, o ordering) farm.Result {
	o.order.Authz = slices.Clone(o.order.Authz)
	for i := range o.order.Authz {
		a := &o.order.Authz[i]
		if a.Valid {
			continue
		}
		solver, err := c.solver(ctx, o, a.Asked())
		if err != nil {
			return c.put(o, err)
		}
		if a.Receipt == nil {
			receipt, err := solver.Present(ctx, a.Challenge)
			if err != nil {
				return c.put(o, fmt.Errorf("putting up the answer for %s: %w", a.Name, err))
			}
			a.Receipt, a.Presented = receipt, c.Now()
		}
		ready, err := solver.Ready(ctx, a.Challenge, a.Receipt)
		if err != nil {
			return c.put(o, fmt.Errorf("looking for the answer for %s: %w", a.Name, err))
		}
		if !ready {
			return c.unready(ctx, o, solver, *a)
		}
	}
	o.order.State, o.order.Error, o.order.Tries = farm.OrderPresented, "", 0
	return farm.Result{Value: ordered{order: o.order}, Again: c.Now()}
}

// An answer that is not seen is looked for again after a tenth of the time that it
// was waited for, within these bounds, and after a minute people are told.
const (
	readySoon  = time.Second
	readyLate  = 30 * time.Second
	readyQuiet = time.Minute
)

// A spreader can tell how far an answer has come.
type spreader interface {
	Spread(ctx context.Context, r prove.Receipt) ([]dns01.Sight, error)
}

// unready waits for an answer that the world cannot see yet, for as long as the CA
// keeps the order.
func (c *Controller) unready(ctx context.Context, o ordering, s prove.Solver, a farm.Authz) farm.Result {
	now := c.Now()
	waited := now.Sub(a.Presented)
	if p, ok := s.(spreader); ok && waited > readyQuiet {
		if sights, err := p.Spread(ctx, a.Receipt); err == nil {
			o.order.Error = "the answer for " + a.Asked() + " is not seen everywhere: " + dns01.Tell(sights)
		}
	}
	if !o.order.Expires.IsZero() && now.After(o.order.Expires) {
		return c.failed(o, fmt.Errorf("the CA gave the order up while its answers were waited for: %s", o.order.Error))
	}
	o.order.Again = now.Add(min(max(waited/10, readySoon), readyLate))
	return farm.Result{Value: ordered{order: o.order}, Again: o.order.Again}
}

// cleanUp takes away what was put up for an order that has ended. It goes by the
// challenges: a receipt may have been lost on the way to the store. What cannot be
// taken away now is tried again; what can never be, people are told of.
func (c *Controller) cleanUp(ctx context.Context, o ordering, attempt int) farm.Result {
	done := ordered{order: o.order}
	done.order.Authz = slices.Clone(o.order.Authz)
	var errs []error
	changed := false
	for i := range done.order.Authz {
		a := &done.order.Authz[i]
		if a.Receipt == nil && a.Challenge.Token == "" {
			continue
		}
		solver, err := c.solver(ctx, o, a.Asked())
		if err == nil {
			err = solver.CleanUp(ctx, a.Challenge, a.Receipt)
		}
		switch {
		case errors.Is(err, dns01.Left):
			done.left = append(done.left, err.Error())
		case err != nil:
			errs = append(errs, fmt.Errorf("taking away the answer for %s: %w", a.Asked(), err))
			continue
		}
		changed = changed || a.Receipt != nil || err != nil
		a.Receipt = nil
	}
	result := farm.Result{Err: errors.Join(errs...)}
	if result.Err != nil {
		result.Again = c.Now().Add(orderPause(attempt))
		if attempt == 1 {
			done.uncleaned, changed = result.Err.Error(), true
		}
	}
	if changed {
		result.Value = done
	}
	return result
}
