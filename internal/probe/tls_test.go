package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

func TestProbeSeesWhatIsServed(t *testing.T) {
	ca := newAuthority(t, "A")
	cert := ca.leaf(t, ecKey(t))
	q := ask(ca, serveCerts(t, cert))
	q.Samples = 3
	q.KeyTypes = []farm.KeyType{farm.EC256}
	s := see(t, q)
	chain := s.Chain
	s.Chain = nil
	want := farm.Sight{
		Endpoint: q.Endpoint, Target: "shop@web-1", At: noon, Answered: true, Trusted: true,
		Fingerprint: []string{fingerprint(cert)}, Names: []string{"shop.test", "www.shop.test"},
		NotAfter: cert.Leaf.NotAfter, Samples: 3, Confidence: 0.875,
	}
	if d := cmp.Diff(want, s); d != "" {
		t.Error(d)
	}
	if got := strings.Count(string(chain), "BEGIN CERTIFICATE"); got != 2 || farm.LeafFingerprint(chain) != fingerprint(cert) {
		t.Errorf("chain of %d certificates, not the two that were served:\n%s", got, chain)
	}
}

func TestProbeChoosesByKeyType(t *testing.T) {
	ca := newAuthority(t, "A")
	ec, rs := ca.leaf(t, ecKey(t)), ca.leaf(t, rsaKey())
	both := []farm.KeyType{farm.RSA2048, farm.EC256}
	for name, c := range map[string]struct {
		config   *tls.Config
		asked    []farm.KeyType
		seen     []string
		notSeen  string
		samples  int
		wantsErr bool
	}{
		"both in 1.2 and 1.3":      {&tls.Config{Certificates: []tls.Certificate{ec, rs}}, both, []string{fingerprint(ec), fingerprint(rs)}, "", 2, false},
		"both in 1.2 only":         {&tls.Config{Certificates: []tls.Certificate{rs, ec}, MaxVersion: tls.VersionTLS12}, both, []string{fingerprint(ec), fingerprint(rs)}, "", 2, false},
		"both in 1.3 only":         {&tls.Config{Certificates: []tls.Certificate{ec, rs}, MinVersion: tls.VersionTLS13}, both, []string{fingerprint(ec)}, "rsa2048: the server speaks TLS 1.3 only", 2, false},
		"one in 1.3 only":          {&tls.Config{Certificates: []tls.Certificate{rs}, MinVersion: tls.VersionTLS13}, both[:1], []string{fingerprint(rs)}, "", 2, false},
		"the other is not there":   {&tls.Config{Certificates: []tls.Certificate{ec}}, both, []string{fingerprint(ec)}, "", 2, false},
		"two sizes, one to be had": {&tls.Config{Certificates: []tls.Certificate{ec}}, []farm.KeyType{farm.EC256, farm.EC384}, []string{fingerprint(ec)}, "ec384: ", 2, false},
		"nothing asked for":        {&tls.Config{Certificates: []tls.Certificate{rs}}, nil, []string{fingerprint(rs)}, "", 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			q := ask(ca, serve(t, c.config))
			q.KeyTypes, q.Samples = c.asked, 2
			s := see(t, q)
			slices.Sort(c.seen)
			slices.Sort(s.Fingerprint)
			if !slices.Equal(s.Fingerprint, c.seen) || s.Samples != c.samples || !s.Trusted || s.Error != "" {
				t.Errorf("got %+v", s)
			}
			if excuse := strings.Join(s.NotSeen, "\n"); !strings.HasPrefix(excuse, c.notSeen) || (c.notSeen == "") != (excuse == "") {
				t.Errorf("NotSeen %q, want %q", excuse, c.notSeen)
			}
		})
	}
}

