package acme

import (
	"context"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

// ChangeKey gives the account another key (RFC 8555 §7.3.5). After it the issuer
// must be made anew with that key. An account that has the key already, since an
// answer was lost, is no error.
func (a *Issuer) ChangeKey(ctx context.Context, to farm.Secret) error {
	account := a.accountURL()
	if account == "" {
		return fmt.Errorf("change the account's key at %s: there is no account yet", a.c.Issuer.Name)
	}
	c := a.c
	c.AccountKey = to
	next, err := New(c)
	if err != nil {
		return err
	}
	if next.confirm(ctx, account) == nil {
		return nil
	}
	key, err := issue.DecodeKey(to)
	if err != nil {
		return fmt.Errorf("new account key for %s: %w", a.c.Issuer.Name, err)
	}
	core, err := a.open(ctx, account) // lego changes the core's key: ours is not lent
	if err != nil {
		return err
	}
	ctx, x := watch(ctx)
	if err := core.Accounts.KeyChange(ctx, key); err != nil {
		return a.fault(doing{what: "change the account's key"}, err, x, time.Now())
	}
	return nil
}
