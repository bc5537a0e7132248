package boulder_test

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/issue/boulder"
)

// seen proves one name and returns what the CA saw; nil: all was well.
func (u *user) seen(t *testing.T, name, method string) *acme.ProblemDetails {
	t.Helper()
	o := u.prove(t, u.order(t, name), method)
	for _, c := range u.authz(t, o, 0).Challenges {
		if c.Error != nil {
			return c.Error
		}
	}
	if o.Status != "ready" {
		t.Fatalf("order is %s, and nothing is wrong", o.Status)
	}
	return nil
}

func saw(t *testing.T, p *acme.ProblemDetails, kind, part string) {
	t.Helper()
	if p == nil || p.Type != "urn:ietf:params:acme:error:"+kind || !strings.Contains(p.Detail, part) {
		t.Errorf("want %s %q, the CA saw %v", kind, part, p)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{Perspectives: 3})
	u := w.user(t)
	if p := u.seen(t, "www.farm.test", "http-01"); p != nil {
		t.Errorf("a right answer: %v", p)
	}
	w.answer(http.NotFound)
	saw(t, u.seen(t, "none.farm.test", "http-01"), "unauthorized", "127.0.0.1: Invalid response from http://none.farm.test/.well-known/acme-challenge/")
	w.answer(func(out http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(out, "parked") })
	saw(t, u.seen(t, "parked.farm.test", "http-01"), "unauthorized", `(got "parked")`)
	saw(t, u.seen(t, "www.nowhere.test", "http-01"), "dns", "NXDOMAIN")
	w.zone.add("text.test. 60 IN TXT x", "dead.test. 60 IN A 127.0.0.2")
	saw(t, u.seen(t, "text.test", "http-01"), "dns", "no valid A records")
	w.zone.breakName("servfail.farm.test")
	saw(t, u.seen(t, "servfail.farm.test", "http-01"), "dns", "SERVFAIL")
	saw(t, u.seen(t, "dead.test", "http-01"), "connection", "refused")

	// One of three places sees something else.
	var mu sync.Mutex
	agents := map[string]bool{}
	w.answer(func(out http.ResponseWriter, r *http.Request) {
		mu.Lock()
		agents[r.UserAgent()] = true
		mu.Unlock()
		if strings.HasSuffix(r.UserAgent(), "perspective 2") {
			http.NotFound(out, r)
			return
		}
		u.stateless(out, r)
	})
	saw(t, u.seen(t, "geo.farm.test", "http-01"), "unauthorized", "During secondary validation: ")
	if len(agents) != 3 {
		t.Errorf("asked from %v", agents)
	}
}

// An address that does not answer over IPv6 is asked over IPv4.
func TestAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	w.zone.add("two.test. 60 IN AAAA ::1", "two.test. 60 IN A 127.0.0.1")
	if p := u.seen(t, "two.test", "http-01"); p != nil {
		t.Error(p)
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	var secure *httptest.Server
	var u *user
	secure = httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) { u.stateless(out, r) }))
	defer secure.Close()
	w := newWorld(t, boulder.Options{HTTPSPort: secure.Listener.Addr().(*net.TCPAddr).Port})
	u = w.user(t)
	w.zone.add("acme.other.test. 60 IN A 127.0.0.1", "loop.other.test. 60 IN A 127.0.0.1")
	n := 0
	for to, ok := range map[string]bool{
		"http://acme.other.test":      true,
		"http://acme.other.test:80":   true,
		"https://acme.other.test":     true,
		"https://acme.other.test:443": true,
		"http://127.0.0.1":            true,
		"http://acme.other.test:8081": false,
		"ftp://acme.other.test":       false,
		"http://loop.other.test":      false,
	} {
		w.answer(func(out http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.Host, "farm.test") || strings.HasPrefix(r.Host, "loop") {
				http.Redirect(out, r, to+r.URL.Path, http.StatusFound)
				return
			}
			u.stateless(out, r)
		})
		n++ // a name of its own: a proof would be used again
		p := u.seen(t, fmt.Sprintf("r%d.farm.test", n), "http-01")
		if ok && p != nil {
			t.Errorf("%s: %v", to, p)
		}
		if !ok {
			saw(t, p, "connection", "Invalid redirect")
		}
	}
}

func dnsValue(t *testing.T, u *user, c acme.Challenge) string {
	t.Helper()
	auth, err := u.GetKeyAuthorization(c.Token)
	must(t, err)
	sum := sha256.Sum256([]byte(auth))
	return encode(sum[:])
}

func TestDNS(t *testing.T) {
	t.Parallel()
	for name, whole := range map[string]bool{"authoritative": false, "recursive": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lookDNS(t, whole)
		})
	}
}

