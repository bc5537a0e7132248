package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// applyOrder writes an order's step. The last order of an intent that is done
// makes the version, and the rollout that follows, in the same transaction.
func (c *Controller) applyOrder(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	o, ok := f.Result.Value.(ordered)
	if !ok {
		return nil
	}
	was, err := tx.Order(ctx, o.order.Farm, o.order.ID)
	if err != nil {
		return err
	}
	if o.account != "" {
		return openFirst(ctx, tx, o.order.Farm, o.account)
	}
	o.order.Updated = tx.Now()
	if err := putStep(ctx, tx, o); err != nil {
		return err
	}
	if o.order.External != "" {
		return nil // who asked for it is waiting
	}
	c.countOrder(tx, was, o, f.Result.Err)
	if err := tellOrder(ctx, tx, was, o); err != nil {
		return err
	}
	if o.order.State == was.State || !o.order.State.Ended() {
		return nil
	}
	return errors.Join(armForgetUnused(ctx, tx, o.order), c.ended(ctx, tx, o.order))
}

// putStep writes an order with what came of its step besides: the key that was
// made for it, and that its account is to wait.
func putStep(ctx context.Context, tx *store.Tx, o ordered) error {
	if o.sealed != nil {
		if err := tx.PutSealed(ctx, o.order.Farm, sealedKey, o.order.Key.Sealed, o.sealed); err != nil {
			return err
		}
	}
	if err := tx.PutOrder(ctx, o.order); err != nil {
		return err
	}
	if err := noteAnswer(ctx, tx, o); err != nil || o.holdUntil.IsZero() {
		return err
	}
	return hold(ctx, tx, o)
}

// openFirst has an account opened, unless that is under way: one that cannot be
// opened keeps its pauses, however many orders ask for it.
func openFirst(ctx context.Context, tx *store.Tx, farmName, issuer string) error {
	_, err := tx.Job(ctx, farmName, "account", issuer)
	if errors.Is(err, store.ErrNotFound) {
		return arm(ctx, tx, farmName, "account", issuer, tx.Now())
	}
	return err
}

// hold makes all orders of an account wait: one refusal stops them all.
func hold(ctx context.Context, tx *store.Tx, o ordered) error {
	i, err := tx.Issuer(ctx, o.order.Farm, o.order.Issuer)
	if err != nil {
		return err
	}
	a, err := tx.Account(ctx, o.order.Farm, i.Name, cmp.Or(o.order.External, i.Directory))
	if err != nil {
		return err
	}
	a.HoldUntil, a.HoldWhy = o.holdUntil, o.holdWhy
	return tx.PutAccount(ctx, a)
}

// tellOrder tells what a step of an order changed: its state, or the first time that
// it fails in a new way.
func tellOrder(ctx context.Context, tx *store.Tx, was farm.Order, o ordered) error {
	is := o.order
	names := strings.Join(is.Names, ", ")
	e := farm.Event{Farm: is.Farm, Site: is.Site, Order: is.ID, Kind: "order." + string(is.State)}
	if err := tellAnswers(ctx, tx, e, o); err != nil {
		return err
	}
	switch {
	case o.held != "" && was.Error != is.Error:
		e.Kind, e.Level = "preflight.wrong", farm.Alarm
		e.Text = "order for " + names + " is held: " + o.held
		e.Hint = "mend it and the order goes on by itself; `certfarm describe site " + is.Site + "` shows the state"
	case is.State == farm.OrderFailed && was.State != is.State:
		e = failedEvent(e, is, names)
	case is.Error != "" && was.Error == "":
		e.Kind, e.Level = "order.error", farm.Warn
		e.Text = fmt.Sprintf("order for %s: %s", names, is.Error)
		e.Hint = "it is tried again at " + is.Again.UTC().Format("15:04:05 MST")
	case is.State == was.State:
		return nil
	default:
		e.Text = fmt.Sprintf("order for %s is %s", names, is.State)
	}
	return tell(ctx, tx, e)
}

