package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/store"
)

// givesUp reports that a CA will not change a key that others know: whoever has it may
// have changed it first, or ended the account.
func givesUp(a store.Account, err error) bool {
	return a.Exposed.Open() && (errors.Is(err, issue.Refused) || errors.Is(err, issue.AccountLost))
}

// A goneAccount is one whose key others know and that was given up.
type goneAccount struct {
	url   string
	ended bool // the CA ended it for us
	why   string
}

// newAccount gives up an account whose key the CA would not change: it is ended, if the
// CA will have that, and another is opened with the key that it was to have.
func (c *Controller) newAccount(ctx context.Context, a Account, row store.Account) farm.Result {
	gone := goneAccount{url: row.URL}
	if err := a.Deactivate(ctx); err != nil {
		gone.why = err.Error()
	} else {
		gone.ended = true
	}
	old := row.Key.Sealed
	was := *row.Exposed
	was.Replaced = row.URL
	row.Key, row.Thumbprint, row.Next, row.NextThumbprint = row.Next, row.NextThumbprint, farm.KeyRef{}, ""
	row.URL, row.Status, row.HoldUntil, row.HoldWhy, row.Exposed = "", "", time.Time{}, "", &was
	return farm.Result{Value: rolledOver{row: row, old: old, gone: &gone}}
}

// replacedAccount tells what follows from an account that was given up, has its orders
// begin anew, and the other one opened.
func replacedAccount(ctx context.Context, tx *store.Tx, r rolledOver) error {
	orders, err := tx.Orders(ctx, r.row.Farm, store.OrderQuery{})
	if err != nil {
		return err
	}
	for _, o := range orders {
		if o.Issuer != r.row.Issuer || o.External != "" || o.State.Ended() || o.URL == "" {
			continue
		}
		// Key and request stay: the CA knows the order by the other account only.
		o.State, o.URL, o.FinalizeURL, o.CertURL, o.Account, o.Authz = farm.OrderNew, "", "", "", "", nil
		o.Finalize, o.Again, o.Error, o.Replaces = time.Time{}, time.Time{}, "", ""
		if err := errors.Join(tx.PutOrder(ctx, o), armOrder(ctx, tx, o)); err != nil {
			return err
		}
	}
	ended := "it is ended"
	if !r.gone.ended {
		ended = "it could not be ended (" + r.gone.why + "), so ask the CA to"
	}
	return errors.Join(
		tell(ctx, tx, farm.Event{
			Farm: r.row.Farm, Kind: "account.replaced", Level: farm.Alarm,
			Text: fmt.Sprintf("the account %s at %s is given up: %s. Another is opened: CAA records with accounturi and records of dns-persist-01 that name the old one must name the new one", r.gone.url, r.row.Issuer, ended),
			Hint: "`certfarm snippet SITE --dns` prints them; until then the CA refuses those names, and renewals replace nothing (ARI)",
		}),
		exposedNext(ctx, tx, r.row),
		openFirst(ctx, tx, r.row.Farm, r.row.Issuer),
	)
}

// exposedNext has the journey away from an account's key go on.
func exposedNext(ctx context.Context, tx *store.Tx, a store.Account) error {
	if !a.Exposed.Open() {
		return nil
	}
	return arm(ctx, tx, a.Farm, "exposed", a.Issuer, tx.Now())
}

// A withdrawn is what became of the proofs that a CA trusted.
type withdrawn struct {
	row  store.Account
	n    int
	left []string // URLs of those that the CA still trusts, for what we know
}

// withdrawMost is how many proofs are withdrawn in one run.
const withdrawMost = 50

