package boulder_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/acme/api"
	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/issue/boulder"
)

const day = 24 * time.Hour

// A world is a CA, a name server of the zone "test", a web server that answers
// for every name below farm.test, and a clock.
type world struct {
	ca    *boulder.CA
	zone  *zone
	clock clock

	mu  sync.Mutex
	web http.HandlerFunc
}

func newWorld(t *testing.T, o boulder.Options) *world {
	t.Helper()
	w := &world{clock: clock{at: time.Now()}, zone: startZone(t)}
	w.zone.add("*.farm.test. 60 IN A 127.0.0.1", "farm.test. 60 IN A 127.0.0.1")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		web := w.web
		w.mu.Unlock()
		web(out, r)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	o.DNS, o.HTTPPort, o.Now = w.zone.address, listener.Addr().(*net.TCPAddr).Port, w.clock.now
	w.ca, err = boulder.Start(o)
	must(t, err)
	t.Cleanup(func() { must(t, w.ca.Close()) })
	w.answer(http.NotFound)
	return w
}

func (w *world) answer(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.web = h
}

// A clock is moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// A user is an account, and what it does.
type user struct {
	*api.Core
	w    *world
	url  string
	key  *ecdsa.PrivateKey
	http *http.Client
}

func (w *world) client(t *testing.T) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(w.ca.ListenRoots))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (w *world) stranger(t *testing.T) *user {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	u := &user{w: w, key: key, http: w.client(t)}
	return u.again(t)
}

// again is the same key, which does not know its account.
func (u *user) again(t *testing.T) *user {
	t.Helper()
	core, err := api.New(u.http, "test", u.w.ca.Directory, "", u.key)
	must(t, err)
	return &user{w: u.w, key: u.key, http: u.http, Core: core}
}

// user registers one, whose names are answered for over HTTP from now on.
func (w *world) user(t *testing.T) *user {
	t.Helper()
	u := w.stranger(t)
	got, err := u.Accounts.New(t.Context(), acme.Account{TermsOfServiceAgreed: true})
	must(t, err)
	u.url = got.Location
	w.answer(u.stateless)
	return u
}

func (u *user) stateless(out http.ResponseWriter, r *http.Request) {
	value, err := u.GetKeyAuthorization(strings.TrimPrefix(r.URL.Path, "/.well-known/acme-challenge/"))
	if err != nil {
		http.NotFound(out, r)
		return
	}
	_, _ = fmt.Fprintln(out, value)
}

func (u *user) order(t *testing.T, names ...string) acme.ExtendedOrder {
	t.Helper()
	o, err := u.Orders.New(t.Context(), names, nil)
	must(t, err)
	return o
}

// authz reads the order's nth authorization.
func (u *user) authz(t *testing.T, o acme.ExtendedOrder, n int) acme.Authorization {
	t.Helper()
	z, err := u.Authorizations.Get(t.Context(), o.Authorizations[n])
	must(t, err)
	return z
}

func challengeOf(t *testing.T, z acme.Authorization, method string) acme.Challenge {
	t.Helper()
	for _, c := range z.Challenges {
		if c.Type == method {
			return c
		}
	}
	t.Fatalf("no %s challenge for %s", method, z.Identifier.Value)
	return acme.Challenge{}
}

// prove has all names of an order looked at, and waits until the CA has decided.
func (u *user) prove(t *testing.T, o acme.ExtendedOrder, method string) acme.ExtendedOrder {
	t.Helper()
	for i := range o.Authorizations {
		if z := u.authz(t, o, i); z.Status == "pending" {
			_, err := u.Challenges.New(t.Context(), challengeOf(t, z, method).URL)
			must(t, err)
		}
	}
	return u.until(t, o, "ready", "invalid")
}

// until polls an order until it has one of the states.
func (u *user) until(t *testing.T, o acme.ExtendedOrder, states ...string) acme.ExtendedOrder {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := u.Orders.Get(ctx, o.Location)
		must(t, err)
		got.Location = o.Location
		if slices.Contains(states, got.Status) {
			return got
		}
		<-tick.C
	}
}

func request(t *testing.T, names ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.CertificateRequest{}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	must(t, err)
	return csr
}

