package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
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
	other     string      // an order of the same slot that is open; of a new order only, like
	held      renew.Held  // what decides whether a wrong preflight holds it
	proven    []string    // names that the CA trusts an earlier proof of
	nodes     []farm.Node // that answer behind the balancer
	siteGone  bool
	observed  bool // the site is only looked at, for now
	noAccount bool
	unsent    bool      // finalize was promised, and surely not sent
	giveUp    string    // why another order is made in its place, or none; empty: it goes on
	outdated  bool      // it is given up for what farm.yaml says by now
	turns     time.Time // when that is looked at again; zero: never
	maker     farm.Node // that makes the key, where own
	own       bool
	lane      string // of the job
	lease     deploy.Lease
}

// An ordered is what came of a step.
type ordered struct {
	order     farm.Order
	sealed    []byte    // the key that was made
	account   string    // the issuer whose account must be opened first
	holdUntil time.Time // the whole account waits
	holdWhy   string
	held      string   // a preflight holds the order, and why
	against   string   // what a preflight found wrong, where the CA is asked all the same
	left      []string // what was put up and can never be taken away by us
	uncleaned string   // why what was put up is not taken away yet
	answered  answered // how the CA took the step
}

// workOrder does the one next step of an order.
func (c *Controller) workOrder(ctx context.Context, j farm.Job) farm.Result {
	o, err := c.ordering(ctx, j)
	if errors.Is(err, store.ErrNotFound) && o.order.ID == "" {
		return farm.Result{} // it ended long ago, and is forgotten
	}
	if err != nil {
		return farm.Result{Err: err}
	}
	if o.observed {
		return farm.Result{Again: c.Now().Add(c.Pace.Late)} // it is of a backup
	}
	if o.order.State.Ended() {
		return c.cleanUp(ctx, o, j.Attempt)
	}
	// The first run since finalize was promised: nothing was sent yet, and the CA
	// need not be asked.
	o.unsent = o.order.State == farm.OrderReady && j.Attempt == 1 && o.order.Tries == 0
	return o.inTime(c.goAhead(ctx, o))
}

// goAhead does the one next step of an order that has not ended, or waits for what
// it needs.
func (c *Controller) goAhead(ctx context.Context, o ordering) farm.Result {
	now := c.Now()
	switch {
	case o.siteGone:
		return c.failed(o, errors.New("the site is gone from farm.yaml"))
	case o.giveUp != "":
		return c.givenUp(o)
	case o.order.Again.After(now):
		return farm.Result{Again: o.order.Again}
	case o.order.CSR == nil && o.own:
		return c.requestFrom(ctx, o, o.maker)
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
		if o.settings, err = tx.Settings(ctx, j.Farm); err != nil {
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
		if o.maker, o.own, err = keptAt(ctx, tx, j.Farm, o.site); err != nil {
			return err
		}
		o.lane, o.lease = j.Lane, deploy.Lease{Owner: c.Owner, Epoch: j.Epoch, Nonce: j.Nonce}
		if err := o.atCA(ctx, tx); err != nil {
			return err
		}
		if o.giveUp = outdated(o.order, o.site); o.giveUp != "" {
			o.outdated = true
			return nil
		}
		if err := o.overtaken(ctx, tx); err != nil || o.order.State != farm.OrderNew {
			return err
		}
		return o.mayOpen(ctx, tx)
	})
	return o, err
}

// atCA reads where the order is placed, and the account there.
func (o *ordering) atCA(ctx context.Context, tx *store.Tx) (err error) {
	if o.issuer, err = tx.Issuer(ctx, o.order.Farm, o.order.Issuer); err != nil {
		return err
	}
	o.issuer.Directory = cmp.Or(o.order.External, o.issuer.Directory)
	o.account, err = tx.Account(ctx, o.order.Farm, o.issuer.Name, o.issuer.Directory)
	if errors.Is(err, store.ErrNotFound) {
		o.noAccount = true
		return nil
	}
	o.noAccount = err == nil && o.account.URL == ""
	return err
}

// mayOpen reads what decides whether a new order is opened.
func (o *ordering) mayOpen(ctx context.Context, tx *store.Tx) (err error) {
	if o.other, err = tx.OpenOrder(ctx, o.order.Farm, store.Slot(o.order)); err != nil {
		return err
	}
	s, err := stand(ctx, tx, o.order.Farm, o.order.Site)
	if err != nil {
		return err
	}
	before, err := tx.Orders(ctx, o.order.Farm, store.OrderQuery{Slot: store.Slot(o.order), Since: tx.Now().Add(-budget.Span)})
	if err != nil {
		return err
	}
	o.held = heldSince(before, budget.LimitsOf(o.issuer).Failures, tx.Now())
	o.held.Since, o.held.LastSafe = s.cert.Due, s.lastSafe()
	o.proven = proven(before, o.account.URL, tx.Now())
	o.nodes, err = answering(ctx, tx, o.order.Farm, o.order.Validations)
	return err
}

