package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// An ordering is what a step of an order takes.
type ordering struct {
	order     farm.Order
	site      farm.Site
	issuer    farm.Issuer
	account   store.Account
	settings  store.Settings
	other     string // an order of the same slot that is open; of a new order only, like
	pastSafe  bool   // that it is past the last safe moment
	solver    prove.Solver
	siteGone  bool
	observed  bool // the site is only looked at, for now
	noAccount bool
	unsent    bool // finalize was promised, and surely not sent
}

// An ordered is what came of a step.
type ordered struct {
	order     farm.Order
	sealed    []byte    // the key that was made
	account   string    // the issuer whose account must be opened first
	holdUntil time.Time // the whole account waits
	holdWhy   string
	held      string // a preflight holds the order, and why
}

// workOrder does the one next step of an order.
func (c *Controller) workOrder(ctx context.Context, j farm.Job) farm.Result {
	o, err := c.ordering(ctx, j)
	if err != nil {
		return farm.Result{Err: err}
	}
	now := c.Now()
	if o.observed {
		return farm.Result{Again: now.Add(c.Pace.Late)} // it is of a backup
	}
	switch {
	case o.order.State.Ended():
		return c.cleanUp(ctx, o)
	case o.siteGone:
		return c.failed(o, errors.New("the site is gone from farm.yaml"))
	case o.order.Again.After(now):
		return farm.Result{Again: o.order.Again}
	case o.order.CSR == nil:
		return c.request(o)
	case o.account.HoldUntil.After(now):
		return farm.Result{Again: o.account.HoldUntil}
	case o.noAccount:
		return farm.Result{Value: ordered{order: o.order, account: o.order.Issuer}, Again: now.Add(accountWait)}
	case o.order.State == farm.OrderNew:
		return c.openOrder(ctx, o)
	case o.order.State == farm.OrderPending && known(o.order):
		return c.present(ctx, o)
	case o.order.State == farm.OrderReady && j.Attempt == 1 && o.order.Tries == 0:
		// The first run since finalize was promised: nothing was sent yet, and the CA
		// need not be asked.
		o.unsent = true
	}
	return c.step(ctx, o)
}

// How long an order waits for its account, and for another order of its slot.
const (
	accountWait = 200 * time.Millisecond
	slotWait    = time.Second
)

func (c *Controller) ordering(ctx context.Context, j farm.Job) (o ordering, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if o.order, err = tx.Order(ctx, j.Farm, j.Subject); err != nil {
			return err
		}
		o.site, err = tx.Site(ctx, j.Farm, o.order.Site)
		if errors.Is(err, store.ErrNotFound) {
			o.siteGone = true
			return nil
		}
		if err != nil {
			return err
		}
		if o.observed, err = observing(ctx, tx, j.Farm, o.order.Site); err != nil || o.observed {
			return err
		}
		if o.settings, err = tx.Settings(ctx, j.Farm); err != nil {
			return err
		}
		if o.issuer, err = tx.Issuer(ctx, j.Farm, o.order.Issuer); err != nil {
			return err
		}
		o.account, err = tx.Account(ctx, j.Farm, o.issuer.Name, o.issuer.Directory)
		o.noAccount = errors.Is(err, store.ErrNotFound) || err == nil && o.account.URL == ""
		if err != nil && !o.noAccount {
			return err
		}
		if o.order.State != farm.OrderNew {
			return nil
		}
		return o.mayOpen(ctx, tx)
	})
	if err != nil || o.siteGone || o.observed {
		return o, err
	}
	way := o.site.Validation.Method + "/" + o.site.Validation.Via
	if o.solver = c.Solvers[way]; o.solver == nil {
		return o, fmt.Errorf("validation %s of site %s: this controller has no solver for it", way, o.site.Name)
	}
	return o, nil
}

// mayOpen reads what decides whether a new order is opened.
func (o *ordering) mayOpen(ctx context.Context, tx *store.Tx) (err error) {
	if o.other, err = tx.OpenOrder(ctx, o.order.Farm, store.Slot(o.order)); err != nil {
		return err
	}
	s, err := stand(ctx, tx, o.order.Farm, o.order.Site)
	last := renew.LastSafe(s.good)
	o.pastSafe = !last.IsZero() && tx.Now().After(last)
	return err
}

// request makes the key and the signing request. Both are durable before the CA
// hears of the order.
func (c *Controller) request(o ordering) farm.Result {
	r, err := issue.NewRequest(o.order.Names, o.order.KeyType)
	if err != nil {
		return farm.Result{Err: err}
	}
	o.order.CSR, o.order.Key = r.CSR, farm.KeyRef{Sealed: o.order.ID}
	sealed, err := c.seal(o.order.Farm, sealedKey, o.order.ID, r.Key)
	if err != nil {
		return farm.Result{Err: err}
	}
	return farm.Result{Value: ordered{order: o.order, sealed: sealed}, Again: c.Now()}
}

// openOrder asks every address of the names what the CA will ask, and opens the
// order. One order of a slot is open at a time.
func (c *Controller) openOrder(ctx context.Context, o ordering) farm.Result {
	if o.other != "" && o.other != o.order.ID {
		return farm.Result{Again: c.Now().Add(slotWait)}
	}
	hold, why, err := c.preflight(ctx, o)
	if err != nil {
		return farm.Result{Err: fmt.Errorf("preflight of %s: %w", o.order.Site, err)}
	}
	if hold {
		o.order.Tries++
		o.order.Error = why
		o.order.Again = c.Now().Add(min(orderPause(o.order.Tries), 10*time.Minute))
		return farm.Result{Value: ordered{order: o.order, held: why}, Again: o.order.Again}
	}
	return c.step(ctx, o)
}

