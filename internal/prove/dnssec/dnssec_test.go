package dnssec_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/dnssec"
)

func TestBroken(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		soa := &dns.SOA{Hdr: dns.RR_Header{Name: "bogus.test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: ".", Mbox: "."}
		switch {
		case name == "down.test." || !q.CheckingDisabled:
			reply.Rcode = dns.RcodeServerFailure
		case name == "www.bogus.test." && q.Question[0].Qtype == dns.TypeSOA:
			reply.Ns = []dns.RR{soa}
		}
		_ = w.WriteMsg(reply)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	c := lookup.Client{Resolvers: map[string][]string{".": {conn.LocalAddr().String()}}}
	for name, want := range map[string]string{"www.bogus.test": "bogus.test.", "no-soa.test": "no-soa.test.", "down.test": ""} {
		q := lookup.Question{Name: name, Type: dns.TypeA}
		_, err := c.Ask(t.Context(), q)
		zone, broken := dnssec.Broken(t.Context(), c, q, err)
		if zone != want || broken != (want != "") {
			t.Errorf("%s: %q, %v", name, zone, broken)
		}
	}
	for _, err := range []error{nil, errors.New("i/o timeout"), &lookup.Failure{Rcode: dns.RcodeRefused}} {
		if _, broken := dnssec.Broken(t.Context(), c, lookup.Question{Name: "www.bogus.test", Type: dns.TypeA}, err); broken {
			t.Errorf("%v is taken for a broken signature", err)
		}
	}
	if saw, remedy := dnssec.Explain("bogus.test."); !strings.Contains(saw, "bogus.test.") || remedy == "" {
		t.Errorf("%s; %s", saw, remedy)
	}
}