// failedEvent says why an order ended without a certificate, and what comes next.
func failedEvent(e farm.Event, o farm.Order, names string) farm.Event {
	if o.GivenUp {
		e.Kind, e.Level, e.Text = "order.given-up", farm.Warn, fmt.Sprintf("order for %s is given up: %s", names, o.Error)
		return e
	}
	e.Level, e.Text = farm.Alarm, fmt.Sprintf("order for %s failed: %s", names, o.Error)
	e.Hint = "a new one is ordered by itself, a day later at the latest, or at once with `certfarm renew " + o.Site + "`"
	if o.Ours {
		e.Text += "; the controller was not there when the CA asked"
		e.Hint = "a new one is ordered at once, unless this happened before within a day"
	}
	return e
}

// tellAnswers tells what became of what was put up for an order, and that the CA
// is asked although something was seen to be wrong.
func tellAnswers(ctx context.Context, tx *store.Tx, e farm.Event, o ordered) error {
	e.Level = farm.Warn
	var errs []error
	if o.against != "" {
		e.Kind, e.Text = "preflight.tried", "the CA is asked although this was seen: "+o.against
		errs = append(errs, tell(ctx, tx, e))
	}
	for _, left := range o.left {
		e.Kind, e.Text, e.Hint = "answer.left", left, "take it away by hand; it does no harm, but nobody else will"
		errs = append(errs, tell(ctx, tx, e))
	}
	if o.uncleaned != "" {
		e.Kind, e.Text, e.Hint = "answer.uncleaned", o.uncleaned, "it is tried again by itself"
		errs = append(errs, tell(ctx, tx, e))
	}
	return errors.Join(errs...)
}

// ended goes on when the last order of an intent has ended: with a version when
// all are done; without when one failed.
func (c *Controller) ended(ctx context.Context, tx *store.Tx, o farm.Order) error {
	orders, err := tx.OrdersOfIntent(ctx, o.Farm, o.Intent)
	if err != nil {
		return err
	}
	failed := slices.ContainsFunc(orders, func(o farm.Order) bool { return o.State == farm.OrderFailed })
	if more, err := othersRun(ctx, tx, orders, failed); err != nil || more {
		return err
	}
	cert, err := tx.Certificate(ctx, o.Farm, o.Site)
	if err != nil {
		return err
	}
	cert.Intent = ""
	switch {
	case failed && o.GivenUp:
		err = stillWanted(ctx, tx, cert, o)
	case failed:
		cert.Failures++
	default:
		err = c.newVersion(ctx, tx, &cert, orders)
	}
	if err != nil {
		return err
	}
	if err := tx.PutCertificate(ctx, cert); err != nil {
		return err
	}
	return errors.Join(wakeSiblings(ctx, tx, o.Farm, o.Site), arm(ctx, tx, o.Farm, "check", o.Site, tx.Now()))
}

// othersRun reports whether an order of an intent goes on. Once one has failed,
// those that were not opened yet do not.
func othersRun(ctx context.Context, tx *store.Tx, orders []farm.Order, failed bool) (more bool, err error) {
	for _, o := range orders {
		if o.State.Ended() {
			continue
		}
		if !failed || o.State != farm.OrderNew {
			return true, nil
		}
		// The CA knows nothing of this one, and its leaf alone is no version.
		o.State, o.Error = farm.OrderFailed, "another order of the same certificate failed"
		if err := tx.PutOrder(ctx, o); err != nil {
			return false, err
		}
	}
	return false, nil
}

