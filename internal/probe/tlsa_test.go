package probe

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// resolver answers over UDP and TCP on one port.
func resolver(t *testing.T, answer dns.HandlerFunc) string {
	t.Helper()
	packets, streams := onePort(t)
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: answer}, {Listener: streams, Handler: answer}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		done := make(chan struct{})
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return packets.LocalAddr().String()
}

// onePort finds a port that is free for both.
func onePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		streams, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", streams.Addr().String())
		if err == nil {
			return packets, streams
		}
		_ = streams.Close()
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

func TestTLSA(t *testing.T) {
	serve := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		_, overUDP := w.RemoteAddr().(*net.UDPAddr)
		switch name := q.Question[0].Name; {
		case strings.HasPrefix(name, "_443._tcp.shop."):
			m.AuthenticatedData = q.AuthenticatedData
			m.Answer = []dns.RR{
				&dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "tlsa.test."},
				&dns.TLSA{Hdr: dns.RR_Header{Name: "tlsa.test.", Rrtype: dns.TypeTLSA, Class: dns.ClassINET}, Usage: 3, Selector: 1, MatchingType: 1, Certificate: "0aff"},
			}
		case strings.HasPrefix(name, "_443._tcp.big."):
			m.Truncated = overUDP
			if !overUDP {
				m.Answer = []dns.RR{&dns.TLSA{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTLSA, Class: dns.ClassINET}, Usage: 2, Certificate: "01"}}
			}
		case strings.HasPrefix(name, "_443._tcp.bogus."):
			m.Rcode = dns.RcodeServerFailure
		case strings.HasPrefix(name, "_443._tcp.none."):
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	for name, c := range map[string]struct {
		want []Record
		err  string
	}{
		"shop.test":  {[]Record{{3, 1, 1, []byte{0x0a, 0xff}, true}}, ""},
		"big.test":   {[]Record{{Usage: 2, Data: []byte{1}}}, ""},
		"none.test":  {nil, ""},
		"empty.test": {nil, ""},
		"bogus.test": {nil, "answered SERVFAIL"},
	} {
		got, err := TLSA(t.Context(), []string{"127.0.0.1:1", serve}, 443, name)
		if d := cmp.Diff(c.want, got); d != "" || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	if _, err := TLSA(t.Context(), nil, 443, "shop.test"); err == nil {
		t.Error("no error without resolvers")
	}
}

func TestMatches(t *testing.T) {
	ca, other := newAuthority(t, "A"), newAuthority(t, "B")
	cert, stranger := ca.leaf(t, ecKey(t)), other.leaf(t, ecKey(t))
	leafKey := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
	leafWhole := sha512.Sum512(cert.Leaf.Raw)
	strangerKey := sha256.Sum256(stranger.Leaf.RawSubjectPublicKeyInfo)
	betweenKey := sha256.Sum256(ca.between.RawSubjectPublicKeyInfo)
	for name, c := range map[string]struct {
		records []Record
		want    bool
	}{
		"none":                       {nil, true},
		"3 1 1":                      {[]Record{{3, 1, 1, leafKey[:], true}}, true},
		"3 0 2":                      {[]Record{{3, 0, 2, leafWhole[:], true}}, true},
		"3 0 0":                      {[]Record{{3, 0, 0, cert.Leaf.Raw, true}}, true},
		"1 1 1":                      {[]Record{{1, 1, 1, leafKey[:], true}}, true},
		"of another":                 {[]Record{{3, 1, 1, strangerKey[:], true}}, false},
		"of another and of ours":     {[]Record{{3, 1, 1, strangerKey[:], true}, {3, 1, 1, leafKey[:], true}}, true},
		"2 1 1 intermediate":         {[]Record{{2, 1, 1, betweenKey[:], true}}, true},
		"0 1 1 intermediate":         {[]Record{{0, 1, 1, betweenKey[:], true}}, true},
		"2 1 1 leaf is no anchor":    {[]Record{{2, 1, 1, leafKey[:], true}}, false},
		"3 1 1 intermediate no leaf": {[]Record{{3, 1, 1, betweenKey[:], true}}, false},
		"2 0 0 root not served":      {[]Record{{2, 0, 0, ca.root.Raw, true}}, true},
		"2 0 0 root of another":      {[]Record{{2, 0, 0, other.root.Raw, true}}, false},
		"2 0 0 rubbish":              {[]Record{{2, 0, 0, []byte("x"), true}}, false},
		"only unusable ones":         {[]Record{{3, 1, 1, []byte("short"), true}, {4, 0, 0, []byte("x"), true}, {3, 2, 0, []byte("x"), true}}, true},
		"unusable beside another":    {[]Record{{9, 0, 0, []byte("x"), true}, {3, 1, 1, strangerKey[:], true}}, false},
	} {
		if got, err := Matches(c.records, chainOf(cert)); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// A certificate that only lies beside the chain is nobody's anchor.
	beside := cert
	beside.Certificate = append([][]byte{cert.Certificate[0], cert.Certificate[1]}, other.root.Raw)
	root := sha256.Sum256(other.root.Raw)
	if got, err := Matches([]Record{{2, 0, 1, root[:], true}}, chainOf(beside)); err != nil || got {
		t.Errorf("stray root: %v, %v", got, err)
	}
	if _, err := Matches(nil, []byte(hex.EncodeToString(cert.Leaf.Raw))); err == nil {
		t.Error("no error for what is not PEM")
	}
}
