package controller_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/store"
)

// answers serves the controller's answers to challenges, and leads the balancer's
// path to them.
func (b *bed) answers() { b.leads(b.Controller.ChallengeHandler()) }

// leads routes the balancer's challenge path to a handler.
func (b *bed) leads(h http.Handler) {
	s := httptest.NewServer(h)
	b.t.Cleanup(s.Close)
	b.Balancer.RouteChallenges(strings.TrimPrefix(s.URL, "http://"))
}

// Where a wrong answer is seen at a name's address the CA is not asked: it would
// see the same. The alarm says what to do, and when it is done the order goes on.
func TestAPreflightHoldsTheOrder(t *testing.T) {
	t.Parallel()
	b := newBed(t, setting{layout: lab.Layout{Nodes: 2}})
	b.Balancer.RouteChallenges("")
	b.apply()
	e := b.happens("preflight.wrong", "")
	if e.Level != farm.Alarm || e.Hint == "" || !strings.Contains(e.Text, "shop.test") {
		t.Errorf("%+v", e)
	}
	for range 3 {
		b.pass(15 * time.Minute)
		b.waits("the order is new")
	}
	if n := b.opened(); n != 0 {
		t.Errorf("the CA opened %d orders", n)
	}
	if n := b.count("preflight.wrong"); n != 1 {
		t.Errorf("%d alarms for one thing", n)
	}
	b.answers()
	b.pass(11 * time.Minute)
	b.ended(farm.Done, 1)
	b.mustHaveIssued(1)
}

// A person who has mended what held an order need not wait, and gets one
// certificate however often they ask.
func TestRenewHurriesAnOrderThatIsHeld(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	b.Balancer.RouteChallenges("")
	b.renew()
	b.happens("preflight.wrong", "")
	b.pass(time.Minute)
	b.waits("the order is new")
	b.answers()
	b.renew()
	b.renew()
	b.ended(farm.Done, 2)
	b.rests()
	b.mustHaveIssued(2)
}

// What a preflight finds holds an order until half the time to the last safe
// moment is gone: the preflight may be the one that is wrong.
func TestAPreflightDelaysAndDoesNotForbid(t *testing.T) {
	t.Parallel()
	b, _ := serving(t, setting{
		layout: lab.Layout{Nodes: 2}, ca: issuetest.Options{Profiles: map[string]time.Duration{"default": 24 * time.Hour}},
	})
	b.Balancer.RouteChallenges("")
	b.renew()
	b.happens("preflight.wrong", "")
	b.pass(10 * time.Hour)
	b.waits("the order is new")
	if n := b.opened(); n != 1 {
		t.Errorf("the CA opened %d orders, want the first", n)
	}
	b.pass(70 * time.Minute) // the last safe moment is after 22 hours
	b.until("the CA is asked", func(*store.Tx) (bool, error) { return b.opened() == 2, nil })
	b.happens("order.failed", "") // it saw the same
}

// A CA that will not bind an account is asked seldom, and not by every order;
// people are told; and with the right secret it goes on at once.
func TestAWrongBindingIsToldAndMended(t *testing.T) {
	t.Parallel()
	mac := func(c byte) string { return base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{c}, 32)) }
	b := newBed(t, setting{
		layout: lab.Layout{Nodes: 2},
		ca:     issuetest.Options{EAB: map[string]string{"kid-1": mac('k')}},
		edit: func(_ *bed, text string) string {
			return strings.Replace(text, "    contact:", "    eab: {key_id: kid-1, hmac: {secret: binding}}\n    contact:", 1)
		},
	})
	set := func(value string) {
		t.Helper()
		must(t, b.Controller.SetSecret(b.ctx, b.Farm, "binding", farm.NewSecret([]byte(value)), "somebody"))
	}
	set(mac('x'))
	b.apply()
	if e := b.happens("account.failed", ""); e.Level != farm.Alarm || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	b.until("it is shown", func(*store.Tx) (bool, error) {
		return strings.Contains(strings.Join(b.describe().Attention, "\n"), "issuer pebble waits until"), nil
	})
	b.pass(10 * time.Second)
	b.until("it was tried twice", func(tx *store.Tx) (bool, error) {
		i, err := tx.Issuer(b.ctx, b.Farm, "pebble")
		if err != nil {
			return false, err
		}
		a, err := tx.Account(b.ctx, b.Farm, i.Name, i.Directory)
		return a.HoldUntil.After(tx.Now().Add(30 * time.Second)), err
	})
	asked := b.CA.Stats().Requests[issuetest.NewAccount]
	for range 10 {
		b.pass(time.Second)
		b.waits("issuer pebble waits")
	}
	if n := b.CA.Stats().Requests[issuetest.NewAccount] - asked; n != 0 {
		t.Errorf("the CA was asked for an account %d times within the pause", n)
	}
	set(mac('k'))
	b.ended(farm.Done, 1)
	b.mustHaveIssued(1)
}

