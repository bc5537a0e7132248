package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/store"
)

// A Rollover is how far the change of an account's key has come.
type Rollover struct {
	Issuer     string           `json:"issuer"`
	Done       bool             `json:"done"`
	Thumbprint string           `json:"thumbprint" doc:"of the new key (RFC 7638)"`
	Sites      []string         `json:"sites,omitempty" doc:"sites whose nodes answer from a static rule, which must be for the new key"`
	Findings   []http01.Finding `json:"findings,omitempty" doc:"what is not right there yet"`
}

// rolloverFor is how long a caller waits for the CA.
const rolloverFor = time.Minute

// RollOver gives the account at an issuer a new key (RFC 8555 §7.3.5). The key is
// made and kept at the first call. Where nodes answer by a static rule that has
// its thumbprint, the CA is only told when every one of them answers for the new
// key: each later call looks again.
func (c *Controller) RollOver(ctx context.Context, farmName, issuer, by string) (r Rollover, err error) {
	r.Issuer = issuer
	i, row, err := c.nextKey(ctx, farmName, issuer, by)
	if err != nil {
		return r, err
	}
	r.Thumbprint = row.NextThumbprint
	if r.Sites, r.Findings, err = c.staticRules(ctx, farmName, i, row); err != nil || len(r.Findings) > 0 {
		return r, err
	}
	err = c.Store.Update(ctx, func(tx *store.Tx) error { return arm(ctx, tx, farmName, "rollover", issuer, tx.Now()) })
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, rolloverFor)
	defer cancel()
	for {
		written := c.Store.Written()
		err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
			row, err = tx.Account(ctx, farmName, i.Name, i.Directory)
			return err
		})
		if r.Done = err == nil && row.Thumbprint == r.Thumbprint; r.Done || err != nil {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, &Refusal{"the key of the account at " + issuer + " is not changed yet", "it is tried on by itself: see `certfarm events`"}
		case <-written:
		case <-time.After(followEvery):
		}
	}
}

// nextKey makes the key that an account is to have, unless that is under way.
func (c *Controller) nextKey(ctx context.Context, farmName, issuer, by string) (i farm.Issuer, row store.Account, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if i, err = tx.Issuer(ctx, farmName, issuer); err != nil {
			return err
		}
		row, err = tx.Account(ctx, farmName, i.Name, i.Directory)
		return err
	})
	switch {
	case err != nil:
		return i, row, err
	case row.URL == "":
		return i, row, &Refusal{"there is no account at " + issuer + " yet", "it is opened with the first order"}
	case row.NextThumbprint != "":
		return i, row, nil
	}
	made, err := c.newAccountKey(farmName, i)
	if err != nil {
		return i, row, err
	}
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		if row, err = tx.Account(ctx, farmName, i.Name, i.Directory); err != nil || row.NextThumbprint != "" {
			return err
		}
		row.Next, row.NextThumbprint = made.row.Key, made.row.Thumbprint
		return errors.Join(
			tx.PutSealed(ctx, farmName, sealedAccount, row.Next.Sealed, made.sealed),
			tx.PutAccount(ctx, row),
			tell(ctx, tx, farm.Event{Farm: farmName, Kind: "account.rollover", Actor: by, Text: "account at " + issuer + " is to get a new key, with the thumbprint " + row.NextThumbprint}),
		)
	})
	return i, row, err
}

// staticRules asks every node that answers from a static rule whether it answers
// for the next key, and lists the sites that have such nodes.
func (c *Controller) staticRules(ctx context.Context, farmName string, i farm.Issuer, row store.Account) (sites []string, wrong []http01.Finding, err error) {
	row.Thumbprint = row.NextThumbprint
	var asks []preflight
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		f, err := tx.Farm(ctx, farmName)
		if err != nil {
			return err
		}
		for _, s := range f.Sites {
			p := preflight{c: c, farm: farmName, site: s.Name, validations: s.Validations, seed: store.NewID("pre")}
			for _, name := range s.Names {
				if farm.ValidationOf(s.Validations, name).Via == farm.Stateless {
					p.names = append(p.names, name)
				}
			}
			if !slices.Contains(s.Issuers(), i.Name) || len(p.names) == 0 {
				continue
			}
			if err := p.read(ctx, tx, i.Name); err != nil {
				return err
			}
			p.account = row
			asks, sites = append(asks, p), append(sites, s.Name)
		}
		return nil
	})
	for _, p := range asks {
		found, err := p.methods(ctx)
		if err != nil {
			return nil, nil, err
		}
		wrong = append(wrong, slices.DeleteFunc(found, func(f http01.Finding) bool { return f.Verdict == http01.Right })...)
	}
	return sites, wrong, err
}

