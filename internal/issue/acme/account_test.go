package acme_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	legoapi "github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

func TestAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	url, err := w.issuer(t).EnsureAccount(t.Context())
	must(t, err)
	if url == "" || url != w.account {
		t.Errorf("the account is %q, saved as %q", url, w.account)
	}
	w.account = "" // the store lost it: the key finds it again
	again, err := w.issuer(t).EnsureAccount(t.Context())
	must(t, err)
	if again != url {
		t.Errorf("the key has the accounts %s and %s", url, again)
	}
	known, err := w.issuer(t).EnsureAccount(t.Context())
	must(t, err)
	if known != url {
		t.Errorf("the known account became %s", known)
	}
}

// A CA that has lost the account gets no second one.
func TestAccountLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	w.account = strings.Replace(w.ca.Directory, "/dir", "/my-account/1", 1)
	_, err := w.issuer(t).EnsureAccount(t.Context())
	if !errors.Is(err, issue.AccountLost) {
		t.Errorf("error of EnsureAccount is %v", err)
	}
	_, err = w.issuer(t).Step(t.Context(), w.order(t, "www.farm.test"), time.Now())
	if !errors.Is(err, issue.AccountLost) || errors.Is(err, issue.Refused) {
		t.Errorf("error of Step is %v", err)
	}
	if later, ok := errors.AsType[*issue.Later](err); !ok || !later.Account {
		t.Errorf("the account's other orders do not wait: %v", err)
	}
}

// Many orders at once make one account.
func TestAccountMadeOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{BadNonce: -1})
	one := w.issuer(t)
	errs := make(chan error)
	for range 8 {
		o := w.order(t, "www.farm.test")
		go func() {
			_, err := one.Step(t.Context(), o, time.Now())
			errs <- err
		}()
	}
	for range 8 {
		must(t, <-errs)
	}
	if n := w.ca.Stats().Requests[issuetest.NewAccount]; n != 1 {
		t.Errorf("%d accounts were asked for", n)
	}
}

// What the account depends on is stored first.
func TestAccountNotSaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	broken := errors.New("disk full")
	w.config = func(c *acme.Config) { c.Save = func(context.Context, string) error { return broken } }
	if _, err := w.issuer(t).Step(t.Context(), w.order(t, "www.farm.test"), time.Now()); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
	if n := w.ca.Stats().Requests[issuetest.NewOrder]; n != 0 {
		t.Errorf("%d orders were opened without a stored account", n)
	}
}

func TestEAB(t *testing.T) {
	t.Parallel()
	mac := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	wrong := base64.RawURLEncoding.EncodeToString([]byte("another key, of 32 bytes as well"))
	w := newWorld(t, issuetest.Options{EAB: map[string]string{"customer-1": mac}})
	if _, err := w.issuer(t).EnsureAccount(t.Context()); !errors.Is(err, issue.Refused) || !strings.Contains(err.Error(), "eab") {
		t.Errorf("without a binding: %v", err)
	}
	w.config = func(c *acme.Config) {
		c.Issuer.EAB = &farm.EAB{KeyID: "customer-1"}
		c.EABHMAC = farm.NewSecret([]byte(wrong))
	}
	if _, err := w.issuer(t).EnsureAccount(t.Context()); !errors.Is(err, issue.Refused) || strings.Contains(err.Error(), wrong) {
		t.Errorf("with a wrong key: %v", err)
	}
	w.config = func(c *acme.Config) {
		c.Issuer.EAB = &farm.EAB{KeyID: "customer-1"}
		c.EABHMAC = farm.NewSecret([]byte(mac))
	}
	if _, err := w.issuer(t).EnsureAccount(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOtherAccountsOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	o := w.order(t, "www.farm.test")
	o.Account = "https://ca.test/acct/old"
	if _, err := w.issuer(t).Step(t.Context(), o, time.Now()); !errors.Is(err, issue.Refused) {
		t.Errorf("error is %v", err)
	}
}

func TestHTTPSOnly(t *testing.T) {
	t.Parallel()
	key, err := issue.NewKey(farm.EC256)
	must(t, err)
	text, err := issue.EncodeKey(key)
	must(t, err)
	if _, err := acme.New(acme.Config{AccountKey: text, Issuer: farm.Issuer{Name: "x", Directory: "http://ca.test/dir"}}); err == nil {
		t.Error("a directory without TLS is accepted")
	}
}

// The CA's own certificate is verified.
func TestUnknownRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	w.config = func(c *acme.Config) { c.Issuer.Roots = w.ca.Roots }
	_, err := w.issuer(t).Step(t.Context(), w.order(t, "www.farm.test"), time.Now())
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("error is %v", err)
	}
}