// workExposed withdraws, once an account has another key, the proofs of names that are
// not being used: with them whoever had the key could order as long as the CA trusts
// them. Those of an account that was given up ended with it, or cannot be reached.
func (c *Controller) workExposed(ctx context.Context, j farm.Job) farm.Result {
	a, row, err := c.account(ctx, j.Farm, j.Subject)
	if err != nil || !row.Exposed.Open() || row.NextThumbprint != "" {
		return farm.Result{Err: unlessGone(err)}
	}
	w := withdrawn{row: row}
	switch {
	case row.URL == "":
		return farm.Result{Again: c.Now().Add(c.Pace.Late)} // another is being opened
	case row.Exposed.Replaced != "":
		return farm.Result{Value: w}
	}
	var urls []string
	err = c.Store.View(ctx, func(tx *store.Tx) (err error) {
		urls, err = proofs(ctx, tx, row)
		return err
	})
	if err != nil {
		return farm.Result{Err: err}
	}
	for _, url := range urls[:min(len(urls), withdrawMost)] {
		err := a.Forget(ctx, url)
		if err != nil && !errors.Is(err, issue.Refused) {
			return farm.Result{Err: err, Again: c.Now().Add(orderPause(j.Attempt))} // those before are withdrawn: the CA says no to them now
		}
		if err != nil {
			c.Log.Info("withdraw a proof", "issuer", row.Issuer, "error", err)
			w.left = append(w.left, url)
			continue
		}
		w.n++
	}
	return farm.Result{Value: w}
}

// proofs are the authorizations of an account that no order needs any more.
func proofs(ctx context.Context, tx *store.Tx, a store.Account) (urls []string, err error) {
	orders, err := tx.Orders(ctx, a.Farm, store.OrderQuery{Since: tx.Now().Add(-90 * 24 * time.Hour)})
	if err != nil {
		return nil, err
	}
	var needed []string
	for _, o := range orders {
		for _, z := range o.Authz {
			switch {
			case o.Account != a.URL || o.External != "" || z.URL == "":
			case !o.State.Ended():
				needed = append(needed, z.URL)
			case z.Expires.IsZero() || z.Expires.After(tx.Now()):
				urls = append(urls, z.URL)
			}
		}
	}
	slices.Sort(urls)
	return slices.DeleteFunc(slices.Compact(urls), func(u string) bool { return slices.Contains(needed, u) }), nil
}

// applyExposed ends the journey away from an account's key, and tells so.
func (c *Controller) applyExposed(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	w, ok := f.Result.Value.(withdrawn)
	if !ok {
		return nil
	}
	row, err := tx.Account(ctx, w.row.Farm, w.row.Issuer, w.row.Directory)
	if err != nil || !row.Exposed.Open() {
		return unlessGone(err)
	}
	is := *row.Exposed
	is.Ended = tx.Now()
	row.Exposed = &is
	text := fmt.Sprintf("the old key of the account at %s is of no use any more; %d proofs of names are withdrawn, and are made anew with the next orders", row.Issuer, w.n)
	if is.Replaced != "" {
		text = fmt.Sprintf("the account at %s whose key others know is left behind", row.Issuer)
	}
	return errors.Join(forgotten(ctx, tx, row, w), tx.PutAccount(ctx, row), tell(ctx, tx, farm.Event{
		Farm: row.Farm, Kind: "account.safe", Text: text,
		Hint: "look in the logs of Certificate Transparency for certificates of your names that are not yours, and have them revoked",
	}))
}

// forgotten notes of orders that their proofs are trusted no more, so that no
// preflight relies on them.
func forgotten(ctx context.Context, tx *store.Tx, a store.Account, w withdrawn) error {
	orders, err := tx.Orders(ctx, a.Farm, store.OrderQuery{Since: tx.Now().Add(-90 * 24 * time.Hour)})
	for _, o := range orders {
		if o.Account != a.URL || !o.State.Ended() || !slices.ContainsFunc(o.Authz, func(z farm.Authz) bool { return z.Valid }) {
			continue
		}
		o.Authz = slices.Clone(o.Authz)
		for i := range o.Authz {
			o.Authz[i].Valid = o.Authz[i].Valid && slices.Contains(w.left, o.Authz[i].URL)
		}
		err = errors.Join(err, tx.PutOrder(ctx, o))
	}
	return err
}
