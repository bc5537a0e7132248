package http01_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

func leads(to func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, to()+r.URL.Path, http.StatusFound)
	})
}

func calls(name string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", name)
		h.ServeHTTP(w, r)
	})
}

// A wanted cell of a node.
type wanted struct {
	node    string
	verdict http01.Sort
	saw     string
	remedy  string
}

func expect(t *testing.T, found []http01.Finding, name string, wants []wanted) {
	t.Helper()
	for _, w := range wants {
		i := slices.IndexFunc(found, func(f http01.Finding) bool { return f.Node == w.node && f.Name == name })
		if i < 0 {
			t.Errorf("%s at %s: no finding", name, w.node)
			continue
		}
		f := found[i]
		if f.Verdict != w.verdict || !strings.Contains(f.Saw, w.saw) || !strings.Contains(f.Remedy, w.remedy) {
			t.Errorf("finding %+v, want %+v", f, w)
		}
	}
}

func TestPreflightOfRedirects(t *testing.T) {
	t.Parallel()
	b := &board{}
	token, want := http01.Question(rand.Text())
	must(t, b.Put(t.Context(), token, want))
	var s *street
	at := func(host string) func() string {
		return func() string { return fmt.Sprintf("http://%s:%d", host, s.port) }
	}
	s = newStreet(t, map[string]http.Handler{
		"127.0.2.1": leads(at("acme.farm.test")),
		"127.0.2.2": calls("lighttpd/1.4", leads(at("old.farm.test"))),
		"127.0.2.3": calls("nginx/1.26", says(404, "not here")),
		"127.0.2.5": leads(at("dead.farm.test")),
		"127.0.2.6": says(404, "drained"),
		"127.0.2.7": http01.Handler(b.Get), // it proxies: the CA is content
		"127.0.2.8": http01.Handler(b.Get), // the controllers
		"127.0.2.9": calls("Apache/2.4", says(404, "the old host")),
	})
	s.name("www.farm.test", "127.0.2.1")
	s.name("shop.farm.test", "127.0.2.1")
	s.name("acme.farm.test", "127.0.2.8")
	s.name("old.farm.test", "127.0.2.9")
	s.name("dead.farm.test", "127.0.2.10")
	s.name("web7.farm.test", "127.0.2.7")
	ask := http01.Ask{
		Site: "shop", Names: []string{"www.farm.test", "shop.farm.test", "*.farm.test"}, Token: token, Want: want,
		How: farm.Validation{Via: farm.Redirect, To: "http://acme.farm.test"}, Resolvers: s.resolvers, Port: s.port, Timeout: 2 * time.Second,
		Nodes: []http01.NodeAddress{
			{Name: "web1", Address: "127.0.2.1"},
			{Name: "web2", Address: "127.0.2.2"},
			{Name: "web3", Address: "127.0.2.3"},
			{Name: "web4", Address: "127.0.2.4"},
			{Name: "web5", Address: "127.0.2.5"},
			{Name: "web6", Address: "127.0.2.6", Drained: true},
			{Name: "web7", Address: "web7.farm.test"},
			{Name: "web8", Address: "web8.farm.test"},
		},
	}
	found := http01.Preflight(t.Context(), ask)
	if len(found) != 2*9+1 {
		t.Fatalf("%d findings: %+v", len(found), found)
	}
	for _, name := range ask.Names[:2] {
		expect(t, found, name, []wanted{
			{"", http01.Right, "our answer", ""},
			{"web1", http01.Right, "our answer", ""},
			{"web2", http01.Wrong, "a redirect to http://old.farm.test, not to http://acme.farm.test, and there HTTP status 404", "certfarm snippet shop --server lighttpd"},
			{"web3", http01.Wrong, "HTTP status 404: not here, and no redirect to http://acme.farm.test", "certfarm snippet shop --server nginx"},
			{"web4", http01.Unclear, "refused", "port"},
			{"web5", http01.Wrong, "a redirect to http://dead.farm.test", "certfarm snippet shop"},
			{"web6", http01.Unclear, "drained", "before it serves again"},
			{"web7", http01.Right, "our answer", ""},
			{"web8", http01.Unclear, "does not exist", "the address web8.farm.test of the node"},
		})
	}
	if last := found[len(found)-1]; last.Verdict != http01.Unclear || last.Node != "" {
		t.Errorf("the wildcard: %+v", last)
	}

	hold, why := http01.Verdict(found, false)
	if !hold || !strings.Contains(why, "www.farm.test, shop.farm.test at node web3 gave a wrong answer") {
		t.Errorf("hold %v: %s", hold, why)
	}
	sums := http01.Summarise(found)
	if sums[0].Verdict != http01.Wrong || sums[0].Cells != 2 || sums[0].String() == "" || sums[len(sums)-1].Verdict != http01.Right {
		t.Errorf("the summary: %+v", sums)
	}
	ask.How.Front = true
	if found := http01.Preflight(t.Context(), ask); len(found) != 3 {
		t.Errorf("nodes behind a front that answers are asked: %+v", found)
	}
}

