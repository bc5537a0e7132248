package boulder_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/boulder"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

func TestIssue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{SignPolls: 2, RetryAfter: 3 * time.Second})
	u := w.user(t)
	names := []string{"www.farm.test", "shop.farm.test"}
	o := u.prove(t, u.order(t, names...), "http-01")
	csr := request(t, names...)
	_, err := u.Orders.UpdateForCSR(t.Context(), o.Finalize, request(t, "www.farm.test"))
	refused(t, err, 400, "badCSR", "")
	got, err := u.send(t, raw{url: o.Finalize, payload: `{"csr":"` + encode(csr) + `"}`})
	must(t, err)
	if !strings.Contains(got.body, `"status":"processing"`) || got.header.Get("Retry-After") != "3" {
		t.Errorf("finalize answers %s, Retry-After %q", got.body, got.header.Get("Retry-After"))
	}
	_, err = u.Orders.UpdateForCSR(t.Context(), o.Finalize, csr)
	refused(t, err, 403, "orderNotReady", "is not acceptable for finalization")
	o = u.until(t, o, "valid")
	chain, err := u.Certificates.Get(t.Context(), o.Certificate, true)
	must(t, err)
	check := issue.Chain{PEM: chain.Cert, CSR: csr, Names: names, Roots: w.ca.Roots, Now: time.Now()}
	must(t, check.Check())
	leaf := leafOf(t, chain)
	if life := leaf.NotAfter.Sub(leaf.NotBefore) + time.Second; life != 90*day {
		t.Errorf("the certificate lives %s", life)
	}
	all, err := u.Certificates.GetAll(t.Context(), o.Certificate, true)
	must(t, err)
	if len(all) != 2 {
		t.Errorf("%d chains", len(all))
	}
	for at, one := range all {
		check.PEM = one.Cert
		if err := check.Check(); err != nil {
			t.Errorf("chain at %s: %v", at, err)
		}
	}
	set := "shop.farm.test,www.farm.test"
	if s := w.ca.Stats(); s.Orders[set] != 1 || s.Finalized[set] != 1 || s.Certificates[set] != 1 {
		t.Errorf("counted %+v", s)
	}
}

// Which intermediate signs cannot be foretold.
func TestIntermediates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	seen := map[string]int{}
	for range 40 {
		seen[leafOf(t, u.issue(t, "www.farm.test")).Issuer.CommonName]++
	}
	if len(seen) < 2 {
		t.Errorf("all were signed by %v", seen)
	}
}

func TestSameOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u, other := w.user(t), w.user(t)
	w.answer(u.stateless)
	first := u.order(t, "a.farm.test", "b.farm.test")
	same := func(what string, want bool, o acme.ExtendedOrder) {
		t.Helper()
		if (o.Location == first.Location) != want {
			t.Errorf("%s: the same order: %v", what, !want)
		}
	}
	same("the same, otherwise sorted", true, u.order(t, "b.farm.test", "a.farm.test"))
	same("fewer names", false, u.order(t, "a.farm.test"))
	same("another account", false, other.order(t, "a.farm.test", "b.farm.test"))
	o, err := u.Orders.New(t.Context(), []string{"a.farm.test", "b.farm.test"}, &api.OrderOptions{Profile: "tlsserver"})
	must(t, err)
	same("another profile", false, o)
	u.prove(t, first, "http-01")
	again := u.order(t, "a.farm.test", "b.farm.test")
	same("ready", true, again)
	if again.Status != "ready" {
		t.Errorf("the order is %s", again.Status)
	}
	u.finish(t, first, "a.farm.test", "b.farm.test")
	same("valid", false, u.order(t, "a.farm.test", "b.farm.test"))
	_, err = other.Orders.Get(t.Context(), first.Location)
	refused(t, err, 404, "malformed", "")
	_, err = other.Authorizations.Get(t.Context(), first.Authorizations[0])
	refused(t, err, 403, "unauthorized", "")
}

// An order that has expired is gone, and the same request makes another one.
func TestExpiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	short := &api.OrderOptions{Profile: "tlsserver"}
	first, err := u.Orders.New(t.Context(), []string{"www.farm.test"}, short)
	must(t, err)
	if want := w.clock.now().Add(time.Hour).UTC().Format(time.RFC3339); first.Expires != want {
		t.Errorf("pending, it expires %s, want %s", first.Expires, want)
	}
	w.clock.pass(time.Hour + time.Second)
	_, err = u.Orders.Get(t.Context(), first.Location)
	refused(t, err, 404, "malformed", "No order")
	_, err = u.Authorizations.Get(t.Context(), first.Authorizations[0])
	refused(t, err, 404, "malformed", "Expired")
	second, err := u.Orders.New(t.Context(), []string{"www.farm.test"}, short)
	must(t, err)
	if second.Location == first.Location {
		t.Error("an expired order is given again")
	}
	long := u.order(t, "www.farm.test")
	if want := w.clock.now().Add(7 * day).UTC().Format(time.RFC3339); long.Expires != want {
		t.Errorf("of classic it expires %s, want %s", long.Expires, want)
	}
}

