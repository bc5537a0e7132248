package acme_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	legoapi "github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/issue/boulder"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

// A strict world has the CA that behaves as Boulder does, and a clock that both
// sides go by.
type strict struct {
	ca     *boulder.CA
	server *http.Server
	board  sync.Map // token to key authorization
	clock  *testClock
	lost   map[farm.OrderState]bool // states whose next step's result is thrown away, once
	steps  []farm.OrderState
}

type testClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *testClock) to(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.After(c.at) {
		c.at = at
	}
}

func (c *testClock) pass(d time.Duration) { c.to(c.now().Add(d)) }

func newStrict(t *testing.T, o boulder.Options) *strict {
	t.Helper()
	w := &strict{clock: &testClock{at: time.Now()}, lost: map[farm.OrderState]bool{}}
	names, err := issuetest.StartDNS(map[string][]netip.Addr{"*.farm.test": {netip.MustParseAddr("127.0.0.1")}})
	must(t, err)
	t.Cleanup(func() { must(t, names.Close()) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.server = &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if value, ok := w.board.Load(strings.TrimPrefix(r.URL.Path, "/.well-known/acme-challenge/")); ok {
			_, _ = fmt.Fprint(out, value)
			return
		}
		http.NotFound(out, r)
	})}
	go func() { _ = w.server.Serve(listener) }()
	t.Cleanup(func() { _ = w.server.Close() })
	o.DNS, o.HTTPPort, o.Now = names.Address, listener.Addr().(*net.TCPAddr).Port, w.clock.now
	w.ca, err = boulder.Start(o)
	must(t, err)
	t.Cleanup(func() { must(t, w.ca.Close()) })
	return w
}

// An owner is an account, as the store keeps it.
type owner struct {
	w       *strict
	key     farm.Secret
	account string
	profile string
	hmac    farm.Secret
	eab     *farm.EAB
}

func (w *strict) owner(t *testing.T) *owner {
	t.Helper()
	key, err := issue.NewKey(farm.EC256)
	must(t, err)
	text, err := issue.EncodeKey(key)
	must(t, err)
	return &owner{w: w, key: text}
}

// issuer knows what was stored, and nothing more.
func (u *owner) issuer(t *testing.T) *acme.Issuer {
	t.Helper()
	i, err := acme.New(acme.Config{
		Issuer:     farm.Issuer{Name: "testca", Directory: u.w.ca.Directory, Roots: u.w.ca.ListenRoots + u.w.ca.Roots, Profile: u.profile, EAB: u.eab},
		AccountKey: u.key, AccountURL: u.account, EABHMAC: u.hmac, UserAgent: "certfarm-test",
		Save: func(_ context.Context, url string) error { u.account = url; return nil },
	})
	must(t, err)
	return i
}

func (u *owner) order(t *testing.T, names ...string) farm.Order {
	t.Helper()
	r, err := issue.NewRequest(names, farm.EC256)
	must(t, err)
	return farm.Order{ID: "o1", Names: names, CSR: r.CSR, State: farm.OrderNew, Created: u.w.clock.now()}
}

// step does one step, with an issuer of its own, in the clock's time.
func (u *owner) step(t *testing.T, o farm.Order) (farm.Order, error) {
	t.Helper()
	u.w.steps = append(u.w.steps, o.State)
	return u.issuer(t).Step(t.Context(), o, u.w.clock.now())
}

// drive goes on until the order is done or a step fails. Where the clock is told
// to wait it jumps; the looks at names take real time, so each poll waits for a
// moment of that as well.
func (u *owner) drive(t *testing.T, o farm.Order) (farm.Order, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !o.State.Ended() {
		if ctx.Err() != nil {
			t.Fatalf("the order hangs in the state %s", o.State)
		}
		if o.State == farm.OrderPending && known(o) {
			for i := range o.Authz {
				if z := &o.Authz[i]; !z.Valid {
					u.w.board.Store(z.Challenge.Token, z.Challenge.Value)
				}
			}
			o.State = farm.OrderPresented
			continue
		}
		stored := o
		if o.State == farm.OrderReady {
			stored.Finalize = u.w.clock.now() // durable before the request
		}
		if !o.Again.IsZero() {
			u.w.clock.to(o.Again)
			wait(ctx, time.Now().Add(3*time.Millisecond))
		}
		got, err := u.step(t, o)
		if err != nil {
			return o, err
		}
		if u.w.lost[o.State] {
			u.w.lost[o.State] = false
			o = stored
			continue
		}
		o = got
	}
	return o, nil
}

