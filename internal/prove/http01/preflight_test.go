package http01_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

// A street has servers at loopback addresses, all on one port, and a name server.
type street struct {
	port      int
	resolvers map[string][]string
	names     *issuetest.DNS
}

func newStreet(t testing.TB, servers map[string]http.Handler) *street {
	t.Helper()
	names, err := issuetest.StartDNS(nil)
	must(t, err)
	t.Cleanup(func() { must(t, names.Close()) })
	s := &street{names: names, resolvers: map[string][]string{"farm.test": {names.Address}}}
	for address, h := range servers {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(s.port)))
		if err != nil {
			t.Skipf("this machine has no address %s to listen at: %v", address, err)
		}
		s.port = listener.Addr().(*net.TCPAddr).Port
		server := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
	}
	return s
}

func (s *street) name(name string, addresses ...string) {
	var all []netip.Addr
	for _, a := range addresses {
		all = append(all, netip.MustParseAddr(a))
	}
	s.names.Set(name, all...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func says(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	b := &board{}
	token, want := http01.Question(rand.Text())
	must(t, b.Put(t.Context(), token, want))
	var s *street
	redirect := func(to func() string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to()+r.URL.Path, http.StatusFound)
		})
	}
	s = newStreet(t, map[string]http.Handler{
		"127.0.1.1": http01.Handler(b.Get),
		"127.0.1.2": says(404, "no such page \x1b[31m\n"+strings.Repeat("x", 500)),
		"127.0.1.3": says(200, "<html>welcome"),
		"127.0.1.4": redirect(func() string { return fmt.Sprintf("http://control.farm.test:%d", s.port) }),
		"127.0.1.5": redirect(func() string { return "http://control.farm.test:8402" }),
		"127.0.1.6": redirect(func() string { return fmt.Sprintf("http://loop.farm.test:%d", s.port) }),
		"127.0.1.7": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"127.0.1.8": redirect(func() string { return "ftp://control.farm.test" }),
		"127.0.1.9": says(200, want+" \r\n"),
	})
	s.name("control.farm.test", "127.0.1.1")
	s.name("half.farm.test", "127.0.1.2", "127.0.1.1") // one of two nodes
	for name, a := range map[string]string{
		"right": "127.0.1.1", "page": "127.0.1.3", "moved": "127.0.1.4", "port": "127.0.1.5", "loop": "127.0.1.6",
		"hangs": "127.0.1.7", "ftp": "127.0.1.8", "spaces": "127.0.1.9", "closed": "127.0.1.10",
	} {
		s.name(name+".farm.test", a)
	}
	type cell struct {
		name, address string
		verdict       http01.Sort
		saw           string
	}
	wants := []cell{
		{"right", "127.0.1.1", http01.Right, "our answer"},
		{"half", "127.0.1.1", http01.Right, ""},
		{"half", "127.0.1.2", http01.Wrong, `HTTP status 404: no such page \x1b[31m\nxxx`},
		{"page", "127.0.1.3", http01.Wrong, "HTTP status 200: <html>welcome"},
		{"moved", "127.0.1.4", http01.Right, ""},
		{"port", "127.0.1.5", http01.Wrong, "port 8402"},
		{"loop", "127.0.1.6", http01.Wrong, "more than 10 redirects"},
		{"hangs", "127.0.1.7", http01.Unclear, "no answer in time"},
		{"ftp", "127.0.1.8", http01.Wrong, "not HTTP"},
		{"spaces", "127.0.1.9", http01.Right, ""},
		{"closed", "127.0.1.10", http01.Unclear, "refused"},
		{"missing", "", http01.Wrong, "does not exist"},
		{"*", "", http01.Unclear, "wildcard"},
	}
	ask := http01.Ask{Token: token, Want: want, Resolvers: s.resolvers, Port: s.port, Timeout: 2 * time.Second}
	for _, w := range wants {
		if n := w.name + ".farm.test"; len(ask.Names) == 0 || ask.Names[len(ask.Names)-1] != n {
			ask.Names = append(ask.Names, n)
		}
	}
	found := http01.Preflight(t.Context(), ask)
	if len(found) != len(wants) {
		t.Fatalf("%d findings, want %d: %+v", len(found), len(wants), found)
	}
	for i, w := range wants {
		f := found[i]
		if f.Name != w.name+".farm.test" || f.Address != w.address || f.Verdict != w.verdict || !strings.Contains(f.Saw, w.saw) {
			t.Errorf("finding %+v, want %+v", f, w)
		}
		if (f.Remedy == "") != (f.Verdict == http01.Right) || len(f.Saw) > 300 || strings.ContainsAny(f.Saw, "\x1b\n") {
			t.Errorf("finding is not fit to be shown: %+v", f)
		}
	}
}

// The question is the CA's: the name as host, at the address that is looked at.
func TestPreflightAsks(t *testing.T) {
	t.Parallel()
	var dialled string
	var question *http.Request
	s := newStreet(t, map[string]http.Handler{"127.0.0.1": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { question = r })})
	s.name("www.farm.test", "192.0.2.7")
	found := http01.Preflight(t.Context(), http01.Ask{
		Names: []string{"www.farm.test"}, Token: "t", Want: "w", Resolvers: s.resolvers,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = address
			return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", s.port))
		},
	})
	if len(found) != 1 || dialled != "192.0.2.7:80" || question.Host != "www.farm.test" || question.URL.Path != http01.Path+"t" {
		t.Errorf("dialled %s, asked %v: %+v", dialled, question, found)
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	right := http01.Finding{Name: "a.test", Address: "192.0.2.1", Verdict: http01.Right}
	unclear := http01.Finding{Name: "b.test", Verdict: http01.Unclear, Saw: "refused"}
	wrong := http01.Finding{Name: "c.test", Address: "192.0.2.3", Verdict: http01.Wrong, Saw: "HTTP status 404", Remedy: "route it"}
	for name, c := range map[string]struct {
		findings []http01.Finding
		past     bool
		hold     bool
		says     string
	}{
		"nothing asked":    {nil, false, false, ""},
		"right":            {[]http01.Finding{right}, false, false, ""},
		"cannot tell":      {[]http01.Finding{right, unclear}, false, false, ""},
		"wrong":            {[]http01.Finding{right, unclear, wrong}, false, true, "c.test at 192.0.2.3"},
		"wrong, but late":  {[]http01.Finding{wrong}, true, false, "c.test at 192.0.2.3"},
		"unclear and late": {[]http01.Finding{unclear}, true, false, ""},
	} {
		hold, why := http01.Verdict(c.findings, c.past)
		if hold != c.hold || !strings.Contains(why, c.says) || (c.says == "") != (why == "") {
			t.Errorf("%s: hold %v: %s", name, hold, why)
		}
	}
}