func lookDNS(t *testing.T, whole bool) {
	t.Helper()
	w := newWorld(t, boulder.Options{Perspectives: 2})
	w.zone.whole = whole
	u := w.user(t)
	for i := range 40 { // more than a UDP answer holds
		w.zone.add(fmt.Sprintf("long.auth.test. 60 IN TXT %q", strings.Repeat("x", 200)+fmt.Sprint(i)))
	}
	names := []string{"farm.test", "*.farm.test"}
	o := u.order(t, names...)
	for i := range o.Authorizations {
		z := u.authz(t, o, i)
		if z.Wildcard && len(z.Challenges) != 1 {
			t.Errorf("a wildcard may be proven by %v", z.Challenges)
		}
		w.zone.add(fmt.Sprintf("long.auth.test. 60 IN TXT %q", dnsValue(t, u, challengeOf(t, z, "dns-01"))))
	}
	w.zone.add("_acme-challenge.farm.test. 60 IN CNAME middle.auth.test.", "middle.auth.test. 60 IN CNAME long.auth.test.")
	o = u.prove(t, o, "dns-01")
	if o.Status != "ready" {
		t.Fatalf("order is %s", o.Status)
	}
	leaf := leafOf(t, u.finish(t, o, names...))
	if len(leaf.DNSNames) != 2 {
		t.Errorf("certificate is for %v", leaf.DNSNames)
	}
	saw(t, u.seen(t, "nothing.test", "dns-01"), "dns", "NXDOMAIN looking up TXT for _acme-challenge.nothing.test")
	w.zone.add("_acme-challenge.wrong.test. 60 IN TXT old", "_acme-challenge.empty.test. 60 IN A 127.0.0.1",
		"_acme-challenge.loop.test. 60 IN CNAME _acme-challenge.loop.test.")
	saw(t, u.seen(t, "wrong.test", "dns-01"), "unauthorized", `Incorrect TXT record "old"`)
	saw(t, u.seen(t, "empty.test", "dns-01"), "unauthorized", "No TXT record found")
	saw(t, u.seen(t, "loop.test", "dns-01"), "dns", "too many CNAMEs")
}

func TestPersist(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{Persist: true, Identity: "ca.example"})
	u := w.user(t)
	soon := w.clock.now().Add(time.Hour).Unix()
	for i, c := range []struct {
		value    string
		wildcard bool
		ok       bool
	}{
		{"ca.example; accounturi=" + u.url, false, true},
		{"ca.example; accounturi=" + u.url, true, false},
		{"ca.example;accounturi=" + u.url + "; policy=wildcard", true, true},
		{"ca.example; accounturi=" + u.url + fmt.Sprintf("; persistUntil=%d", soon), false, true},
		{"ca.example; accounturi=" + u.url + fmt.Sprintf("; persistUntil=%d", soon-7200), false, false},
		{"ca.example; accounturi=" + u.url + "; persistUntil=later", false, false},
		{"ca.example; accounturi=" + u.url + "0", false, false},
		{"ca.example", false, false},
		{"other.example; accounturi=" + u.url, false, false},
	} {
		name := fmt.Sprintf("p%d.test", i)
		w.zone.add(fmt.Sprintf("_validation-persist.%s. 60 IN TXT %q", name, c.value))
		if c.wildcard {
			name = "*." + name
		}
		if p := u.seen(t, name, "dns-persist-01"); (p == nil) != c.ok {
			t.Errorf("%s for %s: %v", c.value, name, p)
		}
	}
	ch := challengeOf(t, u.authz(t, u.order(t, "p.test"), 0), "dns-persist-01")
	if ch.Token != "" {
		t.Errorf("it has the token %s", ch.Token)
	}
}

