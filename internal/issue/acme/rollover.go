package acme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// lego changes the key of the core that it is asked through, and never closes the
	// answer: it gets a core of its own, which leaves nothing open.
	once := &Issuer{c: a.c, key: a.key, client: http.Client{Transport: whole{a.client.Transport}, CheckRedirect: noRedirect}}
	core, err := once.open(ctx, account)
	if err != nil {
		return err
	}
	ctx, x := watch(ctx)
	if err := core.Accounts.KeyChange(ctx, key); err != nil {
		return a.fault(doing{what: "change the account's key"}, err, x, time.Now())
	}
	return nil
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
