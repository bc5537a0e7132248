package acme_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{RetryAfter: time.Second, BadNonce: -1})
	var mu sync.Mutex // authorizations are asked side by side
	asked := map[string]int{}
	w.config = func(c *acme.Config) {
		c.Tell = func(r acme.Request) {
			mu.Lock()
			defer mu.Unlock()
			if asked[r.Endpoint]++; r.Code < 200 || r.Code > 299 || r.Took <= 0 {
				t.Errorf("%+v", r)
			}
		}
	}
	one := w.issuer(t)
	o, err := w.drive(t, w.order(t, "www.farm.test", "shop.farm.test"), func() *acme.Issuer { return one })
	must(t, err)
	for _, endpoint := range []string{"directory", "new-nonce", "new-account", "new-order", "order", "authz", "challenge", "finalize", "certificate"} {
		if asked[endpoint] == 0 {
			t.Errorf("nobody was told of requests to %s: %v", endpoint, asked)
		}
	}
	if asked["other"] > 0 {
		t.Errorf("%d requests have no name", asked["other"])
	}
	if farm.LeafFingerprint(o.Chain) == "" || o.Account == "" || o.Account != w.account {
		t.Errorf("order is %+v", o)
	}
	for _, z := range o.Authz {
		if z.Name == "" || z.Challenge.Type != "http-01" || !z.Accepted {
			t.Errorf("authorization is %+v", z)
		}
	}
	oneCertificate(t, w, "shop.farm.test,www.farm.test")
}

func oneCertificate(t *testing.T, w *world, set string) {
	t.Helper()
	s := w.ca.Stats()
	if s.Certificates[set] != 1 || s.Finalized[set] != 1 {
		t.Errorf("the CA issued %d certificates and finalized %d orders, want 1 and 1", s.Certificates[set], s.Finalized[set])
	}
}

// Every step is made by an Issuer that knows only what was stored.
func TestResumeEachStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	o, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return w.issuer(t) })
	must(t, err)
	if o.State != farm.OrderDone {
		t.Errorf("order ended %s", o.State)
	}
	if s := w.ca.Stats(); s.Requests[issuetest.NewAccount] > 2 || s.Orders["www.farm.test"] != 1 {
		t.Errorf("requests: %v, orders: %v", s.Requests, s.Orders)
	}
	oneCertificate(t, w, "www.farm.test")
}

// The answer to every POST is lost, each in a run of its own; the next try is
// made by another Issuer.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, e := range []issuetest.Endpoint{
		issuetest.NewAccount, issuetest.NewOrder, issuetest.Authz, issuetest.Challenge,
		issuetest.Order, issuetest.Finalize, issuetest.Certificate,
	} {
		for name, fault := range map[string]issuetest.Fault{"lost": issuetest.LoseReply(e, 2), "cut off": issuetest.CutOff(e, 2)} {
			t.Run(fmt.Sprintf("%s %s", e, name), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, issuetest.Options{Wrap: fault})
				_, err := w.drive(t, w.order(t, "a.farm.test", "b.farm.test"), func() *acme.Issuer { return w.issuer(t) })
				must(t, err)
				oneCertificate(t, w, "a.farm.test,b.farm.test")
			})
		}
	}
}

func TestBadNonces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{BadNonce: 50})
	one := w.issuer(t)
	_, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return one })
	must(t, err)
	if s := w.ca.Stats(); s.Orders["www.farm.test"] != 1 {
		t.Errorf("%d orders were opened, want 1", s.Orders["www.farm.test"])
	}
	oneCertificate(t, w, "www.farm.test")
}

