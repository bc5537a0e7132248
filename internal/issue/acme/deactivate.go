package acme

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-acme/lego/v5/acme/api"
)

// Deactivate ends the account at the CA (RFC 8555 §7.3.6): nobody can order with it
// any more, whoever has its key. It cannot be taken back.
func (a *Issuer) Deactivate(ctx context.Context) error {
	account := a.accountURL()
	if account == "" {
		return fmt.Errorf("end the account at %s: there is none", a.c.Issuer.Name)
	}
	return a.once(ctx, account, doing{what: "end the account"}, func(ctx context.Context, c *api.Core) error {
		return c.Accounts.Deactivate(ctx, account)
	})
}

// Forget has the CA trust a proof no more (RFC 8555 §7.5.2), by the URL of its
// authorization.
func (a *Issuer) Forget(ctx context.Context, authz string) error {
	return a.once(ctx, a.accountURL(), doing{what: "withdraw a proof"}, func(ctx context.Context, c *api.Core) error {
		return c.Authorizations.Deactivate(ctx, authz)
	})
}

// once does one request through a core of its own. lego never closes some answers:
// what is read to its end leaves nothing open.
func (a *Issuer) once(ctx context.Context, account string, d doing, do func(context.Context, *api.Core) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	alone := &Issuer{c: a.c, key: a.key, client: http.Client{Transport: whole{a.client.Transport}, CheckRedirect: noRedirect}}
	core, err := alone.open(ctx, account)
	if err != nil {
		return err
	}
	ctx, x := watch(ctx, "account")
	if err := do(ctx, core); err != nil {
		return a.fault(d, err, x, time.Now())
	}
	return nil
}