// newVersion keeps what an intent gave, and begins to roll it out.
func (c *Controller) newVersion(ctx context.Context, tx *store.Tx, cert *farm.Certificate, orders []farm.Order) error {
	o := orders[0]
	v := farm.Version{
		ID: store.NewID("ver"), Farm: o.Farm, Site: o.Site, Names: o.Names, Issuer: o.Issuer, Profile: o.Profile, Created: tx.Now(),
	}
	for _, o := range orders {
		leaf, err := encode.Facts(o.Chain)
		if err != nil {
			return fmt.Errorf("chain of order %s: %w", o.ID, err)
		}
		leaf.Key, leaf.KeyType = o.Key, o.KeyType
		v.Leaves = append(v.Leaves, leaf)
	}
	if err := tx.PutVersion(ctx, v); err != nil {
		return err
	}
	cert.Version, cert.Failures, cert.Retries, cert.Retry, cert.Due = v.ID, 0, 0, time.Time{}, time.Time{}
	cert.ARI = farm.Suggestion{}
	if err := tell(ctx, tx, farm.Event{
		Farm: v.Farm, Kind: "version.issued", Site: v.Site, Version: v.ID,
		Text: fmt.Sprintf("version %s is issued: valid until %s", farm.Short(leafOf(v)), v.NotAfter().UTC().Format("2006-01-02 15:04 MST")),
	}); err != nil {
		return err
	}
	return c.rollOut(ctx, tx, *cert, v)
}

// rollOut brings a version to the targets of its site that should hold another.
func (c *Controller) rollOut(ctx context.Context, tx *store.Tx, cert farm.Certificate, v farm.Version) error {
	site, err := tx.Site(ctx, cert.Farm, cert.Site) // the version may be of before its strategy changed
	if err != nil {
		return unlessGone(err)
	}
	places, err := missing(ctx, tx, site, v)
	if err != nil {
		return err
	}
	places, opens, err := turn(ctx, tx, places)
	if err != nil {
		return err
	}
	if len(places) == 0 && !opens.IsZero() {
		return arm(ctx, tx, v.Farm, "check", site.Name, opens)
	}
	if why, err := rollsInTurn(ctx, tx, site, v, places); err != nil || why != "" {
		return err
	}
	reason := reasonFor(cert, v, places)
	if len(places) > 0 {
		if moved, err := ofOthers(ctx, tx, places[0]); err != nil {
			return err
		} else if moved {
			reason = "the strategy changed"
		}
	}
	_, err = start(ctx, tx, site, v.Farm, v, places, reason)
	return err
}

// reasonFor says why a version goes to places.
func reasonFor(cert farm.Certificate, v farm.Version, places []farm.Place) string {
	switch {
	case cert.Compromise.Open() && cert.Compromise.Stage == farm.Replacing:
		return "the old key is known to others"
	case cert.Retries > 0:
		return "tried again"
	case v.ID != cert.Version:
		return "an earlier version is brought back"
	case len(places) > 0 && len(places[0].Desired) == 0:
		return "first installation"
	}
	return "renewal"
}

// missing lists the targets of a site that should hold another version than v.
// Those on a held node wait.
func missing(ctx context.Context, tx *store.Tx, site farm.Site, v farm.Version) (places []farm.Place, err error) {
	all, err := tx.Places(ctx, v.Farm, site.Name)
	if err != nil {
		return nil, err
	}
	order := map[string]int{}
	for i, t := range site.Targets {
		order[t.Name] = i
	}
	places = make([]farm.Place, len(site.Targets))
	wanted := make([]bool, len(site.Targets))
	for _, p := range all {
		i, ok := order[p.Target.Name]
		if !ok || p.Released || len(p.Desired) == 1 && p.Desired[0] == v.ID {
			continue
		}
		held, err := tx.Word(ctx, v.Farm, wordHeld+p.Target.Node)
		if err != nil {
			return nil, err
		}
		places[i], wanted[i] = p, held == ""
	}
	var inOrder []farm.Place // as farm.yaml lists them: the canary is the first
	for i, p := range places {
		if wanted[i] {
			inOrder = append(inOrder, p)
		}
	}
	return inOrder, nil
}