func TestWaits(t *testing.T) {
	t.Parallel()
	const limited = `{"type":"urn:ietf:params:acme:error:rateLimited","detail":%q}`
	now := time.Now()
	for name, c := range map[string]struct {
		reply   issuetest.Reply
		least   time.Duration
		most    time.Duration
		account bool
	}{
		"seconds":           {reply(429, "120", fmt.Sprintf(limited, "too many new orders")), 120 * time.Second, 130 * time.Second, true},
		"date":              {reply(429, now.Add(time.Hour).UTC().Format(http.TimeFormat), fmt.Sprintf(limited, "too many")), 59 * time.Minute, 62 * time.Minute, true},
		"none":              {reply(429, "", fmt.Sprintf(limited, "too many")), 10 * time.Minute, 11 * time.Minute, true},
		"negative":          {reply(429, "-5", fmt.Sprintf(limited, "too many")), 10 * time.Minute, 11 * time.Minute, true},
		"nonsense":          {reply(429, "soon", fmt.Sprintf(limited, "too many")), 10 * time.Minute, 11 * time.Minute, true},
		"ten days":          {reply(429, "864000", fmt.Sprintf(limited, "too many")), 240 * time.Hour, 241 * time.Hour, true},
		"for ever":          {reply(429, "99999999999999999", fmt.Sprintf(limited, "too many")), 9 * 365 * 24 * time.Hour, 11 * 365 * 24 * time.Hour, true},
		"in the text":       {reply(429, "", fmt.Sprintf(limited, "too many, retry after "+now.Add(2*time.Hour).UTC().Format(time.DateTime)+" UTC: see")), 119 * time.Minute, 122 * time.Minute, true},
		"of the name set":   {reply(429, "60", fmt.Sprintf(limited, "too many certificates (5) already issued for this exact set")), time.Minute, 70 * time.Second, false},
		"busy":              {reply(503, "", fmt.Sprintf(limited, "Service busy; retry later.")), time.Minute, 70 * time.Second, true},
		"down with time":    {reply(503, "30", "<html>maintenance</html>"), 30 * time.Second, 40 * time.Second, true},
		"account is gone":   {reply(400, "", `{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}`), time.Hour, time.Hour, true},
		"terms have change": {reply(403, "", `{"type":"urn:ietf:params:acme:error:userActionRequired","instance":"https://ca.test/terms"}`), time.Hour, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, issuetest.Options{Wrap: issuetest.Answer(issuetest.NewOrder, 1, c.reply)})
			start := time.Now()
			_, err := w.issuer(t).Step(t.Context(), w.order(t, "www.farm.test"), start)
			later, ok := errors.AsType[*issue.Later](err)
			if !ok {
				t.Fatalf("the error is %v, not a Later", err)
			}
			if wait := later.Until.Sub(start); wait < c.least || wait > c.most {
				t.Errorf("wait is %s, want %s to %s", wait, c.least, c.most)
			}
			if later.Account != c.account {
				t.Errorf("account waits: %v, want %v", later.Account, c.account)
			}
			if strings.Contains(err.Error(), "<html>") {
				t.Errorf("the error reflects a foreign page: %v", err)
			}
		})
	}
}

func reply(status int, retryAfter, body string) issuetest.Reply {
	r := issuetest.Reply{Status: status, Body: body, Header: map[string]string{}}
	if retryAfter != "" {
		r.Header["Retry-After"] = retryAfter
	}
	return r
}

// Refusals that end the order, and those that do not.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reply issuetest.Reply
		final bool
		says  string
	}{
		"rejected": {reply(400, "", `{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no",
			"subproblems":[{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"policy forbids","identifier":{"type":"dns","value":"www.farm.test"}}]}`), true, "www.farm.test: policy forbids"},
		"caa":          {reply(403, "", `{"type":"urn:ietf:params:acme:error:caa","detail":"CAA says no"}`), true, "CAA record"},
		"server error": {reply(500, "", `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"oops"}`), false, "oops"},
		"bad gateway":  {reply(502, "", "<html>"), false, "HTTP status 502"},
		"null":         {reply(403, "", "null"), false, "HTTP status 403"},
		"empty":        {reply(404, "", ""), false, "HTTP status 404"},
		"escape codes": {reply(400, "", `{"type":"urn:ietf:params:acme:error:malformed","detail":"a\u001b[31mred\u202e"}`), true, "a[31mred (malformed)"},
		"huge":         {reply(200, "", `{"status":"`+strings.Repeat("x", 2<<20)+`"}`), false, "longer than"},
		"not JSON":     {reply(200, "", strings.Repeat("x", 5000)), false, "unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, issuetest.Options{Wrap: issuetest.Answer(issuetest.NewOrder, 1, c.reply)})
			before := w.order(t, "www.farm.test")
			after, err := w.issuer(t).Step(t.Context(), before, time.Now())
			if err == nil || errors.Is(err, issue.Refused) != c.final {
				t.Fatalf("error %v; final: want %v", err, c.final)
			}
			if !strings.Contains(err.Error(), c.says) || len(err.Error()) > 1500 {
				t.Errorf("error is %q, want it to say %q", err, c.says)
			}
			if after.State != before.State || after.URL != "" {
				t.Errorf("a failed step changed the order: %+v", after)
			}
		})
	}
}