func TestCAA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	for i, c := range []struct {
		records  []string
		wildcard bool
		says     string // "": it may
	}{
		{[]string{`0 issue "ca.test"`}, false, ""},
		{[]string{`0 issue "other.test"`}, false, "prevents issuance"},
		{[]string{`0 issue "other.test"`, `0 issue "ca.test"`}, false, ""},
		{[]string{`0 issue ";"`}, false, "prevents issuance"},
		{[]string{`0 issue "ca.test; accounturi=` + u.url + `"`}, false, ""},
		{[]string{`0 issue "ca.test; accounturi=` + u.url + `9"`}, false, "prevents issuance"},
		{[]string{`0 issue "ca.test; validationmethods=http-01"`}, false, "prevents issuance"},
		{[]string{`0 issue "ca.test; validationmethods=http-01,dns-01"`}, false, ""},
		{[]string{`0 issue "ca.test; broken"`}, false, "prevents issuance"},
		{[]string{`0 issuewild ";"`}, false, ""},
		{[]string{`0 issuewild ";"`, `0 issue "ca.test"`}, true, "prevents issuance"},
		{[]string{`0 issue "ca.test"`}, true, ""},
		{[]string{`0 iodef "mailto:a@b.test"`}, false, ""},
		{[]string{`128 tbs "x"`}, false, "critical"},
	} {
		zone := fmt.Sprintf("caa%d.test", i)
		for _, r := range c.records {
			w.zone.add(zone + ". 60 IN CAA " + r)
		}
		name := "www." + zone // the record stands above
		if c.wildcard {
			name = "*.www." + zone
		}
		o := u.order(t, name)
		w.zone.add(fmt.Sprintf("_acme-challenge.www.%s. 60 IN TXT %q", zone, dnsValue(t, u, challengeOf(t, u.authz(t, o, 0), "dns-01"))))
		p := u.seen(t, name, "dns-01")
		if c.says == "" && p != nil {
			t.Errorf("%v for %s: %v", c.records, name, p)
		}
		if c.says != "" {
			saw(t, p, "caa", c.says)
		}
	}
	w.zone.breakName("broken.test")
	o := u.order(t, "www.broken.test")
	w.zone.add(fmt.Sprintf("_acme-challenge.www.broken.test. 60 IN TXT %q", dnsValue(t, u, challengeOf(t, u.authz(t, o, 0), "dns-01"))))
	saw(t, u.seen(t, "www.broken.test", "dns-01"), "dns", "SERVFAIL looking up CAA")
}

// A proof that is used again after 7 hours does not stand for CAA.
func TestCAAAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	u.issue(t, "www.farm.test")
	w.zone.add(`farm.test. 60 IN CAA 0 issue ";"`)
	u.issue(t, "www.farm.test")
	w.clock.pass(8 * time.Hour)
	o := u.order(t, "www.farm.test")
	if o.Status != "ready" {
		t.Fatalf("order is %s", o.Status)
	}
	_, err := u.Orders.UpdateForCSR(t.Context(), o.Finalize, request(t, "www.farm.test"))
	must(t, err)
	o = u.until(t, o, "valid", "invalid")
	if o.Status != "invalid" || o.Error == nil || !strings.Contains(o.Error.Error(), "CAA record for farm.test") {
		t.Errorf("order is %+v", o)
	}
}

// A challenge is looked at once, and stays pending until that is decided.
func TestChallenge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	begun, gate := make(chan struct{}, 9), make(chan struct{})
	w.answer(func(out http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-gate
		u.stateless(out, r)
	})
	o := u.order(t, "www.farm.test")
	z := u.authz(t, o, 0)
	c := challengeOf(t, z, "http-01")
	for range 2 {
		got, err := u.Challenges.New(t.Context(), c.URL)
		must(t, err)
		if got.Status != "pending" {
			t.Errorf("while it is looked at it is %s", got.Status)
		}
	}
	<-begun
	close(gate)
	u.until(t, o, "ready")
	got, err := u.Challenges.New(t.Context(), c.URL)
	must(t, err)
	if got.Status != "valid" || len(begun) != 0 {
		t.Errorf("the challenge is %s, looked at %d more times", got.Status, len(begun))
	}
	other := w.user(t)
	_, err = other.Challenges.New(t.Context(), c.URL)
	refused(t, err, 403, "unauthorized", "")
	_, err = u.Challenges.New(t.Context(), strings.Replace(c.URL, "http-01", "tls-alpn-01", 1))
	refused(t, err, 404, "malformed", "")

	o = u.order(t, "b.farm.test")
	must(t, u.Authorizations.Deactivate(t.Context(), o.Authorizations[0]))
	if o = u.until(t, o, "invalid", "pending", "ready"); o.Status != "invalid" {
		t.Errorf("with a deactivated authorization it is %s", o.Status)
	}
	_, err = u.Challenges.New(t.Context(), challengeOf(t, u.authz(t, o, 0), "http-01").URL)
	refused(t, err, 400, "malformed", "must be pending")
}

// Close cuts a look off instead of waiting for it.
func TestCloseAtWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	begun := make(chan struct{})
	w.answer(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})
	o, err := u.Orders.New(t.Context(), []string{"www.farm.test"}, &api.OrderOptions{})
	must(t, err)
	_, err = u.Challenges.New(t.Context(), challengeOf(t, u.authz(t, o, 0), "http-01").URL)
	must(t, err)
	<-begun
	start := time.Now()
	must(t, w.ca.Close())
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}