func (c *Controller) preflight(ctx context.Context, o ordering) (hold bool, why string, err error) {
	if c.Preflight == nil || o.site.Validation.Method != http01.Method {
		return false, "", nil
	}
	ch := farm.Challenge{Type: http01.Method, Name: o.order.Names[0]}
	ch.Token, ch.Value = http01.Question(fmt.Sprint(o.order.ID, " ", o.order.Tries))
	receipt, err := o.solver.Present(ctx, ch)
	if err != nil {
		return false, "", err
	}
	hold, why, err = c.Preflight(ctx, PreflightQuestion{
		Names: o.order.Names, Resolvers: o.settings.Resolvers, Token: ch.Token, Value: ch.Value, PastSafe: o.pastSafe,
	})
	return hold, why, errors.Join(err, o.solver.CleanUp(context.WithoutCancel(ctx), ch, receipt))
}

// known reports that the order's challenges are known.
func known(o farm.Order) bool {
	for _, a := range o.Authz {
		if !a.Valid && a.Challenge.Token == "" {
			return false
		}
	}
	return len(o.Authz) > 0
}

// present puts up the answers, and once the world can see them says so.
func (c *Controller) present(ctx context.Context, o ordering) farm.Result {
	o.order.Authz = append([]farm.Authz(nil), o.order.Authz...)
	for i := range o.order.Authz {
		a := &o.order.Authz[i]
		if a.Valid {
			continue
		}
		if a.Receipt == nil {
			receipt, err := o.solver.Present(ctx, a.Challenge)
			if err != nil {
				return c.put(o, fmt.Errorf("putting up the answer for %s: %w", a.Name, err))
			}
			a.Receipt = receipt
		}
		ready, err := o.solver.Ready(ctx, a.Challenge, a.Receipt)
		if err != nil {
			return c.put(o, fmt.Errorf("looking for the answer for %s: %w", a.Name, err))
		}
		if !ready {
			o.order.Again = c.Now().Add(time.Second)
			return farm.Result{Value: ordered{order: o.order}, Again: o.order.Again}
		}
	}
	o.order.State = farm.OrderPresented
	return farm.Result{Value: ordered{order: o.order}, Again: c.Now()}
}

// step does one protocol step at the CA.
func (c *Controller) step(ctx context.Context, o ordering) farm.Result {
	account, err := c.openAccount(ctx, o.order.Farm, o.issuer, o.settings.Proxy, o.account)
	if err != nil {
		return farm.Result{Err: err}
	}
	ask := o.order
	if o.unsent {
		ask.Finalize = time.Time{}
	}
	next, err := account.Step(ctx, ask, c.Now())
	if err != nil {
		return c.put(o, err)
	}
	next.Account, next.Tries, next.Error, next.Finalize = o.account.URL, 0, "", o.order.Finalize
	again := c.Now()
	if next.State == farm.OrderReady && next.Finalize.IsZero() {
		// That finalize is sent must be durable before it is: it is never repeated blindly.
		next.Finalize = again
	}
	if next.Again.After(again) {
		again = next.Again
	}
	return farm.Result{Value: ordered{order: next}, Again: again}
}

// put records an error of the CA or of a solver: the order ends, waits as it was
// told, or is tried again after a while.
func (c *Controller) put(o ordering, err error) farm.Result {
	if errors.Is(err, issue.Refused) {
		return c.failed(o, err)
	}
	done := ordered{order: o.order}
	done.order.Tries++
	done.order.Error = err.Error()
	done.order.Again = c.Now().Add(orderPause(done.order.Tries))
	var later *issue.Later
	if errors.As(err, &later) {
		done.order.Again = later.Until
		if later.Account {
			done.holdUntil, done.holdWhy = later.Until, later.Err.Error()
		}
	}
	return farm.Result{Value: done, Err: err, Again: done.order.Again}
}

func (c *Controller) failed(o ordering, err error) farm.Result {
	o.order.State, o.order.Error = farm.OrderFailed, err.Error()
	return farm.Result{Value: ordered{order: o.order}, Err: err, Again: c.Now()}
}

// orderPause is how long to wait after a failure: a moment once, then as Let's
// Encrypt's integration guide has it: 1, 10 and 100 minutes, then a day.
func orderPause(tries int) time.Duration {
	pauses := []time.Duration{5 * time.Second, time.Minute, 10 * time.Minute, 100 * time.Minute}
	if tries <= len(pauses) {
		return pauses[max(tries, 1)-1]
	}
	return 24 * time.Hour
}

// cleanUp takes away what was put up for an order that has ended. It goes by the
// challenges: a receipt may have been lost on the way to the store.
func (c *Controller) cleanUp(ctx context.Context, o ordering) farm.Result {
	left := false
	o.order.Authz = append([]farm.Authz(nil), o.order.Authz...)
	for i := range o.order.Authz {
		a := &o.order.Authz[i]
		if a.Receipt == nil && a.Challenge.Token == "" || o.solver == nil {
			continue
		}
		if err := o.solver.CleanUp(ctx, a.Challenge, a.Receipt); err != nil {
			return farm.Result{Err: fmt.Errorf("taking away the answer for %s: %w", a.Name, err)}
		}
		left = left || a.Receipt != nil
		a.Receipt = nil
	}
	if !left {
		return farm.Result{}
	}
	return farm.Result{Value: ordered{order: o.order}}
}