// A name that is answered wrongly ends the order, and the error names it and
// says what the CA saw.
func TestWrongAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	o := w.order(t, "good.farm.test", "bad.farm.test")
	one := w.issuer(t)
	for o.State != farm.OrderPending || !known(o) {
		got, err := one.Step(t.Context(), o, time.Now())
		must(t, err)
		o = got
	}
	w.present(&o)
	for _, z := range o.Authz {
		if z.Name == "bad.farm.test" {
			w.board.Delete(z.Challenge.Token)
		}
	}
	_, err := w.drive(t, o, func() *acme.Issuer { return one })
	if !errors.Is(err, issue.Refused) {
		t.Fatalf("error is %v", err)
	}
	for _, part := range []string{"bad.farm.test: ", "404", "route /.well-known/acme-challenge/"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "good.farm.test: ") {
		t.Errorf("error blames the good name: %q", err)
	}
}

func TestBlockedName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{Blocked: []string{"blocked.farm.test"}})
	_, err := w.issuer(t).Step(t.Context(), w.order(t, "blocked.farm.test"), time.Now())
	if !errors.Is(err, issue.Refused) {
		t.Errorf("error is %v", err)
	}
}

// An order that the CA has forgotten is refused, so that a new one is made.
func TestOrderGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{})
	o := w.order(t, "www.farm.test")
	one := w.issuer(t)
	o, err := one.Step(t.Context(), o, time.Now())
	must(t, err)
	gone := o
	gone.URL += "x"
	gone.State = farm.OrderAccepted
	if _, err := one.Step(t.Context(), gone, time.Now()); !errors.Is(err, issue.Refused) {
		t.Errorf("error for an unknown order is %v", err)
	}
	if _, err := one.Step(t.Context(), o, o.Expires.Add(time.Second)); !errors.Is(err, issue.Refused) {
		t.Errorf("error for an expired order is %v", err)
	}
}

// The CA signs slowly: the order is polled, and never finalized again.
func TestSlowProcessing(t *testing.T) {
	t.Parallel()
	polls := 0
	slow := issuetest.Change(issuetest.Order, func(body []byte) []byte {
		if !strings.Contains(string(body), `"status": "valid"`) {
			return body
		}
		if polls++; polls > 3 {
			return body
		}
		return []byte(strings.Replace(string(body), `"status": "valid"`, `"status": "processing"`, 1))
	})
	w := newWorld(t, issuetest.Options{Wrap: slow})
	_, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return w.issuer(t) })
	must(t, err)
	if polls < 4 {
		t.Errorf("%d polls", polls)
	}
	if n := w.ca.Stats().Requests[issuetest.Finalize]; n > 3 { // bad nonces
		t.Errorf("%d finalizations", n)
	}
	oneCertificate(t, w, "www.farm.test")
}

// Valid proofs of an earlier order are used again: the order is ready at once.
func TestAuthzReuse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuetest.Options{AuthzReuse: 100})
	one := w.issuer(t)
	for range 2 {
		_, err := w.drive(t, w.order(t, "www.farm.test"), func() *acme.Issuer { return one })
		must(t, err)
	}
	if n := w.ca.Stats().Certificates["www.farm.test"]; n != 2 {
		t.Errorf("%d certificates, want 2", n)
	}
}
