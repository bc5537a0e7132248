package controller

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/certfarm/certfarm/internal/budget"
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
	ic := IssuerConfig{Issuer: i, Proxy: proxy, AccountURL: row.URL, Tell: c.asked(i.Name)}
	if i.EAB != nil && row.URL == "" { // it binds an account that is opened, and no other request
		var err error
		if ic.EABHMAC, err = c.Secret(ctx, farmName, i.EAB.HMAC); err != nil {
			return nil, fmt.Errorf("eab of issuer %s: %w", i.Name, err)
		}
	}
	text, err := json.Marshal([]any{farmName, i, proxy, row.URL, row.Key, sha256.Sum256(ic.EABHMAC.Reveal())})
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(text)
	c.issued.mu.Lock()
	defer c.issued.mu.Unlock()
	if a, ok := c.issued.open[id]; ok {
		return a, nil
	}
	if ic.AccountKey, err = c.unseal(ctx, farmName, sealedAccount, row.Key.Sealed); err != nil {
		return nil, err
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
		made, err := c.newAccountKey(j.Farm, i)
		return farm.Result{Value: made, Err: err, Again: c.Now()}
	}
	if err != nil {
		return c.held(j, row, err)
	}
	if row.URL != "" {
		return farm.Result{}
	}
	if again, err := c.takeOpening(ctx, j.Farm, i); err != nil || !again.IsZero() {
		row.HoldUntil, row.HoldWhy = again, "the CA allows "+budget.LimitsOf(i).Accounts.String()+" new accounts"
		return farm.Result{Value: accounted{row: row}, Err: err, Again: again}
	}
	if row.URL, err = a.EnsureAccount(ctx); err != nil {
		return c.held(j, row, err)
	}
	row.Status, row.HoldUntil, row.HoldWhy, row.Silent, row.Failed = "valid", time.Time{}, "", time.Time{}, time.Time{}
	return farm.Result{Value: accounted{row: row}}
}

// takeOpening takes one new account out of the CA's limit, before it is asked for:
// what is asked for and answered by nobody counts, too. Again is when there is room;
// zero: it is taken.
func (c *Controller) takeOpening(ctx context.Context, farmName string, i farm.Issuer) (again time.Time, err error) {
	limit := budget.LimitsOf(i).Accounts
	if limit.Count == 0 {
		return again, nil
	}
	word := openingsWord(i)
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		full, err := bucket(ctx, tx, farmName, word)
		if err != nil {
			return err
		}
		var then time.Time
		if then, again = budget.Take(limit, full, tx.Now()); !again.IsZero() {
			return nil
		}
		return tx.SetWord(ctx, farmName, word, then.UTC().Format(time.RFC3339Nano))
	})
	return again, err
}

// openingsWord is where it is kept how many new accounts a CA has room for.
func openingsWord(i farm.Issuer) string { return "ledger " + i.Directory + " accounts" }

func (c *Controller) newAccountKey(farmName string, i farm.Issuer) (made accounted, err error) {
	key, err := issue.NewKey(farm.EC256)
	if err != nil {
		return made, err
	}
	text, err := issue.EncodeKey(key)
	if err != nil {
		return made, err
	}
	thumbprint, err := acme.JWKThumbprint(key.Public())
	if err != nil {
		return made, err
	}
	made.row = store.Account{
		Farm: farmName, Issuer: i.Name, Directory: i.Directory, Thumbprint: thumbprint, Key: farm.KeyRef{Sealed: store.NewID("ak")},
	}
	made.sealed, err = c.seal(farmName, sealedAccount, made.row.Key.Sealed, text)
	return made, err
}

// held is the result of an account that could not be opened: all that needs it
// waits, for as long as the CA asked, or for longer each time.
func (c *Controller) held(j farm.Job, row store.Account, err error) farm.Result {
	row.URL, row.HoldUntil, row.HoldWhy = "", c.Now().Add(orderPause(j.Attempt)), err.Error()
	if later, told := errors.AsType[*issue.Later](err); told {
		row.HoldUntil, row.HoldWhy = later.Until, later.Err.Error()
	} else {
		if row.Failed = c.Now(); row.Silent.IsZero() {
			row.Silent = row.Failed
		}
	}
	return farm.Result{Value: accounted{row: row}, Err: err, Again: row.HoldUntil}
}

func (c *Controller) applyAccount(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	a, ok := f.Result.Value.(accounted)
	if !ok || a.row.Key == (farm.KeyRef{}) {
		return nil
	}
	was, err := tx.Account(ctx, a.row.Farm, a.row.Issuer, a.row.Directory)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	a.row.Exposed = was.Exposed // that may have changed meanwhile
	if a.sealed != nil {
		if err := tx.PutSealed(ctx, a.row.Farm, sealedAccount, a.row.Key.Sealed, a.sealed); err != nil {
			return err
		}
	}
	if err := tx.PutAccount(ctx, a.row); err != nil {
		return err
	}
	switch {
	case a.row.URL != "":
		return opened(ctx, tx, a.row)
	case a.row.HoldWhy == "" || a.row.HoldWhy == was.HoldWhy:
		return nil // only its key was made, or people know
	}
	return tell(ctx, tx, farm.Event{
		Farm: a.row.Farm, About: a.row.Issuer, Kind: "account.failed", Level: farm.Alarm, Text: "account at " + a.row.Issuer + " cannot be opened: " + a.row.HoldWhy,
		Hint: "its orders wait; it is tried again at " + a.row.HoldUntil.UTC().Format("2006-01-02 15:04 MST") + ", and at once when farm.yaml or the secret of its eab changes",
	})
}

// opened tells of an account, and lets the orders go on that waited for it.
func opened(ctx context.Context, tx *store.Tx, a store.Account) error {
	if err := tell(ctx, tx, farm.Event{
		Farm: a.Farm, About: a.Issuer, Kind: "account.opened", Text: "account at " + a.Issuer + " opened: " + a.URL,
	}); err != nil {
		return err
	}
	return wakeOrders(ctx, tx, a)
}

// wakeOrders lets the orders go on that waited for an account.
func wakeOrders(ctx context.Context, tx *store.Tx, a store.Account) error {
	orders, err := tx.Orders(ctx, a.Farm, store.OrderQuery{})
	if err != nil {
		return err
	}
	for _, o := range orders {
		if o.Issuer != a.Issuer || o.State.Ended() {
			continue
		}
		if err := armOrder(ctx, tx, o); err != nil {
			return err
		}
	}
	return nil
}

// openAgain tries at once to open the accounts of matching issuers that could not
// be opened: a person has changed something.
func openAgain(ctx context.Context, tx *store.Tx, f farm.Farm, match func(farm.Issuer) bool) error {
	for _, i := range f.Issuers {
		row, err := tx.Account(ctx, f.Name, i.Name, i.Directory)
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue // nobody needed it yet
		case err != nil:
			return err
		case row.URL != "" || !match(i):
			continue
		}
		if err := arm(ctx, tx, f.Name, "account", i.Name, tx.Now()); err != nil {
			return err
		}
	}
	return nil
}