func TestProbeSaysWhyItIsNotTrusted(t *testing.T) {
	ca, other := newAuthority(t, "A"), newAuthority(t, "B")
	good := ca.leaf(t, ecKey(t))
	bare, withRoot, wrongBetween := good, good, good
	bare.Certificate = good.Certificate[:1]
	withRoot.Certificate = [][]byte{good.Certificate[0], good.Certificate[1], ca.root.Raw}
	wrongBetween.Certificate = [][]byte{good.Certificate[0], other.between.Raw}
	foreign := other.leaf(t, ecKey(t))
	foreignWhole := foreign
	foreignWhole.Certificate = append(slices.Clone(foreign.Certificate), other.root.Raw)
	oldBetween := ca.leaf(t, ecKey(t))
	past := *ca.between
	past.NotBefore, past.NotAfter = noon.Add(-48*time.Hour), noon.Add(-time.Hour)
	oldBetween.Certificate = [][]byte{oldBetween.Certificate[0], sign(t, &past, ca.root, ca.betweenKey, ca.rootKey).Raw}

	for name, c := range map[string]struct {
		cert  tls.Certificate
		names []string
		why   string // "" is trusted
	}{
		"root served too":      {withRoot, nil, ""},
		"both names":           {good, []string{"shop.test", "www.shop.test"}, ""},
		"one name too many":    {good, []string{"shop.test", "pay.shop.test"}, "wrong name: it does not cover pay.shop.test"},
		"missing intermediate": {bare, nil, `missing intermediate: "CN=A intermediate"`},
		"wrong intermediate":   {wrongBetween, nil, `missing intermediate: "CN=A intermediate"`},
		"old intermediate":     {oldBetween, nil, `wrong chain: "CN=A intermediate" expired at`},
		"unknown authority":    {foreign, nil, "missing intermediate or unknown authority"},
		"unknown root":         {foreignWhole, nil, `unknown authority: the chain ends at the root "CN=B root"`},
		"self-signed":          {selfSigned(t), nil, "self-signed"},
		"expired": {ca.leaf(t, ecKey(t), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = noon.Add(-48*time.Hour), noon.Add(-time.Hour)
		}), nil, "expired at 2026-06-01T11:00:00Z"},
		"not yet": {ca.leaf(t, ecKey(t), func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Hour) }), nil, "not valid before 2026-06-01T13:00:00Z"},
		"for clients": {ca.leaf(t, ecKey(t), func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), nil, "wrong chain: x509: certificate specifies an incompatible key usage"},
		"name of another": {ca.leaf(t, ecKey(t), func(c *x509.Certificate) { c.DNSNames = []string{"blog.test"} }), nil, "wrong name: it does not cover shop.test"},
	} {
		t.Run(name, func(t *testing.T) {
			q := ask(ca, serveCerts(t, c.cert))
			q.Names = c.names
			s := see(t, q)
			if !s.Answered || s.Trusted != (c.why == "") || !strings.HasPrefix(s.Distrust, c.why) || s.Fingerprint[0] != fingerprint(c.cert) {
				t.Errorf("trusted %v, distrust %q; want %q", s.Trusted, s.Distrust, c.why)
			}
		})
	}
}

func TestProbeFindsWorkersThatDisagree(t *testing.T) {
	ca := newAuthority(t, "A")
	old, fresh := ca.leaf(t, ecKey(t)), ca.leaf(t, ecKey(t))
	stale, current := &tls.Config{Certificates: []tls.Certificate{old}}, &tls.Config{Certificates: []tls.Certificate{fresh}}
	address, connections := serveWorkers(t, current, stale, current)
	q := ask(ca, address)
	q.Samples = 6
	s := see(t, q)
	if len(s.Fingerprint) != 2 || s.Confidence != 0 || s.Samples != 4 {
		t.Errorf("got %d leaves, confidence %g, %d samples that agree; want 2, 0, 4", len(s.Fingerprint), s.Confidence, s.Samples)
	}
	if n := connections.Load(); n != 6 {
		t.Errorf("%d connections, want 6", n)
	}
	ok, fault, why := Judge([]farm.Leaf{leafOf(fresh)}, s, noon)
	if ok || fault != farm.NodeFault || !strings.Contains(why, "on some of its workers") {
		t.Errorf("judged %v %q %q", ok, fault, why)
	}
}

func TestProbeSamplesThatFail(t *testing.T) {
	ca := newAuthority(t, "A")
	cert := ca.leaf(t, ecKey(t))
	address := listen(t, func(n int, c net.Conn) {
		if n != 1 {
			shake(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		}
	})
	q := ask(ca, address)
	q.Samples = 3
	s := see(t, q)
	if !s.Answered || s.Samples != 2 || s.Confidence != 0 || !strings.HasPrefix(s.Error, "1 of 3 handshakes failed") {
		t.Errorf("got %+v", s)
	}
	if ok, fault, _ := Judge([]farm.Leaf{leafOf(cert)}, s, noon); ok || fault != farm.NodeFault {
		t.Errorf("judged %v %q", ok, fault)
	}
}

func TestProbeOfServersThatSayNothing(t *testing.T) {
	ca := newAuthority(t, "A")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	wait := func(_ int, c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)); _, _ = c.Read(make([]byte, 1)) }
	for name, c := range map[string]struct {
		address, start, why string
	}{
		"refuses":          {closed.Addr().String(), "", "refused"},
		"hangs":            {listen(t, wait), "", "no answer in time"},
		"hangs before":     {listen(t, wait), "smtp", "no answer in time"},
		"no certificate":   {serve(t, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }}), "", "remote error: tls"},
		"speaks HTTP":      {listen(t, func(_ int, c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }), "", "does not look like a TLS handshake"},
		"hangs up at once": {listen(t, func(int, net.Conn) {}), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			q := ask(ca, c.address)
			q.Endpoint.StartTLS = c.start
			timeout := 20 * time.Second
			if c.why == "no answer in time" {
				timeout = 200 * time.Millisecond
			}
			s, err := TLS{Timeout: timeout}.Probe(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if s.Answered || s.Trusted || s.Error == "" || !strings.Contains(s.Error, c.why) || !Silent([]farm.Sight{s}) {
				t.Errorf("got %+v", s)
			}
			if s.Away != (name == "refuses") { // all others take the connection
				t.Errorf("away: %t", s.Away)
			}
		})
	}
}