// finish finalizes an order that is ready and fetches its chain.
func (u *user) finish(t *testing.T, o acme.ExtendedOrder, names ...string) *acme.RawCertificate {
	t.Helper()
	got, err := u.Orders.UpdateForCSR(t.Context(), o.Finalize, request(t, names...))
	must(t, err)
	if got.Status != "processing" {
		t.Errorf("finalize answers %s", got.Status)
	}
	o = u.until(t, o, "valid", "invalid")
	chain, err := u.Certificates.Get(t.Context(), o.Certificate, true)
	must(t, err)
	return chain
}

func (u *user) issue(t *testing.T, names ...string) *acme.RawCertificate {
	t.Helper()
	o := u.order(t, names...)
	if o.Status != "ready" {
		o = u.prove(t, o, "http-01")
	}
	return u.finish(t, o, names...)
}

func leafOf(t *testing.T, chain *acme.RawCertificate) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain.Cert)
	leaf, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return leaf
}

func ariOf(t *testing.T, chain *acme.RawCertificate) string {
	t.Helper()
	id, err := api.MakeARICertID(leafOf(t, chain))
	must(t, err)
	return id
}

// refused demands a problem of the status and type, whose text has the part.
func refused(t *testing.T, err error, status int, kind, part string) {
	t.Helper()
	p, ok := errors.AsType[*acme.ProblemDetails](err)
	if !ok || p.HTTPStatus != status || p.Type != "urn:ietf:params:acme:error:"+kind || !strings.Contains(p.Detail, part) {
		t.Fatalf("want %d %s %q, got %v", status, kind, part, err)
	}
}

// A zone is a name server: authoritative, so it leaves the target of a CNAME to
// whoever asks, and refuses what is not below "test".
type zone struct {
	address string
	mu      sync.Mutex
	records []dns.RR
	broken  map[string]bool // SERVFAIL
	whole   bool            // answers go through CNAMEs to the end, as a resolver's do
}

func startZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{broken: map[string]bool{}}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	z.address = udp.LocalAddr().String()
	tcp, err := net.Listen("tcp", z.address)
	if err != nil {
		_ = udp.Close()
		return startZone(t) // taken by another test: another port
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			_ = s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return z
}

func (z *zone) add(lines ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, line := range lines {
		r, err := dns.NewRR(line)
		if err != nil {
			panic(err)
		}
		z.records = append(z.records, r)
	}
}

func (z *zone) breakName(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.broken[dns.CanonicalName(name)] = true
}

// ServeDNS answers one question.
func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	reply := new(dns.Msg).SetReply(q)
	reply.Authoritative = true
	name, kind := dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype
	exists := z.find(reply, q.Question[0].Name, kind)
	switch {
	case z.broken[name]:
		reply.Rcode, reply.Answer = dns.RcodeServerFailure, nil
	case name == "test.":
		reply.Rcode = dns.RcodeRefused
	case !exists:
		reply.Rcode = dns.RcodeNameError
	}
	if opt := q.IsEdns0(); w.LocalAddr().Network() == "udp" && opt != nil {
		reply.Truncate(int(opt.UDPSize()))
	}
	_ = w.WriteMsg(reply)
}

func (z *zone) find(reply *dns.Msg, name string, kind uint16) (exists bool) {
	owner, exists := z.owner(dns.CanonicalName(name))
	for _, r := range z.records {
		if dns.CanonicalName(r.Header().Name) == owner && (r.Header().Rrtype == kind || r.Header().Rrtype == dns.TypeCNAME) {
			r = dns.Copy(r)
			r.Header().Name = name
			reply.Answer = append(reply.Answer, r)
			if c, ok := r.(*dns.CNAME); ok && z.whole && len(reply.Answer) < 20 {
				return z.find(reply, c.Target, kind)
			}
		}
	}
	return exists
}

// owner is whose records answer for a name: its own, or a wildcard's.
func (z *zone) owner(name string) (string, bool) {
	wild := "*." + name[strings.Index(name, ".")+1:]
	for _, owner := range []string{name, wild} {
		for _, r := range z.records {
			if dns.IsSubDomain(owner, dns.CanonicalName(r.Header().Name)) {
				return owner, true
			}
		}
	}
	return name, false
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