func (u *owner) done(t *testing.T, names ...string) farm.Order {
	t.Helper()
	o, err := u.drive(t, u.order(t, names...))
	must(t, err)
	return o
}

// replaced is what an order names that replaces the certificate (RFC 9773 §4.1).
func replaced(t *testing.T, old farm.Order) string {
	t.Helper()
	id, err := legoapi.MakeARICertID(leafOf(t, old.Chain))
	must(t, err)
	return id
}

func counts(t *testing.T, w *strict, set string, orders, finalized, certificates int) {
	t.Helper()
	s := w.ca.Stats()
	if s.Orders[set] != orders || s.Finalized[set] != finalized || s.Certificates[set] != certificates {
		t.Errorf("%s: %d orders, %d finalized, %d certificates; want %d, %d, %d", set,
			s.Orders[set], s.Finalized[set], s.Certificates[set], orders, finalized, certificates)
	}
}

func TestBoulder(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{Limits: boulder.LetsEncryptLimits(), BadNonce: 10, SignPolls: 2, RetryAfter: 3 * time.Second, Perspectives: 3})
	u := w.owner(t)
	u.profile = "tlsserver"
	o := u.done(t, "www.farm.test", "shop.farm.test")
	if life := leafOf(t, o.Chain).NotAfter.Sub(w.clock.now()); life < 44*24*time.Hour || life > 45*24*time.Hour {
		t.Errorf("the certificate lives %s", life)
	}
	counts(t, w, "shop.farm.test,www.farm.test", 1, 1, 1)
	if n := w.ca.Stats().Requests[issuetest.NewAccount]; n > 5 {
		t.Errorf("%d accounts were asked for", n)
	}
}

// The process dies after each step in turn, before what the step did is stored,
// and the next process does the step again: nothing is ordered or issued twice.
func TestBoulderLostSteps(t *testing.T) {
	t.Parallel()
	for _, state := range []farm.OrderState{
		farm.OrderNew, farm.OrderPending, farm.OrderPresented, farm.OrderAccepted, farm.OrderReady, farm.OrderProcessing,
	} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			w := newStrict(t, boulder.Options{Limits: boulder.LetsEncryptLimits(), SignPolls: 1})
			w.lost[state] = true
			w.owner(t).done(t, "a.farm.test", "b.farm.test")
			if w.lost[state] {
				t.Fatalf("there was no step in the state %s", state)
			}
			counts(t, w, "a.farm.test,b.farm.test", 1, 1, 1)
		})
	}
}

// The answer to each POST is lost, as on a broken line.
func TestBoulderLostAnswers(t *testing.T) {
	t.Parallel()
	for _, e := range []issuetest.Endpoint{
		issuetest.NewAccount, issuetest.NewOrder, issuetest.Authz, issuetest.Challenge,
		issuetest.Order, issuetest.Finalize, issuetest.Certificate,
	} {
		t.Run(string(e), func(t *testing.T) {
			t.Parallel()
			w := newStrict(t, boulder.Options{Wrap: issuetest.LoseReply(e, 1), SignPolls: 1})
			u := w.owner(t)
			o, failures := u.order(t, "www.farm.test"), 0
			for !o.State.Ended() {
				got, err := u.drive(t, o)
				if errors.Is(err, issue.Refused) {
					t.Fatal(err)
				}
				if o = got; err == nil {
					continue
				}
				if o.State == farm.OrderReady {
					o.Finalize = w.clock.now()
				}
				if failures++; failures > 5 {
					t.Fatal(err)
				}
			}
			counts(t, w, "www.farm.test", 1, 1, 1)
		})
	}
}

// The answer to the order that replaces a certificate is lost. The same request
// is refused (409), and within the same step the order is found without it.
func TestBoulderReplacesPending(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u := w.owner(t)
	old := u.done(t, "www.farm.test")
	w.clock.pass(60 * 24 * time.Hour)
	o := u.order(t, "www.farm.test")
	o.Replaces = replaced(t, old)
	first, err := u.step(t, o)
	must(t, err)
	if first.Replaces != o.Replaces {
		t.Errorf("the order replaces %q", first.Replaces)
	}
	before := w.ca.Stats().Requests[issuetest.NewOrder]
	second, err := u.step(t, o) // first was not stored
	must(t, err)
	if second.URL != first.URL || second.Replaces != o.Replaces {
		t.Errorf("the order is %s replacing %q, want %s replacing %q", second.URL, second.Replaces, first.URL, first.Replaces)
	}
	if n := w.ca.Stats().Requests[issuetest.NewOrder] - before; n != 2 {
		t.Errorf("%d requests instead of one refused and one without replaces", n)
	}
	_, err = u.drive(t, second)
	must(t, err)
	counts(t, w, "www.farm.test", 2, 2, 2)

	// It is replaced for good: another one for it is an order like any other.
	o = u.order(t, "www.farm.test")
	o.Replaces = replaced(t, old)
	o, err = u.drive(t, o)
	must(t, err)
	if o.Replaces != "" {
		t.Errorf("the order says that it replaces %q", o.Replaces)
	}
}

