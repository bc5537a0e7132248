package controller

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/crypto/acme"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/store"
)

// issuers keeps the open accounts, so that connections and nonces are used
// again. It is a cache: what it holds can be made anew from the store.
type issuers struct {
	mu   sync.Mutex
	open map[[32]byte]Account
}

func newIssuers() *issuers { return &issuers{open: map[[32]byte]Account{}} }

// account makes the account of an issuer ready for use, with the row that it
// stands in.
func (c *Controller) account(ctx context.Context, farmName, name string) (Account, store.Account, error) {
	var i farm.Issuer
	var row store.Account
	var settings store.Settings
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		if i, err = tx.Issuer(ctx, farmName, name); err != nil {
			return err
		}
		if settings, err = tx.Settings(ctx, farmName); err != nil {
			return err
		}
		row, err = tx.Account(ctx, farmName, i.Name, i.Directory)
		return err
	})
	if err != nil {
		return nil, row, err
	}
	a, err := c.openAccount(ctx, farmName, i, settings.Proxy, row)
	return a, row, err
}

func (c *Controller) openAccount(ctx context.Context, farmName string, i farm.Issuer, proxy string, row store.Account) (Account, error) {
	text, err := json.Marshal([]any{farmName, i, proxy, row.URL, row.Key})
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(text)
	c.issued.mu.Lock()
	defer c.issued.mu.Unlock()
	if a, ok := c.issued.open[id]; ok {
		return a, nil
	}
	ic := IssuerConfig{Issuer: i, Proxy: proxy, AccountURL: row.URL}
	if ic.AccountKey, err = c.unseal(ctx, farmName, sealedAccount, row.Key.Sealed); err != nil {
		return nil, err
	}
	if i.EAB != nil {
		if ic.EABHMAC, err = c.Secret(ctx, farmName, i.EAB.HMAC); err != nil {
			return nil, fmt.Errorf("eab of issuer %s: %w", i.Name, err)
		}
	}
	a, err := c.Issuers(ctx, ic)
	if err != nil {
		return nil, err
	}
	c.issued.open[id] = a
	return a, nil
}

// An accounted is what an account job made: a key, or the account's URL.
type accounted struct {
	row    store.Account
	sealed []byte
}

// workAccount makes an account's key, and in a second run, when the key is
// durable, the account.
func (c *Controller) workAccount(ctx context.Context, j farm.Job) farm.Result {
	var i farm.Issuer
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		i, err = tx.Issuer(ctx, j.Farm, j.Subject)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return farm.Result{} // gone from farm.yaml
	}
	if err != nil {
		return farm.Result{Err: err}
	}
	a, row, err := c.account(ctx, j.Farm, j.Subject)
	if errors.Is(err, store.ErrNotFound) && row.Key == (farm.KeyRef{}) {
		return c.newAccountKey(j, i)
	}
	if err != nil {
		return farm.Result{Err: err}
	}
	if row.URL != "" {
		return farm.Result{}
	}
	if row.URL, err = a.EnsureAccount(ctx); err != nil {
		return c.held(accounted{row: row}, err)
	}
	row.Status = "valid"
	return farm.Result{Value: accounted{row: row}}
}

func (c *Controller) newAccountKey(j farm.Job, i farm.Issuer) farm.Result {
	key, err := issue.NewKey(farm.EC256)
	if err != nil {
		return farm.Result{Err: err}
	}
	text, err := issue.EncodeKey(key)
	if err != nil {
		return farm.Result{Err: err}
	}
	thumbprint, err := acme.JWKThumbprint(key.Public())
	if err != nil {
		return farm.Result{Err: err}
	}
	row := store.Account{
		Farm: j.Farm, Issuer: i.Name, Directory: i.Directory, Thumbprint: thumbprint, Key: farm.KeyRef{Sealed: store.NewID("ak")},
	}
	sealed, err := c.seal(j.Farm, sealedAccount, row.Key.Sealed, text)
	return farm.Result{Value: accounted{row, sealed}, Err: err, Again: c.Now()}
}

// held is the result of a request that the CA put off: its account waits.
func (c *Controller) held(a accounted, err error) farm.Result {
	var later *issue.Later
	if !errors.As(err, &later) {
		return farm.Result{Err: err}
	}
	a.row.HoldUntil, a.row.HoldWhy = later.Until, later.Err.Error()
	return farm.Result{Value: a, Err: err, Again: later.Until}
}

func (c *Controller) applyAccount(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	a, ok := f.Result.Value.(accounted)
	if !ok {
		return nil
	}
	if a.sealed != nil {
		if err := tx.PutSealed(ctx, a.row.Farm, sealedAccount, a.row.Key.Sealed, a.sealed); err != nil {
			return err
		}
	}
	if err := tx.PutAccount(ctx, a.row); err != nil || a.row.Status == "" || f.Result.Err != nil {
		return err
	}
	return tell(ctx, tx, farm.Event{
		Farm: a.row.Farm, Kind: "account.opened", Text: "account at " + a.row.Issuer + " opened: " + a.row.URL,
	})
}
