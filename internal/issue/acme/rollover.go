package acme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/go-acme/lego/v5/acme/api"

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
	// lego changes the key of the core that it is asked through.
	return a.once(ctx, account, doing{what: "change the account's key"}, func(ctx context.Context, c *api.Core) error {
		return c.Accounts.KeyChange(ctx, key)
	})
}

// whole reads every answer to its end before it hands it on.
type whole struct{ http.RoundTripper }

// maxAnswer is more than any answer about an account.
const maxAnswer = 1 << 20

// RoundTrip does one request; see http.RoundTripper.
func (w whole) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}