// A request ends with its context, the one for the directory too.
func TestContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	w := newWorld(t, issuetest.Options{})
	cancel()
	if _, err := w.issuer(t).Step(ctx, w.order(t, "www.farm.test"), time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if n := w.ca.Stats().Total(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{Profiles: map[string]time.Duration{"long": 90 * 24 * time.Hour, "short": 6 * 24 * time.Hour}})
	w.config = func(c *acme.Config) { c.Issuer.Profile = "short" }
	o, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return w.issuer(t) })
	must(t, err)
	if life := time.Until(leafOf(t, o.Chain).NotAfter); o.Profile != "short" || life > 7*24*time.Hour {
		t.Errorf("profile %q gave a certificate of %s", o.Profile, life)
	}
	o = w.order(t, "www.farm.test")
	o.Profile = "tiny"
	before := w.ca.Stats().Requests[issuetest.NewOrder]
	_, err = w.issuer(t).Step(t.Context(), o, time.Now())
	if !errors.Is(err, issue.Refused) || !strings.Contains(err.Error(), "long, short") {
		t.Errorf("error for an unknown profile is %v", err)
	}
	if w.ca.Stats().Requests[issuetest.NewOrder] != before {
		t.Error("the order was sent all the same")
	}
}

func TestReplaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	one := w.issuer(t)
	first, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return one })
	must(t, err)
	id, err := legoapi.MakeARICertID(leafOf(t, first.Chain))
	must(t, err)
	for i, want := range []string{id, ""} { // the second time it is replaced already: 409
		o := w.order(t, "www.farm.test")
		o.Replaces = id
		o, err = w.drive(t, o, func() *acme.Issuer { return one })
		must(t, err)
		if o.Replaces != want {
			t.Errorf("order %d replaces %q, want %q", i+2, o.Replaces, want)
		}
	}
}

// However a CA refuses what an order is to replace, the order is made without
// it in the same attempt.
func TestReplacesRefused(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]issuetest.Reply{
		"403":       reply(403, "", `{"type":"urn:ietf:params:acme:error:unauthorized","detail":"not yours"}`),
		"404":       reply(404, "", `{"type":"urn:ietf:params:acme:error:malformed","detail":"not found"}`),
		"409":       reply(409, "", `{"type":"urn:ietf:params:acme:error:alreadyReplaced"}`),
		"409 bare":  reply(409, "", ``),
		"malformed": reply(400, "", `{"type":"urn:ietf:params:acme:error:malformed"}`),
		"internal":  reply(500, "", `{"type":"urn:ietf:params:acme:error:serverInternal"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, issuetest.Options{Wrap: issuetest.Answer(issuetest.NewOrder, 1, r)})
			o := w.order(t, "www.farm.test")
			o.Replaces = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
			o, err := w.issuer(t).Step(t.Context(), o, time.Now())
			must(t, err)
			if o.State != farm.OrderPending || o.Replaces != "" {
				t.Errorf("order is %s and replaces %q", o.State, o.Replaces)
			}
		})
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	one := w.issuer(t)
	o, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return one })
	must(t, err)
	for range 2 { // the second time it is revoked already
		must(t, one.Revoke(t.Context(), o.Chain, 4, farm.Secret{}))
	}
	if err := one.Revoke(t.Context(), o.Chain, 7, farm.Secret{}); err == nil {
		t.Error("an unknown reason is accepted")
	}
	s, err := one.Suggest(t.Context(), o.Chain, time.Now())
	must(t, err)
	if s.Chosen.IsZero() || s.Chosen.After(time.Now()) {
		t.Errorf("a revoked certificate is to be renewed at %s", s.Chosen)
	}
}