// Certificates of another account (403), of nobody (404), and with other names
// (400) are no reason not to renew.
func TestBoulderReplacesRefused(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u, other := w.owner(t), w.owner(t)
	foreign := other.done(t, "www.farm.test")
	own := u.done(t, "elsewhere.farm.test")
	for name, id := range map[string]string{
		"foreign": replaced(t, foreign), "other names": replaced(t, own),
		"unknown": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", "garbage": "x",
	} {
		o := u.order(t, "www.farm.test")
		o.Replaces = id
		o, err := u.drive(t, o)
		if err != nil || o.Replaces != "" {
			t.Errorf("%s: it replaces %q, error %v", name, o.Replaces, err)
		}
	}
}

// A limit of the account holds all its orders, one of the names only theirs.
func TestBoulderLimits(t *testing.T) {
	t.Parallel()
	limits := boulder.LetsEncryptLimits()
	limits.Orders = boulder.Limit{Burst: 7, Period: 7 * time.Hour}
	w := newStrict(t, boulder.Options{Limits: limits})
	u := w.owner(t)
	for range 5 {
		u.done(t, "www.farm.test") // the first is new, the others are renewals
	}
	_, err := u.drive(t, u.order(t, "www.farm.test"))
	later(t, w, err, 7*24*time.Hour/5, false, "exact set")
	for i := range 6 {
		u.done(t, fmt.Sprintf("a%d.farm.test", i))
	}
	before := w.ca.Stats().Requests
	o := u.order(t, "b.farm.test")
	_, err = u.drive(t, o)
	at := later(t, w, err, time.Hour, true, "too many new orders")
	if n := w.ca.Stats().Requests[issuetest.NewOrder] - before[issuetest.NewOrder]; n != 1 {
		t.Errorf("%d requests", n)
	}
	w.clock.to(at)
	if _, err := u.drive(t, o); err != nil {
		t.Errorf("at the time that was told: %v", err)
	}
}

// later demands an issue.Later whose wait is the given one, a little less (the
// clock went on since the bucket was emptied), or at most a tenth more.
func later(t *testing.T, w *strict, err error, wait time.Duration, account bool, part string) time.Time {
	t.Helper()
	l, ok := errors.AsType[*issue.Later](err)
	if !ok || errors.Is(err, issue.Refused) || !strings.Contains(err.Error(), part) {
		t.Fatalf("the error is %v, want a wait for %q", err, part)
	}
	if got := l.Until.Sub(w.clock.now()); got < wait-wait/20 || got > wait+wait/10+time.Second || l.Account != account {
		t.Errorf("it waits %s, the account's others too: %v; want %s, %v", got, l.Account, wait, account)
	}
	return l.Until
}

func TestBoulderBusy(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u := w.owner(t)
	u.done(t, "www.farm.test")
	w.ca.Busy(1)
	_, err := u.drive(t, u.order(t, "b.farm.test"))
	later(t, w, err, time.Minute, true, "Service busy")
	u.done(t, "b.farm.test")
}

// A name that fails is one refused order; five of them hold that name's orders.
func TestBoulderFailures(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{Limits: boulder.LetsEncryptLimits()})
	u := w.owner(t)
	must(t, w.server.Close()) // nobody answers any more
	for range 5 {
		_, err := u.drive(t, u.order(t, "bad.farm.test"))
		if !errors.Is(err, issue.Refused) || !strings.Contains(err.Error(), "bad.farm.test: ") || !strings.Contains(err.Error(), "(connection)") {
			t.Fatalf("error is %v", err)
		}
	}
	_, err := u.drive(t, u.order(t, "bad.farm.test"))
	later(t, w, err, 12*time.Minute, false, "too many failed authorizations")
	counts(t, w, "bad.farm.test", 5, 0, 0)
}