// heldSince is what earlier orders of the same names say of how a CA was asked.
func heldSince(before []farm.Order, failures farm.Rate, now time.Time) renew.Held {
	h := renew.Held{Budget: failures.Count}
	for _, b := range before {
		if b.URL == "" || b.State != farm.OrderFailed || b.Outdated {
			continue
		}
		if b.Updated.After(h.Tried) {
			h.Tried = b.Updated
		}
		if free := b.Updated.Add(failures.Per); free.After(now) {
			h.Failures++
			if h.Room.IsZero() || free.Before(h.Room) {
				h.Room = free
			}
		}
	}
	return h
}

// proven are the names of which the CA was seen to trust an earlier proof, for
// long enough to open an order on it.
func proven(before []farm.Order, account string, now time.Time) (names []string) {
	for _, b := range before {
		for _, z := range b.Authz {
			if b.Account == account && z.Valid && z.Expires.After(now.Add(time.Hour)) && !slices.Contains(names, z.Asked()) {
				names = append(names, z.Asked())
			}
		}
	}
	return names
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
	why, err := c.preflight(ctx, o)
	if err != nil {
		return farm.Result{Err: err}
	}
	if why == "" {
		return c.step(ctx, o)
	}
	now := c.Now()
	pause := renew.Hold(o.held, now)
	why += "\n" + pause.Why
	if pause.Until.IsZero() {
		r := c.step(ctx, o)
		if v, ok := r.Value.(ordered); ok {
			v.against = why
			r.Value = v
		}
		return r
	}
	o.order.Tries++
	o.order.Error = why
	if o.order.Again = now.Add(min(orderPause(o.order.Tries), 10*time.Minute)); pause.Until.Before(o.order.Again) {
		o.order.Again = pause.Until
	}
	return farm.Result{Value: ordered{order: o.order, held: why}, Again: o.order.Again}
}

// preflight says what was seen to be wrong with the names that the CA will ask
// about; empty: nothing.
func (c *Controller) preflight(ctx context.Context, o ordering) (wrong string, err error) {
	p := preflight{
		c: c, farm: o.order.Farm, site: o.order.Site, validations: o.order.Validations, settings: o.settings,
		issuer: o.issuer, account: o.account, nodes: o.nodes, seed: fmt.Sprint(o.order.ID, " ", o.order.Tries),
	}
	for _, name := range o.order.Names {
		if !slices.Contains(o.proven, name) {
			p.names = append(p.names, name)
		}
	}
	if len(p.names) == 0 || o.order.External != "" { // an order elsewhere is made to find out
		return "", nil
	}
	found, err := p.look(ctx)
	_, wrong = http01.Verdict(found, false)
	return wrong, err
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
		return judged(c.put(o, err), howAnswered(err))
	}
	next.Account, next.Tries, next.Error, next.Finalize = o.account.URL, 0, "", o.order.Finalize
	if next.State == farm.OrderAccepted && o.order.State == farm.OrderPresented {
		next.Told = c.Owner
	}
	again := c.Now()
	if next.State == farm.OrderReady && next.External != "" {
		next.State = farm.OrderDone // every name is proven, and no certificate wanted
	}
	if next.State == farm.OrderReady && next.Finalize.IsZero() {
		// That finalize is sent must be durable before it is: it is never repeated blindly.
		next.Finalize = again
	}
	if next.Again.After(again) {
		again = next.Again
	}
	return farm.Result{Value: ordered{order: next, answered: o.wellAgain()}, Again: again}
}

// judged adds to what came of a step how the CA took it.
func judged(r farm.Result, how answered) farm.Result {
	if v, ok := r.Value.(ordered); ok {
		v.answered = how
		r.Value = v
	}
	return r
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
	if later, ok := errors.AsType[*issue.Later](err); ok {
		done.order.Again = later.Until
		if later.Account {
			done.holdUntil, done.holdWhy = later.Until, later.Err.Error()
		}
	}
	return farm.Result{Value: done, Err: err, Again: done.order.Again}
}

func (c *Controller) failed(o ordering, err error) farm.Result {
	o.order.State, o.order.Error, o.order.Ours = farm.OrderFailed, err.Error(), c.ours(o.order, err)
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