func TestPreflightOfStatelessAndDistributed(t *testing.T) {
	t.Parallel()
	thumb := func(thumb string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(strings.TrimPrefix(r.URL.Path, http01.Path) + "." + thumb))
		})
	}
	s := newStreet(t, map[string]http.Handler{
		"127.0.3.1": thumb("ours"),
		"127.0.3.2": calls("Caddy", thumb("theirs")),
		"127.0.3.3": calls("Microsoft-IIS/10.0", says(404, "")),
	})
	s.name("www.farm.test", "127.0.3.1")
	token, want := http01.StatelessQuestion(rand.Text(), "ours")
	ask := http01.Ask{
		Site: "shop", Names: []string{"www.farm.test"}, Token: token, Want: want, How: farm.Validation{Via: farm.Stateless}, Resolvers: s.resolvers, Port: s.port,
		Nodes: []http01.NodeAddress{{Name: "web1", Address: "127.0.3.1"}, {Name: "web2", Address: "127.0.3.2"}, {Name: "web3", Address: "127.0.3.3"}},
	}
	expect(t, http01.Preflight(t.Context(), ask), "www.farm.test", []wanted{
		{"", http01.Right, "", ""},
		{"web1", http01.Right, "", ""},
		{"web2", http01.Wrong, "another account, with the thumbprint theirs", "`certfarm snippet shop --server caddy`"},
		{"web3", http01.Wrong, "HTTP status 404", "--server iis"},
	})
	ask.How = farm.Validation{Via: farm.Distribute, Webroot: "/srv/www"}
	expect(t, http01.Preflight(t.Context(), ask), "www.farm.test", []wanted{
		{"web1", http01.Right, "", ""},
		{"web3", http01.Wrong, "HTTP status 404", "the file is in /srv/www on the node, but is not served from there"},
	})
	ask.Public = true // a public CA asks no private address
	expect(t, http01.Preflight(t.Context(), ask), "www.farm.test", []wanted{
		{"", http01.Unclear, "our answer, at a private address", "split DNS"},
		{"web1", http01.Right, "", ""},
		{"web3", http01.Wrong, "", ""},
	})
}

// A name that is an address is asked directly (RFC 8738), a node for it too.
func TestPreflightOfAddresses(t *testing.T) {
	t.Parallel()
	token, want := http01.Question(rand.Text())
	var hosts atomic.Pointer[[]string]
	hosts.Store(&[]string{})
	s := newStreet(t, map[string]http.Handler{"127.0.0.1": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all := append(slices.Clone(*hosts.Load()), r.Host)
		hosts.Store(&all)
		_, _ = w.Write([]byte(want))
	})})
	var dialled []string
	found := http01.Preflight(t.Context(), http01.Ask{
		Names: []string{"192.0.2.7", "2001:db8::7"}, Token: token, Want: want,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.Contains(address, ".") {
				return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", s.port))
			}
			dialled = append(dialled, address)
			return nil, fmt.Errorf("connect: network is unreachable")
		},
	})
	if len(found) != 2 || found[0].Verdict != http01.Right || !slices.Equal(*hosts.Load(), []string{"192.0.2.7"}) {
		t.Errorf("asked as %v: %+v", *hosts.Load(), found)
	}
	if found[1].Verdict != http01.Unclear || !strings.Contains(found[1].Remedy, "no way to IPv6") || !slices.Equal(dialled, []string{"[2001:db8::7]:80"}) {
		t.Errorf("dialled %v: %+v", dialled, found[1])
	}
}