// A proof holds 7 hours, or 30 days, and is used again while an hour, or 21, is
// left of it; for the same account, profile and kind of name.
func TestProofs(t *testing.T) {
	t.Parallel()
	for profile, c := range map[string]struct{ holds, reused time.Duration }{
		"tlsserver": {7 * time.Hour, 6 * time.Hour},
		"classic":   {30 * day, 30*day - 21*time.Hour},
	} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, boulder.Options{})
			u := w.user(t)
			with := &api.OrderOptions{Profile: profile}
			open := func(u *user) acme.ExtendedOrder {
				o, err := u.Orders.New(t.Context(), []string{"www.farm.test"}, with)
				must(t, err)
				return o
			}
			u.finish(t, u.prove(t, open(u), "http-01"), "www.farm.test")
			o := open(u)
			if o.Status != "ready" {
				t.Fatalf("the next order is %s", o.Status)
			}
			if z := u.authz(t, o, 0); z.Status != "valid" || !z.Expires.Equal(w.clock.now().Add(c.holds).Truncate(time.Second)) || len(z.Challenges) != 1 {
				t.Errorf("the proof is %+v", z)
			}
			if strange := open(w.user(t)); strange.Status != "pending" {
				t.Errorf("another account's order is %s", strange.Status)
			}
			with.Profile = map[string]string{"classic": "tlsserver", "tlsserver": "classic"}[profile]
			if crossed := open(u); crossed.Status != "pending" {
				t.Errorf("another profile's order is %s", crossed.Status)
			}
			with.Profile = profile
			u.finish(t, o, "www.farm.test")
			with2 := func(other string) string { // in an order of its own
				o, err := u.Orders.New(t.Context(), []string{"www.farm.test", other}, with)
				must(t, err)
				return u.authz(t, o, 0).Status
			}
			w.clock.pass(c.reused - time.Second)
			if s := with2("x1.farm.test"); s != "valid" {
				t.Errorf("shortly before the end the proof is %s", s)
			}
			w.clock.pass(2 * time.Second)
			if s := with2("x2.farm.test"); s != "pending" {
				t.Errorf("after the end the proof is %s", s)
			}
		})
	}
}

func TestReplaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u, other := w.user(t), w.user(t)
	w.answer(u.stateless)
	id := ariOf(t, u.issue(t, "a.farm.test", "b.farm.test"))
	replaces := map[string]any{"replaces": id}
	_, err := other.newOrder(t, replaces, "a.farm.test")
	refused(t, err, 403, "unauthorized", "did not request the certificate")
	_, err = u.newOrder(t, replaces, "c.farm.test")
	refused(t, err, 400, "malformed", "do not match")

	// The first order that replaces it is pending: named again it is refused, and
	// the same request without the name finds it.
	resp, err := u.newOrder(t, replaces, "b.farm.test", "c.farm.test")
	must(t, err)
	first := resp.header.Get("Location")
	_, err = u.newOrder(t, replaces, "b.farm.test", "c.farm.test")
	refused(t, err, 409, "alreadyReplaced", "already has a replacement order")
	_, err = other.newOrder(t, replaces, "b.farm.test") // looked at before whose it is
	refused(t, err, 409, "alreadyReplaced", "")
	o := u.order(t, "b.farm.test", "c.farm.test")
	if o.Location != first || o.Replaces != id {
		t.Errorf("without the name comes %s (replaces %q), want %s", o.Location, o.Replaces, first)
	}

	// It fails, so it is no replacement any more; the next one succeeds, for good.
	w.answer(http.NotFound)
	if o = u.prove(t, o, "http-01"); o.Status != "invalid" {
		t.Fatalf("order is %s", o.Status)
	}
	w.answer(u.stateless)
	resp, err = u.newOrder(t, replaces, "b.farm.test", "c.farm.test")
	must(t, err)
	o, err = u.Orders.Get(t.Context(), resp.header.Get("Location"))
	must(t, err)
	o.Location = resp.header.Get("Location")
	u.finish(t, u.prove(t, o, "http-01"), "b.farm.test", "c.farm.test")
	w.clock.pass(20 * day)
	_, err = u.newOrder(t, replaces, "b.farm.test")
	refused(t, err, 409, "alreadyReplaced", "")
}

