package boulder_test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/acme"

	"github.com/certfarm/certfarm/internal/issue/boulder"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

var retryText = regexp.MustCompile(`, retry after (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC: see https://`)

// limited demands a 429 that says twice, alike, when to come back, and returns
// how long that is.
func limited(t *testing.T, w *world, resp answer, err error, part string) time.Duration {
	t.Helper()
	refused(t, err, 429, "rateLimited", part)
	p, _ := errors.AsType[*acme.ProblemDetails](err)
	seconds, bad := strconv.Atoi(resp.header.Get("Retry-After"))
	must(t, bad)
	m := retryText.FindStringSubmatch(p.Detail)
	if m == nil {
		t.Fatalf("the text does not say when: %q", p.Detail)
	}
	at, bad := time.Parse(time.DateTime, m[1])
	must(t, bad)
	wait := time.Duration(seconds) * time.Second
	if off := at.Sub(w.clock.now().Add(wait)); off < -2*time.Second || off > 2*time.Second {
		t.Errorf("the text says %s, the header %s", at, wait)
	}
	return wait
}

// about compares a wait with what it should be, within the header's second.
func about(t *testing.T, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+time.Second {
		t.Errorf("the wait is %s, want %s", got, want)
	}
}

func TestOrdersLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{Limits: boulder.LetsEncryptLimits()})
	u := w.user(t)
	for i := range 300 {
		_, err := u.newOrder(t, nil, fmt.Sprintf("a%d.farm%d.test", i, i))
		must(t, err)
	}
	resp, err := u.newOrder(t, nil, "a.farm.test")
	about(t, limited(t, w, resp, err, "too many new orders (300) from this account in the last 3h0m0s"), 36*time.Second)
	if _, err := w.user(t).newOrder(t, nil, "a.farm.test"); err != nil {
		t.Errorf("another account: %v", err)
	}
	w.clock.pass(37 * time.Second)
	_, err = u.newOrder(t, nil, "a.farm.test")
	must(t, err)
	resp, err = u.newOrder(t, nil, "a.farm.test") // the same order again costs as well
	limited(t, w, resp, err, "too many new orders")
	w.clock.pass(3 * time.Hour)
	for range 300 {
		_, err = u.newOrder(t, nil, "a.farm.test")
		must(t, err)
	}
	resp, err = u.newOrder(t, nil, "a.farm.test")
	limited(t, w, resp, err, "too many new orders")
	if n := w.ca.Stats().Limited["orders"]; n != 3 {
		t.Errorf("%d counted", n)
	}
}

func TestSetLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{Limits: boulder.LetsEncryptLimits()})
	u := w.user(t)
	var last *acme.RawCertificate
	for range 5 {
		last = u.issue(t, "a.farm.test", "b.farm.test")
	}
	resp, err := u.newOrder(t, nil, "b.farm.test", "a.farm.test")
	about(t, limited(t, w, resp, err, "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s"), 7*day/5)
	u.issue(t, "a.farm.test")

	// A replacement is free of limits in its window, and only there.
	id := map[string]any{"replaces": ariOf(t, last)}
	resp, err = u.newOrder(t, id, "a.farm.test", "b.farm.test")
	limited(t, w, resp, err, "exact set")
	must(t, w.ca.SetARI(last.Cert, issuetest.Window{Start: w.clock.now().Add(-time.Minute), End: w.clock.now().Add(time.Minute)}))
	resp, err = u.newOrder(t, id, "a.farm.test", "b.farm.test")
	must(t, err)
	o, err := u.Orders.Get(t.Context(), resp.header.Get("Location"))
	must(t, err)
	u.finish(t, acme.ExtendedOrder{Order: o.Order, Location: resp.header.Get("Location")}, "a.farm.test", "b.farm.test")

	w.clock.pass(7*day/5 + time.Second)
	u.issue(t, "a.farm.test", "b.farm.test")
}

func TestDomainLimit(t *testing.T) {
	t.Parallel()
	limits := boulder.LetsEncryptLimits()
	limits.Domain.Burst = 3
	w := newWorld(t, boulder.Options{Limits: limits})
	u, other := w.user(t), w.user(t)
	w.answer(u.stateless)
	for i := range 3 {
		u.issue(t, fmt.Sprintf("a%d.farm.test", i))
	}
	resp, err := other.newOrder(t, nil, "b.farm.test", "c.elsewhere.test")
	about(t, limited(t, w, resp, err, `too many certificates (3) already issued for "farm.test" in the last 168h0m0s`), 7*day/3)
	_, err = other.newOrder(t, nil, "c.elsewhere.test")
	must(t, err)
	u.issue(t, "a1.farm.test") // the same names again are a renewal, and cost nothing
	w.clock.pass(7*day/3 + time.Second)
	u.issue(t, "a1.farm.test")
	u.issue(t, "a4.farm.test")
}