// As a CA's, the question follows a redirect to HTTPS, at the same address, with
// any certificate, and none to another port or, of a public CA, to an address.
func TestPreflightFollows(t *testing.T) {
	t.Parallel()
	token, want := http01.Question(rand.Text())
	secure := httptest.NewTLSServer(says(200, want))
	t.Cleanup(secure.Close)
	var to string
	plain := httptest.NewServer(calls("nginx", leads(func() string { return to })))
	t.Cleanup(plain.Close)
	var dialled []string
	ask := http01.Ask{
		Names: []string{"192.0.2.7"}, Token: token, Want: want,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			listener := plain.Listener
			if strings.HasSuffix(address, ":443") {
				listener = secure.Listener
			}
			return (&net.Dialer{}).DialContext(ctx, network, listener.Addr().String())
		},
	}
	for _, c := range []struct {
		to      string
		public  bool
		verdict http01.Sort
		saw     string
		dialled []string
	}{
		{"https://192.0.2.7", true, http01.Right, "our answer", []string{"192.0.2.7:80", "192.0.2.7:443"}},
		{"https://192.0.2.8", false, http01.Right, "our answer", []string{"192.0.2.7:80", "192.0.2.8:443"}},
		{"https://192.0.2.8", true, http01.Wrong, "none to an address", []string{"192.0.2.7:80"}},
		{"https://192.0.2.7:8443", false, http01.Wrong, "none to port 8443", []string{"192.0.2.7:80"}},
		{"gopher://192.0.2.7", false, http01.Wrong, "not HTTP", []string{"192.0.2.7:80"}},
		{"", false, http01.Wrong, "more than 10 redirects", slices.Repeat([]string{"192.0.2.7:80"}, 11)},
	} {
		to, ask.Public, dialled = c.to, c.public, nil
		f := http01.Preflight(t.Context(), ask)[0]
		if f.Verdict != c.verdict || !strings.Contains(f.Saw, c.saw) || !slices.Equal(dialled, c.dialled) {
			t.Errorf("to %s: dialled %v: %+v", c.to, dialled, f)
		}
		if c.verdict == http01.Wrong && !strings.Contains(f.Remedy, "--server nginx") {
			t.Errorf("to %s: %s", c.to, f.Remedy)
		}
	}
}

// A dead rack costs one time-out and not one for each name.
func TestPreflightOfDeadNodes(t *testing.T) {
	t.Parallel()
	s := newStreet(t, map[string]http.Handler{})
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("n%d.farm.test", i))
	}
	s.name("*.farm.test", "192.0.2.1")
	var dials atomic.Int32
	ask := http01.Ask{
		Names: names, Token: "t", Want: "w", How: farm.Validation{Via: farm.Stateless}, Resolvers: s.resolvers, Timeout: 200 * time.Millisecond,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	for i := range 40 {
		ask.Nodes = append(ask.Nodes, http01.NodeAddress{Name: fmt.Sprint("web", i), Address: fmt.Sprintf("192.0.2.%d", 10+i)})
	}
	begun := time.Now()
	found := http01.Preflight(t.Context(), ask)
	if took := time.Since(begun); len(found) != 20*41 || dials.Load() > 2*41+32 || took > 5*time.Second {
		t.Errorf("%d findings, %d dials, %s", len(found), dials.Load(), took)
	}
	if f := found[len(found)-1]; f.Verdict != http01.Unclear || !strings.Contains(f.Saw, "when it was asked for n") {
		t.Errorf("the last finding: %+v", f)
	}
}