// workRollover tells the CA of the new key. Every order of the account waits
// meanwhile: what is signed with the wrong key is refused for good.
func (c *Controller) workRollover(ctx context.Context, j farm.Job) farm.Result {
	a, row, err := c.account(ctx, j.Farm, j.Subject)
	if err != nil || row.NextThumbprint == "" {
		return farm.Result{Err: err}
	}
	if !row.HoldUntil.After(c.Now().Add(rolloverFor / 4)) {
		row.HoldUntil, row.HoldWhy = c.Now().Add(rolloverFor), "its key is being changed"
		return farm.Result{Value: rolledOver{row: row}, Again: c.Now()}
	}
	busy, err := c.signing(ctx, j.Farm, row.Issuer)
	if err != nil || busy {
		return farm.Result{Err: err, Again: c.Now().Add(slotWait)}
	}
	key, err := c.unseal(ctx, j.Farm, sealedAccount, row.Next.Sealed)
	if err != nil {
		return farm.Result{Err: err}
	}
	if err := a.ChangeKey(ctx, key); err != nil && givesUp(row, err) {
		return c.newAccount(ctx, a, row)
	} else if err != nil { // the answer may be lost: soon again, since orders wait
		return farm.Result{Err: err, Again: c.Now().Add(min(time.Duration(j.Attempt)*slotWait, rolloverFor))}
	}
	old := row.Key.Sealed
	row.Key, row.Thumbprint, row.Next, row.NextThumbprint = row.Next, row.NextThumbprint, farm.KeyRef{}, ""
	row.HoldUntil, row.HoldWhy = time.Time{}, ""
	return farm.Result{Value: rolledOver{row: row, old: old}}
}

// signing reports whether an order at an issuer is worked on now, and may be
// signing with the account's key.
func (c *Controller) signing(ctx context.Context, farmName, issuer string) (busy bool, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		busy = false
		orders, err := tx.Orders(ctx, farmName, store.OrderQuery{})
		if err != nil {
			return err
		}
		for _, o := range orders {
			if o.State.Ended() || o.Issuer != issuer {
				continue
			}
			j, err := tx.Job(ctx, o.Farm, "order", o.ID)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			busy = busy || j.Owner != ""
		}
		return nil
	})
	return busy, err
}

// A rolledOver is an account on the way to its next key; old is the sealed key that
// it no longer has.
type rolledOver struct {
	row  store.Account
	old  string
	gone *goneAccount // the account was given up with its key
}

func (c *Controller) applyRollover(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	r, ok := f.Result.Value.(rolledOver)
	if !ok {
		return nil
	}
	was, err := tx.Account(ctx, r.row.Farm, r.row.Issuer, r.row.Directory)
	if err != nil {
		return unlessGone(err)
	}
	if r.gone == nil {
		r.row.Exposed = was.Exposed // that may have changed meanwhile
	}
	if err := tx.PutAccount(ctx, r.row); err != nil || r.old == "" {
		return err
	}
	i, err := tx.Issuer(ctx, r.row.Farm, r.row.Issuer)
	if err != nil {
		return err
	}
	// The account at the staging directory may have had the same key.
	staging, err := tx.Account(ctx, r.row.Farm, i.Name, i.Staging)
	if err == nil && staging.Key.Sealed == r.old {
		staging.Key, staging.Thumbprint, staging.URL = r.row.Key, r.row.Thumbprint, ""
		err = tx.PutAccount(ctx, staging)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if r.gone != nil {
		return errors.Join(tx.RemoveSealed(ctx, r.row.Farm, sealedAccount, r.old), replacedAccount(ctx, tx, r))
	}
	return errors.Join(
		tx.RemoveSealed(ctx, r.row.Farm, sealedAccount, r.old),
		exposedNext(ctx, tx, r.row),
		tell(ctx, tx, farm.Event{
			Farm: r.row.Farm, Kind: "account.rolled", Text: fmt.Sprintf("account at %s has a new key, with the thumbprint %s", r.row.Issuer, r.row.Thumbprint),
		}),
		wakeOrders(ctx, tx, r.row),
	)
}