func TestRenewalInfo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	chain := u.issue(t, "www.farm.test")
	id := ariOf(t, chain)
	info, err := u.Certificates.GetRenewalInfo(t.Context(), id)
	must(t, err)
	from, to := info.SuggestedWindow.Start.Sub(w.clock.now()), info.SuggestedWindow.End.Sub(w.clock.now())
	if from < 58*day || from > 60*day || to < 60*day || to > 62*day {
		t.Errorf("the window of 90 days is %s to %s", from, to)
	}
	if info.RetryAfter < 4*time.Hour || info.RetryAfter > 8*time.Hour {
		t.Errorf("asked again in %s", info.RetryAfter)
	}
	set := issuetest.Window{Start: w.clock.now().UTC().Truncate(time.Second), End: w.clock.now().Add(day).UTC().Truncate(time.Second), Explanation: "https://ca.test/why"}
	must(t, w.ca.SetARI(chain.Cert, set))
	info, err = u.Certificates.GetRenewalInfo(t.Context(), id)
	must(t, err)
	if !info.SuggestedWindow.Start.Equal(set.Start) || !info.SuggestedWindow.End.Equal(set.End) || info.ExplanationURL != set.Explanation {
		t.Errorf("the window is %+v", info)
	}
	_, err = u.Certificates.GetRenewalInfo(t.Context(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
	refused(t, err, 404, "malformed", "")
	if w.ca.SetARI([]byte("x"), set) == nil || w.ca.SetARI([]byte(w.ca.Roots), set) == nil {
		t.Error("a window is set for what the CA did not issue")
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u, other := w.user(t), w.user(t)
	w.answer(u.stateless)
	chain := u.issue(t, "www.farm.test")
	reason := uint(4)
	message := acme.RevokeCertMessage{Certificate: encode(leafOf(t, chain).Raw), Reason: &reason}
	refused(t, other.Certificates.Revoke(t.Context(), message), 403, "unauthorized", "")
	_, err := other.send(t, raw{url: u.GetDirectory().RevokeCertURL, byKey: true, payload: `{"certificate":"` + message.Certificate + `"}`})
	refused(t, err, 403, "unauthorized", "same public key")
	reason = 2
	refused(t, u.Certificates.Revoke(t.Context(), message), 400, "badRevocationReason", "")
	reason = 4
	w.answer(other.stateless)
	other.prove(t, other.order(t, "www.farm.test"), "http-01") // who holds the names may revoke
	must(t, other.Certificates.Revoke(t.Context(), message))
	refused(t, u.Certificates.Revoke(t.Context(), message), 400, "alreadyRevoked", "")
	info, err := u.Certificates.GetRenewalInfo(t.Context(), ariOf(t, chain))
	must(t, err)
	if !info.SuggestedWindow.End.Before(w.clock.now()) {
		t.Errorf("a revoked certificate is to be renewed until %s", info.SuggestedWindow.End)
	}
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{Blocked: []string{"blocked.farm.test"}})
	u := w.user(t)
	_, err := u.Orders.New(t.Context(), []string{"127.0.0.1"}, nil)
	refused(t, err, 400, "rejectedIdentifier", "127.0.0.1")
	_, err = u.Orders.New(t.Context(), []string{"blocked.farm.test"}, nil)
	refused(t, err, 400, "rejectedIdentifier", "")
	var many []string
	for i := range 26 {
		many = append(many, string(rune('a'+i))+".farm.test")
	}
	_, err = u.Orders.New(t.Context(), many, &api.OrderOptions{Profile: "shortlived"})
	refused(t, err, 400, "malformed", "more than 25")
	o, err := u.Orders.New(t.Context(), []string{"127.0.0.1", "www.farm.test"}, &api.OrderOptions{Profile: "shortlived"})
	must(t, err)
	leaf := leafOf(t, u.finish(t, u.prove(t, o, "http-01"), "127.0.0.1", "www.farm.test"))
	if life := leaf.NotAfter.Sub(leaf.NotBefore) + time.Second; life != 160*time.Hour || len(leaf.IPAddresses) != 1 || leaf.Subject.CommonName != "" {
		t.Errorf("life %s, addresses %v, common name %q", life, leaf.IPAddresses, leaf.Subject.CommonName)
	}
	if _, err := boulder.Start(boulder.Options{DNS: "127.0.0.1:53", Default: "none"}); err == nil {
		t.Error("a default that is none is taken")
	}
	if _, err := boulder.Start(boulder.Options{}); err == nil {
		t.Error("a CA without DNS starts")
	}
}