// A name that failed too often is paused until a person says otherwise at the
// CA's portal; the error says where. The order is not lost.
func TestBoulderPaused(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{Limits: boulder.Limits{Pause: boulder.Limit{Burst: 1, Period: 24 * time.Hour}}})
	u := w.owner(t)
	must(t, w.server.Close())
	for range 2 {
		_, err := u.drive(t, u.order(t, "bad.farm.test"))
		if !errors.Is(err, issue.Refused) {
			t.Fatal(err)
		}
	}
	o := u.order(t, "bad.farm.test")
	o, err := u.drive(t, o)
	l, ok := errors.AsType[*issue.Later](err)
	if !ok || errors.Is(err, issue.Refused) || !strings.Contains(err.Error(), "https://portal.ca.test/sfe/v1/unpause?jwt=") {
		t.Fatalf("error is %v", err)
	}
	if wait := l.Until.Sub(w.clock.now()); l.Account || wait < 12*time.Hour {
		t.Errorf("the whole account waits (%v), for %s", l.Account, wait)
	}
	w.clock.to(l.Until)
	w.ca.Unpause(u.account)
	if o, err = u.step(t, o); err != nil || o.State != farm.OrderPending {
		t.Errorf("after a person let it go on the order is %s, error %v", o.State, err)
	}
}

// An earlier proof leads straight to ready, and nothing is put up; a wildcard's
// is another one.
func TestBoulderProofs(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u := w.owner(t)
	u.profile = "tlsserver"
	u.done(t, "www.farm.test")
	w.clock.pass(5 * time.Hour)
	w.steps = nil
	before := w.ca.Stats().Requests
	u.done(t, "www.farm.test")
	for _, s := range w.steps {
		if s == farm.OrderPending || s == farm.OrderPresented || s == farm.OrderAccepted {
			t.Errorf("steps are %v", w.steps)
			break
		}
	}
	after := w.ca.Stats().Requests
	if after[issuetest.Challenge] != before[issuetest.Challenge] || after[issuetest.Authz] != before[issuetest.Authz] {
		t.Errorf("the CA was asked about names: %v, then %v", before, after)
	}

	// With a name that is not proven yet, only that one is put up.
	o, err := u.step(t, u.order(t, "www.farm.test", "new.farm.test"))
	must(t, err)
	o, err = u.step(t, o)
	must(t, err)
	for _, z := range o.Authz {
		if z.Valid != (z.Name == "www.farm.test") || (z.Challenge.URL == "") != z.Valid {
			t.Errorf("authorization is %+v", z)
		}
	}
	_, err = u.drive(t, o)
	must(t, err)
	w.clock.pass(8 * time.Hour)
	if o, err = u.step(t, u.order(t, "www.farm.test")); err != nil || o.State != farm.OrderPending {
		t.Errorf("after 7 hours the order is %s, error %v", o.State, err)
	}
}

// Signing takes its time; a process that does not know that finalize was heard
// asks first, and a second finalize (403 orderNotReady) is no failure.
func TestBoulderFinalizeTwice(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{SignPolls: 4, RetryAfter: 3 * time.Second})
	u := w.owner(t)
	o := u.order(t, "www.farm.test")
	for o.State != farm.OrderReady {
		if o.State == farm.OrderPending && known(o) {
			w.board.Store(o.Authz[0].Challenge.Token, o.Authz[0].Challenge.Value)
			o.State = farm.OrderPresented
		}
		if !o.Again.IsZero() {
			w.clock.to(o.Again)
			wait(t.Context(), time.Now().Add(3*time.Millisecond))
		}
		got, err := u.step(t, o)
		must(t, err)
		o = got
	}
	first, err := u.step(t, o)
	must(t, err)
	if first.State != farm.OrderProcessing || first.Again.Sub(w.clock.now()) < 3*time.Second {
		t.Errorf("after finalize the order is %s, again at %s", first.State, first.Again)
	}
	second, err := u.step(t, o) // it was ready and finalize never stored: sent again
	must(t, err)
	if second.State != farm.OrderProcessing {
		t.Errorf("after the second finalize the order is %s", second.State)
	}
	if n := w.ca.Stats().Requests[issuetest.Finalize]; n != 2 {
		t.Errorf("%d finalizations were sent", n)
	}
	_, err = u.drive(t, second)
	must(t, err)
	counts(t, w, "www.farm.test", 1, 1, 1)
}

