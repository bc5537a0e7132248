package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// An External is what came of an order at the CA's staging directory, which asks
// from the same places as the CA itself.
type External struct {
	Directory string   `json:"directory"`
	OK        bool     `json:"ok" doc:"every name was proven there"`
	Saw       string   `json:"saw" doc:"what the CA said, in its own words"`
	Unproven  []string `json:"unproven" doc:"what this does not prove"`
}

// externalFor is how long an order at a staging directory may take.
const externalFor = 5 * time.Minute

// external proves a site's names to the CA's staging directory, with an account of
// its own, up to the point where a certificate could be had. The order is one like
// every other: what it puts up is taken away also if we die meanwhile.
func (c *Controller) external(ctx context.Context, p preflight) (*External, error) {
	if p.issuer.Staging == "" {
		return nil, &Refusal{"issuer " + p.issuer.Name + " has no staging directory", "name its URL in farm.yaml: issuers: {" + p.issuer.Name + ": {staging: …}}"}
	}
	if err := c.stagingAccount(ctx, p); err != nil {
		return nil, fmt.Errorf("account at %s: %w", p.issuer.Staging, err)
	}
	o := farm.Order{
		ID: store.NewID("try"), Farm: p.farm, Site: p.site, Issuer: p.issuer.Name, External: p.issuer.Staging, Names: p.names,
		Validations: p.validations, KeyType: farm.EC256, Intent: store.NewID("int"), State: farm.OrderNew,
	}
	err := c.Store.Update(ctx, func(tx *store.Tx) error {
		o.Created, o.Updated = tx.Now(), tx.Now()
		return errors.Join(tx.PutOrder(ctx, o), armOrder(ctx, tx, o))
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, externalFor)
	defer cancel()
	if o, err = c.awaitOrder(ctx, o); err != nil {
		return nil, fmt.Errorf("order at %s: %w (the last it said: %q)", p.issuer.Staging, err, o.Error)
	}
	e := &External{Directory: p.issuer.Staging, OK: o.State == farm.OrderDone, Saw: "every name is proven", Unproven: []string{
		"that the CA's rate limits leave room for the real order",
		"that CAA records allow the real account: the account at the staging directory is another one",
		"that it will be so tomorrow",
	}}
	if !e.OK {
		e.Saw = o.Error
	}
	return e, nil
}

// awaitOrder waits until an order has ended and what was put up for it is gone.
func (c *Controller) awaitOrder(ctx context.Context, o farm.Order) (farm.Order, error) {
	for {
		written := c.Store.Written()
		err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
			o, err = tx.Order(ctx, o.Farm, o.ID)
			return err
		})
		left := slices.ContainsFunc(o.Authz, func(z farm.Authz) bool { return z.Receipt != nil })
		if err != nil || o.State.Ended() && !left {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, ctx.Err()
		case <-written:
		case <-time.After(followEvery):
		}
	}
}

// stagingAccount opens an account at an issuer's staging directory. Where static
// rules answer for one account key, it is one with that key.
func (c *Controller) stagingAccount(ctx context.Context, p preflight) error {
	staging := p.issuer
	staging.Directory = p.issuer.Staging
	stateless := slices.ContainsFunc(p.validations, func(v farm.Validation) bool { return v.Via == farm.Stateless })
	var row store.Account
	err := c.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if row, err = tx.Account(ctx, p.farm, staging.Name, staging.Directory); !errors.Is(err, store.ErrNotFound) || !stateless {
			return nil
		}
		if row, err = tx.Account(ctx, p.farm, p.issuer.Name, p.issuer.Directory); err != nil {
			return err
		}
		row.Directory, row.URL, row.HoldUntil, row.HoldWhy = staging.Directory, "", time.Time{}, ""
		return tx.PutAccount(ctx, row)
	})
	if err != nil || row.URL != "" {
		return err
	}
	if row.Thumbprint == "" {
		if _, err := c.thumbprint(ctx, p.farm, staging); err != nil {
			return err
		}
	}
	return c.openStaging(ctx, p, staging)
}

// openStaging registers the key that is stored for a staging directory. A key that
// is registered already gives the account that it has (RFC 8555 §7.3.1).
func (c *Controller) openStaging(ctx context.Context, p preflight, staging farm.Issuer) error {
	var row store.Account
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Account(ctx, p.farm, staging.Name, staging.Directory)
		return err
	})
	if err != nil || row.URL != "" {
		return err
	}
	a, err := c.openAccount(ctx, p.farm, staging, p.settings.Proxy, row)
	if err != nil {
		return err
	}
	if row.URL, err = a.EnsureAccount(ctx); err != nil {
		return err
	}
	row.Status = "valid"
	return c.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutAccount(ctx, row) })
}