// A key that does not belong to the certificate is what a write gone wrong
// leaves behind: no client can use it, though the right leaf is shown.
func TestProbeWantsProofOfTheKey(t *testing.T) {
	ca := newAuthority(t, "A")
	cert := ca.leaf(t, ecKey(t))
	cert.PrivateKey = ecKey(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := see(t, ask(ca, serve(t, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})))
		if s.Answered || len(s.Fingerprint) > 0 || !strings.Contains(s.Error, "without proof of its key") {
			t.Errorf("%s: got %+v", tls.VersionName(version), s)
		}
		if Silent([]farm.Sight{s}) {
			t.Errorf("%s: a server that shows a certificate is not silent", tls.VersionName(version))
		}
		if ok, fault, _ := Judge([]farm.Leaf{leafOf(cert)}, s, noon); ok || fault != farm.NodeFault {
			t.Errorf("judged %v %q", ok, fault)
		}
	}
}

func TestProbeOfServersThatWantOurCertificate(t *testing.T) {
	ca := newAuthority(t, "A")
	cert := ca.leaf(t, ecKey(t))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := see(t, ask(ca, serve(t, &tls.Config{
			Certificates: []tls.Certificate{cert}, MaxVersion: version, ClientAuth: tls.RequireAnyClientCert,
		})))
		if ok, _, why := Judge([]farm.Leaf{leafOf(cert)}, s, noon); !ok {
			t.Errorf("%s: %s", tls.VersionName(version), why)
		}
	}
}

type line func(address string) (net.Conn, error)

func (l line) Dial(_ context.Context, _, address string) (net.Conn, error) { return l(address) }

func TestProbeThroughTheNode(t *testing.T) {
	ca := newAuthority(t, "A")
	cert := ca.leaf(t, ecKey(t))
	inside := serveCerts(t, cert)
	q := ask(ca, "10.0.0.1:443")
	q.Endpoint.Path = "ssh"
	asked := ""
	q.Through = line(func(a string) (net.Conn, error) { asked = a; return net.Dial("tcp", inside) })
	if s := see(t, q); !s.Trusted || asked != "10.0.0.1:443" {
		t.Errorf("dialled %q, got %+v", asked, s)
	}
	q.Through = line(func(string) (net.Conn, error) { return nil, errors.New("connect failed: refused") })
	if s := see(t, q); s.Answered || s.Error == "" {
		t.Errorf("got %+v", s)
	}
}

func TestProbeThatCouldNotAsk(t *testing.T) {
	ca := newAuthority(t, "A")
	ended, end := context.WithCancel(t.Context())
	end()
	for name, c := range map[string]struct {
		ctx    context.Context
		change func(*Question)
		err    string
	}{
		"no line": {t.Context(), func(q *Question) { q.Endpoint.Path = "ssh" }, "no line to the node"},
		"line is down": {t.Context(), func(q *Question) {
			q.Through = line(func(string) (net.Conn, error) { return nil, host.ErrUnreachable })
		}, "cannot be reached"},
		"no such name":  {t.Context(), func(q *Question) { q.Endpoint.Address = "nowhere.invalid:443" }, "lookup"},
		"no such start": {t.Context(), func(q *Question) { q.Endpoint.StartTLS = "gopher" }, `"gopher"; there are smtp`},
		"no such proxy": {t.Context(), func(q *Question) { q.Endpoint.Proxy = 3 }, "version 3"},
		"no roots":      {t.Context(), func(q *Question) { q.Roots = "none" }, "roots"},
		"given up":      {ended, func(*Question) {}, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			q := ask(ca, "127.0.0.1:1")
			c.change(&q)
			_, err := TLS{Timeout: 3 * time.Second}.Probe(c.ctx, q)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want one with %q", err, c.err)
			}
		})
	}
}

func TestSampleOfABalancer(t *testing.T) {
	ca := newAuthority(t, "A")
	old, fresh := ca.leaf(t, ecKey(t)), ca.leaf(t, ecKey(t))
	stale, current := &tls.Config{Certificates: []tls.Certificate{old}}, &tls.Config{Certificates: []tls.Certificate{fresh}}
	address, _ := serveWorkers(t, current, current, stale)
	p := TLS{Now: func() time.Time { return noon }}
	got, err := Sample(t.Context(), p, ask(ca, address), 21)
	if err != nil {
		t.Fatal(err)
	}
	want := Tally{Sights: 21, Leaves: map[string]int{fingerprint(fresh): 14, fingerprint(old): 7}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, ok := got.Agreed(); ok {
		t.Error("workers that disagree are said to agree")
	}
	got, err = Sample(t.Context(), p, ask(newAuthority(t, "B"), serveCerts(t, fresh)), 3)
	if f, ok := got.Agreed(); err != nil || !ok || f != fingerprint(fresh) || len(got.Problems) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = Sample(t.Context(), p, ask(ca, "127.0.0.1:1"), 3)
	if _, ok := got.Agreed(); err != nil || ok || got.Failed != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err = Sample(t.Context(), p, Question{Endpoint: farm.Endpoint{Path: "ssh"}}, 1); err == nil {
		t.Error("no error without a line to the node")
	}
}