// zones answers DNS questions by a function, at an address.
func zones(t *testing.T, answer func(q dns.Question, unchecked bool) (rcode int, records []string)) map[string][]string {
	t.Helper()
	listener, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	server := &dns.Server{PacketConn: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		rcode, records := answer(q.Question[0], q.CheckingDisabled)
		reply.Rcode = rcode
		for _, r := range records {
			rr, err := dns.NewRR(r)
			if err != nil {
				t.Error(err)
			}
			if rr.Header().Rrtype == dns.TypeSOA && q.Question[0].Qtype != dns.TypeSOA {
				reply.Ns = append(reply.Ns, rr)
				continue
			}
			reply.Answer = append(reply.Answer, rr)
		}
		_ = w.WriteMsg(reply)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return map[string][]string{".": {listener.LocalAddr().String()}}
}

func TestPreflightOfDeadNames(t *testing.T) {
	t.Parallel()
	resolvers := zones(t, func(q dns.Question, unchecked bool) (int, []string) {
		switch q.Name {
		case "empty.test.":
			return dns.RcodeSuccess, []string{"test. 1 IN SOA ns.test. h.test. 1 1 1 1 1"}
		case "dangling.test.":
			return dns.RcodeNameError, []string{"dangling.test. 1 IN CNAME gone.example."}
		case "a.test.", "b.test.": // a resolver gives up on a circle
			if q.Qtype == dns.TypeCNAME {
				return dns.RcodeSuccess, []string{q.Name + " 1 IN CNAME " + map[string]string{"a.test.": "b.test.", "b.test.": "a.test."}[q.Name]}
			}
			return dns.RcodeServerFailure, nil
		case "circle.test.":
			return dns.RcodeSuccess, []string{"circle.test. 1 IN CNAME c.test.", "c.test. 1 IN CNAME circle.test."}
		case "www.broken.test.", "broken.test.":
			if !unchecked {
				return dns.RcodeServerFailure, nil
			}
			return dns.RcodeSuccess, []string{"www.broken.test. 1 IN A 192.0.2.1", "broken.test. 1 IN SOA ns.test. h.test. 1 1 1 1 1"}
		case "failing.test.":
			return dns.RcodeServerFailure, nil
		case "refused.test.":
			return dns.RcodeRefused, nil
		}
		return dns.RcodeNameError, nil
	})
	wants := []struct {
		name    string
		verdict http01.Sort
		saw     string
	}{
		{"missing.test", http01.Wrong, "does not exist (NXDOMAIN)"},
		{"empty.test", http01.Wrong, "neither an A nor an AAAA"},
		{"dangling.test", http01.Wrong, "leads to gone.example, which does not exist"},
		{"a.test", http01.Wrong, "circle: a.test → b.test → a.test"},
		{"circle.test", http01.Wrong, "circle: circle.test → c.test → circle.test"},
		{"www.broken.test", http01.Wrong, "DNSSEC of broken.test. is broken"},
		{"failing.test", http01.Unclear, "SERVFAIL"},
		{"refused.test", http01.Unclear, "REFUSED"},
	}
	ask := http01.Ask{Token: "t", Want: "w", Resolvers: resolvers}
	for _, w := range wants {
		ask.Names = append(ask.Names, w.name)
	}
	for i, f := range http01.Preflight(t.Context(), ask) {
		if w := wants[i]; f.Name != w.name || f.Verdict != w.verdict || !strings.Contains(f.Saw, w.saw) || f.Remedy == "" {
			t.Errorf("finding %+v, want %+v", f, w)
		}
	}
	if hold, why := http01.Verdict([]http01.Finding{{Name: "x.test", Verdict: http01.Wrong, Saw: "it is dead", Remedy: "mend it"}}, false); !hold || why != "x.test: it is dead; mend it" {
		t.Errorf("a dead name: %v, %s", hold, why)
	}
}