func TestFailures(t *testing.T) {
	t.Parallel()
	limits := boulder.LetsEncryptLimits()
	limits.Pause = boulder.Limit{Burst: 6, Period: 6 * day}
	w := newWorld(t, boulder.Options{Limits: limits})
	u, other := w.user(t), w.user(t)
	w.answer(http.NotFound)
	fail := func() {
		t.Helper()
		o := u.order(t, "bad.farm.test", "good.farm.test")
		_, err := u.Challenges.New(t.Context(), challengeOf(t, u.authz(t, o, 0), "http-01").URL)
		must(t, err)
		if o = u.until(t, o, "invalid", "ready"); o.Status != "invalid" {
			t.Fatalf("order is %s", o.Status)
		}
		z := u.authz(t, o, 0)
		if c := z.Challenges[0]; z.Status != "invalid" || c.Status != "invalid" || c.Error == nil || c.Error.HTTPStatus != 403 {
			t.Fatalf("authorization is %+v", z)
		}
	}
	for range 5 {
		fail()
	}
	resp, err := u.newOrder(t, nil, "bad.farm.test", "good.farm.test")
	about(t, limited(t, w, resp, err, `too many failed authorizations (5) for "bad.farm.test" in the last 1h0m0s`), 12*time.Minute)
	_, err = u.newOrder(t, nil, "good.farm.test")
	must(t, err)
	_, err = other.newOrder(t, nil, "bad.farm.test")
	must(t, err)

	// A success fills the bucket that pauses; seven failures in a row empty it.
	w.clock.pass(12*time.Minute + time.Second)
	w.answer(u.stateless)
	o := u.prove(t, u.order(t, "bad.farm.test"), "http-01")
	must(t, u.Authorizations.Deactivate(t.Context(), o.Authorizations[0])) // else it is used again
	w.answer(http.NotFound)
	w.clock.pass(time.Hour)
	for range 5 {
		fail()
	}
	w.clock.pass(time.Hour)
	fail()
	fail()
	resp, err = u.newOrder(t, nil, "bad.farm.test")
	refused(t, err, 429, "rateLimited", "Your account is temporarily prevented from requesting certificates for bad.farm.test and possibly others. Please visit: https://portal.ca.test/sfe/v1/unpause?jwt=")
	if resp.header.Get("Retry-After") != "" {
		t.Error("a pause has an end")
	}
	w.clock.pass(40 * day)
	_, err = u.newOrder(t, nil, "bad.farm.test")
	refused(t, err, 429, "rateLimited", "temporarily prevented")
	w.ca.Unpause(u.url)
	_, err = u.newOrder(t, nil, "bad.farm.test")
	must(t, err)
}

func TestAccountsLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{Limits: boulder.LetsEncryptLimits()})
	var last *user
	for range 10 {
		last = w.user(t)
	}
	u := w.stranger(t)
	ask := raw{url: u.GetDirectory().NewAccountURL, byKey: true, payload: `{"termsOfServiceAgreed":true}`}
	resp, err := u.send(t, ask)
	about(t, limited(t, w, resp, err, "too many new registrations (10) from this IP address"), 18*time.Minute)
	_, err = last.send(t, ask) // it has one
	must(t, err)
	w.clock.pass(18*time.Minute + time.Second)
	_, err = u.send(t, ask)
	must(t, err)
}

func TestBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	w.ca.Busy(1)
	_, err := u.newOrder(t, nil, "www.farm.test")
	refused(t, err, 503, "rateLimited", "Service busy; retry later.")
	_, err = u.newOrder(t, nil, "www.farm.test")
	must(t, err)
	if s := w.ca.Stats(); s.Limited["busy"] != 1 || s.Orders["www.farm.test"] != 1 {
		t.Errorf("counted %+v", s)
	}
}

func TestNoLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	for range 8 {
		u.issue(t, "www.farm.test")
	}
	if n := len(w.ca.Stats().Limited); n != 0 {
		t.Errorf("%d limits without any", n)
	}
}