// Who is told to wait waits, with all orders of the account, as long as was said.
// Another issuer's orders go on.
func TestAnAccountThatMustWaitHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	limited := issuetest.Answer(issuetest.NewOrder, 1, issuetest.Reply{
		Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "3600"},
		Body: `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many new orders"}`,
	})
	b := newBed(t, setting{layout: twoSites(2), ca: issuetest.Options{Wrap: limited}})
	second, err := issuetest.Start(issuetest.Options{DNS: b.DNS.Addr(), HTTPPort: port(t, b.Balancer.HTTPAddr())})
	must(t, err)
	t.Cleanup(func() { must(t, second.Close()) })
	b.rewrite(func(text string) string {
		var roots strings.Builder
		for line := range strings.Lines(second.ListenRoots + second.Roots) {
			roots.WriteString("      " + line)
		}
		text = strings.Replace(text, "\nnodes:\n", fmt.Sprintf("\n  second:\n    acme: %q\n    profile: default\n    roots: |\n%s\nnodes:\n", second.Directory, roots.String()), 1)
		return blog("second")(b, text)
	})
	b.apply()
	b.until("blog is served", func(tx *store.Tx) (bool, error) {
		all, err := tx.Rollouts(b.ctx, b.Farm, "blog", 1)
		return len(all) == 1 && all[0].Outcome == farm.Done, err
	})
	b.waits("too many new orders")
	d := b.describe()
	if !strings.Contains(strings.Join(d.Attention, "\n"), "issuer pebble waits until") || !strings.Contains(d.Orders[0].Error, "too many new orders") {
		t.Errorf("attention %v, order %+v", d.Attention, d.Orders[0])
	}
	asked := b.CA.Stats().Total()
	b.pass(55 * time.Minute)
	b.pass(time.Minute)
	if n := b.CA.Stats().Total(); n != asked {
		t.Errorf("%d requests before the hour was over", n-asked)
	}
	b.pass(time.Hour)
	b.ended(farm.Done, 1)
	b.mustHaveIssued(1)
}

func port(t *testing.T, address string) (n int) {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	must(t, err)
	_, err = fmt.Sscan(text, &n)
	must(t, err)
	return n
}

// When the CA moves the window of a certificate into the past, it is renewed at
// the next poll, and the order says what it replaces.
func TestAWindowInThePastRenews(t *testing.T) {
	t.Parallel()
	orders := &recorder{}
	b, _ := serving(t, setting{layout: lab.Layout{Nodes: 2}, ca: issuetest.Options{Wrap: orders.wrap}})
	b.rests()
	v1 := b.describe().Versions[0]
	past := time.Now().Add(-24 * time.Hour)
	must(t, b.CA.SetARI(v1.Leaves[0].Chain, issuetest.Window{Start: past.Add(-time.Hour), End: past, Explanation: "https://ca.test/why"}))
	poll := b.describe().Certificate.ARI.Ask
	if poll.IsZero() || poll.After(b.clock.now().Add(25*time.Hour)) {
		t.Fatalf("the CA is asked again at %s", poll)
	}
	b.pass(poll.Sub(b.clock.now()) - time.Minute)
	b.rests()
	b.mustHaveIssued(1)
	b.pass(2 * time.Minute)
	b.ended(farm.Done, 2)
	b.mustHaveIssued(2)
	if e := b.happens("certificate.due", b.firstOf("certificate.due")); !strings.Contains(e.Text, "https://ca.test/why") {
		t.Errorf("%s", e.Text)
	}
	all := orders.payloads()
	if strings.Contains(all[0], "replaces") || !strings.Contains(all[len(all)-1], `"replaces"`) {
		t.Errorf("newOrder said %v", all)
	}
}

// firstOf is the id of the first event of a kind.
func (b *bed) firstOf(kind string) string {
	b.t.Helper()
	all, err := b.Controller.Events(b.ctx, b.Farm, store.EventQuery{Kind: kind, Limit: 1})
	must(b.t, err)
	if len(all) == 0 {
		b.t.Fatalf("no event %s", kind)
	}
	return all[0].ID
}

// A recorder keeps what newOrder was asked for.
type recorder struct {
	mu  sync.Mutex
	all []string
}

func (r *recorder) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if issuetest.EndpointOf(q) == issuetest.NewOrder {
			body, _ := io.ReadAll(q.Body) // an error is Pebble's to find
			q.Body = io.NopCloser(bytes.NewReader(body))
			var jws struct{ Payload string }
			_ = json.Unmarshal(body, &jws)
			payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
			r.mu.Lock()
			r.all = append(r.all, string(payload))
			r.mu.Unlock()
		}
		h.ServeHTTP(w, q)
	})
}

func (r *recorder) payloads() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// What farm.yaml says of the proxy and the resolvers reaches those who need it:
// every request to the CA goes through the proxy, and the preflight asks the
// resolvers.
func TestProxyAndResolversAreUsed(t *testing.T) {
	t.Parallel()
	var tunnels, questions recorder
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tunnels.mu.Lock()
		tunnels.all = append(tunnels.all, r.Method+" "+r.Host)
		tunnels.mu.Unlock()
		tunnel(w, r)
	}))
	t.Cleanup(p.Close)
	b, _ := serving(t, setting{
		layout: lab.Layout{Nodes: 1},
		edit: func(_ *bed, text string) string {
			return strings.Replace(text, "farm: lab\n", "farm: lab\nproxy: "+p.URL+"\n", 1)
		},
		adjust: func(_ *bed, c *controller.Config) {
			ask := c.Asker
			c.Asker = func(ctx context.Context, q http01.Ask) []http01.Finding {
				questions.mu.Lock()
				questions.all = append(questions.all, q.Resolvers["."]...)
				questions.mu.Unlock()
				return ask(ctx, q)
			}
		},
	})
	ca := strings.TrimSuffix(strings.TrimPrefix(b.CA.Directory, "https://"), "/dir")
	all := tunnels.payloads()
	if len(all) == 0 || all[0] != "CONNECT "+ca {
		t.Errorf("through the proxy went %v", all)
	}
	if got := questions.payloads(); !slices.Contains(got, b.DNS.Addr()) {
		t.Errorf("the preflight was given %v", got)
	}
}

// tunnel is an HTTP proxy's CONNECT.
func tunnel(w http.ResponseWriter, r *http.Request) {
	back, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	front, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(front, "HTTP/1.1 200 OK\r\n\r\n")
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{front, back}, {back, front}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // until either side is closed
			_ = front.Close()
			_ = back.Close()
		})
	}
	both.Wait()
}