// An order that the CA has dropped is refused, so that a new one is made; so is
// one that was finalized and looked at too late.
func TestBoulderExpired(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u := w.owner(t)
	u.profile = "tlsserver"
	o, err := u.step(t, u.order(t, "www.farm.test"))
	must(t, err)
	w.clock.pass(2 * time.Hour)
	if _, err := u.step(t, o); !errors.Is(err, issue.Refused) {
		t.Errorf("error is %v", err)
	}
	o.State, o.Finalize = farm.OrderProcessing, w.clock.now()
	if _, err := u.step(t, o); !errors.Is(err, issue.Refused) {
		t.Errorf("error is %v", err)
	}
	u.done(t, "www.farm.test")
}

func TestBoulderSuggest(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u := w.owner(t)
	o := u.done(t, "www.farm.test")
	s, err := u.issuer(t).Suggest(t.Context(), o.Chain, w.clock.now())
	must(t, err)
	if in := s.Chosen.Sub(w.clock.now()); in < 58*24*time.Hour || in > 62*24*time.Hour {
		t.Errorf("to be renewed in %s", in)
	}
	must(t, u.issuer(t).Revoke(t.Context(), o.Chain, 4, farm.Secret{}))
	must(t, u.issuer(t).Revoke(t.Context(), o.Chain, 4, farm.Secret{}))
	s, err = u.issuer(t).Suggest(t.Context(), o.Chain, w.clock.now())
	must(t, err)
	if s.Chosen.IsZero() || s.Chosen.After(w.clock.now()) {
		t.Errorf("a revoked certificate is to be renewed at %s", s.Chosen)
	}
}

// A leaf that another account got is revoked by its own key, and by nothing else.
func TestBoulderRevokesByTheLeafsKey(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u, other := w.owner(t), w.owner(t)
	other.done(t, "other.farm.test") // so that its account is known
	r, err := issue.NewRequest([]string{"www.farm.test"}, farm.EC256)
	must(t, err)
	o := farm.Order{ID: "o1", Names: []string{"www.farm.test"}, CSR: r.CSR, State: farm.OrderNew, Created: w.clock.now()}
	o, err = u.drive(t, o)
	must(t, err)
	wrong, err := issue.NewRequest([]string{"www.farm.test"}, farm.EC256)
	must(t, err)
	for name, key := range map[string]farm.Secret{"no key": {}, "another key": wrong.Key} {
		if err := other.issuer(t).Revoke(t.Context(), o.Chain, 4, key); !errors.Is(err, issue.Refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 2 { // the second time it is revoked already
		must(t, other.issuer(t).Revoke(t.Context(), o.Chain, 4, r.Key))
	}
	nobody := w.owner(t)
	must(t, nobody.issuer(t).Revoke(t.Context(), o.Chain, 4, r.Key))
	if reason, revoked := w.ca.Revoked(o.Chain); !revoked || reason != issue.KeyCompromise {
		t.Errorf("revoked %t for reason %d", revoked, reason)
	}
	if nobody.account != "" {
		t.Error("an account was opened to revoke with the leaf's own key")
	}
}

func TestBoulderBinding(t *testing.T) {
	t.Parallel()
	mac := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	w := newStrict(t, boulder.Options{EAB: map[string]string{"customer-1": mac}})
	u := w.owner(t)
	if _, err := u.issuer(t).EnsureAccount(t.Context()); !errors.Is(err, issue.Refused) {
		t.Errorf("without a binding: %v", err)
	}
	u.eab, u.hmac = &farm.EAB{KeyID: "customer-1"}, farm.NewSecret([]byte(mac))
	u.done(t, "www.farm.test")
}

// A preferred chain is fetched from where the CA says that it has others.
func TestBoulderPreferredChain(t *testing.T) {
	t.Parallel()
	w := newStrict(t, boulder.Options{})
	u := w.owner(t)
	for _, root := range []string{"Root X", "Root Y"} {
		i, err := acme.New(acme.Config{
			Issuer:     farm.Issuer{Name: "testca", Directory: w.ca.Directory, Roots: w.ca.ListenRoots + w.ca.Roots, PreferredChain: root},
			AccountKey: u.key, AccountURL: u.account, Save: func(_ context.Context, url string) error { u.account = url; return nil },
		})
		must(t, err)
		o := u.done(t, "www.farm.test")
		o.State, o.Chain = farm.OrderIssued, nil
		o, err = i.Step(t.Context(), o, w.clock.now())
		must(t, err)
		_, above := pem.Decode(o.Chain)
		if top := leafOf(t, above).Issuer.CommonName; top != root {
			t.Errorf("the chain leads to %s, want %s", top, root)
		}
	}
}
