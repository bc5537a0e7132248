package acme_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"

	"github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/boulder"
)

// An account that was ended at the CA is lost: every order waits for a person, and
// none is spent.
func TestAnEndedAccountIsLost(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u := w.owner(t)
	u.done(t, "www.farm.test")
	key, err := issue.DecodeKey(u.key)
	must(t, err)
	core, err := api.New(w.client(t), "test", w.ca.Directory, u.account, key)
	must(t, err)
	must(t, core.Accounts.Deactivate(t.Context(), u.account))

	_, err = u.step(t, u.order(t, "shop.farm.test"))
	l, told := errors.AsType[*issue.Later](err)
	if !told || !l.Account || !errors.Is(err, issue.AccountLost) || errors.Is(err, issue.Refused) {
		t.Errorf("an order: %v", err)
	}
	if _, err := u.issuer(t).EnsureAccount(t.Context()); !errors.Is(err, issue.AccountLost) {
		t.Errorf("the account: %v", err)
	}
}

// The account's key is changed at the CA; the same again is no error, also with the
// old key, since the answer may have been lost.
func TestChangeKey(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u := w.owner(t)
	u.done(t, "www.farm.test")
	old := *u
	key, err := issue.NewKey(farm.EC256)
	must(t, err)
	text, err := issue.EncodeKey(key)
	must(t, err)
	for range 2 {
		must(t, old.issuer(t).ChangeKey(t.Context(), text))
	}
	u.key = text
	account := u.account
	u.done(t, "shop.farm.test")
	if u.account != account {
		t.Errorf("the account is %s, was %s", u.account, account)
	}
	if _, err := old.step(t, old.order(t, "api.farm.test")); err == nil {
		t.Error("the old key still opens orders")
	}
}

// client trusts the CA's own endpoint.
func (w *strict) client(t *testing.T) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(w.ca.ListenRoots)) {
		t.Fatal("the CA's root is no PEM")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
